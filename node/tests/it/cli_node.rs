//! The commands against a running node of its own: what they print, and their exit codes.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::{odgm, odgm_with, stderr, stdout};

/// How long anything may take on a machine that does something else.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node in a directory of its own.
pub(crate) struct Node {
    child: Child,
    pub(crate) endpoint: String,
    pub(crate) cluster: String,
    pub(crate) http: String,
    dir: tempfile::TempDir,
    settings: Vec<String>,
}

impl Node {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let at: Vec<String> = ports.iter().map(|port| port.local_addr().unwrap().to_string()).collect();
        let settings = vec![
            format!("node.data_dir={}", dir.path().join("data").display()),
            format!("zenoh.listen=tcp/{}", at[0]),
            format!("cluster.listen=tcp/{}", at[1]),
            format!("http.listen={}", at[2]),
        ];
        drop(ports);
        let child = Self::spawn(&settings, &dir);
        let (endpoint, cluster, http) = (format!("tcp/{}", at[0]), at[1].clone(), at[2].clone());
        let node = Node { child, endpoint, cluster, http, dir, settings };
        node.await_ready();
        node
    }

    fn spawn(settings: &[String], dir: &tempfile::TempDir) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.path().join("log")).unwrap();
        let arguments = settings.iter().flat_map(|setting| ["--set", setting]);
        Command::new(env!("CARGO_BIN_EXE_odgm")).arg("start").args(arguments).stderr(log).spawn().unwrap()
    }

    fn await_ready(&self) {
        let start = Instant::now();
        while !self.fetch("/readyz").starts_with("HTTP/1.1 200") {
            assert!(start.elapsed() < DEADLINE, "not ready: {}", self.log());
            std::thread::yield_now();
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The answer to an HTTP request; empty while nobody listens.
    pub(crate) fn fetch(&self, path: &str) -> String {
        use std::io::Write;

        let mut reply = String::new();
        if let Ok(mut stream) = std::net::TcpStream::connect(&self.http) {
            let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_string(&mut reply);
        }
        reply
    }

    /// Runs a command against the node.
    fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut all = vec!["--connect", &self.endpoint, "--timeout", "30s"];
        all.extend_from_slice(arguments);
        odgm_with(&all, stdin, &[])
    }

    /// What a command prints that must succeed, without the end of the line.
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}\n{}", self.log());
        stdout(&output).trim_end().to_owned()
    }

    /// What a command says that must be refused.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}\n{}", self.log());
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        stderr(&output)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["-o", "json"];
        all.extend_from_slice(arguments);
        serde_json::from_str(&self.done(&all)).unwrap()
    }

    /// Where its data are.
    pub(crate) fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// Starts it again after it ended, with more settings, until it is ready.
    pub(crate) fn restart(&mut self, more: &[&str]) {
        self.settings.extend(more.iter().map(|setting| (*setting).to_owned()));
        self.child = Self::spawn(&self.settings, &self.dir);
        self.await_ready();
    }

    /// Tells it to end, and waits.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn objects_are_written_read_listed_and_deleted() {
    let node = Node::start();
    assert_eq!(node.done(&["put", "default/alice", "hello"]), "revision 1");
    assert_eq!(node.done(&["get", "default/alice"]), "hello");
    assert_eq!(node.run(&["get", "default/alice", "--raw"]).stdout, b"hello");
    let shown = node.json(&["get", "default/alice"]);
    assert_eq!(
        (&shown["value"], &shown["revision"], &shown["partition"]),
        (&"hello".into(), &1.into(), &3.into())
    );

    let piped = node.run_with(&["put", "default/alice", "-", "--encoding", "text/plain"], "from stdin");
    assert_eq!(piped.status.code(), Some(0), "{piped:?}");
    assert_eq!(node.json(&["get", "default/alice"])["encoding"], "text/plain");
    let file = node.dir.path().join("value");
    std::fs::write(&file, [0xff, 0x00]).unwrap();
    node.done(&["put", "default/alice/photo", "--file", file.to_str().unwrap()]);
    assert_eq!(node.json(&["get", "default/alice/photo"])["base64"], "/wA=");
    assert_eq!(node.run(&["get", "default/alice/photo", "--raw"]).stdout, [0xff, 0x00]);

    node.done(&["put", "default/bob", "b"]);
    assert_eq!(node.done(&["list", "default"]), "default/bob\ndefault/alice");
    assert_eq!(node.done(&["list", "default/alice"]), "default/alice\ndefault/alice/photo");
    assert_eq!(node.done(&["list", "default", "--values"]), "default/bob\tb\ndefault/alice\tfrom stdin");
    assert_eq!(node.done(&["list", "default", "--count"]), "2");
    assert_eq!(node.json(&["list", "default"]).as_array().unwrap().len(), 2);
    assert_eq!(node.json(&["list", "default/nobody$*"]), Value::Array(Vec::new()));

    node.done(&["delete", "default/alice"]);
    let missing = node.refused(&["get", "default/alice"]);
    assert!(missing.contains("NOT_FOUND"), "{missing}");
    node.done(&["delete", "default/alice"]);
    assert_eq!(node.done(&["delete", "default/*", "--yes"]), "deleted 1");
    assert_eq!(node.done(&["list", "default", "--count"]), "0");
}

