//! Segments come and go: what is dead is freed, what is cold does not pin, and a full disk only stalls.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use odgm_storage::disk::{RealDisk, SimDisk};
use odgm_storage::log::suite::entry;
use odgm_storage::log::{AppendLog, AppendOnlyLogStorage, GroupId, LogPosition, SyncPolicy, wait_durable};

use crate::log_script::{DIR, held, open, options, settle};

#[test]
fn a_hot_log_that_is_purged_keeps_its_size_though_a_cold_group_never_writes() {
    let disk = SimDisk::new(1);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    let cold = log.group(GroupId(1)).unwrap();
    cold.save_vote(b"cold".as_slice().into(), Box::new(|_| ())).unwrap();
    cold.append((0..20).map(|i| entry(1, i, &[1; 50])).collect(), Box::new(|_| ())).unwrap();
    cold.purge(LogPosition { term: 1, index: 3 }).unwrap();
    let hot = log.group(GroupId(2)).unwrap();
    let mut high = 0;
    for index in 0..2000 {
        hot.append(vec![entry(1, index, &[2; 500])], Box::new(|o| o.unwrap())).unwrap();
        if index % 10 == 9 {
            hot.purge(LogPosition { term: 1, index: index - 5 }).unwrap();
        }
        settle(&log);
        high = high.max(log.disk_bytes());
    }
    assert!(high <= 12 * (16 << 10), "{high} bytes for a log of a few KiB");
    let expected = held(&log);
    assert_eq!(expected[&1].entries.len(), 16);
    drop(log);
    disk.crash();
    assert_eq!(held(&open(&disk, SyncPolicy::Batch).unwrap()), expected);
}

#[test]
fn a_full_disk_leaves_the_reserve_then_stalls_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new(2);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    settle(&log);
    assert_eq!(log.reserve_segments(), 1);
    disk.set_capacity(log.disk_bytes());
    let group = log.group(GroupId(1)).unwrap();
    let durable = Arc::new(AtomicU64::new(0));
    for index in 0..60 {
        let durable = Arc::clone(&durable);
        let callback = Box::new(move |outcome: odgm_storage::Result<()>| {
            outcome.unwrap();
            durable.fetch_add(1, Ordering::SeqCst);
        });
        group.append(vec![entry(1, index, &[2; 900])], callback).unwrap();
        settle(&log);
    }
    let on_reserve = durable.load(Ordering::SeqCst);
    assert!(on_reserve > 8 && on_reserve < 60, "one segment and its reserve were used: {on_reserve}");
    assert!(log.poisoned().is_none());
    disk.set_capacity(u64::MAX);
    settle(&log);
    assert_eq!(durable.load(Ordering::SeqCst), 60);
}

#[test]
fn threads_that_append_at_once_find_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = AppendLog::open(Arc::new(RealDisk), dir.path(), options(SyncPolicy::Batch)).unwrap();
    std::thread::scope(|scope| {
        for id in 0..8 {
            let group = log.group(GroupId(id)).unwrap();
            scope.spawn(move || {
                for index in 0..50 {
                    let new = vec![entry(1, index, &[id as u8; 300])];
                    wait_durable(|durable| group.append(new, durable)).unwrap();
                    if index == 30 {
                        group.purge(LogPosition { term: 1, index: 20 }).unwrap();
                    }
                }
            });
        }
    });
    let expected = held(&log);
    log.close().unwrap();
    let log = AppendLog::open(Arc::new(RealDisk), dir.path(), options(SyncPolicy::Batch)).unwrap();
    assert_eq!(held(&log), expected);
    assert!((0..8).all(|id| expected[&id].entries.len() == 29));
}

#[test]
fn entries_beyond_the_cache_are_read_from_the_file_and_the_newest_from_memory() {
    let disk = SimDisk::new(5);
    let log = AppendLog::open_stepped(Arc::new(disk), Path::new(DIR), options(SyncPolicy::Batch)).unwrap();
    let (a, b) = (log.group(GroupId(1)).unwrap(), log.group(GroupId(2)).unwrap());
    let all: Vec<_> = (0..100).map(|index| entry(1, index, &[index as u8; 200])).collect();
    for one in &all {
        for group in [&a, &b] {
            group.append(vec![one.clone()], Box::new(|o| o.unwrap())).unwrap();
        }
        log.step();
    }
    assert!(a.cached_from() > 50 && a.cached_from() < 100, "{}", a.cached_from());
    assert_eq!(a.read(0, 100, u64::MAX).unwrap(), all);
    assert_eq!(b.read(10, 99, 1000).unwrap(), all[10..15]);
}
