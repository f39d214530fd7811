//! One flipped bit anywhere in the files: it is found, it names what it hit, and it is never served.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use odgm_storage::Error;
use odgm_storage::disk::{Disk, OpenMode, RealDisk, SimDisk};
use odgm_storage::log::suite::entry;
use odgm_storage::log::{AppendLog, AppendOnlyLogStorage, GroupId, SyncPolicy, wait_durable};

use crate::log_script::{DIR, Model, State, held, listed, open, options, run, script, settle};

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

/// What a byte of a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    SegmentHeader,
    FrameHeader,
    Slots,
    Entry,
    Vote,
    Position,
    Removal,
    Padding,
    Mark,
    /// The durability mark behind which nothing was written.
    LastMark,
    Unused,
}

/// A stretch of a segment: its class, where it begins and ends, and the groups of its frame.
type Stretch = (Class, std::ops::Range<u64>, Vec<u64>);

/// Walks a segment as docs/formats/log.md draws it.
fn stretches(bytes: &[u8], last: bool) -> Vec<Stretch> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let nonce = u64_at(24);
    let mut found = vec![(Class::SegmentHeader, 0..512, vec![])];
    let mut at = 512;
    while at + 512 <= bytes.len() && bytes[at..at + 8] == *b"odgmfrm2" && u64_at(at + 16) == nonce {
        let (body, count) = (u32_at(at + 80), u32_at(at + 88));
        let mut groups: Vec<u64> = (0..count).map(|n| u64_at(at + 96 + 16 * n)).collect();
        groups.dedup();
        let start = at + 96 + 16 * count;
        let end = (start + body).next_multiple_of(512);
        let mut push = |class, from: usize, to: usize| {
            found.push((class, from as u64..to as u64, groups.clone()));
        };
        push(if body == 0 { Class::Mark } else { Class::FrameHeader }, at, at + 96);
        push(Class::Slots, at + 96, start);
        let mut record = start;
        while record < start + body {
            let class = match bytes[record + 11] & 15 {
                1 | 2 => Class::Entry,
                3 => Class::Vote,
                7 => Class::Removal,
                _ => Class::Position,
            };
            let next = record + 20 + u32_at(record);
            push(class, record, next);
            record = next;
        }
        push(Class::Padding, start + body, end);
        at = end;
    }
    if last && let Some(mark) = found.iter().rposition(|(class, ..)| *class == Class::Mark) {
        found[mark].0 = Class::LastMark;
    }
    found.push((Class::Unused, at as u64..bytes.len() as u64, vec![]));
    found
}

/// How a flipped bit was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Refused,
    Damaged,
    Blemish,
    Harmless,
}

/// Opens a fork with one flipped bit, and holds what it serves against what was written.
fn flipped(disk: &SimDisk, state: &State, path: &Path, offset: u64) -> Found {
    let fork = disk.fork();
    fork.flip(path, offset, 1 << (offset % 8));
    let context = format!("{} at {offset}", path.display());
    let near = |found: u64| found <= offset && offset < found + 16384;
    let log = match open(&fork, SyncPolicy::Batch) {
        Err(Error::Corrupt { what, path: at, offset: found }) => {
            assert!(what.contains("groups: all"), "{context}: {what}");
            assert!(at == path && near(found), "{context} is named as {} at {found}", at.display());
            return Found::Refused;
        }
        Err(error) => panic!("{context}: {error}"),
        Ok(log) => log,
    };
    let damaged = log.damaged();
    for (id, error) in &damaged {
        let Error::Corrupt { path: at, offset: found, .. } = error else { panic!("{context}: {error}") };
        assert!(at == path && near(*found), "{context}: {error}");
        assert!(matches!(log.group(*id), Err(Error::Corrupt { .. })));
    }
    for error in log.blemishes() {
        assert!(
            matches!(error, Error::Corrupt { path: at, offset: found, .. } if at == path && *found == offset)
        );
    }
    let sound = |id: &u64| !damaged.iter().any(|(damaged, _)| damaged.0 == *id);
    let expected: State = listed(state).into_iter().filter(|(id, _)| sound(id)).collect();
    let mut found = State::new();
    for id in log.groups() {
        if let Ok(group) = log.group(id) {
            let entries = group.read(0, u64::MAX, u64::MAX).unwrap();
            found.insert(id.0, Model { purged: group.state().purged, entries, vote: group.vote() });
        }
    }
    assert_eq!(found, expected, "{context}: acknowledged bytes are gone silently");
    match (damaged.is_empty(), log.blemishes().is_empty()) {
        (false, _) => Found::Damaged,
        (true, false) => Found::Blemish,
        (true, true) => Found::Harmless,
    }
}

