//! Identifiers: parsed at the edge, trusted behind it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name was refused, in words for the one who gave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} {reason}")]
pub struct NameError {
    /// What the name was for.
    pub what: &'static str,
    /// The name as given.
    pub name: String,
    /// What is wrong and what is allowed.
    pub reason: &'static str,
}

fn chunk(what: &'static str, name: &str) -> Result<Arc<str>, NameError> {
    let refuse = |reason| Err(NameError { what, name: name.chars().take(64).collect(), reason });
    if name.is_empty() || name.len() > 255 {
        return refuse("must have 1 to 255 bytes");
    }
    if name.starts_with('@') {
        return refuse("must not begin with @");
    }
    let is_refused = |b: u8| matches!(b, b'/' | b'*' | b'$' | b'?' | b'#') || b.is_ascii_control();
    if name.bytes().any(is_refused) || (!name.is_ascii() && name.chars().any(char::is_control)) {
        return refuse("must not contain / * $ ? # or control characters");
    }
    Ok(Arc::from(name))
}

macro_rules! chunk_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses 1..=255 bytes of UTF-8 that fit one zenoh chunk.
            ///
            /// # Errors
            /// Says what is wrong and what is allowed.
            pub fn parse(name: &str) -> Result<Self, NameError> {
                chunk($what, name).map(Self)
            }

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

chunk_name!(
    /// The id of an object. Case is kept.
    ObjectId,
    "object id"
);
chunk_name!(
    /// The name of an entry of an object. Case is kept.
    EntryName,
    "entry name"
);

/// The name of a collection: `[a-z0-9][a-z0-9_-]{0,62}`; `@system` for the system shard alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CollectionName(Arc<str>);

impl CollectionName {
    /// Parses a user's collection name.
    ///
    /// # Errors
    /// Says what is wrong and what is allowed.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if first && rest && name.len() <= 63 {
            return Ok(Self(Arc::from(name)));
        }
        Err(NameError {
            what: "collection name",
            name: name.chars().take(64).collect(),
            reason: "must match [a-z0-9][a-z0-9_-]{0,62}",
        })
    }

    /// The system shard's collection.
    pub fn system() -> Self {
        Self(Arc::from("@system"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition of a collection, 0-based.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition(pub u32);

/// A key: an object's own value, or one of its entries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The object.
    pub object: ObjectId,
    /// The entry; `None` is the object's own value.
    pub entry: Option<EntryName>,
}

/// A node: random, kept with its data, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct NodeId(pub u64);

/// A replica of a shard, as its consensus group names it: given by the system shard, new at every
/// rebuild, so that a lost vote can't be cast twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

/// A shard's consensus group on every node that holds a replica. 0 is the system shard's; given by
/// the system shard, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct GroupId(pub u64);

/// The partition that owns an object: CRC-32 (IEEE) of the id's bytes, modulo the partition count.
///
/// ```
/// # use odgm_shard::object::{ObjectId, Partition, partition_of};
/// let alice = ObjectId::parse("alice").unwrap();
/// assert_eq!(partition_of(&alice, 4), Partition(3));
/// ```
pub fn partition_of(object: &ObjectId, partitions: u32) -> Partition {
    owner_of(object.as_str(), partitions)
}

/// The partition that answers for an object chunk, an id or not.
pub(crate) fn owner_of(chunk: &str, partitions: u32) -> Partition {
    Partition(crc32fast::hash(chunk.as_bytes()) % partitions.max(1))
}

macro_rules! decimal {
    ($($name:ident)*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )* };
}
decimal!(NodeId ReplicaId GroupId Partition);
