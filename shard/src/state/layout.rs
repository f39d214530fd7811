//! How objects lie in the data layer: every key and record that the state machine writes, in one place.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `Data` | object `00 00` | head: version byte 2, then bincode of [`Head`] |
//! | `Data` | object `00 01` | own value: version byte 2, bincode of the record's header, then the payload |
//! | `Data` | object `00 02` entry | an entry's value, laid out alike |
//! | `Index` | `71` place (8, big-endian) | remembered answer: version byte 2, then bincode of [`Remembered`], in order of age |
//! | `Index` | `01` …, `02` … | deadlines, see [`odgm_storage::data::expiry`] |
//! | `Meta` | `counters` | version byte 2, then bincode of [`Counters`] |
//! | `Meta` | `settings` | version byte 2, then bincode of [`Settings`](crate::state::Settings) |
//! | `History`, `Meta` | | see [`history`](super::history) |
//! | `Meta` | `membership` | the log's last membership, opaque |
//!
//! Order: an id has no control characters, so no byte of it is 0 and `00` is below every byte that can
//! follow a shorter id: objects sort by the bytes of their ids, and the rows of one object stand
//! together. Behind the `00` the tag sorts head, own value, entries; entries sort by their bytes. That
//! is the order of [`ObjectKey`], since UTF-8 sorts like its strings. Nothing of an object lies outside
//! `object 00` ..= `object 00 02 …`, so `object 01` ends it.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::history::Bounds;
use crate::codec;
use crate::object::{EntryName, ObjectId, ObjectKey, Value};
use crate::state::{Outcome, Position};
use crate::{Error, Result};

/// The format of every record written here.
const VERSION: u8 = 2;
const HEAD: u8 = 0;
const OWN: u8 = 1;
const ENTRY: u8 = 2;
const QUEUE: u8 = b'q';

/// `Meta`: the counters.
pub(crate) const COUNTERS: &[u8] = b"counters";
/// `Meta`: the settings.
pub(crate) const SETTINGS: &[u8] = b"settings";
/// `Meta`: the membership.
pub(crate) const MEMBERSHIP: &[u8] = b"membership";

/// What is kept of an object beside its values. It exists while the object does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The revision of the object's last change.
    pub revision: u64,
    /// The revision of its first.
    pub created_revision: u64,
    /// How many changes it had.
    pub version: u64,
    /// How many entries it has.
    pub entries: u64,
    /// It has a value of its own.
    pub has_value: bool,
    /// When its own value expires, Unix milliseconds; 0 is never.
    pub expires_unix_ms: u64,
    /// How many of its entries expire: where there is none, no entry is read to learn it.
    pub expiring_entries: u64,
}

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) value: Value,
    pub(crate) expires_unix_ms: u64,
    pub(crate) time: u64,
}

/// A [`Stored`] without its payload, which follows raw so that it is never copied when read.
#[derive(Serialize, Deserialize)]
struct StoredHeader {
    expires_unix_ms: u64,
    time: u64,
    encoding: String,
    attachment: Option<Bytes>,
}

/// The answer of a command that came with a request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) rid: Bytes,
    /// xxh3-128 of the operation's encoding.
    pub(crate) operation: u128,
    /// The log time at which it was applied, NTP64.
    pub(crate) time: u64,
    pub(crate) outcome: Outcome,
}

/// What the partition counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub(crate) applied: Option<Position>,
    pub(crate) revision: u64,
    pub(crate) log_time: u64,
    pub(crate) commit_time: u64,
    /// The first place of the queue of remembered requests.
    pub(crate) requests_start: u64,
    /// The place behind its last.
    pub(crate) requests_end: u64,
    /// What is kept of the changes.
    pub(crate) history: Bounds,
}

/// What a row of `Data` is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Head(ObjectId),
    Key(ObjectKey),
}

pub(crate) fn head_key(object: &ObjectId) -> Bytes {
    row_key(object.as_str(), HEAD, "")
}

