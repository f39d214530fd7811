//! Every kind of replication on a running node: what its clients see.

use crate::cli_node::Node;

#[test]
fn collections_of_every_kind_are_created_used_and_kept_over_a_restart() {
    let mut node = Node::start();
    let kinds = ["raft", "mst", "eventual", "none"];
    for kind in kinds {
        let created = node.json(&["collection", "create", kind, "--replication", kind, "--partitions", "2"]);
        assert_eq!(created["replication"], kind);
    }
    for kind in kinds {
        let key = |path: &str| format!("{kind}/{path}");
        node.done(&["put", &key("alice"), "hello"]);
        node.done(&["put", &key("alice/mail"), "a@b.c"]);
        node.done(&["put", &key("bob"), "gone"]);
        node.done(&["delete", &key("bob")]);
        assert_eq!(node.done(&["get", &key("alice")]).trim(), "hello", "{kind}");
        assert!(node.refused(&["get", &key("bob")]).contains("NOT_FOUND"), "{kind}");
        let told = node.run(&["increment", &key("n")]);
        let ordered = matches!(kind, "raft" | "none");
        assert_eq!(told.status.success(), ordered, "{kind}");
        if !ordered {
            let words = String::from_utf8_lossy(&told.stderr).into_owned();
            assert!(words.contains("UNSUPPORTED") && words.contains("every replica writes"), "{words}");
        }
        let status = node.json(&["shard", "status", &key("0")]);
        assert_eq!(status["role"], "serving", "{kind}: {status}");
        assert_eq!(status["digest"]["root"].is_string(), matches!(kind, "mst" | "eventual"), "{status}");
    }
    node.terminate();
    node.restart(&[]);
    for kind in kinds {
        assert_eq!(node.done(&["get", &format!("{kind}/alice/mail")]).trim(), "a@b.c", "{kind}");
        assert!(node.refused(&["get", &format!("{kind}/bob")]).contains("NOT_FOUND"), "{kind}");
        node.done(&["collection", "delete", kind]);
    }
}
