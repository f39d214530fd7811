//! The protocol, both ways: what the contract says of keys, parameters, payloads and replies.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attachment;
mod command;
mod garbage;
mod keys;
mod read;
mod reply;
mod txn;

use odgm_shard::object::{CollectionName, EntryName, ObjectId, ObjectKey, Partition};
use odgm_shard::protocol::{Body, Code, CommandRequest, Keys, Refusal, ShardAddress, request};

/// alice is in partition 3 of 4, bob in 0, ü in 1.
fn shard(partition: u32) -> ShardAddress {
    let collection = CollectionName::parse("users").unwrap();
    ShardAddress { collection, partition: Partition(partition), partitions: 4 }
}

fn keys() -> Keys {
    Keys::new("odgm").unwrap()
}

fn key(object: &str, entry: Option<&str>) -> ObjectKey {
    let entry = entry.map(|entry| EntryName::parse(entry).unwrap());
    ObjectKey { object: ObjectId::parse(object).unwrap(), entry }
}

fn text(payload: &str) -> Body {
    Body { payload: Some(payload.to_owned().into()), encoding: "text/plain".into(), attachment: None }
}

fn command(path: &str, parameters: &str, body: Body) -> Result<Option<CommandRequest>, Refusal> {
    request::command(&keys(), &shard(3), 16, &format!("odgm/@cmd/{path}"), parameters, body)
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Code {
    result.unwrap_err().code
}
