//! The bytes of segment headers, frames and records. docs/formats/log.md draws them.
//!
//! Pure: bytes in, structures out. All integers are little-endian, all checksums xxh3.

use xxhash_rust::xxh3::xxh3_64;

use crate::log::{EntryKind, GroupId, LogEntry, LogPosition};

/// Frames begin at multiples of this, and so do segment headers end.
pub(super) const BLOCK: usize = 512;
/// Header of a frame before its groups.
pub(super) const FRAME_HEADER: usize = 96;
/// Header of a record before its payload.
pub(super) const RECORD_HEADER: usize = 36;
/// The format written and read.
pub(super) const VERSION: u32 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"odgm-log";
const FRAME_MAGIC: [u8; 8] = *b"odgmfrm1";

/// Flag: written by `close`, nothing was written after it.
pub(super) const CLOSED: u32 = 1;

/// A place in the log. Everything below one is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub sequence: u64,
    pub offset: u64,
}

/// The first block of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub sequence: u64,
    pub nonce: u64,
    pub bytes: u64,
}

/// What is wrong with a segment header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadSegment {
    Checksum,
    Version(u32),
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(&SEGMENT_MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        block[24..32].copy_from_slice(&self.nonce.to_le_bytes());
        block[32..40].copy_from_slice(&self.bytes.to_le_bytes());
        let checksum = xxh3_64(&block[..BLOCK - 8]);
        block[BLOCK - 8..].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// `block` is the first block of the file.
    pub(super) fn decode(block: &[u8]) -> Result<SegmentHeader, BadSegment> {
        if block.len() < BLOCK || block[..8] != SEGMENT_MAGIC {
            return Err(BadSegment::Checksum);
        }
        if xxh3_64(&block[..BLOCK - 8]) != u64_at(block, BLOCK - 8) {
            return Err(BadSegment::Checksum);
        }
        match u32_at(block, 8) {
            VERSION => {}
            other => return Err(BadSegment::Version(other)),
        }
        Ok(SegmentHeader { sequence: u64_at(block, 16), nonce: u64_at(block, 24), bytes: u64_at(block, 32) })
    }
}

/// The header of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub nonce: u64,
    pub place: Place,
    /// Checksum of the header of the frame before; 0 for the first of a log.
    pub previous: u64,
    /// All frames below this were durable when this one was written.
    pub durable: Place,
    /// The oldest segment that was still needed.
    pub oldest: u64,
    pub body_checksum: u64,
    pub body_bytes: u32,
    pub flags: u32,
    pub groups: Vec<GroupId>,
    /// Of this header: it names the frame.
    pub checksum: u64,
}

impl FrameHeader {
    pub(super) fn header_bytes(groups: usize) -> usize {
        FRAME_HEADER + 8 * groups
    }

    /// Bytes on disk of a frame.
    pub(super) fn frame_bytes(groups: usize, body: usize) -> usize {
        (Self::header_bytes(groups) + body).next_multiple_of(BLOCK)
    }

    /// Where the next frame begins.
    pub(super) fn end(&self) -> u64 {
        self.place.offset + Self::frame_bytes(self.groups.len(), self.body_bytes as usize) as u64
    }

    /// Fills the beginning of `frame`, whose body is in place, and says the checksum.
    pub(super) fn seal(&mut self, frame: &mut [u8]) -> u64 {
        let header = Self::header_bytes(self.groups.len());
        self.body_checksum = xxh3_64(&frame[header..header + self.body_bytes as usize]);
        frame[..8].copy_from_slice(&FRAME_MAGIC);
        let words = [
            self.nonce,
            self.place.sequence,
            self.place.offset,
            self.previous,
            self.durable.sequence,
            self.durable.offset,
            self.oldest,
            self.body_checksum,
        ];
        for (n, word) in words.into_iter().enumerate() {
            frame[16 + 8 * n..24 + 8 * n].copy_from_slice(&word.to_le_bytes());
        }
        frame[80..84].copy_from_slice(&self.body_bytes.to_le_bytes());
        frame[84..88].copy_from_slice(&self.flags.to_le_bytes());
        let groups = u32::try_from(self.groups.len()).expect("a frame has fewer groups than bytes");
        frame[88..92].copy_from_slice(&groups.to_le_bytes());
        frame[92..96].fill(0);
        for (n, group) in self.groups.iter().enumerate() {
            let at = FRAME_HEADER + 8 * n;
            frame[at..at + 8].copy_from_slice(&group.0.to_le_bytes());
        }
        self.checksum = xxh3_64(&frame[16..header]);
        frame[8..16].copy_from_slice(&self.checksum.to_le_bytes());
        self.checksum
    }