#[test]
fn a_flipped_bit_in_any_class_of_bytes_is_found_and_named_and_never_served() {
    let (disk, state) = written();
    let every = if std::env::var_os("ODGM_TEST_FULL").is_some() { 1 } else { 61 };
    let mut seen: BTreeMap<(Class, Found), usize> = BTreeMap::new();
    let all = segments(&disk);
    let in_use = |path: &PathBuf| disk.bytes(path).is_some_and(|bytes| stretches(&bytes, false).len() > 2);
    let last = all.iter().rposition(in_use).unwrap();
    for (n, path) in all.iter().enumerate() {
        for (class, range, groups) in stretches(&disk.bytes(path).unwrap(), n == last) {
            let len = range.end - range.start;
            // At least two of each stretch, more of the long ones.
            let offsets = range.step_by(every.min(len.div_ceil(2)).max(1) as usize);
            for offset in offsets {
                let found = flipped(&disk, &state, path, offset);
                let expected: &[Found] = match class {
                    Class::SegmentHeader | Class::FrameHeader | Class::Slots | Class::Mark => {
                        &[Found::Refused]
                    }
                    // The script removes group 3: what was damaged of it before is forgotten with it.
                    Class::Entry | Class::Vote | Class::Position | Class::Removal if groups == [3] => {
                        &[Found::Damaged, Found::Harmless]
                    }
                    Class::Entry | Class::Vote | Class::Position | Class::Removal => &[Found::Damaged],
                    Class::Padding => &[Found::Blemish],
                    Class::LastMark | Class::Unused => &[Found::Harmless],
                };
                assert!(expected.contains(&found), "{class:?} at {offset} of {}: {found:?}", path.display());
                *seen.entry((class, found)).or_default() += 1;
            }
        }
    }
    println!("{seen:#?}");
    for class in [Class::Slots, Class::Entry, Class::Vote, Class::Position, Class::Padding, Class::LastMark] {
        assert!(seen.keys().any(|(seen, _)| *seen == class), "no byte of {class:?} was flipped");
    }
}

#[test]
fn damage_that_only_a_torn_frame_behind_the_end_proves_is_told_at_every_open() {
    let disk = SimDisk::new(5);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    let group = log.group(GroupId(1)).unwrap();
    // More than a segment and less than two.
    for index in 0..15 {
        group.append(vec![entry(1, index, &[7; 400])], Box::new(|outcome| outcome.unwrap())).unwrap();
        // One frame, and no mark.
        log.step();
    }
    drop((group, log));
    let [path, next, ..] = &segments(&disk)[..] else { panic!("more than one segment is used") };
    let heads = |path: &Path| {
        let frames = stretches(&disk.bytes(path).unwrap(), false);
        let heads = frames.into_iter().filter(|(class, ..)| *class == Class::FrameHeader);
        heads.map(|(_, range, _)| range.start).collect::<Vec<u64>>()
    };
    // The next segment ends within its first frame, which says that the last one of this segment was durable.
    let (torn, behind) = (heads(next)[0], heads(next)[1]);
    let file = disk.open(next, OpenMode::Write).unwrap();
    file.write_at(&vec![0; disk.bytes(next).unwrap().len() - behind as usize], behind).unwrap();
    file.sync_all().unwrap();
    disk.flip(next, torn + 200, 1);
    assert!(open(&disk.fork(), SyncPolicy::Batch).unwrap().damaged().is_empty(), "a torn tail is no damage");
    disk.flip(path, heads(path).last().unwrap() + 200, 1);
    for _ in 0..3 {
        let log = open(&disk, SyncPolicy::Batch).unwrap();
        let damaged: Vec<GroupId> = log.damaged().into_iter().map(|(id, _)| id).collect();
        assert_eq!(damaged, [GroupId(1)]);
    }
}

#[test]
fn damage_of_the_first_frame_of_all_is_found_though_another_segment_follows() {
    let disk = SimDisk::new(6);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    for id in [1, 2] {
        let group = log.group(GroupId(id)).unwrap();
        group.save_vote("vote".into(), Box::new(|outcome| outcome.unwrap())).unwrap();
        log.step();
    }
    let group = log.group(GroupId(2)).unwrap();
    for index in 0..15 {
        group.append(vec![entry(1, index, &[7; 400])], Box::new(|outcome| outcome.unwrap())).unwrap();
        log.step();
    }
    drop((group, log));
    let first = &segments(&disk)[0];
    let (_, vote, _) = stretches(&disk.bytes(first).unwrap(), false)
        .into_iter()
        .find(|(class, ..)| *class == Class::Vote)
        .unwrap();
    disk.flip(first, vote.end - 1, 1);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    assert_eq!(log.damaged().into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [GroupId(1)]);
    let group = log.group(GroupId(2)).unwrap();
    assert_eq!((group.vote(), group.state().last.map(|last| last.index)), (Some("vote".into()), Some(14)));
}

#[test]
fn a_damaged_group_can_be_removed_and_written_again() {
    let (disk, state) = written();
    let path = segments(&disk).into_iter().next().unwrap();
    let offset =
        (512..16384).find(|offset| flipped(&disk, &state, &path, *offset) == Found::Damaged).unwrap();
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
