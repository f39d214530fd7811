//! The end of a snapshot file, which says what all of it is: manifest and trailer.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::codec::FrameCodec;
use super::format::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, HEADER_BYTES, Parser, TRAILER_BYTES, VERSION_1,
};
use crate::snapshot::{SnapshotInfo, SnapshotMeta};
use crate::{Error, Result, codec};

const END_MAGIC: [u8; 8] = *b"odgm-end";
/// A manifest holds 9 bytes a frame and the membership: this is a snapshot of many TiB.
const MANIFEST_LIMIT: u64 = 256 << 20;

/// What the end of a file says about all of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) meta: SnapshotMeta,
    pub(super) created_unix_ms: u64,
    pub(super) content_bytes: u64,
    pub(super) content_hash: u128,
    /// Where each frame begins.
    pub(super) frames: Vec<u64>,
    /// What its frames were to be packed with; files of version 1 do not say.
    pub(super) codec: Option<FrameCodec>,
    pub(super) entries: Option<u64>,
}

/// The manifest of version 1.
#[derive(Deserialize)]
struct ManifestV1 {
    meta: SnapshotMeta,
    created_unix_ms: u64,
    content_bytes: u64,
    content_hash: u128,
    frames: Vec<u64>,
}

impl From<ManifestV1> for Manifest {
    fn from(old: ManifestV1) -> Self {
        Manifest {
            meta: old.meta,
            created_unix_ms: old.created_unix_ms,
            content_bytes: old.content_bytes,
            content_hash: old.content_hash,
            frames: old.frames,
            codec: None,
            entries: None,
        }
    }
}

impl Manifest {
    pub(super) fn new(meta: SnapshotMeta, created_unix_ms: u64, codec: FrameCodec) -> Self {
        Manifest {
            meta,
            created_unix_ms,
            content_bytes: 0,
            content_hash: 0,
            frames: Vec::new(),
            codec: Some(codec),
            entries: None,
        }
    }

    pub(super) fn info(&self, stored_bytes: u64) -> SnapshotInfo {
        SnapshotInfo {
            meta: self.meta.clone(),
            created_unix_ms: self.created_unix_ms,
            content_bytes: self.content_bytes,
            stored_bytes,
            content_hash: self.content_hash,
            compression: self.codec.map(Into::into),
            entries: self.entries,
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

impl Parser<'_> {
    /// Reads trailer and manifest of a file of `version`; also says where the manifest begins.
    pub(super) fn manifest(&self, version: u32) -> Result<(Manifest, u64)> {
        let length = self.file.len()?;
        let Some(at) = length.checked_sub(TRAILER_BYTES as u64) else {
            return Err(self.corrupt(length, "trailer: the file is cut short"));
        };
        let mut trailer = [0; TRAILER_BYTES];
        self.read(&mut trailer, at, "trailer")?;
        let word = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().expect("eight bytes"));
        let sound = trailer[24..] == END_MAGIC && word(16) == xxh3_64(&trailer[..16]) && word(8) == length;
        let offset = word(0);
        let room = at.checked_sub(FRAME_HEADER_BYTES as u64).and_then(|last| last.checked_sub(offset));
        if !sound || offset < HEADER_BYTES as u64 || room.is_none() {
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
        let manifest: Option<Manifest> = match version {
            VERSION_1 => codec::decode::<ManifestV1>(&body).map(Manifest::from),
            _ => codec::decode(&body),
        };
        let manifest = manifest.ok_or_else(corrupt)?;
        if frame.kind != FrameKind::Manifest || ends != at || manifest.frames.len() != number as usize {
            return Err(corrupt());
        }
        Ok((manifest, offset))
    }
}
