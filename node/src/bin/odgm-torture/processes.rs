//! Nodes as processes of their own that are killed, frozen and started again: by `odgm-torture`, and by the tests,
//! which include this file.
//!
//! `ODGM` names another program for the tests than the one that cargo built, such as a release binary. Ports come
//! from below the range that outgoing connections take, so that a port is still free when its node comes back.
//! Everything stops when the nodes are dropped; the directory with their logs stays when that is a panic, or it
//! was given. What the machine denies (no port, no process) panics: there is nothing to go on with.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use odgm_shard::client::{ClientOptions, GridClient};
use odgm_transport::options::SessionOptions;
use odgm_transport::zenoh::ZenohSession;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take on a machine that does something else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// First port, number of ports, and how many a process of tests begins with.
const PORTS: (u32, u32, u32) = (21_000, 1_000, 40);
/// Between two looks at a node.
const PAUSE: Duration = Duration::from_millis(20);

/// What is not the default of three nodes with one collection on all of them.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// How many nodes.
    pub(crate) nodes: usize,
    /// Partitions of `default`.
    pub(crate) partitions: u32,
    /// Further `--set` of each node.
    pub(crate) settings: Vec<String>,
    /// Instead of the one that cargo built, or `ODGM`.
    pub(crate) program: Option<PathBuf>,
    /// A directory that stays, instead of one of its own.
    pub(crate) dir: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { nodes: 3, partitions: 4, settings: Vec::new(), program: None, dir: None }
    }
}

/// Nodes of one cluster.
#[derive(Debug)]
pub(crate) struct Processes {
    nodes: Vec<Process>,
    program: PathBuf,
    dir: PathBuf,
    /// Holds the directory when it is its own.
    own: Option<tempfile::TempDir>,
}

#[derive(Debug)]
struct Process {
    child: Option<Child>,
    arguments: Vec<String>,
    clients: u16,
    cluster: u16,
    http: u16,
    log: PathBuf,
}

impl Processes {
    /// Starts nodes `odgm-0`, `odgm-1` … and waits until each is ready.
    pub(crate) fn start(setup: &Setup) -> Self {
        let mut processes = Self::prepare(setup);
        (0..setup.nodes).for_each(|n| processes.restart(n));
        (0..setup.nodes).for_each(|n| processes.await_ready(n));
        processes
    }

    /// Nodes of which none runs yet.
    pub(crate) fn prepare(setup: &Setup) -> Self {
        let own = setup.dir.is_none().then(|| tempfile::tempdir().unwrap());
        let given = || setup.dir.clone().expect("given, when there is none of its own");
        let dir = own.as_ref().map_or_else(given, |own| own.path().to_owned());
        let count = setup.nodes;
        let ports: Vec<[u16; 3]> = (0..count).map(|_| [free_port(), free_port(), free_port()]).collect();
        // Without its own: what is made of these settings later, such as a copy, does not know the original.
        let others = |n: usize, which: usize| {
            let others = ports.iter().enumerate().filter(|(other, _)| *other != n);
            let endpoints: Vec<String> = others.map(|(_, ports)| endpoint(ports[which])).collect();
            format!("[{}]", endpoints.join(", "))
        };
        let node = |n: usize| {
            let [clients, cluster, http] = ports[n];
            let mut settings = vec![
                format!("node.name=odgm-{n}"),
                format!("node.data_dir={}", dir.join(format!("odgm-{n}")).display()),
                "cluster.bootstrap=odgm-0".to_owned(),
                format!("cluster.expected_nodes={count}"),
                format!("cluster.listen={}", endpoint(cluster)),
                format!("cluster.peers={}", others(n, 1)),
                format!("zenoh.listen={}", endpoint(clients)),
                format!("zenoh.connect={}", others(n, 0)),
                format!("http.listen=127.0.0.1:{http}"),
                format!(
                    "collections=[{{name: default, partitions: {}, replicas: {count}}}]",
                    setup.partitions
                ),
            ];
            settings.extend(setup.settings.iter().cloned());
            let arguments = settings.into_iter().map(|setting| format!("--set={setting}")).collect();
            let log = dir.join(format!("odgm-{n}.log"));
            Process { child: None, arguments, clients, cluster, http, log }
        };
        // Cargo names it to the tests alone.
        let built = option_env!("CARGO_BIN_EXE_odgm").map(PathBuf::from);
        let chosen = std::env::var_os("ODGM").map(PathBuf::from).or(built);
        let program = setup.program.clone().or(chosen).expect("a program, where cargo built none");
        Processes { nodes: (0..count).map(node).collect(), program, dir, own }
    }

