//! Nodes on the other backends: what survives a restart, and what is meant not to.

use std::path::Path;

use odgm_node::config::NodeConfig;

use crate::cli_node::Node;

fn node_id(node: &Node) -> String {
    let listed = node.json(&["node", "list"]);
    listed[0]["id"].to_string()
}

#[test]
fn each_example_configuration_starts_a_node_that_serves() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/config");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let node = Node::start_with(Some(&file), &[]);
        assert_eq!(node.done(&["put", "default/alice", "hello"]), "revision 1", "{}", file.display());
        assert_eq!(node.done(&["get", "default/alice"]), "hello", "{}", file.display());
        let loaded = NodeConfig::load(Some(&file), [], &[]).unwrap();
        assert!(loaded.warnings.is_empty(), "{}: {:?}", file.display(), loaded.warnings);
    }
}

#[test]
fn data_in_memory_come_back_from_the_stored_snapshot_and_the_log() {
    let mut node = Node::start_with(None, &["storage.data.backend=memory"]);
    let id = node_id(&node);
    node.done(&["put", "default/alice", "before the snapshot"]);
    for partition in 0..4 {
        node.done(&["shard", "snapshot", &format!("default/{partition}")]);
    }
    node.done(&["put", "default/alice", "after it"]);
    node.done(&["increment", "default/visits", "--by", "3"]);
    node.kill();
    node.restart(&[]);
    assert_eq!(node_id(&node), id);
    assert_eq!(node.done(&["get", "default/alice"]), "after it");
    assert_eq!(node.done(&["increment", "default/visits", "--by", "4"]), "7");
    assert_eq!(node.terminate(), Some(0));
    node.restart(&[]);
    assert_eq!(node.done(&["get", "default/visits"]), "7");
}

#[test]
fn snapshots_in_memory_are_taken_again_when_they_are_needed() {
    let mut node = Node::start_with(None, &["storage.snapshot.backend=memory_snapshot"]);
    node.done(&["put", "default/alice", "hello"]);
    for partition in 0..4 {
        node.done(&["shard", "snapshot", &format!("default/{partition}")]);
    }
    node.kill();
    node.restart(&[]);
    assert_eq!(node.done(&["get", "default/alice"]), "hello");
    node.done(&["shard", "snapshot", "default/3"]);
}

#[test]
fn a_node_on_memory_log_begins_as_a_new_one_at_each_start() {
    let mut node = Node::start_with(None, &["storage.log.backend=memory_log"]);
    let id = node_id(&node);
    node.done(&["put", "default/alice", "hello"]);
    assert_eq!(node.done(&["get", "default/alice"]), "hello");
    assert_eq!(node.terminate(), Some(0));
    node.restart(&[]);
    assert_ne!(node_id(&node), id);
    node.refused(&["get", "default/alice"]);
    node.done(&["put", "default/alice", "again"]);
    assert_eq!(node.done(&["get", "default/alice"]), "again");
}

#[test]
fn data_in_memory_with_a_log_on_disk_need_snapshots_on_disk() {
    let settings = |set: &[&str]| set.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let memory = ["storage.data.backend=memory", "storage.snapshot.backend=memory_snapshot"];
    let refused = NodeConfig::load(None, [], &settings(&memory)).map(|_| ()).unwrap_err().to_string();
    assert!(refused.starts_with("storage.snapshot.backend = "), "{refused}");
    assert!(refused.contains("allowed is compressed_file"), "{refused}");
    let all = [&memory[..], &["storage.log.backend=memory_log"]].concat();
    assert!(NodeConfig::load(None, [], &settings(&all)).is_ok());
}
