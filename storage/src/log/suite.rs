//! What every log promises: one function per promise of the traits, run for each backend.

#![allow(clippy::unwrap_used, reason = "a suite ends where a promise is broken")]

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;

use super::{
    AppendOnlyLogStorage, Durable, EntryKind, GroupId, LogEntry, LogPosition, LogSpace, LogState,
    LogStatistics, RaftLogStorage, wait_durable,
};
use crate::{Error, Result};

/// Makes an empty log.
pub type Make<'a> = &'a dyn Fn() -> Arc<dyn AppendOnlyLogStorage>;

/// Runs all promises.
pub fn run(make: Make<'_>) {
    a_new_log_is_empty(make);
    an_append_is_visible_when_it_returns(make);
    callbacks_of_a_group_fire_once_and_in_call_order(make);
    an_append_that_leaves_a_gap_is_refused_and_changes_nothing(make);
    a_read_is_bounded_by_bytes_but_gives_at_least_one(make);
    a_read_gives_only_what_exists(make);
    a_truncation_drops_the_suffix(make);
    a_truncation_below_the_purge_point_is_refused(make);
    a_purge_drops_the_prefix_and_may_lie_above_the_last_entry(make);
    the_last_vote_and_committed_position_are_kept(make);
    groups_do_not_see_each_other(make);
    a_removed_group_is_forgotten(make);
    statistics_count_what_is_held_and_what_went_through(make);
    one_entry_can_be_asked_for(make);
    a_read_is_whole_while_the_log_is_written(make);
    a_sync_is_durable_after_all_that_was_queued_before_it(make);
    a_closed_log_takes_nothing(make);
}

/// An entry of a term with a payload.
pub fn entry(term: u64, index: u64, payload: &[u8]) -> LogEntry {
    let kind = match index % 3 {
        0 => EntryKind::Normal,
        1 => EntryKind::Membership,
        _ => EntryKind::Blank,
    };
    LogEntry { position: LogPosition { term, index }, kind, payload: Bytes::copy_from_slice(payload) }
}

fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<LogEntry> {
    range.map(|index| entry(term, index, format!("payload {index}").as_bytes())).collect()
}

fn ignore() -> Durable {
    Box::new(|_| ())
}

fn append(group: &dyn RaftLogStorage, new: Vec<LogEntry>) {
    wait_durable(|durable| group.append(new, durable)).expect("an append that follows is taken");
}

fn read_all(group: &dyn RaftLogStorage) -> Vec<LogEntry> {
    group.read(0, u64::MAX, u64::MAX).expect("what was written can be read")
}

fn position(term: u64, index: u64) -> Option<LogPosition> {
    Some(LogPosition { term, index })
}

/// A group that was never written has no bounds, vote or entries, and is not listed.
pub fn a_new_log_is_empty(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    assert_eq!(group.state(), LogState::default());
    assert_eq!((group.vote(), group.committed()), (None, None));
    assert_eq!(read_all(&*group), []);
    assert_eq!(log.groups(), []);
    assert!(log.poisoned().is_none() && log.damaged().is_empty());
    assert_eq!(log.space(), LogSpace::Ample);
}

/// Entries can be read, from memory, as soon as `append` returned.
pub fn an_append_is_visible_when_it_returns(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    group.append(entries(1, 1..4), ignore()).unwrap();
    assert_eq!(group.state(), LogState { purged: None, last: position(1, 3) });
    assert_eq!(read_all(&*group), entries(1, 1..4));
    assert!(group.cached_from() <= 1);
    assert_eq!(log.groups(), [GroupId(1)]);
}

