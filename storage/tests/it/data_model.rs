//! Any sequence of transactions, indexes, expiries, scans and installs leaves what a plain ordered map does.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use odgm_storage::Error;
use odgm_storage::data::index::{self, IndexSelect, IndexValue, build};
use odgm_storage::data::{
    DataView, Direction, Durability, Keyspace, MemoryData, Select, SnapshotCapableStorage, Swap, Transaction,
    expiry,
};
use proptest::prelude::*;

use crate::data::engine;

const KEYS: u8 = 14;
const SPACES: [Keyspace; 2] = [Keyspace::Data, Keyspace::History];

#[derive(Debug, Clone)]
enum Write {
    Put(usize, u8, u8),
    PutUntil(usize, u8, u8, u64),
    Delete(usize, u8),
    Swap(usize, u8, Option<u8>, Option<u8>),
    Increment(usize, u8, i64),
    Touch(usize, u8, Option<u64>),
    Sweep(u64, usize),
}

#[derive(Debug, Clone)]
enum Step {
    Transaction(Vec<Write>, bool),
    Read { space: usize, from: (u8, u8), to: (u8, u8), backward: bool, limit: usize },
    CreateIndex(usize, usize),
    DropIndex(usize),
    Reinstall,
    GoBack,
    Flush,
    Compact,
}

