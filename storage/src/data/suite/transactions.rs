//! What write transactions promise over every store.

use std::ops::Bound;

use bytes::Bytes;

use super::{Make, everything, place, put, rows};
use crate::Error;
use crate::data::{
    ApplicationDataStorage, DataView, Direction, Durability, Keyspace, MAX_KEY_BYTES, MemoryData, Swap,
    Transaction, WriteBatch,
};

const DATA: Keyspace = Keyspace::Data;

fn keys(view: &dyn DataView, direction: Direction) -> Vec<Bytes> {
    let all = view.scan(DATA, Bound::Unbounded, Bound::Unbounded, direction);
    all.map(|row| row.expect("scan").0).collect()
}

/// Reads inside see the pending writes over the state at begin; others see them after the commit.
pub fn a_transaction_reads_its_own_writes(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(DATA, "b", "old"), (DATA, "c", "old"), (DATA, "e", "old")]);
    let mut writes = Transaction::begin(&*place.store);
    for key in ["a", "c", "d", "f"] {
        writes.put(DATA, key, "new").expect("put");
    }
    assert!(writes.delete(DATA, "b").expect("delete"));
    assert!(!writes.delete(DATA, "absent").expect("delete"));
    assert!(writes.delete(DATA, "f").expect("delete"), "its own write was there");
    assert_eq!(keys(writes.view(), Direction::Forward), ["a", "c", "d", "e"]);
    assert_eq!(keys(writes.view(), Direction::Backward), ["e", "d", "c", "a"]);
    let asked = ["e", "b", "c", "zz", "a"].map(Bytes::from);
    let found = writes.view().multi_get(DATA, &asked).expect("multi-get");
    let found: Vec<_> = found.iter().map(|value| value.as_deref()).collect();
    assert_eq!(found, [Some(&b"old"[..]), None, Some(b"new"), None, Some(b"new")]);
    assert!(writes.view().exists(DATA, b"d").expect("exists"));
    assert!(!writes.view().exists(DATA, b"b").expect("exists"));
    let outside = place.store.view();
    assert_eq!(keys(&*outside, Direction::Forward), ["b", "c", "e"], "nothing is visible before the commit");
    let mut exported = Vec::new();
    writes.view().export(&mut exported).expect("export");
    writes.commit(Durability::Now).expect("commit");
    assert_eq!(keys(&*outside, Direction::Forward), ["b", "c", "e"]);
    assert_eq!(keys(&*place.store.view(), Direction::Forward), ["a", "c", "d", "e"]);
    let mut committed = Vec::new();
    place.store.view().export(&mut committed).expect("export");
    assert!(exported == committed, "what the transaction saw is what it made");
}

/// Rolled back, dropped, or refused: no trace, and the next writer goes on.
pub fn what_is_not_committed_leaves_nothing(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(DATA, "k", "v")]);
    let before = everything(&*place.store.view());
    let mut writes = Transaction::begin(&*place.store);
    writes.put_until(DATA, "k", "other", 7).expect("put");
    writes.rollback();
    let mut writes = Transaction::begin(&*place.store);
    writes.increment(DATA, "n", 1).expect("increment");
    drop(writes);
    let mut writes = Transaction::begin(&*place.store);
    for key in [vec![], vec![1; MAX_KEY_BYTES + 1]] {
        let refused = writes.put(DATA, key, "v");
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    }
    let refused = writes.put_until(DATA, vec![1; MAX_KEY_BYTES], "v", 1);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "no room for its deadline: {refused:?}");
    let refused = writes.put(Keyspace::Index, vec![0x1f, 1], "v");
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let long = vec![1; MAX_KEY_BYTES + 5];
    assert!(!writes.view().exists(DATA, &long).expect("no store has such a key"));
    writes.commit(Durability::Now).expect("what was refused is not in it");
    assert_eq!(everything(&*place.store.view()), before);
    put(&*place.store, &[(DATA, "k", "still writable")]);
}

/// Transactions and plain writes wait for each other: none is lost between another's read and commit.
pub fn one_writer_at_a_time(make: Make<'_>) {
    let place = place(make);
    let store = &*place.store;
    std::thread::scope(|threads| {
        for thread in 0..4_u32 {
            threads.spawn(move || {
                for n in 0..100_u32 {
                    let mut writes = Transaction::begin(store);
                    writes.increment(DATA, "sum", 1).expect("increment");
                    writes.commit(Durability::Later).expect("commit");
                    let mut batch = WriteBatch::default();
                    batch.put(Keyspace::Meta, (thread * 1000 + n).to_be_bytes().to_vec(), "");
                    store.write(batch, Durability::Later).expect("write");
                }
            });
        }
    });
    let sum = store.view().get(DATA, b"sum").expect("get").expect("present");
    assert_eq!(sum, &400_i64.to_le_bytes()[..]);
    assert_eq!(rows(&*store.view(), Keyspace::Meta).len(), 400);
}

