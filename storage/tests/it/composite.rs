//! The three layers of a node opened together: what is on disk decides, snapshots are coordinated, faults show.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use odgm_storage::Error;
use odgm_storage::composite::{
    CompositeOptions, CompositeStorage, DataBackend, LogBackend, ShardStorage, SnapshotBackend,
};
use odgm_storage::data::{Durability, Keyspace, WriteBatch};
use odgm_storage::disk::{Disk, Fault, RealDisk, SimDisk};
use odgm_storage::log::suite::entry;
use odgm_storage::log::{AppendOnlyLogStorage, GroupId, LogPosition, wait_durable};
use odgm_storage::snapshot::suite::meta;
use odgm_storage::snapshot::{RaftSnapshotStorage, RetainPolicy, SnapshotMeta};

pub(crate) const DIR: &str = "/data";
pub(crate) const GROUP: GroupId = GroupId(7);

/// The layers whose files we write ourselves, small.
pub(crate) fn own() -> CompositeOptions {
    let mut options = CompositeOptions::default();
    options.log.options.segment_bytes = 64 << 10;
    options.log.options.reserve_segments = 1;
    options.data.backend = DataBackend::Memory;
    options.snapshot.retain = RetainPolicy::Latest { count: 2 };
    options
}

/// As the node has them.
fn default_backends() -> CompositeOptions {
    let mut options = own();
    options.data.backend = DataBackend::Fjall;
    options.data.options.write_buffer_bytes = 8 << 20;
    options.data.options.cache_bytes = 1 << 20;
    options
}

pub(crate) fn open_at(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: CompositeOptions,
) -> odgm_storage::Result<Arc<CompositeStorage>> {
    let ticks = AtomicU64::new(0);
    let clock = Arc::new(move || Duration::from_millis(ticks.fetch_add(1, Ordering::Relaxed)));
    CompositeStorage::open(disk, dir, options, clock)
}

pub(crate) fn open(disk: &SimDisk) -> odgm_storage::Result<Arc<CompositeStorage>> {
    open_at(Arc::new(disk.clone()), Path::new(DIR), own())
}

pub(crate) fn append(shard: &ShardStorage, indexes: std::ops::Range<u64>) -> odgm_storage::Result<()> {
    let entries = indexes.map(|index| entry(3, index, b"payload")).collect();
    wait_durable(|durable| shard.log().append(entries, durable))
}

pub(crate) fn put(shard: &ShardStorage, value: &str) {
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, "key", value.to_owned());
    shard.data().write(batch, Durability::Later).unwrap();
}

