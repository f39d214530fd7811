//! The promises of the logs, on every backend.

use std::sync::Arc;
use std::sync::Mutex;

use odgm_storage::disk::{RealDisk, SimDisk};
use odgm_storage::log::{AppendLog, AppendOnlyLogStorage, LogOptions, MemoryLog, SyncPolicy, suite};

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

#[test]
fn memory_log_keeps_every_promise() {
    suite::run(&|| MemoryLog::new(1000));
}