#[test]
fn a_list_of_many_pages_is_whole() {
    let node = Node::start();
    let steps = |from: usize| -> String {
        let puts = (from..from + 100)
            .map(|n| format!(r#"{{"put":{{"object":"alice","entry":"e{n:04}","value":"{n}"}}}}"#));
        format!(r#"{{"then":[{}]}}"#, puts.collect::<Vec<_>>().join(","))
    };
    for from in (0..1200).step_by(100) {
        let output = node.run_with(&["txn", "default", "--file", "-"], &steps(from));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let listed = node.done(&["list", "default/alice/*"]);
    let expected: Vec<String> = (0..1200).map(|n| format!("default/alice/e{n:04}")).collect();
    assert_eq!(listed, expected.join("\n"));
    assert_eq!(node.done(&["list", "default/alice/*", "--limit", "700"]).lines().count(), 700);
    assert_eq!(node.done(&["list", "default/alice/*", "--count"]), "1200");
}

#[test]
fn conditions_and_request_ids_are_the_grid_s() {
    let node = Node::start();
    node.done(&["put", "default/a", "1", "--if-absent"]);
    let exists = node.refused(&["put", "default/a", "2", "--if-absent"]);
    assert!(exists.contains("EXISTS") && exists.contains("revision 1"), "{exists}");
    let conflict = node.refused(&["put", "default/a", "2", "--if-revision", "7"]);
    assert!(conflict.contains("CONFLICT"), "{conflict}");
    assert!(node.refused(&["put", "default/none", "2", "--if-present"]).contains("NOT_FOUND"));
    node.done(&["put", "default/a", "2", "--if-revision", "1"]);

    assert_eq!(node.done(&["increment", "default/n"]), "1");
    assert_eq!(node.done(&["increment", "default/n", "--by", "41", "--rid", "r1"]), "42");
    assert_eq!(node.done(&["increment", "default/n", "--by", "41", "--rid", "r1"]), "42");
    assert_eq!(node.done(&["increment", "default/n", "--by", "-2"]), "40");
    assert!(
        node.refused(&["increment", "default/n", "--by", "1", "--rid", "r1"]).contains("INVALID_PARAMETER")
    );
    assert!(node.json(&["put", "default/t", "v", "--ttl", "1h"])["expires_unix_ms"].as_u64() > Some(0));
    let touched = node.json(&["touch", "default/t", "--ttl", "none"]);
    assert_eq!((&touched["version"], &touched["expires_unix_ms"]), (&2.into(), &Value::Null));
    assert!(node.refused(&["touch", "default/none", "--ttl", "30s"]).contains("NOT_FOUND"));
    assert!(node.refused(&["touch", "default/t", "--ttl", "soon"]).contains("INVALID_PARAMETER"));
    node.done(&["touch", "default/t", "--ttl", "1ms"]);
    let ended = std::time::Instant::now() + DEADLINE;
    while node.run(&["get", "default/t"]).status.code() == Some(0) {
        assert!(std::time::Instant::now() < ended, "the key never ends");
    }
    let too_large = "x".repeat((8 << 20) + 1);
    let output = node.run_with(&["put", "default/a", "-"], &too_large);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("TOO_LARGE"), "{}", stderr(&output));
}

#[test]
fn a_transaction_takes_one_branch_or_is_refused_whole() {
    let node = Node::start();
    let txn = |body: &str| node.run_with(&["txn", "default", "--file", "-", "-o", "json"], body);
    let done = txn(
        r#"{"if":[{"object":"alice","absent":true}],"then":[{"put":{"object":"alice","value":"x"}}],"else":[]}"#,
    );
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    assert_eq!(serde_json::from_slice::<Value>(&done.stdout).unwrap()["branch"], "then");
    let done =
        txn(r#"{"if":[{"object":"alice","absent":true}],"then":[],"else":[{"delete":{"object":"alice"}}]}"#);
    assert_eq!(serde_json::from_slice::<Value>(&done.stdout).unwrap()["branch"], "else");
    assert!(node.refused(&["get", "default/alice"]).contains("NOT_FOUND"));
    // alice is in partition 3 of 4, bob in 0.
    let apart = txn(r#"{"then":[{"delete":{"object":"alice"}},{"delete":{"object":"bob"}}]}"#);
    assert_eq!(apart.status.code(), Some(1), "{apart:?}");
    assert!(stderr(&apart).contains("WRONG_PARTITION"), "{apart:?}");
    assert_eq!(txn("{").status.code(), Some(2));
    let nonsense = txn(r#"{"then":[{"put":{"object":"alice"}}]}"#);
    assert!(stderr(&nonsense).contains("INVALID_PARAMETER"), "{nonsense:?}");
}

#[test]
fn a_watch_prints_changes_until_it_has_seen_enough() {
    let node = Node::start();
    let mut watch = Command::new(env!("CARGO_BIN_EXE_odgm"))
        .args(["--connect", &node.endpoint, "-o", "json", "watch", "default", "--count", "3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(watch.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("watching"), "{line}");
    node.done(&["put", "default/alice", "1"]);
    node.done(&["put", "default/alice/name", "2"]);
    node.done(&["delete", "default/alice/name"]);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut printed = String::new();
        watch.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        sender.send((printed, watch.wait().unwrap().code())).unwrap();
    });
    let (printed, code) = receiver.recv_timeout(DEADLINE).unwrap();
    assert_eq!(code, Some(0));
    let events: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> =
        events.iter().map(|event| (event["kind"].as_str(), event["revision"].as_u64())).collect();
    assert_eq!(seen, [(Some("put"), Some(1)), (Some("put"), Some(2)), (Some("delete"), Some(3))]);
    assert_eq!(events[1]["entry"], "name");
}

#[test]
fn a_watch_from_a_revision_replays_and_goes_on_and_lists_when_it_came_too_late() {
    let node = Node::start();
    for value in ["1", "2", "3"] {
        node.done(&["put", "default/alice", value]);
    }
    node.done(&["delete", "default/alice"]);
    let watched = |pattern: &str, from: &str, count: &str| -> Vec<(String, String, u64)> {
        let printed = node.done(&["-o", "json", "watch", pattern, "--from", from, "--count", count]);
        let events = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let told = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
        events
            .map(|event| (told(&event, "seen"), told(&event, "kind"), event["revision"].as_u64().unwrap()))
            .collect()
    };
    let replayed = |kind: &str, revision| ("replayed".to_owned(), kind.to_owned(), revision);
    let expected = [replayed("put", 2), replayed("put", 3), replayed("delete", 4)];
    assert_eq!(watched("default/alice", "2", "3"), expected);
    assert_eq!(watched("default", "2", "3"), expected);
    let update = r#"{"events": {"retain": {"count": 1}}}"#;
    let updated = node.run_with(&["collection", "update", "default", "--file", "-", "-o", "json"], update);
    assert_eq!(updated.status.code(), Some(0), "{}", stderr(&updated));
    let updated: Value = serde_json::from_slice(&updated.stdout).unwrap();
    assert_eq!(updated["events"]["retain"]["count"], 1);
    node.done(&["put", "default/alice", "5"]);
    let listed = || watched("default/alice", "1", "1").remove(0);
    let ended = std::time::Instant::now() + DEADLINE;
    while listed() != ("listed".to_owned(), "put".to_owned(), 5) {
        assert!(std::time::Instant::now() < ended, "the new retention never holds");
    }
}

#[test]
fn indexes_are_made_asked_and_dropped() {
    let node = Node::start();
    let create = r#"{"partitions": 2, "indexes": [{"name": "age", "path": "/age"}]}"#;
    let created = node.run_with(&["collection", "create", "people", "--file", "-"], create);
    assert_eq!(created.status.code(), Some(0), "{}", stderr(&created));
    for (name, age) in [("alice", 30), ("bob", 7), ("carol", 30)] {
        node.done(&["put", &format!("people/{name}"), &format!("{{\"age\": {age}}}")]);
    }
    let found = |arguments: &[&str]| {
        let arguments = [&["list", "people"], arguments].concat();
        let mut names: Vec<String> = node.done(&arguments).lines().map(str::to_owned).collect();
        names.sort_unstable();
        names.join(" ")
    };
    let thirty = found(&["--index", "age", "--eq", "30"]);
    assert!(thirty.contains("alice") && thirty.contains("carol") && !thirty.contains("bob"), "{thirty}");
    assert!(found(&["--index", "age", "--ge", "-5", "--lt", "30"]).contains("bob"));
    assert_eq!(found(&["--index", "age", "--ge", "8", "--count"]), "2");
    let dropped = node.run_with(&["collection", "update", "people", "--file", "-"], r#"{"indexes": []}"#);
    assert_eq!(dropped.status.code(), Some(0), "{}", stderr(&dropped));
    let ended = std::time::Instant::now() + DEADLINE;
    while !stderr(&node.run(&["list", "people", "--index", "age", "--eq", "30"]))
        .contains("INVALID_PARAMETER")
    {
        assert!(std::time::Instant::now() < ended, "the index never goes");
    }
    let fixed = node.run_with(&["collection", "update", "people", "--file", "-"], r#"{"partitions": 3}"#);
    assert!(stderr(&fixed).contains("fixed at creation"), "{}", stderr(&fixed));
}

#[test]
fn collections_nodes_and_shards_are_administered() {
    let node = Node::start();
    let created = node.json(&["collection", "create", "users", "--partitions", "2"]);
    assert_eq!(created["partitions"], 2);
    node.done(&["put", "users/alice", "hello"]);
    assert!(node.refused(&["collection", "create", "users"]).contains("EXISTS"));
    assert!(node.refused(&["collection", "create", "b", "--replicas", "3"]).contains("INVALID_PARAMETER"));
    assert!(node.refused(&["collection", "create", "b", "--replication", "mst"]).contains("UNSUPPORTED"));
    let listed = node.json(&["collection", "list"]);
    let mut names: Vec<_> =
        listed.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["default", "users"]);
    assert_eq!(node.json(&["collection", "describe", "users"])["partitions"], 2);
    assert!(node.refused(&["collection", "describe", "nothing"]).contains("NO_COLLECTION"));
    assert!(node.refused(&["collection", "delete", "nothing"]).contains("NO_COLLECTION"));
    assert_eq!(node.json(&["meta", "users"])["hash"], "crc32");
    assert!(node.done(&["cluster", "status"]).contains("users/1"));
    assert_eq!(node.json(&["node", "list"])[0]["name"], "odgm-0");
    assert_eq!(node.json(&["shard", "status", "users/1"])["role"], "serving");
    assert_eq!(node.json(&["shard", "snapshot", "users/1"])["partition"], 1);
    for unknown in [&["shard", "status", "users/2"][..], &["shard", "status", "nothing/0"]] {
        assert!(node.refused(unknown).contains("NO_COLLECTION"), "{unknown:?}");
    }
    for later in [&["node", "drain", "odgm-0"][..], &["shard", "compact", "users/1"]] {
        assert!(node.refused(later).contains("UNSUPPORTED"), "{later:?}");
    }
}

#[test]
fn an_unknown_collection_is_said_to_be_one() {
    let node = Node::start();
    for arguments in [
        &["get", "nothing/alice"][..],
        &["put", "nothing/alice", "v"],
        &["delete", "nothing/alice"],
        &["list", "nothing"],
        &["meta", "nothing"],
    ] {
        let message = node.refused(arguments);
        assert!(message.contains("NO_COLLECTION"), "{arguments:?}: {message}");
    }
}

#[test]
fn a_node_that_is_told_to_end_ends_with_0_and_keeps_what_it_acknowledged() {
    let mut node = Node::start();
    node.done(&["put", "default/alice", "kept"]);
    let metrics = node.fetch("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("odgm_"), "{metrics}");
    assert!(node.fetch("/status").contains("\"odgm-0\""));
    assert_eq!(node.terminate(), Some(0), "{}", node.log());
    node.restart(&[]);
    assert_eq!(node.done(&["get", "default/alice"]), "kept");
}

#[test]
fn a_second_node_on_the_same_data_is_refused() {
    let node = Node::start();
    let data = &node.settings[0];
    let free = ["zenoh.listen=tcp/127.0.0.1:0", "cluster.listen=tcp/127.0.0.1:0", "http.listen=127.0.0.1:0"];
    let output = odgm(&["start", "--set", data, "--set", free[0], "--set", free[1], "--set", free[2]]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("in use"), "{output:?}");
}
