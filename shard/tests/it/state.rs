//! The object table and its views, against the contract and against a plain model.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod commands;
mod expiry;
mod history;
mod index;
mod listing;
mod model;
mod requests;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use odgm_shard::object::{EntryName, ObjectId, ObjectKey, Value};
use odgm_shard::state::{
    Applied, Batch, Change, Command, Condition, Input, ObjectTable, Operation, Outcome, Position,
};
use odgm_storage::data::ApplicationDataStorage;
use odgm_storage::data::memory::MemoryData;

/// A second of NTP64.
const SECOND: u64 = 1 << 32;
/// A wall clock to begin with.
const NOW: u64 = 1_800_000_000 * SECOND;

fn storage() -> Arc<dyn ApplicationDataStorage> {
    Arc::new(MemoryData::new(1 << 30))
}

fn key(path: &str) -> ObjectKey {
    let (object, entry) = match path.split_once('/') {
        Some((object, entry)) => (object, Some(EntryName::parse(entry).unwrap())),
        None => (path, None),
    };
    ObjectKey { object: ObjectId::parse(object).unwrap(), entry }
}

fn path(key: &ObjectKey) -> String {
    match &key.entry {
        None => key.object.to_string(),
        Some(entry) => format!("{}/{entry}", key.object),
    }
}

fn value(text: &str) -> Value {
    Value {
        payload: Bytes::copy_from_slice(text.as_bytes()),
        encoding: "text/plain".into(),
        attachment: None,
    }
}

fn put(path: &str, text: &str) -> Operation {
    put_if(path, text, Condition::None)
}

fn put_if(path: &str, text: &str, condition: Condition) -> Operation {
    Operation::Put { key: key(path), value: value(text), ttl_ms: None, condition }
}

fn delete(path: &str) -> Operation {
    Operation::Delete { key: key(path), if_revision: None }
}

fn increment(path: &str, by: i64) -> Operation {
    Operation::Increment { key: key(path), by }
}

fn batch(time: u64, commands: Vec<Command>) -> Input {
    Input::Batch(Batch { time, rid_window_ms: 60_000, commands })
}

/// A table with the position that comes next.
struct Fixture {
    table: ObjectTable,
    index: u64,
    time: u64,
}

impl Fixture {
    fn new() -> Self {
        Fixture { table: ObjectTable::open(storage()).unwrap(), index: 0, time: NOW }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Applied {
        self.index += 1;
        let position = Position { term: 1, index: self.index };
        self.table.apply(vec![(position, batch(self.time, commands))]).unwrap()
    }

    fn run(&mut self, operation: Operation) -> (Outcome, Vec<Change>) {
        let mut applied = self.apply(vec![Command { rid: None, operation }]);
        (applied.outcomes.remove(0).remove(0), applied.changes)
    }

    fn with_rid(&mut self, rid: &str, operation: Operation) -> (Outcome, Vec<Change>) {
        let rid = Some(Bytes::copy_from_slice(rid.as_bytes()));
        let mut applied = self.apply(vec![Command { rid, operation }]);
        (applied.outcomes.remove(0).remove(0), applied.changes)
    }

    fn text(&self, path: &str) -> Option<String> {
        let record = self.table.view().get(&key(path)).unwrap()?;
        Some(String::from_utf8(record.value.payload.to_vec()).unwrap())
    }

    /// Revision, created revision, version.
    fn numbers(&self, object: &str) -> Option<(u64, u64, u64)> {
        let head = self.table.view().head(&ObjectId::parse(object).unwrap()).unwrap()?;
        Some((head.revision, head.created_revision, head.version))
    }
}

fn done(outcome: &Outcome) -> (u64, u64, u64) {
    match outcome {
        Outcome::Done(done) => (done.revision, done.created_revision, done.version),
        other => panic!("not done: {other:?}"),
    }
}
