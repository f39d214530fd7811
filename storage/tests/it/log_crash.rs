//! Power is lost, or a call fails, at every point of a run at which the disk is written or synced.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use odgm_storage::Error;
use odgm_storage::disk::{Fault, SimDisk};
use odgm_storage::log::suite::entry;
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, Durable, GroupId, LogSpace, SyncPolicy, boot, wait_durable,
};

use crate::log_script::{Call, DIR, Run, State, call, held, history, listed, open, run, script, settle};

/// Opens what a crash left and holds it against the history: exactly the first so many calls happened,
/// at least those that were acknowledged.
fn assert_is_a_prefix(
    disk: &SimDisk,
    sync: SyncPolicy,
    history: &[State],
    run: &Run,
    context: &str,
) -> State {
    let log = open(disk, sync).unwrap_or_else(|error| panic!("{context}: the store does not open: {error}"));
    assert_eq!(log.damaged().len(), 0, "{context}: a crash is no damage: {:?}", log.damaged());
    let found = held(&*log);
    let possible = &history[run.acknowledged..=run.made];
    assert!(
        possible.contains(&found),
        "{context}: {} acknowledged of {} made, found {:?}",
        run.acknowledged,
        run.made,
        found.iter().map(|(id, m)| (id, m.purged, m.entries.len(), &m.vote)).collect::<Vec<_>>(),
    );
    found
}

/// Calls in a script.
const CALLS: usize = 2000;

/// How many points are left out between two that are tried: none with `ODGM_TEST_FULL` set.
fn stride(sampled: usize) -> usize {
    if std::env::var_os("ODGM_TEST_FULL").is_some() { 1 } else { sampled }
}

/// Each call of the disk at which something can go wrong in a run, or a sample of them, from an offset
/// that differs between seeds.
#[allow(clippy::print_stdout, reason = "what was tried, for whoever runs it with --nocapture")]
fn points(seed: u64, sync: SyncPolicy, sampled: usize, calls: &[Call]) -> Vec<u64> {
    let disk = SimDisk::new(seed);
    let log = open(&disk, sync).unwrap();
    let run = run(&log, calls, |_| true);
    assert_eq!(run.made, calls.len());
    let total = disk.calls();
    assert!(total > 1000, "the run is long enough to mean something: {total}");
    let stride = stride(sampled);
    let points: Vec<u64> = (1 + seed % stride as u64..=total).step_by(stride).collect();
    println!("{} of {total} points, {} calls, {sync:?}", points.len(), calls.len());
    points
}

fn strike_everywhere(seed: u64, sync: SyncPolicy, fault: Fault, sampled: usize, counts: fn(&Call) -> bool) {
    let calls = script(seed, CALLS);
    let history = history(&calls);
    for at in points(seed, sync, sampled, &calls) {
        let context = format!("seed {seed}, {sync:?}, {fault:?} at call {at}");
        let disk = SimDisk::new(seed ^ at << 8);
        disk.fail_at(at, fault);
        let ran = match open(&disk, sync) {
            Ok(log) => run(&log, &calls, counts),
            Err(_) => Run { made: 0, acknowledged: 0 },
        };
        disk.crash();
        let found = assert_is_a_prefix(&disk, sync, &history, &ran, &context);
        // Opening acknowledged it: a second crash, now, changes nothing.
        disk.crash();
        let log = open(&disk, sync).unwrap();
        assert_eq!(held(&*log), found, "{context}: what an open served is lost by the next crash");
        // And the log goes on: also what is written now survives, with all before it.
        let group = log.group(GroupId(9)).unwrap();
        let (tx, rx) = std::sync::mpsc::channel();
        for index in 0..3 {
            let tx = tx.clone();
            group.append(vec![entry(1, index, b"later")], Box::new(move |o| tx.send(o).unwrap())).unwrap();
            group.save_vote(b"v".as_slice().into(), Box::new(|_| ())).unwrap();
            settle(&log);
            assert!(rx.try_recv().unwrap().is_ok(), "{context}");
        }
        let expected = held(&*log);
        drop(log);
        disk.crash();
        let log = open(&disk, sync).unwrap_or_else(|e| panic!("{context}: does not open again: {e}"));
        assert_eq!(held(&*log), expected, "{context}: lost after the log went on");
    }
}

#[test]
fn acknowledged_calls_survive_a_loss_of_power_at_every_write_and_sync() {
    strike_everywhere(1, SyncPolicy::Batch, Fault::PowerLoss, 29, |_| true);
}

#[test]
fn acknowledged_calls_survive_a_loss_of_power_when_each_append_is_synced_alone() {
    strike_everywhere(2, SyncPolicy::Always, Fault::PowerLoss, 97, |_| true);
}

