//! Cursors: where the next page of a list begins. Opaque to clients, safe in a parameter.
//!
//! base64url without padding of: version byte 1, object, `00`, entry (an own value has no `00`), and the
//! CRC-32 of all that, so that garbage is refused rather than taken for a key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::object::{EntryName, ObjectId, ObjectKey};

const VERSION: u8 = 1;

/// The cursor behind a key.
pub fn encode(after: &ObjectKey) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(after.object.as_str().as_bytes());
    if let Some(entry) = &after.entry {
        bytes.push(0);
        bytes.extend_from_slice(entry.as_str().as_bytes());
    }
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The key behind which a cursor goes on; `None` when it is none of ours.
pub fn decode(cursor: &str) -> Option<ObjectKey> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (version, names) = body.split_first()?;
    let text = std::str::from_utf8(names).ok().filter(|_| *version == VERSION)?;
    let (object, entry) = match text.split_once('\0') {
        Some((object, entry)) => (object, Some(EntryName::parse(entry).ok()?)),
        None => (text, None),
    };
    Some(ObjectKey { object: ObjectId::parse(object).ok()?, entry })
}
