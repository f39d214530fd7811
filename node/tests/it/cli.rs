//! The program as a script sees it: what it prints where, and its exit codes.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Runs `odgm` to its end.
pub(crate) fn odgm(arguments: &[&str]) -> Output {
    odgm_with(arguments, "", &[])
}

/// Runs `odgm` with this on stdin and these variables.
pub(crate) fn odgm_with(arguments: &[&str], stdin: &str, variables: &[(&str, &str)]) -> Output {
    use std::io::Write;

    let mut child = Command::new(env!("CARGO_BIN_EXE_odgm"))
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that reads no stdin may have closed it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_usage_ends_with_2_and_says_so_on_stderr() {
    for arguments in [
        &[][..],
        &["gte", "users/alice"],
        &["get"],
        &["get", "users"],
        &["get", "users/*"],
        &["put", "users/alice"],
        &["put", "users/@x", "v"],
        &["increment", "users/n", "--by", "x"],
        &["start", "--set", "nonsense"],
        &["get", "users/alice", "--connect", "nonsense"],
        &["delete", "users/*"],
        &["bench", "kv", "--clients", "0"],
        &["bench", "storage", "--fast"],
    ] {
        let output = odgm(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}

#[test]
fn help_and_version_end_with_0_on_stdout() {
    for arguments in [&["--help"][..], &["--version"], &["start", "--help"], &["help", "get"]] {
        let output = odgm(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("odgm"), "{arguments:?}");
    }
}

#[test]
fn what_is_not_there_yet_says_so_and_ends_with_1() {
    let output = odgm(&["bench", "snapshot"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("UNSUPPORTED"), "{output:?}");
    assert!(output.stdout.is_empty());
}

#[test]
fn nobody_listening_ends_with_3() {
    // Bound, but it speaks no zenoh and never answers; and a port that is closed.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), closed] {
        let endpoint = format!("tcp/{address}");
        let started = std::time::Instant::now();
        let output = odgm(&["get", "users/alice", "--connect", &endpoint, "--timeout", "1s"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn the_effective_configuration_is_shown_as_yaml_that_is_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("odgm.yaml");
    std::fs::write(&file, "node: {name: file}\nlimits: {value_bytes: 1Mi}\n").unwrap();
    let file = file.to_str().unwrap();
    let variables = [("ODGM_NODE__ZONE", "env"), ("ODGM_PORT", "tcp://10.0.0.1:1")];
    let output = odgm_with(&["config", "show", "--config", file, "--set", "node.name=flag"], "", &variables);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown: serde_yaml::Value = serde_yaml::from_str(&stdout(&output)).unwrap();
    assert_eq!(shown["node"]["name"], "flag");
    assert_eq!(shown["node"]["zone"], "env");
    assert_eq!(shown["limits"]["value_bytes"], "1MiB");
    assert_eq!(shown["http"]["listen"], "127.0.0.1:8090");
    assert!(stderr(&output).contains("ODGM_PORT"), "{output:?}");

    let again = dir.path().join("again.yaml");
    std::fs::write(&again, &output.stdout).unwrap();
    let checked = odgm(&["config", "check", "--config", again.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

#[test]
fn a_wrong_configuration_is_refused_with_1_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data_dir = format!("node.data_dir={}", data.display());
    for (command, key) in [("config", "storage.log.sync"), ("start", "storage.log.sync")] {
        let mut arguments = vec![command];
        arguments.extend((command == "config").then_some("check"));
        arguments.extend(["--set", "storage.log.sync=never", "--set", &data_dir]);
        let output = odgm(&arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let message = stderr(&output);
        assert!(message.contains(key) && message.contains("never") && message.contains("batch"), "{message}");
    }
    assert!(!data.exists());
}
