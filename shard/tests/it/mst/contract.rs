//! What one replica promises its clients.

use bytes::Bytes;
use odgm_shard::object::ReplicaId;
use odgm_shard::replication::mst::{Exchange, MstTable, answer};
use odgm_shard::state::Operation;
use odgm_shard::state::{ChangeKind, Command, Outcome, Step};
use odgm_storage::data::Durability;

use super::{NOW, RID_WINDOW_MS, SECOND, delete, key, put, storage, table, value};

fn write(table: &mut MstTable, command: Command) -> Outcome {
    let mut written = table.write(vec![command], NOW, RID_WINDOW_MS, Durability::Now).unwrap();
    written.outcomes.remove(0)
}

/// Exchanges until both hold the same.
fn exchange(a: &mut MstTable, b: &mut MstTable, now: u64) -> Exchange {
    let mut exchange = Exchange::new(b.replica());
    while let Some(request) = exchange.next(a, true, now).unwrap() {
        let (response, _) = answer(b, a.replica(), &request, now).unwrap();
        exchange.answered(a, &response, now).unwrap();
    }
    assert_eq!(a.root(), b.root());
    exchange
}

#[test]
fn revisions_count_every_change_of_this_replica_and_objects_have_no_numbers() {
    let (mut a, mut b) = (table(1), table(2));
    write(&mut b, put("far", "1"));
    let Outcome::Done(done) = write(&mut a, put("near", "1")) else { panic!("done") };
    assert_eq!((done.revision, done.created_revision, done.version), (1, 0, 0));
    exchange(&mut a, &mut b, NOW);
    assert_eq!((a.revision(), b.revision()), (2, 2));
    let record = a.view().get(&key("far")).unwrap().unwrap();
    assert_eq!((record.revision, record.created_revision, record.version), (2, 0, 0));
    let stamped = b.view().get(&key("far")).unwrap().unwrap();
    assert_eq!(record.time, stamped.time, "a reply carries the winning stamp wherever it is read");
    exchange(&mut a, &mut b, NOW);
    assert_eq!((a.revision(), b.revision()), (2, 2), "what is known changes nothing");
}

#[test]
fn the_deletion_of_an_object_covers_its_older_entries_on_every_replica() {
    let (mut a, mut b) = (table(1), table(2));
    for path in ["o", "o/x", "o/y"] {
        write(&mut a, put(path, "old"));
    }
    exchange(&mut a, &mut b, NOW);
    write(&mut a, delete("o"));
    let merged = {
        let mut request = Exchange::new(a.replica());
        let mut changes = Vec::new();
        while let Some(asked) = request.next(&mut b, true, NOW).unwrap() {
            let (response, _) = answer(&mut a, ReplicaId(2), &asked, NOW).unwrap();
            changes.extend(request.answered(&mut b, &response, NOW).unwrap());
        }
        changes
    };
    let paths: Vec<_> = merged.iter().map(|change| (super_path(&change.key), change.kind.clone())).collect();
    let deleted = ["o/x", "o/y", "o"].map(|path| (path.to_owned(), ChangeKind::Delete));
    assert_eq!(paths, deleted, "the entries by name, then the value");
    assert!(
        merged
            .windows(2)
            .all(|pair| { pair[0].time < pair[1].time && pair[0].revision + 1 == pair[1].revision })
    );
    assert!(b.view().head(&key("o").object).unwrap().is_none());
}

fn super_path(key: &odgm_shard::object::ObjectKey) -> String {
    match &key.entry {
        None => key.object.to_string(),
        Some(entry) => format!("{}/{entry}", key.object),
    }
}

#[test]
fn a_delete_of_what_is_not_here_deletes_it_where_it_is() {
    let (mut a, mut b) = (table(1), table(2));
    write(&mut a, put("o", "acknowledged by a replica that then was out of reach"));
    let written = b.write(vec![delete("o")], NOW + SECOND, RID_WINDOW_MS, Durability::Now).unwrap();
    assert!(written.changes.is_empty(), "nothing was here, so there is no event");
    exchange(&mut a, &mut b, NOW + SECOND);
    assert!(a.view().get(&key("o")).unwrap().is_none());
}

