//! The bytes of segment headers and frames. docs/formats/log.md draws them.
//!
//! Pure: bytes in, structures out. All integers are little-endian, all checksums xxh3.

use xxhash_rust::xxh3::xxh3_64;

use super::record;
use crate::log::GroupId;

/// Frames begin at multiples of this, and so do segment headers end.
pub(super) const BLOCK: usize = 512;
/// Header of a frame before its slots.
pub(super) const FRAME_HEADER: usize = 96;
/// A slot: a group and a term.
const SLOT: usize = 16;
/// The format written and read.
pub(super) const VERSION: u32 = 2;

const SEGMENT_MAGIC: [u8; 8] = *b"odgm-log";
const FRAME_MAGIC: [u8; 8] = *b"odgmfrm2";

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

/// A group and the term of its entries in a frame; what is no entry of a log stands under term 0 or that of
/// its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub group: GroupId,
    pub term: u64,
}

impl Slot {
    fn encode(self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.term.to_le_bytes());
        bytes
    }

    /// `bytes` are as many as [`SLOT`] says.
    fn decode(bytes: &[u8]) -> Slot {
        Slot { group: GroupId(u64_at(bytes, 0)), term: u64_at(bytes, 8) }
    }

    /// Enters the checksum of each record, which so cannot pass for one of another group or term.
    pub(super) fn tie(self) -> u64 {
        xxh3_64(&self.encode())
    }
}

/// The checksum of a frame's records: of their own checksums in full, so that no byte is read twice.
#[derive(Debug, Default)]
pub(super) struct BodySum(Vec<u8>);

impl BodySum {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn add(&mut self, record: u64) {
        self.0.extend_from_slice(&record.to_le_bytes());
    }

    pub(super) fn checksum(&self) -> u64 {
        xxh3_64(&self.0)
    }
}

/// A record that was verified: whose it is and where it stands in the segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    pub slot: Slot,
    pub offset: usize,
    pub bytes: &'a [u8],
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
    /// Of the checksums of all records.
    pub body_checksum: u64,
    pub body_bytes: u32,
    pub flags: u32,
    /// What the records name by its number, rising.
    pub slots: Vec<Slot>,
    /// Of this header: it names the frame.
    pub checksum: u64,
}

impl FrameHeader {
    pub(super) fn header_bytes(slots: usize) -> usize {
        FRAME_HEADER + SLOT * slots
    }

    /// Bytes on disk of a frame.
    pub(super) fn frame_bytes(slots: usize, body: usize) -> usize {
        (Self::header_bytes(slots) + body).next_multiple_of(BLOCK)
    }

