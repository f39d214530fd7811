//! Checkpoints of a Fjall store: under load, on another file system, as a clone, without a manifest.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use odgm_storage::Error;
use odgm_storage::data::{
    ApplicationDataStorage, CheckpointRequest, Durability, Keyspace, SnapshotCapableStorage, WriteBatch,
};

use crate::data::engine;
use crate::data_fjall::{get, names, put, value, wait_until};

#[test]
fn checkpoints_under_load_are_exact_and_survive_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine();
    let store = engine.open(&dir.path().join("store")).unwrap();
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut taken = Vec::new();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut n = 0_u64;
            while !done.load(Ordering::Acquire) {
                n += 1;
                let mut batch = WriteBatch::default();
                for keyspace in Keyspace::ALL {
                    batch.put(keyspace, "n", n.to_be_bytes().to_vec());
                    let key = n.wrapping_mul(0x9e37_79b9) % 2000;
                    batch.put(keyspace, key.to_be_bytes().to_vec(), vec![n as u8; 600]);
                }
                store.write(batch, Durability::Later).unwrap();
                written.store(n, Ordering::Release);
            }
        });
        for round in 0..5 {
            let start = written.load(Ordering::Acquire);
            wait_until("the writer goes on", || written.load(Ordering::Acquire) > start + 50);
            let target = dir.path().join(format!("checkpoint-{round}"));
            let low = written.load(Ordering::Acquire);
            store.checkpoint(&target).unwrap();
            taken.push((target, low, written.load(Ordering::Acquire) + 1));
        }
        done.store(true, Ordering::Release);
    });
    drop(store);
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    let other = engine.open(&dir.path().join("other")).unwrap();
    for (target, low, high) in taken {
        let view = other.open_checkpoint(&target).unwrap();
        let n = Keyspace::ALL.map(|keyspace| {
            u64::from_be_bytes(view.get(keyspace, b"n").unwrap().unwrap()[..].try_into().unwrap())
        });
        assert!(n.iter().all(|&each| each == n[0]), "torn: {n:?}");
        assert!((low..=high).contains(&n[0]), "{} is not in {low}..={high}", n[0]);
        // Every row is the one that batch number n would have left.
        let rows = odgm_storage::data::suite::rows(&*view, Keyspace::History);
        let mut expected = std::collections::BTreeMap::new();
        for i in 1..=n[0] {
            expected.insert((i.wrapping_mul(0x9e37_79b9) % 2000).to_be_bytes().to_vec(), i as u8);
        }
        assert_eq!(rows.len(), expected.len() + 1);
        for (key, value) in rows.iter().filter(|(key, _)| key != "n") {
            assert_eq!(value[0], expected[&key[..]]);
        }
    }
}

#[test]
fn a_checkpoint_on_another_file_system_is_a_copy() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: there is no /dev/shm");
        return;
    };
    let device = |path: &Path| std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(path).unwrap());
    assert_ne!(device(dir.path()), device(other.path()));
    let store = engine().open(&dir.path().join("store")).unwrap();
    put(&store, "k", "then");
    let target = other.path().join("checkpoint");
    store.checkpoint(&target).unwrap();
    put(&store, "k", "later");
    store.verify_checkpoint(&target).unwrap();
    assert_eq!(value(&*store.open_checkpoint(&target).unwrap(), "k").as_deref(), Some("then"));
    assert!(!names(&dir.path().join("store")).contains(&"checkpoint.linked".to_owned()));
    store.restore(&target).unwrap();
    assert_eq!(get(&store, "k").as_deref(), Some("then"));
    drop(store);
    drop(other);
    assert_eq!(get(&engine().open(&dir.path().join("store")).unwrap(), "k").as_deref(), Some("then"));
}

#[test]
fn a_clone_is_a_replica_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine();
    let store = engine.open(&dir.path().join("store")).unwrap();
    put(&store, "k", "shared");
    let path = dir.path().join("clone");
    let clone = engine.clone_replica(&store, &path, &CheckpointRequest::default()).unwrap();
    put(&store, "k", "original");
    put(&clone, "k", "clone");
    for store in [&store, &clone] {
        store.flush().unwrap();
        store.compact().unwrap();
    }
    let refused = engine.clone_replica(&store, &path, &CheckpointRequest::default());
    assert!(matches!(refused, Err(Error::Options { option: "dir", .. })), "{refused:?}");
    store.close().unwrap();
    drop((store, clone));
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    assert_eq!(names(dir.path()), ["clone"]);
    assert_eq!(get(&engine.open(&path).unwrap(), "k").as_deref(), Some("clone"));
}

#[test]
fn a_checkpoint_without_its_manifest_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let store = engine().open(&dir.path().join("store")).unwrap();
    put(&store, "k", "v");
    let target = dir.path().join("checkpoint");
    // A crash left half of an earlier one.
    std::fs::create_dir_all(dir.path().join("checkpoint.partial").join("keyspaces")).unwrap();
    store.checkpoint(&target).unwrap();
    assert!(!dir.path().join("checkpoint.partial").exists());
    std::fs::remove_file(target.join("MANIFEST.odgm")).unwrap();
    assert!(matches!(store.open_checkpoint(&target), Err(Error::NotFound { .. })));
    std::fs::write(target.join("MANIFEST.odgm"), "odgm-checkpoint 9\n").unwrap();
    assert!(matches!(store.open_checkpoint(&target), Err(Error::Format { .. })));
}
