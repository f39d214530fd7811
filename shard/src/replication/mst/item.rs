//! Items: what is kept of each key beside its value, and the rows they lie in.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `Index` | `6d` slot | version byte 1, then bincode of [`Item`] |
//! | `Index` | `74` time (8, big-endian) slot | empty: the tombstones in the order in which they may go |
//! | `Meta` | `mst` | version byte 1, then bincode of what was agreed with the other replicas |
//!
//! A slot is the row key of a value, or that of an object's head, which stands for the object's deletion.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use super::Stamp;
use crate::object::{ObjectId, ObjectKey, Value};
use crate::state::layout::{self, Row};
use crate::{Result, codec};

const ITEM: u8 = b'm';
const TOMBSTONE: u8 = b't';
/// `Meta`: what was agreed with the others.
pub(super) const AGREED: &[u8] = b"mst";

/// What a slot is now. Of two with the same stamp the later one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Kind {
    /// It has a value, of this hash.
    Put(u64),
    /// Its value's time was over, and a replica said so at this time.
    Expired(u64),
    /// It was deleted; in the slot of an object: the object was, with all that is older than this.
    Deleted,
}

/// The state of a slot. The greater one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) stamp: Stamp,
    pub(super) kind: Kind,
}

impl Item {
    /// When the tombstone was made; `None` for a value.
    pub(super) fn buried(&self) -> Option<u64> {
        match self.kind {
            Kind::Put(_) => None,
            Kind::Expired(at) => Some(at.max(self.stamp.time)),
            Kind::Deleted => Some(self.stamp.time),
        }
    }

    pub(super) fn is_value(&self) -> bool {
        matches!(self.kind, Kind::Put(_))
    }

    /// What another replica needs to know of it to say who has the newer one.
    pub(super) fn mark(&self, slot: &[u8]) -> Mark {
        Mark { slot: xxh3_64(slot) as u32, digest: self.digest(slot) as u32, time: self.stamp.time }
    }

    /// What stands for it in fingerprints.
    pub(super) fn digest(&self, slot: &[u8]) -> u128 {
        let mut bytes = Vec::with_capacity(slot.len() + 40);
        codec::encode_into(self, &mut bytes);
        bytes.put_slice(slot);
        xxh3_128(&bytes)
    }
}

/// An item in short, to be compared within a range of few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The hash of its slot.
    pub(super) slot: u32,
    pub(super) digest: u32,
    pub(super) time: u64,
}

/// The marks of a range on one side.
#[derive(Debug)]
pub(super) struct Marks(HashMap<u32, Vec<Mark>>);

impl Marks {
    pub(super) fn new(marks: &[Mark]) -> Self {
        let mut by_slot: HashMap<u32, Vec<Mark>> = HashMap::with_capacity(marks.len());
        for mark in marks {
            by_slot.entry(mark.slot).or_default().push(*mark);
        }
        Marks(by_slot)
    }

    /// Whether this side lacks an item of the other: it has none in the slot, or an older one. When two slots
    /// have one hash it says yes: what is not newer is given in vain.
    pub(super) fn lacks(&self, other: &Mark) -> bool {
        match self.0.get(&other.slot).map(Vec::as_slice) {
            None => true,
            Some([own]) => own.time < other.time || (own.time == other.time && own.digest != other.digest),
            Some(several) => !several.contains(other),
        }
    }
}

/// An item as replicas send it to each other, with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub(super) slot: Bytes,
    pub(super) stamp: Stamp,
    pub(super) body: Body,
}

/// What an entry brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Body {
    Put { value: Value, expires_unix_ms: u64 },
    Expired(u64),
    Deleted,
}

impl Entry {
    /// The row key of the value that it is about; of an object's deletion, that of the object's head.
    pub fn slot(&self) -> &[u8] {
        &self.slot
    }

    /// When it was written, and by whom.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The value, unless it ends one.
    pub fn value(&self) -> Option<&Value> {
        match &self.body {
            Body::Put { value, .. } => Some(value),
            Body::Expired(_) | Body::Deleted => None,
        }
    }

    pub(super) fn item(&self) -> Item {
        let kind = match &self.body {
            Body::Put { value, expires_unix_ms } => Kind::Put(content(value, *expires_unix_ms)),
            Body::Expired(at) => Kind::Expired(*at),
            Body::Deleted => Kind::Deleted,
        };
        Item { stamp: self.stamp, kind }
    }

    /// About how many bytes it takes on the wire.
    pub(super) fn bytes(&self) -> usize {
        let value = match &self.body {
            Body::Put { value, .. } => {
                value.payload.len() + value.encoding.len() + value.attachment.as_ref().map_or(0, Bytes::len)
            }
            Body::Expired(_) | Body::Deleted => 0,
        };
        32 + self.slot.len() + value
    }
}

/// The hash of a value with its deadline.
pub(super) fn content(value: &Value, expires_unix_ms: u64) -> u64 {
    let mut hasher = Xxh3::new();
    let attachment = value.attachment.as_deref();
    for part in [value.encoding.as_bytes(), attachment.unwrap_or_default(), &value.payload] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(&expires_unix_ms.to_le_bytes());
    hasher.update(&[u8::from(attachment.is_some())]);
    hasher.digest()
}

/// What a slot stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    Object(ObjectId),
    Key(ObjectKey),
}

impl Slot {
    pub(super) fn parse(slot: &[u8]) -> Result<Self> {
        Ok(match layout::parse_row(slot)? {
            Row::Head(object) => Slot::Object(object),
            Row::Key(key) => Slot::Key(key),
        })
    }
}

/// The `Index` key of a slot's item.
pub(super) fn item_key(slot: &[u8]) -> Bytes {
    [&[ITEM][..], slot].concat().into()
}

/// The slot of an item's row.
pub(super) fn slot_of(item_key: &Bytes) -> Bytes {
    item_key.slice(1..)
}

/// Behind the last item's row.
pub(super) fn items_end() -> Bytes {
    Bytes::from_static(&[ITEM + 1])
}

/// The `Index` key of a tombstone in the order of time.
pub(super) fn tombstone_key(buried: u64, slot: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(9 + slot.len());
    key.put_u8(TOMBSTONE);
    key.put_u64(buried);
    key.put_slice(slot);
    key.freeze()
}

/// The time and slot of a tombstone's row.
pub(super) fn parse_tombstone(key: &Bytes) -> Option<(u64, Bytes)> {
    let mut time = key.get(1..9)?;
    Some((time.get_u64(), key.slice(9..)))
}