    /// The groups of its records, rising.
    pub(super) fn groups(&self) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = self.slots.iter().map(|slot| slot.group).collect();
        groups.dedup();
        groups
    }

    /// Where the next frame begins.
    pub(super) fn end(&self) -> u64 {
        self.place.offset + Self::frame_bytes(self.slots.len(), self.body_bytes as usize) as u64
    }

    /// Fills the beginning of `frame`, whose body is in place, and says the checksum.
    pub(super) fn seal(&mut self, frame: &mut [u8]) -> u64 {
        let header = Self::header_bytes(self.slots.len());
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
        let slots = u32::try_from(self.slots.len()).expect("a frame has fewer slots than bytes");
        frame[88..92].copy_from_slice(&slots.to_le_bytes());
        frame[92..96].fill(0);
        for (n, slot) in self.slots.iter().enumerate() {
            let at = FRAME_HEADER + SLOT * n;
            frame[at..at + SLOT].copy_from_slice(&slot.encode());
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
        let slots = u32_at(bytes, 88) as usize;
        let header = bytes.get(..FRAME_HEADER.checked_add(slots.checked_mul(SLOT)?)?)?;
        let checksum = u64_at(header, 8);
        if xxh3_64(&header[16..]) != checksum || u64_at(header, 16) != nonce {
            return None;
        }
        let found = Place { sequence: u64_at(header, 24), offset: u64_at(header, 32) };
        let body_bytes = u32_at(header, 80);
        if found != place || Self::frame_bytes(slots, body_bytes as usize) > bytes.len() {
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
            slots: header[FRAME_HEADER..].chunks_exact(SLOT).map(Slot::decode).collect(),
            checksum,
        })
    }

    /// The records, when all their checksums hold and they are those that were written.
    pub(super) fn records<'a>(&self, segment: &'a [u8]) -> Option<Vec<Placed<'a>>> {
        let mut offset = self.body_offset();
        let mut rest = segment.get(offset..offset + self.body_bytes as usize)?;
        let (mut sums, mut records) = (BodySum::default(), Vec::new());
        while !rest.is_empty() {
            let slot = *self.slots.get(record::slot_of(rest)?)?;
            let (sum, len) = record::verified(rest, slot.tie())?;
            sums.add(sum);
            records.push(Placed { slot, offset, bytes: &rest[..len] });
            offset += len;
            rest = &rest[len..];
        }
        (sums.checksum() == self.body_checksum).then_some(records)
    }

    /// Where the bytes between the records and the next frame stop being zero, if they do.
    pub(super) fn spoiled_padding(&self, segment: &[u8]) -> Option<u64> {
        let from = self.body_offset() + self.body_bytes as usize;
        let padding = segment.get(from..self.end() as usize)?;
        padding.iter().position(|byte| *byte != 0).map(|at| (from + at) as u64)
    }

    /// Where the records begin in the segment.
    pub(super) fn body_offset(&self) -> usize {
        self.place.offset as usize + Self::header_bytes(self.slots.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Record, RecordKind};
    use super::*;

    fn frame() -> Vec<u8> {
        let slots =
            vec![Slot { group: GroupId(1), term: 3 }, Slot { group: GroupId(u64::MAX), term: u64::MAX }];
        let mut bytes = vec![0; FrameHeader::header_bytes(slots.len())];
        let start = bytes.len();
        let mut sums = BodySum::default();
        for (number, slot) in slots.iter().enumerate() {
            let record = Record { kind: RecordKind::Entry, detail: 2, index: 7, payload: b"payload" };
            let at = bytes.len();
            record.encode(number, &mut bytes);
            sums.add(record::seal(&mut bytes[at..], slot.tie()).0);
        }
        let body_bytes = (bytes.len() - start) as u32;
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let mut header = FrameHeader {
            nonce: 0x0102_0304_0506_0708,
            place: Place { sequence: 9, offset: 0 },
            previous: 11,
            durable: Place { sequence: 8, offset: 1024 },
            oldest: 5,
            body_checksum: sums.checksum(),
            body_bytes,
            flags: CLOSED,
            slots,
            checksum: 0,
        };
        header.seal(&mut bytes);
        let found = FrameHeader::decode(&bytes, header.nonce, header.place);
        assert_eq!(found.as_ref(), Some(&header));
        assert!(header.records(&bytes).is_some());
        bytes
    }

    #[test]
    fn the_bytes_of_format_2_never_change() {
        let segment = SegmentHeader { sequence: 3, nonce: 4, bytes: 16384 }.encode();
        let found = (xxh3_64(&segment), xxh3_64(&frame()));
        assert_eq!(found, (0x8281_464e_0621_7fac, 0x8317_8764_7818_b6e9), "{found:#x?}");
    }

    #[test]
    fn a_frame_of_another_life_of_the_file_is_none() {
        let bytes = frame();
        assert_eq!(FrameHeader::decode(&bytes, 1, Place { sequence: 9, offset: 0 }), None);
    }

    #[test]
    fn no_flipped_bit_of_a_frame_passes() {
        let bytes = frame();
        let place = Place { sequence: 9, offset: 0 };
        let header = FrameHeader::decode(&bytes, 0x0102_0304_0506_0708, place).unwrap();
        for bit in 0..8 * (header.body_offset() + header.body_bytes as usize) {
            let mut spoiled = bytes.clone();
            spoiled[bit / 8] ^= 1 << (bit % 8);
            let found = FrameHeader::decode(&spoiled, header.nonce, place);
            assert!(found.is_none_or(|found| found.records(&spoiled).is_none()), "bit {bit}");
        }
    }

    #[test]
    fn an_unknown_segment_format_is_named() {
        let mut segment = SegmentHeader { sequence: 3, nonce: 4, bytes: 16384 }.encode();
        segment[8] = 1;
        let checksum = xxh3_64(&segment[..BLOCK - 8]);
        segment[BLOCK - 8..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&segment), Err(BadSegment::Version(1)));
    }
}
