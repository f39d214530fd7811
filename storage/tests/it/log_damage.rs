//! One flipped bit anywhere in the files: it is found, it names what it hit, and it is never served.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use odgm_storage::Error;
use odgm_storage::disk::{Disk, RealDisk, SimDisk};
use odgm_storage::log::suite::entry;
use odgm_storage::log::{AppendLog, AppendOnlyLogStorage, GroupId, SyncPolicy, wait_durable};

use crate::log_script::{DIR, State, held, listed, open, options, run, script, settle};

/// A log whose last frame is a durability mark, and what it holds.
fn written() -> (SimDisk, State) {
    let disk = SimDisk::new(11);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    run(&log, &script(11, 250), |_| true);
    settle(&log);
    let state = held(&*log);
    (disk, state)
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIR)).unwrap();
    let logs = names.iter().filter(|name| name.to_string_lossy().ends_with(".log"));
    logs.map(|name| Path::new(DIR).join(name)).collect()
}

/// Opens a fork with one flipped bit. Says how it was found: refused, groups damaged, or harmless.
fn flipped(disk: &SimDisk, state: &State, path: &Path, offset: u64) -> &'static str {
    let fork = disk.fork();
    fork.flip(path, offset, 1 << (offset % 8));
    let context = format!("{} at {offset}", path.display());
    match open(&fork, SyncPolicy::Batch) {
        Err(Error::Corrupt { what, .. }) => {
            assert!(what.contains("groups: all"), "{context}: {what}");
            "refused"
        }
        Err(error) => panic!("{context}: {error}"),
        Ok(log) => {
            let damaged = log.damaged();
            for (id, error) in &damaged {
                assert!(matches!(error, Error::Corrupt { path: at, .. } if at == path), "{context}: {error}");
                assert!(matches!(log.group(*id), Err(Error::Corrupt { .. })));
            }
            let sound: State = state
                .iter()
                .filter(|(id, _)| !damaged.iter().any(|(damaged, _)| damaged.0 == **id))
                .map(|(id, model)| (*id, model.clone()))
                .collect();
            let found: State = log
                .groups()
                .into_iter()
                .filter_map(|id| log.group(id).ok().map(|group| (id, group)))
                .map(|(id, group)| {
                    let model = crate::log_script::Model {
                        purged: group.state().purged,
                        entries: group.read(0, u64::MAX, u64::MAX).unwrap(),
                        vote: group.vote(),
                    };
                    (id.0, model)
                })
                .collect();
            assert_eq!(listed(&found), listed(&sound), "{context}: acknowledged bytes are gone silently");
            if damaged.is_empty() { "harmless" } else { "damaged" }
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_or_damages_the_groups_of_its_frame_and_no_other() {
    let (disk, state) = written();
    let mut seen = std::collections::BTreeMap::new();
    for path in segments(&disk) {
        let len = disk.bytes(&path).unwrap().len() as u64;
        // Every byte of the header and the first frames, then samples.
        let dense = (0..1100).step_by(7);
        for offset in dense.chain((1100..len).step_by(131)) {
            *seen.entry(flipped(&disk, &state, &path, offset)).or_insert(0) += 1;
        }
    }
    for outcome in ["refused", "damaged", "harmless"] {
        assert!(seen.contains_key(outcome), "{seen:?}");
    }
}

#[test]
fn a_damaged_group_can_be_removed_and_written_again() {
    let (disk, state) = written();
    let path = segments(&disk).into_iter().next().unwrap();
    let offset = (512..16384).find(|offset| flipped(&disk, &state, &path, *offset) == "damaged").unwrap();
    disk.flip(&path, offset, 1 << (offset % 8));
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    let damaged = log.damaged();
    for (id, _) in &damaged {
        log.remove_group(*id, Box::new(|outcome| outcome.unwrap()));
        log.group(*id).unwrap().append(vec![entry(5, 0, b"new")], Box::new(|o| o.unwrap())).unwrap();
    }
    settle(&log);
    let expected = held(&*log);
    drop(log);
    disk.crash();
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    assert_eq!(log.damaged().len(), 0);
    assert_eq!(held(&*log), expected);
    assert!(!damaged.is_empty());
}

#[test]
fn a_read_verifies_what_comes_from_the_file() {
    let disk = SimDisk::new(3);
    let mut no_cache = options(SyncPolicy::Batch);
    no_cache.cache_bytes = 0;
    let log = AppendLog::open_stepped(Arc::new(disk.clone()), Path::new(DIR), no_cache).unwrap();
    let group = log.group(GroupId(4)).unwrap();
    group.append(vec![entry(1, 0, &[9; 400])], Box::new(|_| ())).unwrap();
    settle(&log);
    assert_eq!(group.cached_from(), 1);
    let path = &segments(&disk)[0];
    let at = disk.bytes(path).unwrap().windows(400).position(|w| w == [9; 400]).unwrap();
    disk.flip(path, at as u64 + 17, 4);
    let read = group.read(0, 1, u64::MAX);
    assert!(matches!(&read, Err(Error::Corrupt { what, .. }) if what == "entry 0 of group 4"), "{read:?}");
}

#[test]
fn a_missing_segment_is_found() {
    let (disk, _) = written();
    let all = segments(&disk);
    let used = all.len() - 1;
    assert!(used >= 3, "{used}");
    for missing in &all[..used - 1] {
        let fork = disk.fork();
        fork.remove(missing).unwrap();
        let opened = open(&fork, SyncPolicy::Batch);
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{}: {opened:?}", missing.display());
    }
}

#[test]
fn a_second_process_is_refused_and_a_closed_log_opens_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk);
    let log = AppendLog::open(disk.clone(), dir.path(), options(SyncPolicy::Batch)).unwrap();
    assert!(matches!(
        AppendLog::open(disk.clone(), dir.path(), options(SyncPolicy::Batch)),
        Err(Error::Locked { .. })
    ));
    assert_eq!(log.was_closed_cleanly(), None);
    let group = log.group(GroupId(1)).unwrap();
    wait_durable(|durable| group.append(vec![entry(1, 0, b"x")], durable)).unwrap();
    log.close().unwrap();
    let log = AppendLog::open(disk.clone(), dir.path(), options(SyncPolicy::Batch)).unwrap();
    assert_eq!(log.was_closed_cleanly(), Some(true));
    let group = log.group(GroupId(1)).unwrap();
    wait_durable(|durable| group.append(vec![entry(1, 1, b"y")], durable)).unwrap();
    drop(log);
    let log = AppendLog::open(disk, dir.path(), options(SyncPolicy::Batch)).unwrap();
    assert_eq!(log.was_closed_cleanly(), Some(false));
    let all = log.group(GroupId(1)).unwrap().read(0, 9, u64::MAX).unwrap();
    assert_eq!(all, [entry(1, 0, b"x"), entry(1, 1, b"y")]);
}
