//! The rows of the database and their bytes. docs/formats/log.md draws them.
//!
//! Pure: bytes in, structures out.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::log::{EntryKind, GroupId, LogEntry, LogPosition};

/// The format of database and rows, written and read.
pub(super) const VERSION: u8 = 1;
/// Bytes of an entry's row before its payload.
pub(super) const ENTRY_HEADER: usize = 10;

/// The key of an entry: group and index, big-endian, so that a range of indexes is a range of keys.
pub(super) fn entry_key(group: GroupId, index: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The index in an entry's key.
pub(super) fn index_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(8..)?.try_into().ok()?))
}

/// The key of a group's row.
pub(super) fn group_key(group: GroupId) -> [u8; 8] {
    group.0.to_be_bytes()
}

/// The group in the key of its row.
pub(super) fn group_of(key: &[u8]) -> Option<GroupId> {
    Some(GroupId(u64::from_be_bytes(key.try_into().ok()?)))
}

/// The value of an entry's row.
pub(super) fn encode_entry(entry: &LogEntry) -> Vec<u8> {
    let mut value = Vec::with_capacity(ENTRY_HEADER + entry.payload.len());
    value.extend_from_slice(&[VERSION, entry.kind as u8]);
    value.extend_from_slice(&entry.position.term.to_le_bytes());
    value.extend_from_slice(&entry.payload);
    value
}

/// Term and kind of an entry's row; the payload is what follows [`ENTRY_HEADER`].
pub(super) fn decode_entry(value: &[u8]) -> Option<(u64, EntryKind)> {
    let header = value.get(..ENTRY_HEADER)?;
    let kind = match header[1] {
        0 => EntryKind::Normal,
        1 => EntryKind::Membership,
        2 => EntryKind::Blank,
        _ => return None,
    };
    let term = u64::from_le_bytes(header[2..].try_into().ok()?);
    (header[0] == VERSION).then_some((term, kind))
}

/// What a group's row says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupRow {
    /// [`VERSION`].
    version: u8,
    pub purged: Option<LogPosition>,
    /// The entries from here on exist; nothing is read below.
    pub first: u64,
    /// The index after the last entry.
    pub end: u64,
    pub vote: Option<Vec<u8>>,
    pub committed: Option<LogPosition>,
}

impl GroupRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(&GroupRow { version: VERSION, ..self.clone() })
    }

    pub(super) fn decode(value: &[u8]) -> Option<GroupRow> {
        let row: GroupRow = codec::decode(value)?;
        (row.version == VERSION && row.first <= row.end).then_some(row)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    #[test]
    fn the_bytes_of_format_1_never_change() {
        let position = LogPosition { term: 3, index: 7 };
        let entry = LogEntry { position, kind: EntryKind::Blank, payload: Bytes::from_static(b"payload") };
        let row = GroupRow {
            version: 0,
            purged: Some(position),
            first: 8,
            end: 300,
            vote: Some(b"vote".to_vec()),
            committed: None,
        };
        assert_eq!(decode_entry(&encode_entry(&entry)), Some((3, EntryKind::Blank)));
        assert_eq!(GroupRow::decode(&row.encode()).map(|found| found.end), Some(300));
        let found = (xxh3_64(&encode_entry(&entry)), xxh3_64(&row.encode()));
        assert_eq!(found, (0x7c88_4146_4f0f_e7ba, 0x7f5c_fab9_6845_745b), "{found:#x?}");
    }
}
