//! What a deleted collection leaves on disk: nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli_node::Node;

fn replicas(node: &Node) -> Vec<String> {
    let listed = std::fs::read_dir(Path::new(&node.data()).join("shards")).unwrap();
    let mut names: Vec<_> = listed.map(|dir| dir.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn await_replicas(node: &Node, expected: &[String]) {
    let start = Instant::now();
    while replicas(node) != expected {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}\n{}", replicas(node), node.log());
        std::thread::yield_now();
    }
}

#[test]
fn a_deleted_collection_is_removed_from_disk_at_once_or_at_the_next_start() {
    let mut node = Node::start();
    let before = replicas(&node);
    for kind in ["raft", "mst", "eventual", "none"] {
        node.done(&["collection", "create", kind, "--replication", kind, "--partitions", "2"]);
        node.done(&["put", &format!("{kind}/alice"), "hello"]);
    }
    assert_eq!(replicas(&node).len(), before.len() + 8);
    for kind in ["raft", "mst", "eventual", "none"] {
        node.done(&["collection", "delete", kind]);
    }
    await_replicas(&node, &before);
    // What a node that ended in the middle of it left, and what no record ever knew.
    node.kill();
    let shards = Path::new(&node.data()).join("shards");
    for name in ["5-6", "999-1000"] {
        std::fs::create_dir_all(shards.join(name).join("data")).unwrap();
    }
    node.restart(&[]);
    let mut known = before;
    known.push("999-1000".into());
    known.sort();
    await_replicas(&node, &known);
    node.done(&["collection", "create", "raft"]);
    assert_eq!(node.done(&["put", "raft/alice", "hello"]), "revision 1");
}