#[test]
fn votes_survive_a_loss_of_power_even_when_appends_are_not_synced() {
    strike_everywhere(3, SyncPolicy::None, Fault::PowerLoss, 41, |call| {
        matches!(call, Call::Vote { .. } | Call::Truncate { .. } | Call::Remove { .. })
    });
}

#[test]
fn nothing_is_acknowledged_that_a_failed_call_loses() {
    strike_everywhere(4, SyncPolicy::Batch, Fault::Io, 41, |_| true);
}

#[test]
fn nothing_is_acknowledged_that_a_full_disk_loses() {
    strike_everywhere(5, SyncPolicy::Batch, Fault::Full, 41, |_| true);
}

/// The log goes on from its reserve, then refuses, and forgets nothing that it took.
#[test]
fn a_disk_that_fills_up_at_any_call_stops_nothing_that_was_taken() {
    let (seed, sync) = (6, SyncPolicy::Batch);
    let calls = script(seed, CALLS);
    let (mut refused, mut went_on) = (0, 0);
    for at in points(seed, sync, 41, &calls) {
        let context = format!("full from call {at}");
        let disk = SimDisk::new(seed ^ at << 8);
        disk.fail_at(at, Fault::FullFromNow);
        let Ok(log) = open(&disk, sync) else {
            // Full before there was a log: it opens when there is room.
            disk.set_capacity(u64::MAX);
            drop(open(&disk, sync).unwrap());
            continue;
        };
        let mut state = State::new();
        let (taken, durable) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        for next in &calls {
            if matches!(next, Call::Step) {
                let before = durable.load(Ordering::SeqCst);
                log.step();
                let full = log.space() != LogSpace::Ample;
                went_on += usize::from(full && durable.load(Ordering::SeqCst) > before);
            }
            let count = Arc::clone(&durable);
            let callback: Durable = Box::new(move |outcome: odgm_storage::Result<()>| {
                count.fetch_add(usize::from(outcome.is_ok()), Ordering::SeqCst);
            });
            match call(&*log, &mut state, next, callback) {
                Ok(()) if !matches!(next, Call::Step | Call::Purge { .. } | Call::Committed { .. }) => {
                    taken.fetch_add(1, Ordering::SeqCst);
                }
                Ok(()) => {}
                Err(Error::Full { .. }) => {
                    assert_eq!(log.space(), LogSpace::Exhausted, "{context}");
                    refused += 1;
                    break;
                }
                Err(error) => panic!("{context}: {error}"),
            }
        }
        assert!(log.poisoned().is_none(), "{context}: {:?}", log.poisoned());
        assert_eq!(held(&*log), listed(&state), "{context}: what was taken is visible");
        disk.set_capacity(u64::MAX);
        settle(&log);
        assert_eq!(log.space(), LogSpace::Ample, "{context}");
        assert_eq!(
            durable.load(Ordering::SeqCst),
            taken.into_inner(),
            "{context}: each is acknowledged once"
        );
        drop(log);
        disk.crash();
        assert_eq!(held(&*open(&disk, sync).unwrap()), listed(&state), "{context}");
    }
    println!("{refused} runs were refused an append, {went_on} steps acknowledged on a full disk");
    assert!(refused > 5 && went_on > 20, "{refused} {went_on}");
}

#[test]
fn after_a_failed_sync_all_pending_and_later_calls_fail() {
    let disk = SimDisk::new(7);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    let group = log.group(GroupId(1)).unwrap();
    settle(&log);
    // The write, then the sync that fails.
    disk.fail_at(disk.calls() + 2, Fault::Io);
    let (tx, rx) = std::sync::mpsc::channel();
    for index in 0..3 {
        let tx = tx.clone();
        group.append(vec![entry(1, index, b"x")], Box::new(move |o| tx.send(o).unwrap())).unwrap();
    }
    assert!(!log.step());
    let outcomes: Vec<_> = rx.try_iter().collect();
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes.iter().all(|o| matches!(o, Err(odgm_storage::Error::Poisoned { .. }))), "{outcomes:?}");
    assert!(matches!(log.poisoned(), Some(odgm_storage::Error::Io { operation: "fdatasync", .. })));
    let later = wait_durable(|durable| group.save_vote(b"v".as_slice().into(), durable));
    assert!(matches!(later, Err(odgm_storage::Error::Poisoned { .. })), "{later:?}");
    assert!(group.append(vec![entry(1, 3, b"x")], Box::new(|_| ())).is_err());
    let removed = wait_durable(|durable| {
        log.remove_group(GroupId(1), durable);
        Ok(())
    });
    assert!(removed.is_err() && log.close().is_err());
}

