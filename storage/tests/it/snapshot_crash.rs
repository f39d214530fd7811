//! Power is lost, or a call fails, at every write and sync of a run: a snapshot is whole or absent.

use std::path::Path;
use std::sync::Arc;

use odgm_storage::disk::{Disk, Fault, SimDisk};
use odgm_storage::snapshot::{FileSnapshots, SnapshotOptions};

use crate::snapshot_script::{Model, Op, after, held, run, script};

const DIR: &str = "/snapshots";

fn open(disk: &SimDisk) -> Arc<FileSnapshots> {
    FileSnapshots::open(Arc::new(disk.clone()), Path::new(DIR), SnapshotOptions::default()).unwrap()
}

/// Runs a script; each call of each operation is a point at which `fault` strikes a copy of the disk.
/// Says how many points there were.
fn strike_everywhere(seed: u64, operations: usize, fault: Fault) -> u64 {
    let disk = SimDisk::new(seed);
    let mut model = Model::new();
    let mut points = 0;
    for (n, op) in script(seed, operations).into_iter().enumerate() {
        let next = after(&model, op);
        let calls = {
            let whole = disk.fork();
            let store = open(&whole);
            let before = whole.calls();
            run(&*store, &model, op).unwrap();
            whole.calls() - before
        };
        for at in 1..=calls {
            points += 1;
            let context = format!("seed {seed}, {fault:?} at call {at} of operation {n}, {op:?}");
            strike(&disk.fork(), at, fault, op, [&model, &next], &context);
        }
        run(&*open(&disk), &model, op).unwrap();
        // Also moves the disk's own chance on.
        disk.crash();
        model = next;
        assert_eq!(held(&*open(&disk), "acknowledged"), model, "operation {n}, {op:?}");
    }
    points
}

fn strike(disk: &SimDisk, at: u64, fault: Fault, op: Op, [before, after]: [&Model; 2], context: &str) {
    let store = open(disk);
    disk.fail_at(disk.calls() + at, fault);
    let outcome = run(&*store, before, op);
    if fault != Fault::PowerLoss {
        let listed = held(&*store, context);
        assert_is_between(&listed, before, after, context);
        if outcome.is_err() {
            // The disk works again, and so does the store: the same operation succeeds.
            run(&*store, before, op).unwrap_or_else(|error| panic!("{context}: again: {error}"));
        }
        assert_eq!(&held(&*store, context), after, "{context}");
    }
    drop(store);
    disk.crash();
    let store = open(disk);
    let found = held(&*store, context);
    if outcome.is_ok() || fault != Fault::PowerLoss {
        assert_eq!(&found, after, "{context}: acknowledged");
    }
    assert_is_between(&found, before, after, context);
    for name in disk.list(Path::new(DIR)).unwrap() {
        let name = name.into_string().unwrap();
        assert!(name.ends_with(".snapshot") || name.ends_with(".received"), "{context}: {name} is left");
    }
    // What an open showed, the next loss of power does not take.
    disk.crash();
    if outcome.is_ok() {
        assert_eq!(held(&*open(disk), context), found, "{context}: a second crash");
    }
}

/// What an operation does not touch is there; what it makes or removes is there or not.
fn assert_is_between(found: &Model, before: &Model, after: &Model, context: &str) {
    for index in before.keys().filter(|index| after.contains_key(index)) {
        assert!(found.contains_key(index), "{context}: {index} is gone, found {found:?}");
    }
    for index in found.keys() {
        assert!(before.contains_key(index) || after.contains_key(index), "{context}: {index} is too much");
    }
}

#[test]
fn a_loss_of_power_at_any_call_of_2000_operations_leaves_whole_snapshots_or_none() {
    let points = strike_everywhere(1, 2000, Fault::PowerLoss);
    assert!(points > 5000, "{points}");
}

#[test]
fn an_error_of_the_disk_at_any_call_is_reported_and_the_store_goes_on() {
    assert!(strike_everywhere(2, 500, Fault::Io) > 1000);
}

#[test]
fn a_full_disk_at_any_call_is_reported_and_the_store_goes_on() {
    assert!(strike_everywhere(3, 500, Fault::Full) > 1000);
}
