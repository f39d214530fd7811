//! The layout of a snapshot file (docs/formats/snapshot.md): its header and frames.
//!
//! Every structure has its own checksum, so a damaged one is named with its offset. Nothing here
//! believes a length before its checksum, nor allocates by one that is out of bounds.

use std::path::Path;

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::codec::FrameCodec;
use crate::disk::DiskFile;
use crate::snapshot::FRAME_BYTES;
use crate::{Error, Result};

/// Its manifest ends with the frames, and its codecs are none and zstd.
pub(super) const VERSION_1: u32 = 1;
/// What is written.
const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"odgmsnap";

pub(in crate::snapshot) const HEADER_BYTES: usize = 40;
pub(super) const FRAME_HEADER_BYTES: usize = 24;
pub(super) const TRAILER_BYTES: usize = 32;

/// What a frame holds; final numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    Content = 1,
    Manifest = 2,
}

/// What stands before the stored bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) kind: FrameKind,
    pub(super) codec: FrameCodec,
    pub(super) number: u32,
    pub(super) raw: u32,
    pub(super) stored: u32,
}

impl FrameHeader {
    fn fields(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = self.codec as u8;
        bytes[1] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.raw.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.stored.to_le_bytes());
        bytes
    }

    /// Puts the header before `stored`, the bytes that follow it in the same buffer.
    pub(super) fn seal(self, frame: &mut [u8]) {
        let fields = self.fields();
        let sum = checksum(&fields, &frame[FRAME_HEADER_BYTES..]);
        frame[..16].copy_from_slice(&fields);
        frame[16..FRAME_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The checksum of a frame: of its fields and its stored bytes.
fn checksum(fields: &[u8; 16], stored: &[u8]) -> u64 {
    xxh3_64(fields) ^ xxh3_64(stored).rotate_left(1)
}

/// The first bytes of a file.
pub(super) fn header(id: Uuid) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(id.as_bytes());
    let sum = xxh3_64(&bytes[..32]);
    bytes[32..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Version and id in the first bytes of a file, when they are sound.
pub(super) fn read_header(bytes: &[u8; HEADER_BYTES]) -> Option<(u32, Uuid)> {
    if bytes[..8] != MAGIC || xxh3_64(&bytes[..32]).to_le_bytes() != bytes[32..] {
        return None;
    }
    let version = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
    Some((version, Uuid::from_bytes(bytes[16..32].try_into().expect("sixteen bytes"))))
}

/// A file read by its structures.
#[derive(Clone, Copy)]
pub(super) struct Parser<'f> {
    pub(super) file: &'f dyn DiskFile,
    pub(super) path: &'f Path,
}

impl Parser<'_> {
    pub(super) fn corrupt(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt { path: self.path.to_owned(), offset, what: what.into() }
    }

    fn format(&self, found: impl ToString) -> Error {
        let supported = format!("{VERSION_1} and {VERSION}");
        Error::Format { path: self.path.to_owned(), found: found.to_string(), supported }
    }

    pub(super) fn read(&self, into: &mut [u8], offset: u64, what: &str) -> Result<()> {
        let count = self.file.read_at(into, offset)?;
        if count == into.len() {
            Ok(())
        } else {
            Err(self.corrupt(offset, format!("{what}: the file is cut short")))
        }
    }

    /// Checks the header of the snapshot `id`, and says the version.
    pub(super) fn header(&self, id: Uuid) -> Result<u32> {
        let mut bytes = [0; HEADER_BYTES];
        self.read(&mut bytes, 0, "header")?;
        let Some((version, named)) = read_header(&bytes) else { return Err(self.corrupt(0, "header")) };
        if !(VERSION_1..=VERSION).contains(&version) {
            return Err(self.format(version));
        }
        if named != id {
            return Err(self.corrupt(16, "header: it is another snapshot's"));
        }
        Ok(version)
    }

    /// Reads the frame at `offset`, its stored bytes into `into`, and checks it.
    pub(super) fn frame(
        &self,
        offset: u64,
        number: u32,
        limit: u64,
        into: &mut Vec<u8>,
    ) -> Result<FrameHeader> {
        let what = || format!("frame {number}");
        let mut head = [0; FRAME_HEADER_BYTES];
        self.read(&mut head, offset, &what())?;
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let (raw, stored) = (word(8), word(12));
        if u64::from(stored) > limit || u64::from(raw) > limit || word(4) != number || head[2..4] != [0, 0] {
            return Err(self.corrupt(offset, what()));
        }
        into.resize(stored as usize, 0);
        // A length that reaches behind the file is the header's damage, as one that does not is.
        let count = self.file.read_at(into, offset + FRAME_HEADER_BYTES as u64)?;
        let fields = head[..16].try_into().expect("sixteen bytes");
        if count != into.len() || checksum(fields, into).to_le_bytes() != head[16..] {
            return Err(self.corrupt(offset, what()));
        }
        let codec = FrameCodec::try_from(head[0])
            .map_err(|unknown| self.format(format!("{VERSION} with {unknown}")))?;
        let kind = match head[1] {
            1 => FrameKind::Content,
            2 => FrameKind::Manifest,
            other => return Err(self.format(format!("{VERSION} with frame kind {other}"))),
        };
        Ok(FrameHeader { kind, codec, number, raw, stored })
    }

    /// Reads a frame of content.
    pub(super) fn content(&self, offset: u64, number: u32, into: &mut Vec<u8>) -> Result<FrameHeader> {
        let header = self.frame(offset, number, FRAME_BYTES as u64, into)?;
        let sound = match header.codec {
            FrameCodec::None => header.raw == header.stored,
            FrameCodec::Zstd | FrameCodec::Lz4 | FrameCodec::Gzip => header.stored < header.raw,
        };
        if header.kind != FrameKind::Content || !sound || header.raw == 0 {
            return Err(self.corrupt(offset, format!("frame {number}")));
        }
        Ok(header)
    }
}