/// A counter is an i64 of 8 little-endian bytes; nothing else is added to, nothing overflows.
pub fn counters_are_exact_or_refused(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(DATA, "text", "seven"), (DATA, "empty", "")]);
    let mut writes = Transaction::begin(&*place.store);
    assert_eq!(writes.increment(DATA, "n", i64::MAX).expect("increment"), i64::MAX);
    for (key, by) in [("n", 1), ("text", 1), ("empty", 1)] {
        let refused = writes.increment(DATA, key, by);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{key}: {refused:?}");
    }
    assert_eq!(writes.increment(DATA, "n", i64::MIN).expect("increment"), -1);
    assert!(writes.increment(DATA, "n", i64::MIN).is_err());
    writes.commit(Durability::Now).expect("commit");
    let view = place.store.view();
    assert_eq!(view.get(DATA, b"n").expect("get").expect("present"), &(-1_i64).to_le_bytes()[..]);
    assert_eq!(view.get(DATA, b"text").expect("get").expect("present"), "seven");
}

/// A swap happens when the value is the expected one, absence included.
pub fn a_swap_compares_first(make: Make<'_>) {
    let place = place(make);
    let swap = |expected: Option<&[u8]>, value: Option<&'static str>| {
        let mut writes = Transaction::begin(&*place.store);
        let outcome = writes.compare_and_swap(DATA, "k", expected, value.map(Bytes::from));
        writes.commit(Durability::Later).expect("commit");
        outcome.expect("compare and swap")
    };
    assert_eq!(swap(Some(b"x"), Some("y")), Swap::Refused(None));
    assert_eq!(swap(None, Some("one")), Swap::Done);
    assert_eq!(swap(None, Some("two")), Swap::Refused(Some("one".into())));
    assert_eq!(swap(Some(b"one"), Some("two")), Swap::Done);
    assert_eq!(swap(Some(b"one"), None), Swap::Refused(Some("two".into())));
    assert_eq!(swap(Some(b"two"), None), Swap::Done);
    assert!(rows(&*place.store.view(), DATA).is_empty());
}

/// A transaction that was begun before a close cannot commit.
pub fn a_commit_after_close_is_refused(make: Make<'_>) {
    let place = place(make);
    let mut writes = Transaction::begin(&*place.store);
    writes.put(DATA, "k", "v").expect("put");
    place.store.close().expect("close does not wait for writers");
    assert!(matches!(writes.commit(Durability::Now), Err(Error::Closed)));
}

/// Writes to one store by the writer of another are stopped.
pub fn a_writer_belongs_to_its_store(make: Make<'_>) {
    let place = place(make);
    let other = MemoryData::new(1 << 20);
    let mixed_up = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        place.store.write_as(&mut other.lock_writer(), WriteBatch::default(), Durability::Later)
    }));
    assert!(mixed_up.is_err());
    put(&*place.store, &[(DATA, "k", "v")]);
}

/// Statistics follow what is done; a flush and a compaction change no row.
pub fn statistics_follow_and_upkeep_changes_nothing(make: Make<'_>) {
    let place = place(make);
    super::fill(&*place.store, 50);
    let mut writes = Transaction::begin(&*place.store);
    writes.delete(DATA, "empty").expect("delete");
    writes.commit(Durability::Now).expect("commit");
    let before = everything(&*place.store.view());
    place.store.flush().expect("flush");
    place.store.compact().expect("compact");
    assert_eq!(everything(&*place.store.view()), before);
    let statistics = place.store.statistics();
    assert_eq!(statistics.rows, [52, 53, 53, 53], "exact once compacted");
    assert!(statistics.bytes > 0);
    let done = statistics.operations;
    assert_eq!((done.batches, done.puts, done.deletes), (5, 4 * 53, 1), "{done:?}");
    assert!(done.scans >= 8 && done.views >= 2 && done.gets >= 1, "{done:?}");
    assert_eq!(done.refused, 0);
    let mut batch = WriteBatch::default();
    batch.put(DATA, "", "");
    assert!(place.store.write(batch, Durability::Later).is_err());
    assert_eq!(place.store.statistics().operations.refused, 1);
}