#[test]
fn a_sync_makes_durable_what_the_policy_leaves_to_the_operating_system() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let log = open(&disk, SyncPolicy::None).unwrap();
        let group = log.group(GroupId(1)).unwrap();
        for index in 0..5 {
            group.append(vec![entry(1, index, &[3; 700])], Box::new(|_| ())).unwrap();
        }
        let durable = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&durable);
        group
            .sync(Box::new(move |outcome| {
                count.fetch_add(usize::from(outcome.is_ok()), Ordering::SeqCst);
            }))
            .unwrap();
        // One step: no idle mark, which would sync too.
        log.step();
        assert_eq!(durable.load(Ordering::SeqCst), 1);
        disk.crash();
        drop(log);
        let found = open(&disk, SyncPolicy::None).unwrap().group(GroupId(1)).unwrap().statistics();
        assert_eq!(found.entries, 5, "seed {seed}");
    }
}

#[test]
fn a_log_without_syncs_knows_whether_it_may_have_lost_what_it_acknowledged() {
    let disk = SimDisk::new(8);
    let dir = Path::new(DIR);
    let reopened = |boot: &str| {
        let log = open(&disk, SyncPolicy::None).unwrap();
        let kept = boot::kept(&disk, dir, boot, log.was_closed_cleanly()).unwrap();
        boot::note(&disk, dir, boot).unwrap();
        (log, kept)
    };
    let write = |log: &AppendLog| {
        let group = log.group(GroupId(1)).unwrap();
        let next = group.state().last.map_or(0, |last| last.index + 1);
        group.append(vec![entry(1, next, b"x")], Box::new(|_| ())).unwrap();
        log.step();
    };
    let (log, kept) = reopened("boot 1");
    assert!(kept, "a new log lost nothing");
    write(&log);
    drop(log);
    let (log, kept) = reopened("boot 1");
    assert!(kept, "the process was killed, the operating system was not");
    write(&log);
    drop(log);
    disk.crash();
    let (log, kept) = reopened("boot 10");
    assert!(!kept, "the power was lost");
    write(&log);
    log.close().unwrap();
    drop(log);
    disk.crash();
    let (log, kept) = reopened("boot 2");
    assert!(kept, "it was closed");
    write(&log);
    drop(log);
    disk.flip(&dir.join("boot"), 17, 1);
    assert!(!reopened("boot 2").1, "a damaged note is none");
}

#[test]
fn what_an_open_serves_after_a_killed_process_survives_the_next_loss_of_power() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let log = open(&disk, SyncPolicy::None).unwrap();
        let group = log.group(GroupId(1)).unwrap();
        for index in 0..5 {
            group.append(vec![entry(1, index, &[3; 700])], Box::new(|_| ())).unwrap();
            log.step();
        }
        // Killed: the operating system still has what was not synced.
        drop(log);
        let log = open(&disk, SyncPolicy::None).unwrap();
        let served = held(&*log);
        assert_eq!(served[&1].entries.len(), 5);
        disk.crash();
        assert_eq!(held(&*open(&disk, SyncPolicy::None).unwrap()), served, "seed {seed}");
    }
}

/// The process that met a failed sync ends, and the next one reads from the page cache what is on no disk.
fn what_an_open_serves_after_a_failed_sync_survives_a_loss_of_power(seed: u64, sampled: usize) {
    let calls = script(seed, CALLS);
    for at in points(seed, SyncPolicy::Batch, sampled, &calls) {
        let context = format!("seed {seed}, failed call {at}");
        let disk = SimDisk::new(seed ^ at << 8);
        disk.fail_at(at, Fault::Io);
        if let Ok(log) = open(&disk, SyncPolicy::Batch) {
            run(&log, &calls, |_| true);
        }
        // The same machine goes on: cached pages stay, open files and locks do not.
        let disk = disk.fork();
        let log = open(&disk, SyncPolicy::Batch)
            .unwrap_or_else(|error| panic!("{context}: does not open: {error}"));
        let served = held(&*log);
        drop(log);
        disk.crash();
        let log = open(&disk, SyncPolicy::Batch)
            .unwrap_or_else(|error| panic!("{context}: does not open: {error}"));
        assert_eq!(held(&*log), served, "{context}: what an open served is lost with the power");
    }
}

#[test]
fn what_an_open_serves_after_a_failed_sync_survives_a_loss_of_power_1() {
    what_an_open_serves_after_a_failed_sync_survives_a_loss_of_power(41, 37);
}
