//! Scripts of operations on a store of snapshots, and the plain model of what it must hold.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use odgm_storage::snapshot::suite::{meta, stored};
use odgm_storage::snapshot::{
    FRAME_BYTES, MemorySnapshots, RaftSnapshotStorage, RetainPolicy, SnapshotOptions,
};
use odgm_storage::{Error, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One operation. A snapshot is known by its index, which also says its content.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Create(u64),
    /// Written, but dropped before its end.
    Abandon(u64),
    /// Received up to so many hundredths, and finished with all of them.
    Receive(u64, usize),
    /// The one that lies so many back from the newest.
    Delete(u64),
    Retain(RetainPolicy),
}

/// What a store must hold: when each was created, by index.
pub(crate) type Model = BTreeMap<u64, u64>;

/// The time of an index, in milliseconds: they are created in order.
pub(crate) fn created(index: u64) -> u64 {
    index * 1000
}

pub(crate) fn content_of(index: u64) -> Vec<u8> {
    let bytes = if index % 397 == 13 { FRAME_BYTES + 5 } else { (index * 37 % 3000) as usize };
    (0..bytes).map(|at| if at < bytes / 2 { index as u8 } else { ((at as u64 * index) >> 3) as u8 }).collect()
}

/// A random script; no index is used for two snapshots.
pub(crate) fn script(seed: u64, operations: usize) -> Vec<Op> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut next = 0;
    let mut receiving = None;
    let mut fresh = || {
        next += 1;
        next
    };
    (0..operations)
        .map(|_| match rng.random_range(0..10) {
            0..4 => Op::Create(fresh()),
            4 => Op::Abandon(fresh()),
            5..7 => {
                let index = receiving.take().unwrap_or_else(&mut fresh);
                let part = if rng.random() { 100 } else { rng.random_range(0..100) };
                receiving = (part < 100).then_some(index);
                Op::Receive(index, part)
            }
            7 => Op::Delete(rng.random_range(0..20)),
            _ => {
                let (count, age) = (rng.random_range(2..8), Duration::from_secs(rng.random_range(3..20)));
                Op::Retain(match rng.random_range(0..3) {
                    0 => RetainPolicy::Latest { count },
                    1 => RetainPolicy::Age { age },
                    _ => RetainPolicy::Both { count, age },
                })
            }
        })
        .collect()
}

/// The time at which a script lets go: that of its newest snapshot.
fn now(model: &Model) -> u64 {
    model.values().next_back().copied().unwrap_or(0)
}

/// Which one a deletion means.
fn target(model: &Model, back: u64) -> u64 {
    model.keys().rev().nth(back as usize).copied().unwrap_or(u64::MAX)
}

/// What a model becomes.
pub(crate) fn after(model: &Model, op: Op) -> Model {
    let mut next = model.clone();
    match op {
        Op::Create(index) | Op::Receive(index, 100) => {
            next.insert(index, created(index));
        }
        Op::Abandon(_) | Op::Receive(..) => {}
        Op::Delete(back) => {
            next.remove(&target(model, back));
        }
        Op::Retain(policy) => {
            let (count, age) = match policy {
                RetainPolicy::Latest { count } => (count, Duration::MAX),
                RetainPolicy::Age { age } => (usize::MAX, age),
                RetainPolicy::Both { count, age } => (count, age),
                RetainPolicy::Size { .. } => unreachable!("sizes depend on the codec"),
            };
            let newest = model.keys().next_back().copied();
            let kept: Vec<u64> = model.keys().rev().take(count).copied().collect();
            next.retain(|index, created| {
                let young = Duration::from_millis(now(model) - *created) <= age;
                Some(*index) == newest || (kept.contains(index) && young)
            });
        }
    }
    next
}

/// Makes one operation.
pub(crate) fn run(store: &dyn RaftSnapshotStorage, model: &Model, op: Op) -> Result<()> {
    match op {
        Op::Create(index) => write(store, index)?.finish().map(drop),
        Op::Abandon(index) => write(store, index).map(drop),
        Op::Receive(index, part) => {
            let (id, all) = (meta(index).id, sent(index));
            let mut receiver = store.receive(id, all.len() as u64)?;
            let upto = all.len() * part / 100;
            let offset = receiver.offset() as usize;
            for piece in all.get(offset..upto).unwrap_or_default().chunks(1 << 18) {
                receiver.write(piece)?;
            }
            if part == 100 { receiver.finish().map(drop) } else { Ok(()) }
        }
        Op::Delete(back) => store.delete(meta(target(model, back)).id),
        Op::Retain(policy) => store.retain(policy, now(model)).map(drop),
    }
}

fn write(
    store: &dyn RaftSnapshotStorage,
    index: u64,
) -> Result<Box<dyn odgm_storage::snapshot::SnapshotWriter>> {
    let mut writer = store.create(meta(index), created(index))?;
    writer.set_entries(index);
    writer.write_all(&content_of(index)).map_err(|error| Error::io("write", "snapshot", error))?;
    Ok(writer)
}

/// The stored form of a snapshot that is made elsewhere, once.
fn sent(index: u64) -> Arc<Vec<u8>> {
    static SENT: Mutex<BTreeMap<u64, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());
    let mut sent = SENT.lock().unwrap_or_else(PoisonError::into_inner);
    sent.entry(index).or_insert_with(|| Arc::new(make_elsewhere(index))).clone()
}

fn make_elsewhere(index: u64) -> Vec<u8> {
    let elsewhere: Arc<dyn RaftSnapshotStorage> = MemorySnapshots::new(SnapshotOptions::default()).unwrap();
    let info = write(&*elsewhere, index).unwrap().finish().unwrap();
    stored(&*elsewhere, &info)
}

/// Asserts that everything listed is whole, and says the indexes.
pub(crate) fn held(store: &dyn RaftSnapshotStorage, context: &str) -> Model {
    assert!(store.damaged().is_empty(), "{context}: {:?}", store.damaged());
    let mut found = Model::new();
    for info in store.list().unwrap() {
        let index = info.meta.position.unwrap().index;
        assert_eq!((&info.meta, info.entries), (&meta(index), Some(index)), "{context}");
        let mut content = Vec::new();
        store
            .read(info.meta.id)
            .unwrap()
            .read_to_end(&mut content)
            .unwrap_or_else(|e| panic!("{context}: {e}"));
        assert!(content == content_of(index), "{context}: the content of {index}");
        found.insert(index, info.created_unix_ms);
    }
    found
}
