//! The layout of a snapshot file: header, frames, manifest, trailer (docs/formats/snapshot.md).
//!
//! Every structure has its own checksum, so a damaged one is named with its offset. Nothing here
//! believes a length before its checksum, nor allocates by one that is out of bounds.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::DiskFile;
use crate::snapshot::{FRAME_BYTES, SnapshotInfo, SnapshotMeta};
use crate::{Error, Result, codec};

pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"odgmsnap";
const END_MAGIC: [u8; 8] = *b"odgm-end";

pub(super) const HEADER_BYTES: usize = 40;
pub(super) const FRAME_HEADER_BYTES: usize = 24;
pub(super) const TRAILER_BYTES: usize = 32;
/// A manifest holds 9 bytes a frame and the membership: this is a snapshot of many TiB.
const MANIFEST_LIMIT: u64 = 256 << 20;

/// The codec of a frame; final numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameCodec {
    None = 0,
    Zstd = 1,
}

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

/// What the end of a file says about all of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) meta: SnapshotMeta,
    pub(super) created_unix_ms: u64,
    pub(super) content_bytes: u64,
    pub(super) content_hash: u128,
    /// Where each frame begins.
    pub(super) frames: Vec<u64>,
}

impl Manifest {
    pub(super) fn info(&self, stored_bytes: u64) -> SnapshotInfo {
        SnapshotInfo {
            meta: self.meta.clone(),
            created_unix_ms: self.created_unix_ms,
            content_bytes: self.content_bytes,
            stored_bytes,
            content_hash: self.content_hash,
        }
    }

    /// The manifest as its frame, and the trailer; written at `offset`.
    pub(super) fn seal(&self, offset: u64) -> Vec<u8> {
        let body = codec::encode(self);
        let length = u32::try_from(body.len()).expect("a manifest of 4 GiB has 400 million frames");
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        bytes.extend_from_slice(&body);
        let number = u32::try_from(self.frames.len()).expect("frames are numbered by u32");
        let header = FrameHeader {
            kind: FrameKind::Manifest,
            codec: FrameCodec::None,
            number,
            raw: length,
            stored: length,
        };
        header.seal(&mut bytes);
        let total = offset + (bytes.len() + TRAILER_BYTES) as u64;
        let start = bytes.len();
        bytes.extend_from_slice(&offset.to_le_bytes());
        bytes.extend_from_slice(&total.to_le_bytes());
        let sum = xxh3_64(&bytes[start..]);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.extend_from_slice(&END_MAGIC);
        bytes
    }
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
        let supported = VERSION.to_string();
        Error::Format { path: self.path.to_owned(), found: found.to_string(), supported }
    }

    fn read(&self, into: &mut [u8], offset: u64, what: &str) -> Result<()> {
        let count = self.file.read_at(into, offset)?;
        if count == into.len() {
            Ok(())
        } else {
            Err(self.corrupt(offset, format!("{what}: the file is cut short")))
        }
    }

    /// Checks the header of the snapshot `id`.
    pub(super) fn header(&self, id: Uuid) -> Result<()> {
        let mut bytes = [0; HEADER_BYTES];
        self.read(&mut bytes, 0, "header")?;
        if bytes[..8] != MAGIC || xxh3_64(&bytes[..32]).to_le_bytes() != bytes[32..] {
            return Err(self.corrupt(0, "header"));
        }
        let version = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
        if version != VERSION {
            return Err(self.format(version));
        }
        if bytes[16..32] != id.as_bytes()[..] {
            return Err(self.corrupt(16, "header: it is another snapshot's"));
        }
        Ok(())
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
        self.read(into, offset + FRAME_HEADER_BYTES as u64, &what())?;
        let fields = head[..16].try_into().expect("sixteen bytes");
        if checksum(fields, into).to_le_bytes() != head[16..] {
            return Err(self.corrupt(offset, what()));
        }
        let codec = match head[0] {
            0 => FrameCodec::None,
            1 => FrameCodec::Zstd,
            other => return Err(self.format(format!("{VERSION} with codec {other}"))),
        };
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
            FrameCodec::Zstd => header.stored < header.raw,
        };
        if header.kind != FrameKind::Content || !sound || header.raw == 0 {
            return Err(self.corrupt(offset, format!("frame {number}")));
        }
        Ok(header)
    }

    /// Reads trailer and manifest; also says where the manifest begins.
    pub(super) fn manifest(&self) -> Result<(Manifest, u64)> {
        let length = self.file.len()?;
        let Some(at) = length.checked_sub(TRAILER_BYTES as u64) else {
            return Err(self.corrupt(length, "trailer: the file is cut short"));
        };
        let mut trailer = [0; TRAILER_BYTES];
        self.read(&mut trailer, at, "trailer")?;
        let word = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().expect("eight bytes"));
        let sound = trailer[24..] == END_MAGIC && word(16) == xxh3_64(&trailer[..16]) && word(8) == length;
        let offset = word(0);
        if !sound || offset < HEADER_BYTES as u64 || offset + FRAME_HEADER_BYTES as u64 > at {
            return Err(self.corrupt(at, "trailer"));
        }
        let corrupt = || self.corrupt(offset, "manifest");
        let mut head = [0; FRAME_HEADER_BYTES];
        self.read(&mut head, offset, "manifest")?;
        let number = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
        let mut body = Vec::new();
        let frame = self.frame(offset, number, MANIFEST_LIMIT.min(at - offset), &mut body);
        let frame = frame.map_err(|error| match error {
            Error::Corrupt { .. } => corrupt(),
            other => other,
        })?;
        let ends = offset + FRAME_HEADER_BYTES as u64 + u64::from(frame.stored);
        let manifest: Manifest = codec::decode(&body).ok_or_else(corrupt)?;
        if frame.kind != FrameKind::Manifest || ends != at || manifest.frames.len() != number as usize {
            return Err(corrupt());
        }
        Ok((manifest, offset))
    }
}
