//! Backups: a shard's data as a file, and the way back into a cluster.

use crate::cli::{odgm, stdout};
use crate::cli_node::Node;

fn file(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

/// Two collections of one partition each, and what was written into the first.
fn filled() -> Node {
    let node = Node::start();
    node.done(&["collection", "create", "from", "--partitions", "1"]);
    node.done(&["collection", "create", "to", "--partitions", "4"]);
    for n in 0..10 {
        node.done(&["put", &format!("from/object-{n}"), &format!("value {n}")]);
    }
    node.done(&["put", "from/alice/city", "Zürich"]);
    node
}

#[test]
fn an_exported_shard_is_verified_offline_and_imported_into_another_collection() {
    let (node, dir) = (filled(), tempfile::tempdir().unwrap());
    let backup = file(&dir, "from-0.snapshot");
    let exported = node.json(&["snapshot", "export", "from/0", &backup]);
    assert_eq!(exported["file"], backup.as_str());
    assert_eq!(std::fs::metadata(&backup).unwrap().len(), exported["stored_bytes"].as_u64().unwrap());
    let listed = node.json(&["snapshot", "list", "from/0"]);
    assert_eq!(listed[0]["id"], exported["id"]);

    let verified = odgm(&["-o", "json", "snapshot", "verify", &backup]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert!(stdout(&verified).contains(exported["content_hash"].as_str().unwrap()), "{verified:?}");

    // What is there already is never lost to an import.
    node.done(&["put", "to/object-3", "mine"]);
    let imported = node.json(&["snapshot", "import", &backup, "to"]);
    assert_eq!((&imported["written"], &imported["existed"]), (&10.into(), &1.into()), "{imported}");
    assert_eq!(node.done(&["get", "to/object-7"]), "value 7");
    assert_eq!(node.done(&["get", "to/alice/city"]), "Zürich");
    assert_eq!(node.done(&["get", "to/object-3"]), "mine");
    let imported = node.json(&["snapshot", "import", &backup, "to", "--overwrite"]);
    assert_eq!(imported["written"], 11, "{imported}");
    assert_eq!(node.done(&["get", "to/object-3"]), "value 3");
}

#[test]
fn a_damaged_backup_is_named_and_nothing_of_it_is_imported() {
    let (node, dir) = (filled(), tempfile::tempdir().unwrap());
    let backup = file(&dir, "b");
    node.done(&["snapshot", "export", "from/0", &backup]);
    assert!(node.refused(&["snapshot", "export", "from/0", &backup]).contains("exists already"));
    let mut bytes = std::fs::read(&backup).unwrap();
    bytes[100] ^= 4;
    let damaged = file(&dir, "damaged");
    std::fs::write(&damaged, &bytes).unwrap();
    let verified = odgm(&["snapshot", "verify", &damaged]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    assert!(String::from_utf8_lossy(&verified.stderr).contains("damaged"), "{verified:?}");
    node.refused(&["snapshot", "import", &damaged, "to"]);
    node.refused(&["get", "to/object-1"]);
    assert!(node.refused(&["snapshot", "export", "from/9", &file(&dir, "c")]).contains("NO_COLLECTION"));
    assert!(!dir.path().join("c").exists());
}

#[test]
fn a_lost_shard_of_one_replica_is_made_again_from_its_backup() {
    let (node, dir) = (filled(), tempfile::tempdir().unwrap());
    let backup = file(&dir, "b");
    node.done(&["snapshot", "export", "from/0", &backup]);
    node.done(&["collection", "delete", "from"]);
    node.done(&["collection", "create", "from", "--partitions", "2"]);
    node.done(&["snapshot", "import", &backup, "from"]);
    assert_eq!(node.done(&["get", "from/object-5"]), "value 5");
}