#[test]
fn a_repeated_request_id_gets_the_first_answer_and_writes_nothing_even_after_a_restart() {
    let storage = storage();
    let mut a = MstTable::open(storage.clone(), ReplicaId(1)).unwrap();
    let command = Command { rid: Some(Bytes::from_static(b"r1")), ..delete("o") };
    let first = write(&mut a, command.clone());
    let root = a.root();
    let again = a.write(vec![command.clone()], NOW, RID_WINDOW_MS, Durability::Now).unwrap();
    assert_eq!((&again.outcomes[0], again.entries.len(), a.root()), (&first, 0, root));
    let mut a = MstTable::open(storage, ReplicaId(1)).unwrap();
    assert_eq!((write(&mut a, command), a.root()), (first, root));
}

#[test]
fn a_stamp_of_the_future_is_held_until_the_clock_has_reached_it() {
    let (mut a, mut b) = (table(1), table(2));
    let later = NOW + 10 * SECOND;
    a.write(vec![put("o", "from tomorrow")], later, RID_WINDOW_MS, Durability::Now).unwrap();
    let mut request = Exchange::new(b.replica());
    while let Some(asked) = request.next(&mut a, false, NOW).unwrap() {
        let (response, _) = answer(&mut b, ReplicaId(1), &asked, NOW).unwrap();
        request.answered(&mut a, &response, NOW).unwrap();
    }
    assert!(b.view().get(&key("o")).unwrap().is_none());
    assert_eq!(b.held(), 1);
    b.release(later - SECOND, Durability::Now).unwrap();
    assert!(b.view().get(&key("o")).unwrap().is_none());
    b.release(later, Durability::Now).unwrap();
    assert_eq!(b.view().get(&key("o")).unwrap().unwrap().value, value("from tomorrow"));
}

#[test]
fn a_replica_whose_clock_fell_back_stamps_nothing() {
    let mut a = table(1);
    write(&mut a, put("o", "1"));
    let refused = a.write(vec![put("o", "2")], NOW - 10 * SECOND, RID_WINDOW_MS, Durability::Now);
    assert!(matches!(refused, Err(odgm_shard::Error::Busy(_))), "{refused:?}");
    assert_eq!(a.view().get(&key("o")).unwrap().unwrap().value, value("1"));
}

#[test]
fn a_transaction_is_taken_whole() {
    let (mut a, mut b) = (table(1), table(2));
    write(&mut a, put("gone", "1"));
    let step = |path: &str| Step::Put { key: key(path), value: value("t"), ttl_ms: None };
    let then = vec![step("p"), step("q/e"), Step::Delete { key: key("gone") }];
    let operation = Operation::Txn { checks: Vec::new(), then, otherwise: Vec::new() };
    let Outcome::Txn(done) = write(&mut a, Command { rid: None, operation }) else { panic!("a transaction") };
    assert_eq!((done.revision, done.results.len()), (4, 3));
    exchange(&mut a, &mut b, NOW);
    for (path, there) in [("p", true), ("q/e", true), ("gone", false)] {
        assert_eq!(b.view().get(&key(path)).unwrap().is_some(), there, "{path}");
    }
}

#[test]
fn messages_of_garbage_are_refused_and_change_nothing() {
    let mut a = table(1);
    write(&mut a, put("o", "1"));
    let root = a.root();
    let (mut request, mut b) = (Exchange::new(ReplicaId(1)), table(2));
    let hello = request.next(&mut b, false, NOW).unwrap().unwrap();
    for at in 0..hello.len() {
        for flipped in [1, 0x40, 0xff] {
            let mut bytes = hello.to_vec();
            bytes[at] ^= flipped;
            let _ = answer(&mut a, ReplicaId(2), &bytes, NOW);
            let _ = answer(&mut a, ReplicaId(2), &bytes[..at], NOW);
            let _ = Exchange::new(ReplicaId(1)).answered(&mut b, &bytes, NOW);
        }
    }
    assert_eq!(a.root(), root);
    assert_eq!(a.view().get(&key("o")).unwrap().unwrap().value, value("1"));
}