    /// Reads the header that begins at `place` of a segment whose whole content is `segment`.
    /// `None` when there is none, or a bad one, or one of an earlier life of the file.
    pub(super) fn decode(segment: &[u8], nonce: u64, place: Place) -> Option<FrameHeader> {
        let at = usize::try_from(place.offset).ok()?;
        let bytes = segment.get(at..)?;
        if bytes.len() < FRAME_HEADER || bytes[..8] != FRAME_MAGIC {
            return None;
        }
        let groups = u32_at(bytes, 88) as usize;
        let header = bytes.get(..FRAME_HEADER.checked_add(groups.checked_mul(8)?)?)?;
        let checksum = u64_at(header, 8);
        if xxh3_64(&header[16..]) != checksum || u64_at(header, 16) != nonce {
            return None;
        }
        let found = Place { sequence: u64_at(header, 24), offset: u64_at(header, 32) };
        let body_bytes = u32_at(header, 80);
        if found != place || Self::frame_bytes(groups, body_bytes as usize) > bytes.len() {
            return None;
        }
        Some(FrameHeader {
            nonce,
            place,
            previous: u64_at(header, 40),
            durable: Place { sequence: u64_at(header, 48), offset: u64_at(header, 56) },
            oldest: u64_at(header, 64),
            body_checksum: u64_at(header, 72),
            body_bytes,
            flags: u32_at(header, 84),
            groups: (0..groups).map(|n| GroupId(u64_at(header, FRAME_HEADER + 8 * n))).collect(),
            checksum,
        })
    }

    /// The records, when their checksum holds.
    pub(super) fn body<'a>(&self, segment: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.body_offset();
        let body = segment.get(at..at + self.body_bytes as usize)?;
        (xxh3_64(body) == self.body_checksum).then_some(body)
    }

    /// Where the bytes between the records and the next frame stop being zero, if they do.
    pub(super) fn spoiled_padding(&self, segment: &[u8]) -> Option<u64> {
        let from = self.body_offset() + self.body_bytes as usize;
        let padding = segment.get(from..self.end() as usize)?;
        padding.iter().position(|byte| *byte != 0).map(|at| (from + at) as u64)
    }

    /// Where the records begin in the segment.
    pub(super) fn body_offset(&self) -> usize {
        self.place.offset as usize + Self::header_bytes(self.groups.len())
    }
}

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

/// A record; the payload is borrowed from the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub kind: RecordKind,
    /// Entry kind, or the flag of the record.
    pub detail: u8,
    pub group: GroupId,
    pub position: LogPosition,
    pub payload: &'a [u8],
}

/// Why bytes are no record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadRecord {
    Bytes,
    Kind(u8),
}

pub(super) fn record_bytes(payload: usize) -> usize {
    RECORD_HEADER + payload
}