fn writes() -> impl Strategy<Value = Write> {
    let (space, key, value, time) = (0..2_usize, 0..KEYS, 0..12_u8, 0..20_u64);
    let by = prop_oneof![Just(i64::MAX), Just(i64::MIN), -3..3_i64];
    let maybe = || prop::option::of(0..12_u8);
    prop_oneof![
        6 => (space.clone(), key.clone(), value.clone()).prop_map(|(s, k, v)| Write::Put(s, k, v)),
        4 => (space.clone(), key.clone(), value, time.clone())
            .prop_map(|(s, k, v, t)| Write::PutUntil(s, k, v, t)),
        3 => (space.clone(), key.clone()).prop_map(|(s, k)| Write::Delete(s, k)),
        3 => (space.clone(), key.clone(), maybe(), maybe()).prop_map(|(s, k, e, v)| Write::Swap(s, k, e, v)),
        3 => (space.clone(), key.clone(), by).prop_map(|(s, k, by)| Write::Increment(s, k, by)),
        2 => (space, key, prop::option::of(time.clone())).prop_map(|(s, k, t)| Write::Touch(s, k, t)),
        2 => (time, 0..6_usize).prop_map(|(t, n)| Write::Sweep(t, n)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bound = || (0..3_u8, 0..KEYS);
    let read = (0..2_usize, bound(), bound(), any::<bool>(), 1..6_usize)
        .prop_map(|(space, from, to, backward, limit)| Step::Read { space, from, to, backward, limit });
    prop::collection::vec(
        prop_oneof![
            10 => (prop::collection::vec(writes(), 0..10), prop::bool::weighted(0.8))
                .prop_map(|(writes, commit)| Step::Transaction(writes, commit)),
            4 => read,
            2 => (0..3_usize, 0..2_usize).prop_map(|(name, space)| Step::CreateIndex(name, space)),
            1 => (0..3_usize).prop_map(Step::DropIndex),
            1 => Just(Step::Reinstall),
            1 => Just(Step::GoBack),
            1 => Just(Step::Flush),
            1 => Just(Step::Compact),
        ],
        1..30,
    )
}

/// Keys of one and of many bytes, so that prefixes meet.
fn key(n: u8) -> Bytes {
    Bytes::from(vec![n / 2 + 1; 1 + usize::from(n % 2) * 30])
}

/// Values that an index holds, values that it does not, and counters.
fn value(n: u8) -> Bytes {
    match n {
        0 => Bytes::new(),
        1..=3 => i64::from(n).to_le_bytes().to_vec().into(),
        4..=8 => format!(r#"{{"v":{}}}"#, n / 2).into(),
        9 => r#"{"v":"text"}"#.into(),
        10 => r#"{"v":null}"#.into(),
        _ => r#"{"v":[]}"#.into(),
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    /// Values with their deadlines.
    rows: BTreeMap<(usize, Bytes), (Bytes, Option<u64>)>,
    /// Name to keyspace.
    indexes: BTreeMap<usize, usize>,
}

impl Model {
    fn expired(&self, now: u64, limit: usize) -> Vec<(u64, usize, Bytes)> {
        let due = self.rows.iter().filter_map(|((space, key), (_, deadline))| {
            deadline.filter(|deadline| *deadline <= now).map(|deadline| (deadline, *space, key.clone()))
        });
        let mut due: Vec<_> = due.collect();
        due.sort();
        due.truncate(limit);
        due
    }

    /// Does the same to the model as to the transaction, and compares what both answer.
    fn write(&mut self, writes: &mut Transaction<'_>, write: &Write) {
        match *write {
            Write::Put(space, k, v) => {
                writes.put(SPACES[space], key(k), value(v)).unwrap();
                self.rows.insert((space, key(k)), (value(v), None));
            }
            Write::PutUntil(space, k, v, deadline) => {
                writes.put_until(SPACES[space], key(k), value(v), deadline).unwrap();
                self.rows.insert((space, key(k)), (value(v), Some(deadline)));
            }
            Write::Delete(space, k) => {
                let existed = self.rows.remove(&(space, key(k))).is_some();
                assert_eq!(writes.delete(SPACES[space], key(k)).unwrap(), existed);
            }
            Write::Swap(space, k, expected, v) => {
                let (expected, v) = (expected.map(value), v.map(value));
                let found = self.rows.get(&(space, key(k))).map(|(found, _)| found.clone());
                let outcome =
                    writes.compare_and_swap(SPACES[space], key(k), expected.as_deref(), v.clone()).unwrap();
                if found != expected {
                    assert_eq!(outcome, Swap::Refused(found));
                    return;
                }
                assert_eq!(outcome, Swap::Done);
                match v {
                    Some(v) => self.rows.insert((space, key(k)), (v, None)),
                    None => self.rows.remove(&(space, key(k))),
                };
            }
            Write::Increment(space, k, by) => {
                let present = self.rows.get(&(space, key(k))).cloned();
                let (number, deadline) = match &present {
                    None => (Some(0), None),
                    Some((value, deadline)) => (value[..].try_into().ok().map(i64::from_le_bytes), *deadline),
                };
                let sum = number.and_then(|number: i64| number.checked_add(by));
                match (writes.increment(SPACES[space], key(k), by), sum) {
                    (Ok(found), Some(sum)) => {
                        assert_eq!(found, sum);
                        self.rows.insert((space, key(k)), (sum.to_le_bytes().to_vec().into(), deadline));
                    }
                    (Err(Error::Refused { .. }), None) => {}
                    (found, sum) => panic!("{found:?} instead of {sum:?}"),
                }
            }
            Write::Touch(space, k, deadline) => {
                let row = self.rows.get_mut(&(space, key(k)));
                assert_eq!(writes.touch(SPACES[space], key(k), deadline).unwrap(), row.is_some());
                if let Some((_, present)) = row {
                    *present = deadline;
                }
            }
            Write::Sweep(now, limit) => {
                let due = self.expired(now, limit);
                let swept = writes.sweep(now, limit).unwrap();
                assert_eq!(swept.len(), due.len());
                for (row, (deadline, space, key)) in swept.into_iter().zip(due) {
                    assert_eq!(
                        (row.deadline_unix_ms, row.keyspace, &row.key),
                        (deadline, SPACES[space], &key)
                    );
                    self.rows.remove(&(space, key));
                }
            }
        }
    }

    fn read(&self, view: &dyn DataView, step: &Step) {
        let Step::Read { space, from, to, backward, limit } = step else { return };
        let bound = |(kind, n): (u8, u8)| match kind {
            0 => Bound::Included(key(n)),
            1 => Bound::Excluded(key(n)),
            _ => Bound::Unbounded,
        };
        let (from, to) = (bound(*from), bound(*to));
        let inside = |key: &Bytes| {
            let above = match &from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            };
            above
                && match &to {
                    Bound::Included(to) => key <= to,
                    Bound::Excluded(to) => key < to,
                    Bound::Unbounded => true,
                }
        };
        let rows = self.rows.iter().filter(|((found, key), _)| found == space && inside(key));
        let mut expected: Vec<_> = rows.map(|((_, key), (value, _))| (key.clone(), value.clone())).collect();
        let mut select = Select::range(from.clone(), to.clone()).limit(*limit);
        let mut direction = Direction::Forward;
        if *backward {
            expected.reverse();
            (select, direction) = (select.backward(), Direction::Backward);
        }
        let found: Vec<_> = view.scan(SPACES[*space], from, to, direction).map(Result::unwrap).collect();
        assert_eq!(found, expected);
        let mut paged = Vec::new();
        loop {
            let page = view.page(SPACES[*space], &select).unwrap();
            assert!(page.rows.len() <= *limit);
            paged.extend(page.rows);
            assert!(paged.len() <= expected.len(), "a cursor that does not move");
            let Some(next) = page.next else { break };
            select = select.after(next);
        }
        assert_eq!(paged, expected);
    }

    fn check(&self, view: &dyn DataView) {
        for (space, keyspace) in SPACES.into_iter().enumerate() {
            let keys: Vec<_> = (0..KEYS).rev().map(key).collect();
            let expected = keys.iter().map(|key| self.rows.get(&(space, key.clone())));
            let expected: Vec<_> = expected.map(|row| row.map(|(value, _)| value.clone())).collect();
            assert_eq!(view.multi_get(keyspace, &keys).unwrap(), expected);
            for (key, expected) in keys.iter().zip(&expected) {
                assert_eq!(view.exists(keyspace, key).unwrap(), expected.is_some());
            }
        }
        let expired = expiry::expired(view, u64::MAX, usize::MAX).unwrap();
        let expired = expired.into_iter().map(|row| (row.deadline_unix_ms, row.keyspace, row.key));
        let expected = self.expired(u64::MAX, usize::MAX).into_iter();
        assert!(expired.eq(expected.map(|(deadline, space, key)| (deadline, SPACES[space], key))));
        for name in 0..3 {
            let all = IndexSelect::range(Bound::Unbounded, Bound::Unbounded);
            let page = index::query(view, &name.to_string(), &all);
            let Some(space) = self.indexes.get(&name) else {
                assert!(matches!(page, Err(Error::NotFound { .. })), "{page:?}");
                continue;
            };
            let rows = self.rows.iter().filter(|((found, _), _)| found == space);
            let mut expected: Vec<(IndexValue, Bytes)> = rows
                .filter_map(|((_, key), (value, _))| Some((index::extract("/v", value)?, key.clone())))
                .collect();
            expected.sort();
            let found: Vec<_> = page.unwrap().hits.into_iter().map(|hit| (hit.value, hit.key)).collect();
            assert_eq!(found, expected);
        }
    }
}

fn play(store: &dyn SnapshotCapableStorage, dir: &Path, steps: &[Step]) {
    let (mut model, target) = (Model::default(), dir.join("checkpoint"));
    store.checkpoint(&target).unwrap();
    let mut then = model.clone();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Transaction(writes, commit) => {
                let mut inside = model.clone();
                let mut transaction = Transaction::begin(store);
                for write in writes {
                    inside.write(&mut transaction, write);
                }
                inside.check(transaction.view());
                for read in steps {
                    inside.read(transaction.view(), read);
                }
                if *commit {
                    transaction.commit(Durability::Later).unwrap();
                    model = inside;
                } else {
                    transaction.rollback();
                }
            }
            Step::Read { .. } => model.read(&*store.view(), step),
            Step::CreateIndex(name, space) => {
                let made = build::create(store, &name.to_string(), SPACES[*space], "/v");
                let known = *model.indexes.entry(*name).or_insert(*space);
                assert_eq!(made.is_ok(), known == *space, "{made:?}");
            }
            Step::DropIndex(name) => {
                let dropped = build::drop_index(store, &name.to_string()).is_ok();
                assert_eq!(dropped, model.indexes.remove(name).is_some());
            }
            Step::Reinstall => {
                let mut stream = Vec::new();
                store.view().export(&mut stream).unwrap();
                let mut import = store.import().unwrap();
                import.read(&mut &stream[..]).unwrap();
                import.finish().unwrap();
            }
            Step::GoBack if at % 2 == 0 => {
                let target = dir.join(format!("checkpoint-{at}"));
                store.checkpoint(&target).unwrap();
                model.check(&*store.open_checkpoint(&target).unwrap());
            }
            Step::GoBack => {
                store.restore(&target).unwrap();
                std::mem::swap(&mut model, &mut then);
                model.check(&*store.view());
                then = model.clone();
            }
            Step::Flush => store.flush().unwrap(),
            Step::Compact => store.compact().unwrap(),
        }
        model.check(&*store.view());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn memory_is_a_map_with_transactions(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let disk = std::sync::Arc::new(odgm_storage::disk::SimDisk::new(7));
        play(&MemoryData::with_disk(512 << 20, disk), dir.path(), &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn fjall_is_a_map_with_transactions(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let store = engine().open(&dir.path().join("store")).unwrap();
        play(&*store, dir.path(), &steps);
    }
}