pub(crate) fn value_key(key: &ObjectKey) -> Bytes {
    match &key.entry {
        None => row_key(key.object.as_str(), OWN, ""),
        Some(entry) => row_key(key.object.as_str(), ENTRY, entry.as_str()),
    }
}

/// Where the entries of an object with this head of their name begin.
pub(crate) fn entries_from(object: &ObjectId, name_head: &str) -> Bytes {
    row_key(object.as_str(), ENTRY, name_head)
}

/// The first key behind all rows of an object.
pub(crate) fn object_end(object: &ObjectId) -> Bytes {
    let mut key = BytesMut::with_capacity(object.as_str().len() + 1);
    key.put_slice(object.as_str().as_bytes());
    key.put_u8(1);
    key.freeze()
}

fn row_key(object: &str, tag: u8, name: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(object.len() + 2 + name.len());
    key.put_slice(object.as_bytes());
    key.put_slice(&[0, tag]);
    key.put_slice(name.as_bytes());
    key.freeze()
}

/// The smallest key above all that begin with `prefix`; `None` when there is no such key.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

pub(crate) fn parse_row(key: &[u8]) -> Result<Row> {
    parse_row_checked(key).ok_or_else(|| Error::Internal(format!("damaged row key {}", key.escape_ascii())))
}

fn parse_row_checked(key: &[u8]) -> Option<Row> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let object = ObjectId::parse(std::str::from_utf8(&key[..end]).ok()?).ok()?;
    match (key.get(end + 1)?, &key[end + 2..]) {
        (&HEAD, []) => Some(Row::Head(object)),
        (&OWN, []) => Some(Row::Key(ObjectKey { object, entry: None })),
        (&ENTRY, name) => {
            let entry = EntryName::parse(std::str::from_utf8(name).ok()?).ok()?;
            Some(Row::Key(ObjectKey { object, entry: Some(entry) }))
        }
        _ => None,
    }
}

pub(crate) fn request_key(place: u64) -> Bytes {
    [&[QUEUE][..], &place.to_be_bytes()].concat().into()
}

pub(crate) fn encode_record<T: Serialize>(record: &T) -> Bytes {
    codec::encode_versioned(VERSION, record).into()
}

pub(crate) fn decode_record<T: serde::de::DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T> {
    codec::decode_versioned(VERSION, bytes).ok_or_else(|| unreadable(what, bytes))
}

pub(crate) fn encode_stored(stored: &Stored) -> Bytes {
    let header = StoredHeader {
        expires_unix_ms: stored.expires_unix_ms,
        time: stored.time,
        encoding: stored.value.encoding.clone(),
        attachment: stored.value.attachment.clone(),
    };
    encode_with_payload(&header, &stored.value.payload)
}

/// A record with a payload behind it, raw, so that it is never copied when read.
pub(crate) fn encode_with_payload<T: Serialize>(header: &T, payload: &[u8]) -> Bytes {
    codec::encode_versioned_before(VERSION, header, payload).into()
}

pub(crate) fn decode_with_payload<T: serde::de::DeserializeOwned>(
    what: &'static str,
    bytes: &Bytes,
) -> Result<(T, Bytes)> {
    let header = match bytes.first() {
        Some(&VERSION) => codec::decode_prefix::<T>(&bytes[1..]),
        _ => None,
    };
    let (header, used) = header.ok_or_else(|| unreadable(what, bytes))?;
    Ok((header, bytes.slice(1 + used..)))
}

pub(crate) fn decode_stored(bytes: &Bytes) -> Result<Stored> {
    let (header, payload): (StoredHeader, Bytes) = decode_with_payload("value", bytes)?;
    let value = Value { payload, encoding: header.encoding, attachment: header.attachment };
    Ok(Stored { value, expires_unix_ms: header.expires_unix_ms, time: header.time })
}

fn unreadable(what: &'static str, bytes: &[u8]) -> Error {
    Error::Internal(match bytes.first() {
        Some(&VERSION) => format!("damaged {what} record"),
        Some(found) => format!("{what} record has format {found}, this build reads {VERSION}"),
        None => format!("empty {what} record"),
    })
}