/// Every callback is called once, in the order of the calls.
pub fn callbacks_of_a_group_fire_once_and_in_call_order(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    let (tx, rx) = mpsc::channel();
    let note = |n: u64| -> Durable {
        let tx = tx.clone();
        Box::new(move |outcome: Result<()>| {
            outcome.expect("a healthy log makes it durable");
            // The receiver lives until the end of the test.
            let _ = tx.send(n);
        })
    };
    for n in 0..50 {
        match n % 5 {
            3 => group.save_vote(Bytes::from(vec![n as u8]), note(n)).unwrap(),
            4 => group.truncate_after(group.state().last.map(|last| last.index), note(n)).unwrap(),
            _ => {
                let next = group.state().last.map_or(0, |last| last.index + 1);
                group.append(entries(1, next..next + 2), note(n)).unwrap();
            }
        }
    }
    drop(tx);
    assert_eq!(rx.iter().take(50).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
}

/// A gap is an error, the callback is dropped uncalled, the log is as before.
pub fn an_append_that_leaves_a_gap_is_refused_and_changes_nothing(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    append(&*group, entries(1, 0..3));
    let called = Arc::new(Mutex::new(false));
    for bad in [entries(1, 4..6), entries(1, 2..4), [entries(1, 3..4), entries(1, 5..6)].concat()] {
        let called = Arc::clone(&called);
        let refused = group.append(bad, Box::new(move |_| *called.lock().unwrap() = true));
        assert!(matches!(refused, Err(Error::Gap { .. })), "{refused:?}");
    }
    append(&*group, entries(1, 3..4));
    assert!(!*called.lock().unwrap());
    assert_eq!(read_all(&*group), entries(1, 0..4));
}

/// `max_bytes` bounds the payload, except for the first entry.
pub fn a_read_is_bounded_by_bytes_but_gives_at_least_one(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    let all: Vec<_> = (0..10).map(|index| entry(1, index, &[7; 100])).collect();
    append(&*group, all.clone());
    assert_eq!(group.read(2, 9, 0).unwrap(), all[2..3]);
    assert_eq!(group.read(2, 9, 100).unwrap(), all[2..3]);
    assert_eq!(group.read(2, 9, 399).unwrap(), all[2..5]);
    assert_eq!(group.read(2, 9, u64::MAX).unwrap(), all[2..9]);
}

/// Bounds outside the log give what is inside.
pub fn a_read_gives_only_what_exists(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    append(&*group, entries(1, 0..5));
    group.purge(LogPosition { term: 1, index: 1 }).unwrap();
    assert_eq!(group.read(0, 100, u64::MAX).unwrap(), entries(1, 2..5));
    assert_eq!(group.read(5, 100, u64::MAX).unwrap(), []);
    assert_eq!(group.read(4, 4, u64::MAX).unwrap(), []);
    assert_eq!(group.read(4, 3, u64::MAX).unwrap(), []);
}

/// What was truncated is gone, and its indexes can be written again.
pub fn a_truncation_drops_the_suffix(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    append(&*group, entries(1, 0..6));
    wait_durable(|durable| group.truncate_after(Some(2), durable)).unwrap();
    assert_eq!(group.state().last, position(1, 2));
    append(&*group, entries(2, 3..5));
    assert_eq!(read_all(&*group), [entries(1, 0..3), entries(2, 3..5)].concat());
    wait_durable(|durable| group.truncate_after(None, durable)).unwrap();
    assert_eq!(group.state(), LogState::default());
    append(&*group, entries(3, 0..1));
    assert_eq!(read_all(&*group), entries(3, 0..1));
}

/// What was purged cannot be truncated.
pub fn a_truncation_below_the_purge_point_is_refused(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    append(&*group, entries(1, 0..6));
    group.purge(LogPosition { term: 1, index: 3 }).unwrap();
    assert!(group.truncate_after(Some(2), ignore()).is_err());
    assert!(group.truncate_after(None, ignore()).is_err());
    assert_eq!(read_all(&*group), entries(1, 4..6));
    wait_durable(|durable| group.truncate_after(Some(3), durable)).unwrap();
    assert_eq!(group.state(), LogState { purged: position(1, 3), last: position(1, 3) });
}

/// A purge above the last entry empties the log, which goes on above it.
pub fn a_purge_drops_the_prefix_and_may_lie_above_the_last_entry(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    append(&*group, entries(1, 0..6));
    group.purge(LogPosition { term: 1, index: 2 }).unwrap();
    group.purge(LogPosition { term: 1, index: 1 }).unwrap();
    assert_eq!(group.state(), LogState { purged: position(1, 2), last: position(1, 5) });
    group.purge(LogPosition { term: 4, index: 40 }).unwrap();
    assert_eq!(group.state(), LogState { purged: position(4, 40), last: position(4, 40) });
    assert_eq!(read_all(&*group), []);
    assert!(matches!(group.append(entries(4, 6..7), ignore()), Err(Error::Gap { expected: 41, found: 6 })));
    append(&*group, entries(4, 41..43));
    assert_eq!(read_all(&*group), entries(4, 41..43));
}

/// The newest vote and committed position are what is read.
pub fn the_last_vote_and_committed_position_are_kept(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    for vote in [b"term 1", b"term 2"] {
        wait_durable(|durable| group.save_vote(Bytes::from_static(vote), durable)).unwrap();
    }
    assert_eq!(group.vote().as_deref(), Some(&b"term 2"[..]));
    append(&*group, entries(1, 0..3));
    group.save_committed(position(1, 1)).unwrap();
    group.save_committed(position(1, 2)).unwrap();
    assert_eq!(group.committed(), position(1, 2));
    group.save_committed(None).unwrap();
    assert_eq!(group.committed(), None);
}

/// Nothing of one group shows in another.
pub fn groups_do_not_see_each_other(make: Make<'_>) {
    let log = make();
    let (a, b) = (log.group(GroupId(1)).unwrap(), log.group(GroupId(u64::MAX)).unwrap());
    append(&*a, entries(1, 0..3));
    append(&*b, entries(7, 0..2));
    wait_durable(|durable| b.save_vote(Bytes::from_static(b"b"), durable)).unwrap();
    a.purge(LogPosition { term: 1, index: 1 }).unwrap();
    assert_eq!(a.vote(), None);
    assert_eq!(read_all(&*a), entries(1, 2..3));
    assert_eq!(read_all(&*b), entries(7, 0..2));
    assert_eq!(log.groups(), [GroupId(1), GroupId(u64::MAX)]);
}

/// A removed group is empty again, vote included; its old handle is dead.
pub fn a_removed_group_is_forgotten(make: Make<'_>) {
    let log = make();
    let (old, other) = (log.group(GroupId(1)).unwrap(), log.group(GroupId(2)).unwrap());
    append(&*old, entries(1, 0..3));
    append(&*other, entries(1, 0..3));
    wait_durable(|durable| old.save_vote(Bytes::from_static(b"v"), durable)).unwrap();
    wait_durable(|durable| {
        log.remove_group(GroupId(1), durable);
        Ok(())
    })
    .unwrap();
    assert_eq!(log.groups(), [GroupId(2)]);
    assert!(old.append(entries(1, 3..4), ignore()).is_err());
    let new = log.group(GroupId(1)).unwrap();
    assert_eq!((new.state(), new.vote()), (LogState::default(), None));
    append(&*new, entries(9, 0..1));
    assert_eq!(read_all(&*new), entries(9, 0..1));
    assert_eq!(read_all(&*other), entries(1, 0..3));
}

/// First, last, count and bytes follow appends, truncations and purges; the counters only rise.
pub fn statistics_count_what_is_held_and_what_went_through(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    assert_eq!(group.statistics(), LogStatistics::default());
    append(&*group, (5..15).map(|index| entry(1, index, &[7; 10])).collect());
    let start = group.statistics();
    wait_durable(|durable| group.truncate_after(Some(12), durable)).unwrap();
    group.append(vec![entry(2, 13, &[7; 100])], ignore()).unwrap();
    group.purge(LogPosition { term: 1, index: 7 }).unwrap();
    let now = group.statistics();
    let expected = LogStatistics {
        first_index: Some(8),
        last_index: Some(13),
        entries: 6,
        payload_bytes: 150,
        compacted: 3,
        appended: 11,
        appended_bytes: 200,
    };
    assert_eq!(now, expected);
    assert_eq!(now.mean_payload_bytes(), 25);
    assert!((now.appends_per_second(&start, Duration::from_millis(500)) - 2.0).abs() < 1e-9);
    group.purge(LogPosition { term: 2, index: 40 }).unwrap();
    let empty = group.statistics();
    let expected =
        LogStatistics { compacted: 9, appended: 11, appended_bytes: 200, ..LogStatistics::default() };
    assert_eq!((empty, empty.mean_payload_bytes()), (expected, 0));
}

/// An index is there or not, whatever lies around it.
pub fn one_entry_can_be_asked_for(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    assert!(!group.exists(0));
    append(&*group, entries(1, 3..9));
    group.purge(LogPosition { term: 1, index: 4 }).unwrap();
    for index in [0, 4, 9, u64::MAX] {
        assert!(!group.exists(index), "{index}");
        assert_eq!(group.get(index).unwrap(), None);
    }
    for index in 5..9 {
        assert!(group.exists(index), "{index}");
        assert_eq!(group.get(index).unwrap(), Some(entries(1, index..index + 1).remove(0)));
    }
}

/// Entries that move from memory to the disk meanwhile are in it, and none that was truncated is.
pub fn a_read_is_whole_while_the_log_is_written(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for turn in 0..60 {
                let next = group.state().last.map_or(0, |last| last.index + 1);
                append(&*group, (next..next + 20).map(|index| entry(turn, index, &[1; 50])).collect());
                if turn % 7 == 6 {
                    // This append and one more.
                    group.truncate_after(Some(next - 2), ignore()).unwrap();
                }
            }
        });
        let kept = |turn: u64| (turn + 1) * 20 - (turn + 1) / 7 * 21;
        while !writer.is_finished() {
            // A later truncation takes one entry more than its own append.
            let least = group.state().last.map_or(0, |last| kept(last.term) - 1);
            let found = read_all(&*group);
            assert!(found.len() as u64 >= least, "{} of {least}", found.len());
            assert!(found.iter().zip(0..).all(|(entry, index)| entry.position.index == index));
        }
        assert_eq!(read_all(&*group).len() as u64, kept(59));
    });
}

