//! The history: every change as it was, for as long as asked.

use odgm_shard::state::{Change, Command, HistoryBounds, ObjectTable, Operation, Retain, Settings, Upkeep};
use odgm_storage::data::{ApplicationDataStorage, Direction, Keyspace};

use super::{Fixture, NOW, SECOND, delete, key, put, storage};

fn configure(history: Option<Retain>) -> Operation {
    Operation::Upkeep(Upkeep::Configure(Settings { history, indexes: vec![] }))
}

fn bounds(it: &Fixture) -> HistoryBounds {
    it.table.view().history().unwrap()
}

fn kept(it: &Fixture, from: u64) -> Vec<Change> {
    let view = it.table.view();
    view.changes(from, u64::MAX, Direction::Forward).collect::<Result<_, _>>().unwrap()
}

fn rows(store: &dyn ApplicationDataStorage, keyspace: Keyspace) -> usize {
    use std::ops::Bound::Unbounded;
    store.view().scan(keyspace, Unbounded, Unbounded, Direction::Forward).count()
}

#[test]
fn a_change_is_read_back_as_it_was_told() {
    let mut it = Fixture::new();
    let mut told = Vec::new();
    let mut annotated = put("a", "x");
    if let Operation::Put { value, ttl_ms, .. } = &mut annotated {
        value.attachment = Some("tag".into());
        *ttl_ms = Some(5000);
    }
    for operation in [annotated, put("a/e", ""), put("b", "y"), delete("a")] {
        told.extend(it.run(operation).1);
    }
    assert_eq!(kept(&it, 1), told);
    assert_eq!(kept(&it, 3), told[2..]);
    let view = it.table.view();
    let backward: Vec<Change> = view.changes(1, 3, Direction::Backward).collect::<Result<_, _>>().unwrap();
    assert_eq!(backward.iter().map(|change| change.revision).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!((bounds(&it).oldest, bounds(&it).last), (1, 5));
}

#[test]
fn a_count_is_kept_exactly() {
    let mut it = Fixture::new();
    it.run(configure(Some(Retain { count: 10, ..Retain::default() })));
    for n in 0..100 {
        it.run(put("a", &n.to_string()));
    }
    assert_eq!(bounds(&it).oldest, 91);
    assert_eq!(kept(&it, 0).len(), 10);
}

#[test]
fn bytes_are_kept_within_a_block_and_the_last_change_always() {
    let mut it = Fixture::new();
    it.run(configure(Some(Retain { bytes: 64 << 10, ..Retain::default() })));
    let large = "x".repeat(1000);
    for _ in 0..200 {
        it.run(put("a", &large));
    }
    let count = 201 - bounds(&it).oldest;
    assert!((56..=64).contains(&count), "{count} changes of 1 KiB");
    it.run(put("a", &"x".repeat(1 << 20)));
    assert_eq!(bounds(&it).oldest, 201);
    assert_eq!(kept(&it, 201).len(), 1);
}

#[test]
fn age_is_by_log_time_and_a_sweep_lets_go_of_what_no_write_does() {
    let mut it = Fixture::new();
    it.run(configure(Some(Retain { age_ms: 60_000, ..Retain::default() })));
    it.run(put("a", "1"));
    let due = bounds(&it).sweep_unix_ms.unwrap();
    assert_eq!(due, NOW / SECOND * 1000 + 60_001);
    it.time += 50 * SECOND;
    it.run(put("a", "2"));
    assert_eq!(bounds(&it).oldest, 1);
    it.time += 11 * SECOND;
    it.run(Operation::Upkeep(Upkeep::Sweep));
    assert_eq!((bounds(&it).oldest, kept(&it, 0).len()), (2, 1));
    it.time += 60 * SECOND;
    it.run(Operation::Upkeep(Upkeep::Sweep));
    assert_eq!((bounds(&it).oldest, bounds(&it).last, bounds(&it).sweep_unix_ms), (3, 2, None));
}

#[test]
fn a_smaller_limit_holds_at_once_and_its_rows_go_a_few_with_each_command() {
    let store = storage();
    let mut it = Fixture { table: ObjectTable::open(store.clone()).unwrap(), index: 0, time: NOW };
    for _ in 0..1000 {
        it.run(put("a", "x"));
    }
    it.run(configure(Some(Retain { count: 1, ..Retain::default() })));
    assert_eq!(bounds(&it).oldest, 1000);
    assert_eq!(rows(&*store, Keyspace::History), 998);
    assert_eq!(bounds(&it).sweep_unix_ms, Some(0));
    it.run(Operation::Upkeep(Upkeep::Sweep));
    assert_eq!(rows(&*store, Keyspace::History), 1);
    // Nor is a count of what is gone left behind.
    assert_eq!(rows(&*store, Keyspace::Meta), 2);
}

#[test]
fn switched_off_it_keeps_nothing_and_on_again_it_begins_with_the_next_change() {
    let store = storage();
    let mut it = Fixture { table: ObjectTable::open(store.clone()).unwrap(), index: 0, time: NOW };
    for _ in 0..10 {
        it.run(put("a", "x"));
    }
    it.run(configure(None));
    for _ in 0..20 {
        it.run(put("a", "x"));
    }
    assert_eq!((bounds(&it).enabled, bounds(&it).oldest), (false, 31));
    assert_eq!(rows(&*store, Keyspace::History), 0);
    it.run(configure(Settings::default().history));
    assert_eq!(bounds(&it).oldest, 31);
    it.run(put("a", "x"));
    assert_eq!((bounds(&it).oldest, kept(&it, 0).len()), (31, 1));
}

#[test]
fn it_survives_a_reopen_an_export_and_an_import() {
    let store = storage();
    let mut it = Fixture { table: ObjectTable::open(store.clone()).unwrap(), index: 0, time: NOW };
    it.run(configure(Some(Retain { count: 300, ..Retain::default() })));
    for n in 0..500 {
        it.run(put(&format!("o{n}"), "x"));
    }
    it.run(Operation::Upkeep(Upkeep::Published(490)));
    let mut stream = Vec::new();
    store.view().export(&mut stream).unwrap();
    let copy = storage();
    let mut import = copy.import().unwrap();
    import.read(&mut &stream[..]).unwrap();
    import.finish().unwrap();
    for store in [store, copy] {
        let mut again = Fixture { table: ObjectTable::open(store).unwrap(), index: it.index, time: it.time };
        assert_eq!(bounds(&again), bounds(&it));
        assert_eq!((bounds(&again).oldest, bounds(&again).published), (201, 490));
        again.run(put("more", "x"));
        assert_eq!((bounds(&again).oldest, kept(&again, 0).len()), (202, 300));
    }
}

#[test]
fn what_was_published_never_goes_back_nor_beyond_what_there_is() {
    let mut it = Fixture::new();
    it.run(put("a", "x"));
    it.run(put("a", "x"));
    for (told, known) in [(1, 1), (9, 2), (1, 2)] {
        it.run(Operation::Upkeep(Upkeep::Published(told)));
        assert_eq!(bounds(&it).published, known);
    }
}

#[test]
fn a_refused_transaction_leaves_nothing_in_it() {
    use odgm_shard::state::Step;
    let mut it = Fixture::new();
    it.run(put("a", "no number"));
    let then = vec![
        Step::Put { key: key("b"), value: super::value("x"), ttl_ms: None },
        Step::Increment { key: key("a"), by: 1 },
    ];
    let txn = Operation::Txn { checks: vec![], then, otherwise: vec![] };
    it.apply(vec![Command { rid: None, operation: txn }, Command { rid: None, operation: put("c", "x") }]);
    let revisions: Vec<_> = kept(&it, 0).iter().map(|change| super::path(&change.key)).collect();
    assert_eq!(revisions, ["a", "c"]);
}
