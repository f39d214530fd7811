//! Divergent replicas: whatever happens between them, in the end they hold the same, and it is the newest.

mod contract;
mod schedules;
mod size;
mod world;

use std::sync::Arc;

use bytes::Bytes;
use odgm_shard::object::{EntryName, ObjectId, ObjectKey, ReplicaId, Value};
use odgm_shard::replication::mst::MstTable;
use odgm_shard::state::{Command, Condition, Operation};
use odgm_storage::data::ApplicationDataStorage;
use odgm_storage::data::memory::MemoryData;

/// A second of NTP64.
const SECOND: u64 = 1 << 32;
/// A wall clock to begin with.
const NOW: u64 = 1_800_000_000 * SECOND;
/// How long answers are remembered.
const RID_WINDOW_MS: u64 = 60_000;

fn storage() -> Arc<dyn ApplicationDataStorage> {
    Arc::new(MemoryData::new(4 << 30))
}

fn table(replica: u64) -> MstTable {
    MstTable::open(storage(), ReplicaId(replica)).unwrap()
}

fn key(path: &str) -> ObjectKey {
    let (object, entry) = match path.split_once('/') {
        Some((object, entry)) => (object, Some(EntryName::parse(entry).unwrap())),
        None => (path, None),
    };
    ObjectKey { object: ObjectId::parse(object).unwrap(), entry }
}

fn value(text: &str) -> Value {
    Value {
        payload: Bytes::copy_from_slice(text.as_bytes()),
        encoding: "text/plain".into(),
        attachment: None,
    }
}

fn put(path: &str, text: &str) -> Command {
    let operation =
        Operation::Put { key: key(path), value: value(text), ttl_ms: None, condition: Condition::None };
    Command { rid: None, operation }
}

fn delete(path: &str) -> Command {
    Command { rid: None, operation: Operation::Delete { key: key(path), if_revision: None } }
}
