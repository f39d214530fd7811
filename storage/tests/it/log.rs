//! The promises of the logs, on every backend.

use std::sync::Arc;
use std::sync::Mutex;

use odgm_storage::Error;
use odgm_storage::disk::{RealDisk, SimDisk};
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, FjallLog, FjallLogOptions, GroupId, LogOptions, LogPosition, MemoryLog,
    SyncPolicy, suite,
};

fn small(sync: SyncPolicy) -> LogOptions {
    LogOptions { sync, segment_bytes: 64 << 10, ..LogOptions::default() }
}

fn on_real_disk(options: LogOptions) {
    let dirs = Mutex::new(Vec::new());
    suite::run(&|| {
        let dir = tempfile::tempdir().unwrap();
        let log = AppendLog::open(Arc::new(RealDisk), dir.path(), options.clone()).unwrap();
        dirs.lock().unwrap().push(dir);
        log as Arc<dyn AppendOnlyLogStorage>
    });
}

#[test]
fn append_log_keeps_every_promise_with_shared_syncs() {
    on_real_disk(small(SyncPolicy::Batch));
}

#[test]
fn append_log_keeps_every_promise_with_a_sync_for_each_append() {
    on_real_disk(small(SyncPolicy::Always));
}

#[test]
fn append_log_keeps_every_promise_without_syncs() {
    on_real_disk(small(SyncPolicy::None));
}

#[test]
fn append_log_keeps_every_promise_without_a_cache() {
    on_real_disk(LogOptions { cache_bytes: 0, ..small(SyncPolicy::Batch) });
}

#[test]
fn append_log_keeps_every_promise_on_a_simulated_disk() {
    suite::run(&|| {
        let disk = Arc::new(SimDisk::new(1));
        AppendLog::open(disk, "/log".as_ref(), small(SyncPolicy::Batch)).unwrap()
    });
}

fn fjall(options: FjallLogOptions) {
    let dirs = Mutex::new(Vec::new());
    suite::run(&|| {
        let dir = tempfile::tempdir().unwrap();
        let log = FjallLog::open(Arc::new(RealDisk), dir.path(), options.clone()).unwrap();
        dirs.lock().unwrap().push(dir);
        log as Arc<dyn AppendOnlyLogStorage>
    });
}

#[test]
fn fjall_log_keeps_every_promise_with_shared_syncs() {
    fjall(FjallLogOptions::default());
}

#[test]
fn fjall_log_keeps_every_promise_with_a_sync_for_each_append() {
    fjall(FjallLogOptions { sync: SyncPolicy::Always, ..FjallLogOptions::default() });
}

#[test]
fn fjall_log_keeps_every_promise_without_syncs_and_without_a_cache() {
    fjall(FjallLogOptions { sync: SyncPolicy::None, cache_bytes: 0, ..FjallLogOptions::default() });
}

#[test]
fn memory_log_keeps_every_promise() {
    suite::run(&|| MemoryLog::new(10_000));
}

#[test]
fn a_full_memory_log_refuses_until_something_is_purged_and_drops_nothing_itself() {
    let log = MemoryLog::new(3);
    let group = log.group(GroupId(1)).unwrap();
    let append = |from: u64, to: u64| {
        let new = (from..to).map(|index| suite::entry(1, index, b"x")).collect();
        group.append(new, Box::new(|outcome| outcome.unwrap()))
    };
    append(0, 2).unwrap();
    let refused = append(2, 4);
    assert!(matches!(&refused, Err(Error::LimitReached { limit: 3, .. })), "{refused:?}");
    assert_eq!(group.read(0, 9, u64::MAX).unwrap().len(), 2, "all of an append or none");
    append(2, 3).unwrap();
    assert!(append(3, 4).is_err());
    group.purge(LogPosition { term: 1, index: 0 }).unwrap();
    append(3, 4).unwrap();
    assert_eq!(group.statistics().first_index, Some(1));
    log.group(GroupId(2)).unwrap().append(vec![suite::entry(1, 0, b"x")], Box::new(|_| ())).unwrap();
}
