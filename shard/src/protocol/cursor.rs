//! Cursors: where the next page of a list begins. Opaque to clients, safe in a parameter.
//!
//! base64url without padding of: version byte, body, and the CRC-32 of all that, so that garbage is refused
//! rather than taken for a key. Of a list by key (version 1) the body is object, `00`, entry (an own value
//! has no `00`); of one by index (version 2) the length of the value (2, little-endian), the value's
//! sortable form, and that.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use odgm_storage::data::index::IndexValue;

use crate::object::{EntryName, ObjectId, ObjectKey};

const KEY: u8 = 1;
const HIT: u8 = 2;

/// The cursor behind a key.
pub fn encode(after: &ObjectKey) -> String {
    let mut bytes = vec![KEY];
    put_key(&mut bytes, after);
    seal(bytes)
}

/// The key behind which a cursor goes on; `None` when it is none of ours.
pub fn decode(cursor: &str) -> Option<ObjectKey> {
    parse_key(&open(cursor, KEY)?)
}

/// The cursor behind a key that an index found by a value.
pub fn encode_hit(value: &IndexValue, after: &ObjectKey) -> String {
    let value = value.as_bytes();
    let length = u16::try_from(value.len()).expect("values of indexes are far below 64 KiB");
    let mut bytes = vec![HIT];
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(value);
    put_key(&mut bytes, after);
    seal(bytes)
}

/// The value and key behind which a cursor goes on; `None` when it is none of ours.
pub fn decode_hit(cursor: &str) -> Option<(IndexValue, ObjectKey)> {
    let body = open(cursor, HIT)?;
    let (length, rest) = body.split_first_chunk::<2>()?;
    let (value, names) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    Some((IndexValue::from_bytes(value)?, parse_key(names)?))
}

fn put_key(bytes: &mut Vec<u8>, key: &ObjectKey) {
    bytes.extend_from_slice(key.object.as_str().as_bytes());
    if let Some(entry) = &key.entry {
        bytes.push(0);
        bytes.extend_from_slice(entry.as_str().as_bytes());
    }
}

fn parse_key(names: &[u8]) -> Option<ObjectKey> {
    let text = std::str::from_utf8(names).ok()?;
    let (object, entry) = match text.split_once('\0') {
        Some((object, entry)) => (object, Some(EntryName::parse(entry).ok()?)),
        None => (text, None),
    };
    Some(ObjectKey { object: ObjectId::parse(object).ok()?, entry })
}

fn seal(mut bytes: Vec<u8>) -> String {
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn open(cursor: &str, version: u8) -> Option<Vec<u8>> {
    let mut bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    let is_sound = crc32fast::hash(body) == u32::from_le_bytes(*sum) && body.first() == Some(&version);
    bytes.truncate(body.len());
    is_sound.then(|| bytes.split_off(1))
}
