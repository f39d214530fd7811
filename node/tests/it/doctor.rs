//! `odgm doctor` on the directory that a node left.

use std::path::Path;

use serde_json::Value;

use crate::cli::{odgm, stderr, stdout};
use crate::cli_node::Node;

fn doctor(data: &str, more: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&["doctor", "--data", data, "--json"], more].concat();
    let output = odgm(&arguments);
    let said = serde_json::from_str(&stdout(&output));
    (output.status.code(), said.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

#[test]
fn a_directory_of_nobody_is_refused_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("none");
    let output = odgm(&["doctor", "--data", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("not found") && !data.exists(), "{output:?}");
}

#[test]
fn a_stopped_node_is_checked_its_log_moved_and_damage_told_by_the_exit_code() {
    let mut node = Node::start();
    node.done(&["put", "default/alice", "kept"]);
    let data = node.data();
    let running = odgm(&["doctor", "--data", &data]);
    assert_eq!(running.status.code(), Some(1), "{running:?}");
    assert!(stderr(&running).contains("a node runs on"), "{running:?}");
    assert_eq!(node.terminate(), Some(0), "{}", node.log());

    let (code, report) = doctor(&data, &[]);
    assert_eq!((code, &report["healthy"]), (Some(0), &Value::Bool(true)), "{report}");
    // Four partitions, and the system shard.
    assert_eq!(
        (&report["checked"]["replicas"], &report["checked"]["groups"]),
        (&5.into(), &5.into()),
        "{report}"
    );
    assert_eq!(report["layers"]["log"], "append_log");

    let (code, moved) = doctor(&data, &["--migrate", "log=fjall"]);
    assert_eq!((code, &moved["groups"]), (Some(0), &5.into()), "{moved}");
    node.restart(&["storage.log.backend=fjall"]);
    assert_eq!(node.done(&["get", "default/alice"]), "kept");
    assert_eq!(node.terminate(), Some(0), "{}", node.log());

    std::fs::write(Path::new(&data).join("node.json"), "{").unwrap();
    let (code, report) = doctor(&data, &[]);
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(report["findings"][0]["remedy"], "replace_node", "{report}");
    assert!(report["findings"][0]["path"].as_str().unwrap().ends_with("node.json"), "{report}");
}