impl<'a> Record<'a> {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        let len = u32::try_from(self.payload.len()).expect("a record fits into a segment");
        into.extend_from_slice(&len.to_le_bytes());
        into.extend_from_slice(&[0; 4]);
        into.extend_from_slice(&self.group.0.to_le_bytes());
        into.extend_from_slice(&self.position.term.to_le_bytes());
        into.extend_from_slice(&self.position.index.to_le_bytes());
        into.extend_from_slice(&[self.kind as u8, self.detail, 0, 0]);
        into.extend_from_slice(self.payload);
        let checksum = short_checksum(&into[start + 8..]);
        into[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads the record at the beginning of `bytes` and says how long it is.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<(Record<'a>, usize), BadRecord> {
        if bytes.len() < RECORD_HEADER {
            return Err(BadRecord::Bytes);
        }
        let end = RECORD_HEADER + u32_at(bytes, 0) as usize;
        let record = bytes.get(..end).ok_or(BadRecord::Bytes)?;
        if short_checksum(&record[8..]) != u32_at(record, 4) {
            return Err(BadRecord::Bytes);
        }
        let kind = match record[32] {
            1 => RecordKind::Entry,
            2 => RecordKind::Moved,
            3 => RecordKind::Vote,
            4 => RecordKind::Truncate,
            5 => RecordKind::Purge,
            6 => RecordKind::Committed,
            7 => RecordKind::Remove,
            other => return Err(BadRecord::Kind(other)),
        };
        let record = Record {
            kind,
            detail: record[33],
            group: GroupId(u64_at(record, 8)),
            position: LogPosition { term: u64_at(record, 16), index: u64_at(record, 24) },
            payload: &record[RECORD_HEADER..],
        };
        Ok((record, end))
    }

    pub(super) fn of_entry(kind: RecordKind, group: GroupId, entry: &'a LogEntry) -> Record<'a> {
        Record { kind, detail: entry.kind as u8, group, position: entry.position, payload: &entry.payload }
    }
}

/// The low half: a single record is also covered by its frame.
fn short_checksum(bytes: &[u8]) -> u32 {
    (xxh3_64(bytes) & u64::from(u32::MAX)) as u32
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

    fn frame() -> Vec<u8> {
        let groups = vec![GroupId(1), GroupId(u64::MAX)];
        let mut bytes = vec![0; FrameHeader::header_bytes(groups.len())];
        let start = bytes.len();
        let position = LogPosition { term: 3, index: 7 };
        Record { kind: RecordKind::Entry, detail: 2, group: GroupId(1), position, payload: b"payload" }
            .encode(&mut bytes);
        let body_bytes = (bytes.len() - start) as u32;
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let mut header = FrameHeader {
            nonce: 0x0102_0304_0506_0708,
            place: Place { sequence: 9, offset: 0 },
            previous: 11,
            durable: Place { sequence: 8, offset: 1024 },
            oldest: 5,
            body_checksum: 0,
            body_bytes,
            flags: CLOSED,
            groups,
            checksum: 0,
        };
        header.seal(&mut bytes);
        assert_eq!(FrameHeader::decode(&bytes, header.nonce, header.place), Some(header));
        bytes
    }

    #[test]
    fn the_bytes_of_format_1_never_change() {
        let segment = SegmentHeader { sequence: 3, nonce: 4, bytes: 16384 }.encode();
        let found = (xxh3_64(&segment), xxh3_64(&frame()));
        assert_eq!(found, (0xcbe3_fca8_fb49_fecf, 0x29e4_ea17_3c6b_a50e), "{found:#x?}");
    }

    #[test]
    fn a_frame_of_another_life_of_the_file_is_none() {
        let bytes = frame();
        assert_eq!(FrameHeader::decode(&bytes, 1, Place { sequence: 9, offset: 0 }), None);
    }

    #[test]
    fn an_unknown_segment_format_or_record_kind_is_named() {
        let mut segment = SegmentHeader { sequence: 3, nonce: 4, bytes: 16384 }.encode();
        segment[8] = 2;
        let checksum = xxh3_64(&segment[..BLOCK - 8]);
        segment[BLOCK - 8..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&segment), Err(BadSegment::Version(2)));

        let mut record = Vec::new();
        let position = LogPosition { term: 0, index: 0 };
        Record { kind: RecordKind::Vote, detail: 0, group: GroupId(1), position, payload: b"v" }
            .encode(&mut record);
        record[32] = 99;
        let checksum = short_checksum(&record[8..]);
        record[4..8].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Record::decode(&record), Err(BadRecord::Kind(99)));
    }
}