/// Its callback fires after those of the calls before it.
pub fn a_sync_is_durable_after_all_that_was_queued_before_it(make: Make<'_>) {
    let log = make();
    let (a, b) = (log.group(GroupId(1)).unwrap(), log.group(GroupId(2)).unwrap());
    let (tx, rx) = mpsc::channel();
    let note = |n: u64| -> Durable {
        let tx = tx.clone();
        Box::new(move |outcome: Result<()>| {
            outcome.expect("a healthy log makes it durable");
            // The receiver lives until the end of the test.
            let _ = tx.send(n);
        })
    };
    a.append(entries(1, 0..2), note(0)).unwrap();
    b.append(entries(1, 0..2), note(1)).unwrap();
    b.purge(LogPosition { term: 1, index: 0 }).unwrap();
    a.sync(note(2)).unwrap();
    a.sync(note(3)).unwrap();
    assert_eq!(rx.iter().take(4).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

/// After `close` everything fails, and what was queued before is durable.
pub fn a_closed_log_takes_nothing(make: Make<'_>) {
    let log = make();
    let group = log.group(GroupId(1)).unwrap();
    let (tx, rx) = mpsc::channel();
    let durable: Durable = Box::new(move |outcome| {
        // The receiver lives until the end of the test.
        let _ = tx.send(outcome);
    });
    group.append(entries(1, 0..3), durable).unwrap();
    log.close().unwrap();
    assert!(rx.try_recv().expect("close waits for what is queued").is_ok());
    assert!(matches!(group.append(entries(1, 3..4), ignore()), Err(Error::Closed)));
    assert!(matches!(group.save_vote(Bytes::new(), ignore()), Err(Error::Closed)));
    assert!(matches!(group.purge(LogPosition { term: 1, index: 1 }), Err(Error::Closed)));
    assert!(matches!(group.sync(ignore()), Err(Error::Closed)));
    assert!(matches!(log.group(GroupId(2)), Err(Error::Closed)));
    assert!(matches!(log.close(), Err(Error::Closed)));
}
