//! What an exchange costs, counted by itself.

use std::time::Instant;

use bytes::Bytes;
use odgm_shard::object::{ObjectId, ObjectKey, Value};
use odgm_shard::replication::mst::{Exchange, MstTable, Traffic, answer};
use odgm_shard::state::{Command, Condition, Operation};
use odgm_storage::data::Durability;

use super::{NOW, RID_WINDOW_MS, table};

fn put(object: usize, version: u8, bytes: usize) -> Command {
    let object = ObjectId::parse(&format!("object-{object:07}")).unwrap();
    let value =
        Value { payload: Bytes::from(vec![version; bytes]), encoding: String::new(), attachment: None };
    let key = ObjectKey { object, entry: None };
    let operation = Operation::Put { key, value, ttl_ms: None, condition: Condition::None };
    Command { rid: None, operation }
}

fn write(table: &mut MstTable, objects: impl Iterator<Item = usize>, version: u8, bytes: usize) {
    let objects: Vec<usize> = objects.collect();
    for batch in objects.chunks(1000) {
        let commands = batch.iter().map(|object| put(*object, version, bytes)).collect();
        table.write(commands, NOW, RID_WINDOW_MS, Durability::Later).unwrap();
    }
}

fn exchange(a: &mut MstTable, b: &mut MstTable) -> Traffic {
    let now = NOW;
    let mut exchange = Exchange::new(b.replica());
    while let Some(request) = exchange.next(a, false, now).unwrap() {
        let (response, _) = answer(b, a.replica(), &request, now).unwrap();
        exchange.answered(a, &response, now).unwrap();
    }
    assert_eq!(a.root(), b.root());
    exchange.traffic()
}

fn bytes(traffic: Traffic) -> u64 {
    traffic.bytes_sent + traffic.bytes_received
}

#[test]
fn equal_replicas_say_so_in_a_few_bytes() {
    let (mut a, mut b) = (table(1), table(2));
    write(&mut a, 0..100, 1, 10);
    exchange(&mut a, &mut b);
    let traffic = exchange(&mut a, &mut b);
    assert_eq!((traffic.requests, traffic.pages), (1, 0));
    assert!(bytes(traffic) <= 40, "{traffic:?}");
}

#[test]
fn after_a_cut_the_traffic_is_little_more_than_what_was_changed() {
    let (mut a, mut b) = (table(1), table(2));
    write(&mut a, 0..30_000, 1, 1024);
    exchange(&mut a, &mut b);
    // 10,000 keys on each side, 1,000 of them the same.
    write(&mut a, 0..10_000, 2, 1024);
    write(&mut b, 9_000..19_000, 3, 1024);
    let traffic = exchange(&mut a, &mut b);
    let changed = 19_000 * 1024;
    eprintln!("{traffic:?}: {:.3} of the changed data", bytes(traffic) as f64 / f64::from(changed));
    assert!(bytes(traffic) * 2 <= changed as u64 * 3, "{traffic:?}");
}

/// One per cent of `objects` changed, spread over all of them.
fn one_per_cent(objects: usize, value_bytes: usize) {
    let (mut a, mut b) = (table(1), table(2));
    let started = Instant::now();
    write(&mut a, 0..objects, 1, value_bytes);
    let written = started.elapsed();
    let full = exchange(&mut a, &mut b);
    let copied = started.elapsed() - written;
    write(&mut b, (0..objects).filter(|object| object % 100 == 37), 2, value_bytes);
    let traffic = exchange(&mut a, &mut b);
    let share = bytes(traffic) as f64 / bytes(full) as f64;
    eprintln!("{objects} objects of {value_bytes} bytes, {} pages in memory", a.pages());
    eprintln!("written in {written:?}, copied in {copied:?}: {full:?}");
    eprintln!("one per cent: {traffic:?}, {:.2} % of the copy", share * 100.0);
    assert!(share <= 0.03, "{share}");
}

#[test]
fn one_per_cent_changed_costs_three_per_cent_of_a_copy_at_most() {
    one_per_cent(20_000, 1024);
}

#[test]
fn a_million_objects_are_affordable() {
    if std::env::var_os("ODGM_TEST_FULL").is_some() {
        one_per_cent(1_000_000, 1024);
    }
}