pub(crate) fn value(shard: &ShardStorage) -> Option<String> {
    let value = shard.data().view().get(Keyspace::Data, b"key").unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

pub(crate) fn snapshot(shard: &ShardStorage, index: u64) -> odgm_storage::Result<()> {
    shard.snapshot(&*shard.data().view(), meta(index), index * 1000).map(drop)
}

#[test]
fn a_snapshot_purges_the_log_and_its_restore_brings_the_data_back() {
    for options in [own(), default_backends()] {
        let dir = tempfile::tempdir().unwrap();
        let storage = open_at(Arc::new(RealDisk), dir.path(), options).unwrap();
        let shard = storage.shard(GROUP, 1).unwrap();
        append(&shard, 0..10).unwrap();
        put(&shard, "at six");
        let view = shard.data().view();
        put(&shard, "later");
        let info = shard.snapshot(&*view, meta(6), 5).unwrap();
        assert_eq!(shard.log().state().purged, Some(LogPosition { term: 3, index: 6 }));
        assert_eq!(shard.log().read(0, 99, u64::MAX).unwrap().len(), 3, "what came later stays");
        assert_eq!(value(&shard).as_deref(), Some("later"));
        assert_eq!(shard.restore(info.meta.id).unwrap(), info);
        assert_eq!(value(&shard).as_deref(), Some("at six"));

        put(&shard, "at nine");
        snapshot(&shard, 9).unwrap();
        let refused = shard.restore(info.meta.id);
        let named = "entries 7 to 9 of group 7";
        assert!(matches!(&refused, Err(Error::NotFound { what }) if what == named), "{refused:?}");
        assert_eq!(value(&shard).as_deref(), Some("at nine"), "a refusal changes nothing");
        assert!(matches!(shard.restore(meta(99).id), Err(Error::NotFound { .. })));
        let metrics = storage.metrics();
        assert_eq!((metrics.snapshots_created, metrics.snapshots_restored), (2, 1));
        assert_eq!(metrics.log_compactions, 2);
    }
}

#[test]
fn a_snapshot_without_a_position_purges_nothing_and_old_ones_are_let_go() {
    let storage = open(&SimDisk::new(1)).unwrap();
    let shard = storage.shard(GROUP, 1).unwrap();
    append(&shard, 0..3).unwrap();
    shard.snapshot(&*shard.data().view(), SnapshotMeta { position: None, ..meta(1) }, 1).unwrap();
    assert_eq!(shard.log().state().purged, None);
    for index in [0, 1, 2] {
        shard
            .snapshot(&*shard.data().view(), SnapshotMeta { id: meta(50 + index).id, ..meta(index) }, 1)
            .unwrap();
    }
    let kept: Vec<_> = shard.snapshots().list().unwrap().iter().map(|info| info.meta.position).collect();
    assert_eq!(kept, [1, 2].map(|index| Some(LogPosition { term: 3, index })));
}

#[test]
fn a_restart_finds_everything_and_a_replica_is_opened_once() {
    let disk = SimDisk::new(1);
    let storage = open(&disk).unwrap();
    assert!(matches!(open(&disk), Err(Error::Locked { .. })));
    let shard = storage.shard(GROUP, 1).unwrap();
    assert!(Arc::ptr_eq(shard.data(), storage.shard(GROUP, 1).unwrap().data()));
    append(&shard, 0..5).unwrap();
    put(&shard, "value");
    snapshot(&shard, 4).unwrap();
    storage.close().unwrap();
    assert!(matches!(shard.data().sync(), Err(Error::Closed)));
    drop((shard, storage));
    let storage = open(&disk).unwrap();
    let shard = storage.shard(GROUP, 1).unwrap();
    assert_eq!(value(&shard), None, "memory forgets");
    shard.restore(meta(4).id).unwrap();
    assert_eq!(value(&shard).as_deref(), Some("value"));
    assert_eq!(shard.log().state().last, Some(LogPosition { term: 3, index: 4 }));
}

#[test]
fn a_removed_replica_is_gone_from_log_and_disk_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_at(Arc::new(RealDisk), dir.path(), default_backends()).unwrap();
    let (shard, other) = (storage.shard(GROUP, 1).unwrap(), storage.shard(GroupId(8), 1).unwrap());
    for shard in [&shard, &other] {
        append(shard, 0..2).unwrap();
        put(shard, "value");
        snapshot(shard, 1).unwrap();
    }
    assert!(matches!(storage.remove_shard(GROUP, 1), Err(Error::Locked { .. })));
    drop(shard);
    storage.remove_shard(GROUP, 1).unwrap();
    storage.remove_shard(GROUP, 1).unwrap();
    assert!(!dir.path().join("shards/7-1").exists());
    assert_eq!(storage.log().groups(), [GroupId(8)]);
    assert_eq!(value(&storage.shard(GROUP, 1).unwrap()), None);
    assert_eq!(value(&other).as_deref(), Some("value"));
}

#[test]
fn a_loss_of_power_during_a_snapshot_never_leaves_a_log_that_begins_behind_it() {
    let mut struck = 0;
    for at in 1.. {
        let disk = SimDisk::new(at);
        let storage = open(&disk).unwrap();
        let shard = storage.shard(GROUP, 1).unwrap();
        append(&shard, 0..20).unwrap();
        put(&shard, "at six");
        snapshot(&shard, 6).unwrap();
        put(&shard, "at fifteen");
        disk.fail_at(disk.calls() + at, Fault::PowerLoss);
        let done = snapshot(&shard, 15);
        let _ = storage.close();
        drop((shard, storage));
        disk.crash();
        let storage = open(&disk).unwrap();
        let shard = storage.shard(GROUP, 1).unwrap();
        let latest = shard.snapshots().latest().unwrap().unwrap();
        shard.snapshots().verify(latest.meta.id).unwrap();
        let position = latest.meta.position.map(|position| position.index);
        assert!(done.is_err() || position == Some(15), "call {at}: {position:?}");
        let purged = shard.log().state().purged.map(|purged| purged.index);
        assert!(
            purged <= position,
            "call {at}: the log begins behind {purged:?}, the snapshot is {position:?}"
        );
        shard.restore(latest.meta.id).unwrap();
        let expected = if position == Some(15) { "at fifteen" } else { "at six" };
        assert_eq!(value(&shard).as_deref(), Some(expected), "call {at}");
        let rest = shard.log().read(position.unwrap() + 1, 99, u64::MAX).unwrap();
        assert_eq!(rest.len() as u64, 19 - position.unwrap(), "call {at}");
        struck += u64::from(done.is_err());
        if done.is_ok() && at > 20 {
            break;
        }
    }
    assert!(struck > 5, "{struck}");
}

