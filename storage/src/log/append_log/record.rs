//! The bytes of a record. docs/formats/log.md draws them.
//!
//! Group and term stand in the frame's header, as a slot that the record names by its number; they enter
//! its checksum. So a record that is read alone can be checked by whoever knows what should be there.

use xxhash_rust::xxh3::xxh3_64;

use crate::log::{EntryKind, LogEntry};

/// Header of a record before its payload.
pub(super) const RECORD_HEADER: usize = 20;
/// Slots that the records of a frame can name.
pub(super) const SLOTS: usize = 1 << 24;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordKind {
    Entry = 1,
    /// An entry that was moved here so that an old segment could be freed.
    Moved = 2,
    Vote = 3,
    /// All entries above the index go; with flag 1 all of them.
    Truncate = 4,
    Purge = 5,
    /// With flag 1: nothing is committed.
    Committed = 6,
    Remove = 7,
}

/// A record without its slot; the payload is borrowed from the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub kind: RecordKind,
    /// Entry kind, or the flag of the record; below 16.
    pub detail: u8,
    pub index: u64,
    pub payload: &'a [u8],
}

/// A record has an unknown kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnknownKind(pub u8);

/// Bytes of a record with so long a payload.
pub(super) fn record_bytes(payload: usize) -> usize {
    RECORD_HEADER + payload
}

/// The number of the slot of the record at the beginning of `bytes`.
pub(super) fn slot_of(bytes: &[u8]) -> Option<usize> {
    let bytes = bytes.get(8..11)?;
    Some(usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16)
}

/// The full checksum of the record at the beginning of `bytes` and its length, when the checksum holds
/// for the tie of its slot.
pub(super) fn verified(bytes: &[u8], tie: u64) -> Option<(u64, usize)> {
    let len = u32::from_le_bytes(bytes.first_chunk().copied()?) as usize;
    let record = bytes.get(..RECORD_HEADER.checked_add(len)?)?;
    let sum = xxh3_64(&record[8..]) ^ tie;
    (low_half(sum).to_le_bytes() == record[4..8]).then_some((sum, record.len()))
}

/// Enters the checksum of the record at the beginning of `bytes`, of which the record itself holds the low half;
/// says the whole one, and the record's length.
pub(super) fn seal(bytes: &mut [u8], tie: u64) -> (u64, usize) {
    let len = RECORD_HEADER + u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    let sum = xxh3_64(&bytes[8..len]) ^ tie;
    bytes[4..8].copy_from_slice(&low_half(sum).to_le_bytes());
    (sum, len)
}

impl<'a> Record<'a> {
    /// Writes it, without the checksum that [`seal`] adds.
    pub(super) fn encode(&self, slot: usize, into: &mut Vec<u8>) {
        debug_assert!(slot < SLOTS && self.detail < 16);
        let len = u32::try_from(self.payload.len()).expect("a record fits into a segment");
        let mut header = [0; RECORD_HEADER];
        header[..4].copy_from_slice(&len.to_le_bytes());
        header[8..11].copy_from_slice(&(slot as u32).to_le_bytes()[..3]);
        header[11] = self.kind as u8 | self.detail << 4;
        header[12..].copy_from_slice(&self.index.to_le_bytes());
        into.extend_from_slice(&header);
        into.extend_from_slice(self.payload);
    }

    /// Reads a whole record that was [`verified`].
    pub(super) fn decode(record: &'a [u8]) -> Result<Record<'a>, UnknownKind> {
        let (head, payload) = record.split_at(RECORD_HEADER);
        let kind = match head[11] & 15 {
            1 => RecordKind::Entry,
            2 => RecordKind::Moved,
            3 => RecordKind::Vote,
            4 => RecordKind::Truncate,
            5 => RecordKind::Purge,
            6 => RecordKind::Committed,
            7 => RecordKind::Remove,
            other => return Err(UnknownKind(other)),
        };
        let index = u64::from_le_bytes(head[12..].try_into().expect("eight bytes"));
        Ok(Record { kind, detail: head[11] >> 4, index, payload })
    }

    pub(super) fn of_entry(kind: RecordKind, entry: &'a LogEntry) -> Record<'a> {
        Record { kind, detail: entry.kind as u8, index: entry.position.index, payload: &entry.payload }
    }
}

/// A single record is also covered by its frame, in full.
fn low_half(sum: u64) -> u32 {
    (sum & u64::from(u32::MAX)) as u32
}

/// The entry kind of a record's detail.
pub(super) fn entry_kind(detail: u8) -> Option<EntryKind> {
    match detail {
        0 => Some(EntryKind::Normal),
        1 => Some(EntryKind::Membership),
        2 => Some(EntryKind::Blank),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote() -> Vec<u8> {
        let mut bytes = Vec::new();
        Record { kind: RecordKind::Vote, detail: 0, index: 0, payload: b"v" }.encode(3, &mut bytes);
        seal(&mut bytes, 77);
        bytes
    }

    #[test]
    fn a_record_holds_for_its_own_slot_alone() {
        let bytes = vote();
        assert_eq!(slot_of(&bytes), Some(3));
        assert_eq!(verified(&bytes, 77).map(|(_, len)| len), Some(bytes.len()));
        assert_eq!(verified(&bytes, 78), None);
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let mut bytes = vote();
        bytes[11] = 15;
        assert_eq!(Record::decode(&bytes), Err(UnknownKind(15)));
    }
}
