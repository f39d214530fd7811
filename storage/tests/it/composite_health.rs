//! What goes wrong below shows in the health of its layer, at once, and what is done in its metrics.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use odgm_storage::composite::{CompositeStorage, LogBackend, Status};
use odgm_storage::disk::{Fault, SimDisk};
use odgm_storage::log::suite::entry;
use odgm_storage::snapshot::suite::meta;

use crate::composite::{DIR, GROUP, append, open, open_at, own, put, snapshot, value};

/// With a log in memory, so that nothing but the test uses the disk.
fn open_without_log_files(disk: &SimDisk) -> Arc<CompositeStorage> {
    let mut options = own();
    options.log.backend = LogBackend::MemoryLog;
    open_at(Arc::new(disk.clone()), Path::new(DIR), options).unwrap()
}

#[test]
fn a_failed_log_is_unhealthy_at_once_and_stays_so() {
    let disk = SimDisk::new(1);
    let storage = open(&disk).unwrap();
    let shard = storage.shard(GROUP, 1).unwrap();
    append(&shard, 0..2).unwrap();
    let before = storage.check(Duration::from_secs(1));
    assert_eq!((before.overall(), before.checked), (&Status::Healthy, Some(Duration::from_secs(1))));
    disk.fail_at(disk.calls() + 1, Fault::Io);
    // The call that it hits may be a mark of the idle log, before the append.
    append(&shard, 2..3).unwrap_err();
    let after = storage.health();
    assert!(matches!(&after.log, Status::Unhealthy { error } if error.contains("poisoned")), "{after:?}");
    assert_eq!(
        (after.overall(), &after.snapshot, &after.data),
        (&after.log, &Status::Healthy, &Status::Healthy)
    );
    assert!(after.version > before.version);
    assert_eq!(storage.check(Duration::from_secs(2)).version, after.version, "nothing new");
    assert!(storage.metrics().log.errors >= 1);
}

#[test]
fn a_disk_without_room_is_degraded_until_there_is_some() {
    let disk = SimDisk::new(1);
    let storage = open_without_log_files(&disk);
    let shard = storage.shard(GROUP, 1).unwrap();
    disk.set_capacity(0);
    let checked = storage.check(Duration::ZERO);
    for status in [&checked.log, &checked.snapshot, &checked.data] {
        assert!(matches!(status, Status::Degraded { reason } if reason.contains("65536 bytes")), "{status}");
    }
    assert_eq!(storage.check(Duration::ZERO).version, checked.version, "the same is no news");
    disk.set_capacity(u64::MAX);
    assert_eq!(storage.check(Duration::ZERO).overall(), &Status::Healthy);
    disk.fail_at(disk.calls() + 1, Fault::Full);
    snapshot(&shard, 1).unwrap_err();
    assert!(matches!(storage.health().snapshot, Status::Degraded { .. }), "at once");
    assert_eq!(storage.check(Duration::ZERO).overall(), &Status::Healthy);
}

#[test]
fn a_failed_snapshot_degrades_its_layer_until_one_succeeds() {
    let disk = SimDisk::new(1);
    let storage = open_without_log_files(&disk);
    let shard = storage.shard(GROUP, 1).unwrap();
    append(&shard, 0..2).unwrap();
    disk.fail_at(disk.calls() + 2, Fault::Io);
    snapshot(&shard, 1).unwrap_err();
    let health = storage.health();
    assert!(
        matches!(&health.snapshot, Status::Degraded { reason } if reason.contains("group 7")),
        "{health:?}"
    );
    assert_eq!(health.log, Status::Healthy);
    assert_eq!(shard.log().state().purged, None, "nothing is purged that is not stored");
    snapshot(&shard, 1).unwrap();
    assert_eq!(storage.health().overall(), &Status::Healthy);
}

#[test]
fn a_damaged_snapshot_degrades_its_layer_until_it_is_removed() {
    let disk = SimDisk::new(1);
    {
        let storage = open(&disk).unwrap();
        let shard = storage.shard(GROUP, 1).unwrap();
        append(&shard, 0..2).unwrap();
        snapshot(&shard, 1).unwrap();
        storage.close().unwrap();
    }
    let path = Path::new(DIR).join(format!("shards/7-1/snapshots/{}.snapshot", meta(1).id));
    disk.flip(&path, 3, 1);
    let storage = open(&disk).unwrap();
    let shard = storage.shard(GROUP, 1).unwrap();
    let named = |status: &Status| matches!(status, Status::Degraded { reason } if reason.contains(path.to_str().unwrap()));
    assert!(named(&storage.health().snapshot), "{:?}", storage.health());
    assert!(named(&storage.check(Duration::ZERO).snapshot));
    shard.snapshots().delete(meta(1).id).unwrap();
    assert_eq!(storage.check(Duration::ZERO).overall(), &Status::Healthy);
}

#[test]
fn each_layer_counts_what_it_did() {
    let storage = open(&SimDisk::new(1)).unwrap();
    let shard = storage.shard(GROUP, 1).unwrap();
    append(&shard, 0..3).unwrap();
    shard.log().append(vec![entry(3, 9, b"gap")], Box::new(drop)).unwrap_err();
    shard.log().read(0, 3, u64::MAX).unwrap();
    put(&shard, "value");
    assert_eq!(value(&shard).as_deref(), Some("value"));
    let metrics = storage.metrics();
    assert_eq!((metrics.log.operations, metrics.log.errors), (3, 1));
    assert_eq!((metrics.log.bytes_written, metrics.log.bytes_read), (21, 21));
    assert_eq!((metrics.data.operations, metrics.data.errors), (2, 0));
    assert_eq!((metrics.data.bytes_written, metrics.data.bytes_read), (8, 5));
    assert!(metrics.log.latency > Duration::ZERO && metrics.data.latency > Duration::ZERO);
    snapshot(&shard, 2).unwrap();
    let after = storage.metrics();
    assert_eq!((after.snapshots_created, after.log_compactions, after.snapshots_restored), (1, 1, 0));
    assert!(after.snapshot.operations >= 2 && after.snapshot.bytes_written > 8);
    assert_eq!(storage.health().overall(), &Status::Healthy, "a caller's mistake says nothing of a layer");
}