    /// A further process under the name of `node`, on its own ports and the data in `data_dir`; it does not run
    /// yet. The others do not know of it.
    pub(crate) fn add(&mut self, node: usize, data_dir: &std::path::Path) -> usize {
        let number = self.count();
        let (clients, cluster, http) = (free_port(), free_port(), free_port());
        let mut arguments = self.nodes[node].arguments.clone();
        arguments.extend([
            format!("--set=node.data_dir={}", data_dir.display()),
            format!("--set=cluster.listen={}", endpoint(cluster)),
            format!("--set=zenoh.listen={}", endpoint(clients)),
            format!("--set=http.listen=127.0.0.1:{http}"),
        ]);
        let log = self.dir().join(format!("process-{number}.log"));
        self.nodes.push(Process { child: None, arguments, clients, cluster, http, log });
        number
    }

    /// The directory of all of them.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// The data of a node.
    pub(crate) fn data_dir(&self, node: usize) -> PathBuf {
        self.dir().join(format!("odgm-{node}"))
    }

    /// Resident memory of a process, in KiB.
    pub(crate) fn resident_kib(&self, node: usize) -> u64 {
        let pid = self.nodes[node].child.as_ref().expect("a node that runs").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    }

    /// The exit code of a process that ends by itself within `limit`; `None` when it runs on.
    pub(crate) fn await_end(&mut self, node: usize, limit: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let child = self.nodes[node].child.as_mut().expect("a node that was started");
            if let Some(status) = child.try_wait().unwrap() {
                self.nodes[node].child = None;
                return status.code();
            }
            std::thread::park_timeout(PAUSE);
        }
        None
    }

    /// One shard as a node shows it in `/status`.
    pub(crate) fn shard(&self, node: usize, collection: &str) -> Option<Value> {
        let status = self.status(node)?;
        status["shards"].as_array()?.iter().find(|shard| shard["collection"] == collection).cloned()
    }

    /// Who serves the first partition of a collection, once somebody does.
    pub(crate) fn await_serving(&self, collection: &str) -> usize {
        let start = Instant::now();
        loop {
            let mut running = (0..self.count()).filter(|n| self.nodes[*n].child.is_some());
            let serves =
                |n: &usize| self.shard(*n, collection).is_some_and(|shard| shard["role"] == "serving");
            if let Some(serving) = running.find(serves) {
                return serving;
            }
            assert!(start.elapsed() < DEADLINE, "nobody serves {collection}");
            std::thread::park_timeout(PAUSE);
        }
    }

    /// How many nodes there are, running or not.
    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients connect to a node.
    pub(crate) fn endpoint(&self, node: usize) -> String {
        endpoint(self.nodes[node].clients)
    }

    /// The number of the node of this name.
    pub(crate) fn number(&self, name: &str) -> usize {
        let number = name.strip_prefix("odgm-").and_then(|number| number.parse().ok());
        number.filter(|number| *number < self.count()).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// Where a node listens for the others.
    pub(crate) fn cluster_port(&self, node: usize) -> u16 {
        self.nodes[node].cluster
    }

    /// Where a node's session for clients listens.
    pub(crate) fn client_port(&self, node: usize) -> u16 {
        self.nodes[node].clients
    }

    /// A further `--set` of one node, from its next start on.
    pub(crate) fn set(&mut self, node: usize, setting: &str) {
        self.nodes[node].arguments.push(format!("--set={setting}"));
    }

    /// Whether a process was started, and neither killed nor seen to end since.
    pub(crate) fn is_started(&self, node: usize) -> bool {
        self.nodes[node].child.is_some()
    }

    /// How a process ended by itself, once.
    pub(crate) fn ended(&mut self, node: usize) -> Option<std::process::ExitStatus> {
        let process = &mut self.nodes[node];
        let status = process.child.as_mut()?.try_wait().unwrap()?;
        process.child = None;
        Some(status)
    }

    /// Whether `/readyz` says yes now.
    pub(crate) fn is_ready(&self, node: usize) -> bool {
        self.fetch(node, "/readyz").starts_with("HTTP/1.1 200")
    }

    /// A client's session that prefers this node, and falls back to the others.
    pub(crate) async fn client(&self, node: usize, deadline: Duration) -> GridClient {
        let mut endpoints: Vec<_> = (0..self.count()).map(|n| self.endpoint(n)).collect();
        endpoints.rotate_left(node % self.count());
        Self::client_of(endpoints, deadline).await
    }

    /// A client's session that knows this node alone.
    pub(crate) async fn lone_client(&self, node: usize) -> GridClient {
        Self::client_of(vec![self.endpoint(node)], DEADLINE).await
    }

    async fn client_of(endpoints: Vec<String>, deadline: Duration) -> GridClient {
        let options = SessionOptions { connect_timeout: Some(DEADLINE), ..SessionOptions::client(endpoints) };
        let session = ZenohSession::open(&options, "test").await.unwrap();
        GridClient::new(session, ClientOptions { deadline, ..ClientOptions::default() })
    }

    /// Starts a node that does not run, with the data that it has.
    pub(crate) fn restart(&mut self, node: usize) {
        let process = &mut self.nodes[node];
        assert!(process.child.is_none(), "odgm-{node} runs");
        let log = OpenOptions::new().create(true).append(true).open(&process.log).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("start").args(&process.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        process.child = Some(command.spawn().unwrap());
    }

    /// SIGKILL; returns when the process is gone.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].child.take().expect("a node that runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGKILL to all that run, before waiting for any.
    pub(crate) fn kill_all(&mut self) {
        let mut children: Vec<Child> = self.nodes.iter_mut().filter_map(|node| node.child.take()).collect();
        for child in &mut children {
            // It may have ended by itself.
            let _ = child.kill();
        }
        for child in &mut children {
            let _ = child.wait();
        }
    }

    /// SIGTERM; its exit code.
    pub(crate) fn terminate(&mut self, node: usize) -> Option<i32> {
        self.signal(node, Signal::TERM);
        self.nodes[node].child.take().expect("a node that runs").wait().unwrap().code()
    }

    /// SIGTERM, without waiting for the end.
    pub(crate) fn signal_stop(&self, node: usize) {
        self.signal(node, Signal::TERM);
    }

    /// SIGSTOP: the process keeps its connections and does nothing.
    pub(crate) fn freeze(&self, node: usize) {
        self.signal(node, Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self, node: usize) {
        self.signal(node, Signal::CONT);
    }

    fn signal(&self, node: usize, signal: Signal) {
        let child = self.nodes[node].child.as_ref().expect("a node that runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Waits until `/readyz` says yes.
    pub(crate) fn await_ready(&mut self, node: usize) {
        let start = Instant::now();
        loop {
            let reply = self.fetch(node, "/readyz");
            if reply.starts_with("HTTP/1.1 200") {
                return;
            }
            let child = self.nodes[node].child.as_mut().expect("a node that runs");
            if let Some(status) = child.try_wait().unwrap() {
                panic!("odgm-{node} ended: {status}\n{}", self.log(node));
            }
            assert!(start.elapsed() < DEADLINE, "odgm-{node} is not ready: {reply}\n{}", self.log(node));
            // Looking should not take the machine from who is looked at.
            std::thread::park_timeout(PAUSE);
        }
    }

    /// `/status`; `None` while the node does not answer.
    pub(crate) fn status(&self, node: usize) -> Option<Value> {
        let reply = self.fetch(node, "/status");
        serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()
    }

    /// The answer to an HTTP request; empty while nobody listens, or the process is frozen.
    pub(crate) fn fetch(&self, node: usize, path: &str) -> String {
        let mut reply = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.nodes[node].http)) {
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_string(&mut reply);
        }
        reply
    }

    /// What the node logged last, over all its lives.
    pub(crate) fn log(&self, node: usize) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.nodes[node].log) {
            let _ = file.read_to_string(&mut text);
        }
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking()
            && let Some(own) = self.own.take()
        {
            eprintln!("data and logs of the nodes are in {}", own.keep().display());
        }
    }
}

fn endpoint(port: u16) -> String {
    format!("tcp/127.0.0.1:{port}")
}

/// A port that nobody uses now, and no test of this process was given before.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (first, count, each) = PORTS;
    for _ in 0..count {
        let turn = std::process::id().wrapping_mul(each).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(first + turn % count).expect("the range is one of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port of {count} from {first}");
}
