//! Processes that are measured: nodes and echo servers, started from this program and killed with it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::bench::echo;
use crate::output::Failure;

/// In which Linux counts the time of processes for users.
const TICK: Duration = Duration::from_millis(10);

/// Child processes with the endpoints where clients reach them. Killed when dropped.
pub(super) struct Cluster {
    children: Mutex<Vec<Child>>,
    ports: Vec<u16>,
    logs: Vec<PathBuf>,
}

impl Cluster {
    /// Echo servers that know each other.
    pub(super) async fn echo(count: usize, dir: &Path) -> Result<Self, Failure> {
        let ports = free_ports(count)?;
        let mut cluster = Cluster::empty(ports.clone());
        for (n, port) in ports.iter().enumerate() {
            let peers: Vec<_> =
                ports.iter().filter(|other| *other != port).map(|port| endpoint(*port)).collect();
            let arguments = [
                "bench".to_owned(),
                "echo-server".to_owned(),
                format!("--listen={}", endpoint(*port)),
                format!("--peers={}", peers.join(",")),
                format!("--key={}", echo::key(n)),
            ];
            cluster.start(&arguments, &dir.join(format!("echo-{n}.log")))?;
        }
        cluster.await_listening().await?;
        Ok(cluster)
    }

    /// Nodes `bench-0`, `bench-1` … that found a cluster with these collections, in YAML.
    pub(super) fn nodes(count: usize, dir: &Path, collections: &str) -> Result<Self, Failure> {
        let ports = free_ports(count * 3)?;
        let (clients, rest) = ports.split_at(count);
        let (members, http) = rest.split_at(count);
        let list = |ports: &[u16]| {
            let endpoints: Vec<_> = ports.iter().map(|port| endpoint(*port)).collect();
            endpoints.join(",")
        };
        let mut cluster = Cluster::empty(clients.to_vec());
        for n in 0..count {
            let others = |ports: &[u16]| {
                let others: Vec<_> = ports.iter().filter(|port| **port != ports[n]).copied().collect();
                list(&others)
            };
            let settings = [
                format!("node.name=bench-{n}"),
                format!("node.data_dir={}", dir.join(format!("node-{n}")).display()),
                "cluster.name=bench".to_owned(),
                format!("cluster.listen={}", endpoint(members[n])),
                format!("cluster.peers={}", others(members)),
                format!("cluster.expected_nodes={count}"),
                "cluster.bootstrap=bench-0".to_owned(),
                format!("zenoh.listen={}", endpoint(clients[n])),
                format!("zenoh.connect={}", others(clients)),
                format!("http.listen=127.0.0.1:{}", http[n]),
                format!("collections=[{collections}]"),
            ];
            let mut arguments = vec!["start".to_owned()];
            arguments.extend(settings.into_iter().map(|setting| format!("--set={setting}")));
            cluster.start(&arguments, &dir.join(format!("node-{n}.log")))?;
        }
        Ok(cluster)
    }

    fn empty(ports: Vec<u16>) -> Self {
        Cluster { children: Mutex::default(), ports, logs: Vec::new() }
    }

    /// Where clients connect.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.ports.iter().map(|port| endpoint(*port)).collect()
    }

    fn start(&mut self, arguments: &[String], log: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::Refused(format!("starting a process: {error}"));
        let stderr = File::create(log).map_err(failed)?;
        let child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(failed)?;
        self.children().push(child);
        self.logs.push(log.to_owned());
        Ok(())
    }

    /// SIGKILL to one; returns when it is gone.
    pub(super) fn kill(&self, n: usize) -> Result<(), Failure> {
        let mut children = self.children();
        let failed = |error: &dyn std::fmt::Display| Failure::Refused(format!("killing a node: {error}"));
        let child = children.get_mut(n).ok_or_else(|| failed(&"there is none"))?;
        child.kill().and_then(|()| child.wait()).map(drop).map_err(|error| failed(&error))
    }

    /// What the processes have taken of the processors.
    pub(super) fn processor_time(&self) -> Duration {
        let of = |child: &Child| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
            // Behind the name, which may contain spaces: user and system time are the 12th and 13th.
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            let ticks = fields.split_whitespace().skip(11).take(2);
            ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>()
        };
        TICK * u32::try_from(self.children().iter().map(of).sum::<u64>()).unwrap_or(u32::MAX)
    }

    /// Whether all still run.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for child in self.children().iter_mut() {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Failure::Refused(format!("a measured process ended: {status}{}", self.logs())));
            }
        }
        Ok(())
    }

    /// What the processes said last.
    pub(super) fn logs(&self) -> String {
        let tail = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(5)..].join("\n")
        };
        self.logs.iter().map(|path| format!("\n{}:\n{}", path.display(), tail(path))).collect()
    }

    async fn await_listening(&self) -> Result<(), Failure> {
        for port in &self.ports {
            for attempt in 0.. {
                self.check()?;
                if tokio::net::TcpStream::connect(("127.0.0.1", *port)).await.is_ok() {
                    break;
                }
                if attempt > 300 {
                    return Err(Failure::Refused(format!("nothing listens on port {port}{}", self.logs())));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    fn children(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.children.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children().iter_mut() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn endpoint(port: u16) -> String {
    format!("tcp/127.0.0.1:{port}")
}

/// Ports that nobody uses now.
fn free_ports(count: usize) -> Result<Vec<u16>, Failure> {
    let bound: Result<Vec<_>, std::io::Error> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    bound
        .and_then(|listeners| listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect())
        .map_err(|error| Failure::Refused(format!("ports: {error}")))
}
