//! A full disk: writes are refused, nothing is half there, and all is well when there is space again.

use std::path::{Path, PathBuf};
use std::process::Command;

use odgm_storage::Error;
use odgm_storage::data::suite::rows;
use odgm_storage::data::{ApplicationDataStorage, Durability, Keyspace, SnapshotCapableStorage, WriteBatch};

use crate::data::engine;

/// A file system of 24 MiB of its own, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(at)
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn batch(n: u32) -> WriteBatch {
    let mut batch = WriteBatch::default();
    let mut noise = u64::from(n) + 1;
    for keyspace in Keyspace::ALL {
        let value: Vec<u8> = (0..3000)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        batch.put(keyspace, n.to_be_bytes().to_vec(), value);
    }
    batch
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = match SmallDisk::mount(&dir.path().join("disk")) {
        Ok(disk) => disk,
        Err(reason) => {
            println!("skipped, no small file system can be mounted: {reason}");
            return;
        }
    };
    let (path, ballast) = (disk.0.join("store"), disk.0.join("ballast"));
    let mut acknowledged = 0;
    for round in 0..3 {
        std::fs::write(&ballast, vec![1; 5 << 20]).unwrap();
        let store = engine().open(&path).unwrap();
        let refused = loop {
            match store.write(batch(acknowledged), Durability::Now) {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
            assert!(acknowledged < 20_000, "the disk is never full");
        };
        assert!(matches!(refused, Error::Full { .. } | Error::Poisoned { .. }), "{refused:?}");
        let again = store.write(batch(acknowledged), Durability::Now);
        assert!(matches!(again, Err(Error::Poisoned { .. })), "{again:?}");
        let target = disk.0.join("checkpoint");
        assert!(store.checkpoint(&target).is_err());
        assert!(!target.exists() && !disk.0.join("checkpoint.partial").exists());
        check(&*store, acknowledged, acknowledged);
        drop(store);
        // On the disk that is still full it may open or not; it must not lose anything by that.
        if let Ok(store) = engine().open(&path) {
            check(&*store, acknowledged, acknowledged + 1);
        }
        std::fs::remove_file(&ballast).unwrap();
        let store = engine().open(&path).unwrap();
        acknowledged = check(&*store, acknowledged, acknowledged + 1);
        println!("round {round}: {acknowledged} batches, {refused}");
        store.write(batch(acknowledged), Durability::Now).unwrap();
        acknowledged += 1;
        // Room for the next round.
        let mut rest = WriteBatch::default();
        for n in 0..acknowledged {
            for keyspace in Keyspace::ALL {
                rest.delete(keyspace, n.to_be_bytes().to_vec());
            }
        }
        store.write(rest, Durability::Now).unwrap();
        store.compact().unwrap();
        acknowledged = check(&*store, 0, 0);
    }
}

/// The batches that are there: the first ones, all whole.
fn check(store: &dyn ApplicationDataStorage, least: u32, most: u32) -> u32 {
    let view = store.view();
    let found = Keyspace::ALL.map(|keyspace| rows(&*view, keyspace));
    let count = found[0].len() as u32;
    assert!((least..=most).contains(&count), "{count} batches, {least} to {most} expected");
    for n in 0..count {
        let expected = batch(n);
        for (keyspace, (_, key, value)) in expected.operations.iter().enumerate() {
            assert_eq!(found[keyspace][n as usize].0, key);
            assert!(Some(&found[keyspace][n as usize].1) == value.as_ref());
        }
    }
    assert!(found.iter().all(|rows| rows.len() as u32 == count), "half a batch");
    count
}
