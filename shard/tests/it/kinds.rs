//! Every kind of replication through the one trait: what it promises, and what it refuses.

mod conformance;
mod grid;
mod refusals;
mod upkeep;

use bytes::Bytes;
use odgm_shard::object::{EntryName, ObjectId, ObjectKey, Value};
use odgm_shard::replication::ShardState;
use odgm_shard::state::{Command, Condition, Operation};

pub(crate) fn key(path: &str) -> ObjectKey {
    let (object, entry) = match path.split_once('/') {
        Some((object, entry)) => (object, Some(EntryName::parse(entry).unwrap())),
        None => (path, None),
    };
    ObjectKey { object: ObjectId::parse(object).unwrap(), entry }
}

pub(crate) fn put_bytes(path: &str, payload: impl Into<Bytes>) -> Command {
    let value = Value { payload: payload.into(), ..Value::default() };
    let operation = Operation::Put { key: key(path), value, ttl_ms: None, condition: Condition::None };
    Command { rid: None, operation }
}

pub(crate) fn put(path: &str, text: &str) -> Command {
    put_bytes(path, Bytes::copy_from_slice(text.as_bytes()))
}

pub(crate) fn delete(path: &str) -> Command {
    Command { rid: None, operation: Operation::Delete { key: key(path), if_revision: None } }
}

pub(crate) fn read(shard: &dyn ShardState, path: &str) -> Option<String> {
    let record = shard.view().get(&key(path)).unwrap();
    record.map(|record| String::from_utf8(record.value.payload.to_vec()).unwrap())
}