mod watched_layers_keep {
    use super::*;

    #[test]
    fn every_promise_of_a_log() {
        odgm_storage::log::suite::run(&|| {
            let storage = open(&SimDisk::new(1)).unwrap();
            let log: Arc<dyn AppendOnlyLogStorage> = storage.log().clone();
            // Its directory is locked for as long as the storage lives.
            std::mem::forget(storage);
            log
        });
    }

    fn snapshots() -> Arc<dyn RaftSnapshotStorage> {
        open(&SimDisk::new(1)).unwrap().shard(GROUP, 1).unwrap().snapshots().clone()
    }

    fn data(dir: &Path) -> Arc<dyn odgm_storage::data::SnapshotCapableStorage> {
        let storage = open_at(Arc::new(RealDisk), dir, own()).unwrap();
        storage.shard(GROUP, 1).unwrap().data().clone()
    }

    macro_rules! promises {
        ($suite:ident, $make:ident: $($promise:ident),* $(,)?) => {
            $(#[test] fn $promise() { odgm_storage::$suite::suite::$promise(&$make); })*
        };
    }

    promises!(snapshot, snapshots:
        a_snapshot_is_what_was_written,
        a_snapshot_is_listed_from_its_finish_on,
        an_unfinished_snapshot_leaves_nothing,
        an_id_is_used_once,
        a_deleted_snapshot_is_gone,
        a_snapshot_can_be_sent,
        a_broken_transfer_is_taken_up,
        a_damaged_transfer_is_refused,
        a_snapshot_is_read_from_any_offset,
        a_snapshot_says_its_entries_and_its_codec,
        the_latest_is_the_last_of_the_list,
        what_is_retained_follows_the_policy,
        a_snapshot_in_use_is_retained,
        a_snapshot_is_installed_from_a_stream,
    );

    promises!(data, data:
        the_last_operation_on_a_key_in_a_batch_wins,
        keyspaces_do_not_mix,
        a_view_stands_still,
        readers_see_whole_batches,
        scans_keep_to_their_bounds,
        a_key_out_of_bounds_refuses_the_whole_batch,
        an_import_replaces_everything,
        an_unfinished_import_changes_nothing,
        a_damaged_stream_is_refused,
        a_checkpoint_is_the_state_of_its_moment,
        a_checkpoint_can_be_installed_elsewhere,
        size_follows_the_data,
        a_closed_store_refuses,
    );
}

#[test]
fn a_node_on_memory_leaves_nothing_but_the_list_of_its_layers() {
    let disk = SimDisk::new(1);
    let mut options = own();
    options.log.backend = LogBackend::MemoryLog;
    options.snapshot.backend = SnapshotBackend::MemorySnapshot;
    let storage = open_at(Arc::new(disk.clone()), Path::new(DIR), options).unwrap();
    let shard = storage.shard(GROUP, 1).unwrap();
    append(&shard, 0..3).unwrap();
    put(&shard, "value");
    snapshot(&shard, 2).unwrap();
    shard.restore(meta(2).id).unwrap();
    assert_eq!(disk.list(Path::new(DIR)).unwrap(), ["shards", "storage"]);
    assert!(disk.list(&Path::new(DIR).join("shards/7-1")).unwrap().is_empty());
}

#[test]
fn more_replicas_than_the_write_buffers_are_for_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open_at(Arc::new(RealDisk), dir.path(), default_backends()).unwrap();
    let mut open: Vec<_> = (1..=8).map(|replica| storage.shard(GroupId(replica), replica).unwrap()).collect();
    let refused = storage.shard(GroupId(9), 9);
    let Err(Error::Options { option: "write_buffer_bytes", reason }) = &refused else {
        panic!("{refused:?}")
    };
    assert!(reason.contains("9 replicas"), "{reason}");
    open.pop();
    drop(storage.shard(GroupId(9), 9).unwrap());
}
