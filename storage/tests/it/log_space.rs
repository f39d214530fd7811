//! Segments come and go: what is dead is freed, what is cold does not pin, and a full disk only stalls.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use odgm_storage::Error;
use odgm_storage::disk::{RealDisk, SimDisk};
use odgm_storage::log::suite::entry;
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, GroupId, LogPosition, LogSpace, SyncPolicy, wait_durable,
};

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
    let expected = held(&*log);
    assert_eq!(expected[&1].entries.len(), 16);
    drop(log);
    disk.crash();
    assert_eq!(held(&*open(&disk, SyncPolicy::Batch).unwrap()), expected);
}

#[test]
fn a_full_disk_leaves_the_reserve_then_refuses_and_goes_on_when_there_is_room() {
    let disk = SimDisk::new(2);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    settle(&log);
    assert_eq!((log.reserve_segments(), log.space()), (1, LogSpace::Ample));
    disk.set_capacity(log.disk_bytes());
    let group = log.group(GroupId(1)).unwrap();
    let durable = Arc::new(AtomicU64::new(0));
    let append = |index: u64| {
        let durable = Arc::clone(&durable);
        let callback = Box::new(move |outcome: odgm_storage::Result<()>| {
            durable.fetch_add(u64::from(outcome.is_ok()), Ordering::SeqCst);
        });
        group.append(vec![entry(1, index, &[2; 900])], callback)
    };
    let mut spaces = Vec::new();
    let mut taken = 0;
    let refused = loop {
        match append(taken) {
            Ok(()) if taken < 500 => taken += 1,
            Ok(()) => panic!("the queue of a full disk has no end: {spaces:?}"),
            Err(error) => break error,
        }
        settle(&log);
        if spaces.last() != Some(&log.space()) {
            spaces.push(log.space());
        }
    };
    assert!(matches!(refused, Error::Full { .. }), "{refused:?}");
    assert_eq!(spaces, [LogSpace::Ample, LogSpace::Reserve, LogSpace::Exhausted]);
    let on_reserve = durable.load(Ordering::SeqCst);
    assert!(on_reserve > 8 && on_reserve < taken, "two segments were used: {on_reserve} of {taken}");
    assert_eq!(group.state().last.map(|last| last.index), Some(taken - 1));
    // What is small and never proposed by a client is still taken.
    group.save_vote(b"v".as_slice().into(), Box::new(|outcome| outcome.unwrap())).unwrap();
    assert!(log.poisoned().is_none());
    disk.set_capacity(u64::MAX);
    settle(&log);
    assert_eq!((durable.load(Ordering::SeqCst), log.space()), (taken, LogSpace::Ample));
    append(taken).unwrap();
    settle(&log);
    let expected = held(&*log);
    drop(log);
    disk.crash();
    assert_eq!(held(&*open(&disk, SyncPolicy::Batch).unwrap()), expected);
}

#[test]
fn on_a_full_disk_what_is_purged_makes_room() {
    let disk = SimDisk::new(9);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    let group = log.group(GroupId(1)).unwrap();
    let mut index = 0;
    let mut append = || {
        group.append(vec![entry(1, index, &[7; 900])], Box::new(|_| ())).unwrap();
        settle(&log);
        index += 1;
        index
    };
    while append() < 40 {}
    disk.set_capacity(log.disk_bytes());
    while log.space() == LogSpace::Ample {
        append();
    }
    assert_eq!(log.space(), LogSpace::Reserve);
    let last = append();
    group.purge(LogPosition { term: 1, index: last - 2 }).unwrap();
    settle(&log);
    assert_eq!(log.space(), LogSpace::Ample, "of {} bytes", log.disk_bytes());
    // And so on for ever, on the same bytes.
    for _ in 0..200 {
        let last = append();
        group.purge(LogPosition { term: 1, index: last - 2 }).unwrap();
        settle(&log);
    }
    assert_eq!((log.space(), group.statistics().entries), (LogSpace::Ample, 1));
}

#[test]
fn freed_segments_are_used_again_and_no_new_file_is_filled() {
    let disk = SimDisk::new(4);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    let group = log.group(GroupId(1)).unwrap();
    let mut settled = None;
    for index in 0..1000 {
        group.append(vec![entry(1, index, &[7; 1000])], Box::new(|o| o.unwrap())).unwrap();
        if index >= 5 {
            group.purge(LogPosition { term: 1, index: index - 5 }).unwrap();
        }
        settle(&log);
        if index == 100 {
            // From here on no file may grow or appear.
            settled = Some(log.disk_bytes());
            disk.set_capacity(log.disk_bytes());
        }
    }
    assert_eq!(log.space(), LogSpace::Ample);
    assert!(log.disk_bytes() <= settled.unwrap());
    assert_eq!(group.state().last.map(|last| last.index), Some(999));
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
    let expected = held(&*log);
    log.close().unwrap();
    let log = AppendLog::open(Arc::new(RealDisk), dir.path(), options(SyncPolicy::Batch)).unwrap();
    assert_eq!(held(&*log), expected);
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
