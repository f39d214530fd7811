//! Reading a snapshot's content, frame by frame, each verified before its bytes are handed out.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::codec::Unpacker;
use super::format::{FRAME_HEADER_BYTES, HEADER_BYTES, Parser};
use super::manifest::Manifest;
use crate::disk::DiskFile;
use crate::snapshot::{FRAME_BYTES, SnapshotInfo};
use crate::{Error, Result};

/// The content of one snapshot, from a place in it on.
pub(super) struct ContentReader {
    file: Arc<dyn DiskFile>,
    /// While this lives, retention does not let the snapshot go.
    _held: Arc<()>,
    path: PathBuf,
    manifest: Manifest,
    /// Where the manifest begins: the end of the frames.
    end: u64,
    unpacker: Unpacker,
    stored: Vec<u8>,
    /// The present frame's content, and how much of it was handed out.
    content: Vec<u8>,
    taken: usize,
    number: u32,
    offset: u64,
    bytes: u64,
    /// Of all content so far; `None` when the start was left out.
    hash: Option<Xxh3>,
    complete: bool,
}

impl ContentReader {
    /// Starts to read; header, trailer and manifest are checked at once.
    pub(super) fn open(file: Arc<dyn DiskFile>, held: Arc<()>, path: PathBuf, id: Uuid) -> Result<Self> {
        let parser = Parser { file: &*file, path: &path };
        let (manifest, end) = parser.manifest(parser.header(id)?)?;
        if manifest.meta.id != id {
            return Err(parser.corrupt(end, "manifest: it is another snapshot's"));
        }
        Ok(ContentReader {
            file,
            _held: held,
            path,
            manifest,
            end,
            unpacker: Unpacker::default(),
            stored: Vec::new(),
            content: Vec::new(),
            taken: 0,
            number: 0,
            offset: HEADER_BYTES as u64,
            bytes: 0,
            hash: Some(Xxh3::new()),
            complete: false,
        })
    }

    /// Goes to a place of the content, by the manifest's index of frames: those before are not read.
    pub(super) fn seek(mut self, to: u64) -> Result<Self> {
        let length = self.manifest.content_bytes;
        if to > length {
            let reason = format!("{to}, but the content of the snapshot has {length} bytes");
            return Err(Error::Options { option: "offset", reason });
        }
        let (frame, within) = (to / FRAME_BYTES as u64, (to % FRAME_BYTES as u64) as usize);
        if frame > 0 {
            let parser = Parser { file: &*self.file, path: &self.path };
            let frames = &self.manifest.frames;
            if frames.len() as u64 != length.div_ceil(FRAME_BYTES as u64) {
                return Err(parser.corrupt(self.end, "manifest: frames and content differ"));
            }
            // The end behind a full last frame is a place too, and no frame begins there.
            let frame = usize::try_from(frame).unwrap_or(usize::MAX);
            self.offset = frames.get(frame).copied().unwrap_or(self.end);
            self.number = frame as u32;
            self.bytes = (frame * FRAME_BYTES) as u64;
            self.hash = None;
        }
        let (offset, number) = (self.offset, self.number);
        self.next_frame()?;
        if within > self.content.len() {
            let parser = Parser { file: &*self.file, path: &self.path };
            return Err(parser.corrupt(offset, format!("frame {number}: it is not full")));
        }
        self.taken = within;
        Ok(self)
    }

    /// What the manifest says of a file of so many bytes.
    pub(super) fn info(&self, stored_bytes: u64) -> SnapshotInfo {
        self.manifest.info(stored_bytes)
    }

    /// Reads everything.
    pub(super) fn verify(mut self) -> Result<SnapshotInfo> {
        while self.next_frame()? {}
        Ok(self.manifest.info(self.file.len()?))
    }

    /// Takes in the next frame; `false` after the last, when all was as the manifest says.
    fn next_frame(&mut self) -> Result<bool> {
        let parser = Parser { file: &*self.file, path: &self.path };
        let corrupt = |what: String| parser.corrupt(self.offset, what);
        self.content.clear();
        self.taken = 0;
        let index = self.number as usize;
        if index == self.manifest.frames.len() {
            if self.offset != self.end {
                return Err(corrupt(format!("frame {index}: the manifest does not know it")));
            }
            let hashed = self.hash.as_ref().is_none_or(|hash| hash.digest128() == self.manifest.content_hash);
            if self.bytes != self.manifest.content_bytes || !hashed {
                return Err(corrupt("content hash".to_owned()));
            }
            self.complete = true;
            return Ok(false);
        }
        if self.manifest.frames[index] != self.offset || self.offset >= self.end {
            return Err(corrupt(format!("frame {index}: the manifest has it elsewhere")));
        }
        let frame = parser.content(self.offset, self.number, &mut self.stored)?;
        let last = index + 1 == self.manifest.frames.len();
        if !last && frame.raw as usize != FRAME_BYTES {
            return Err(corrupt(format!("frame {index}: it is not full")));
        }
        let raw = frame.raw as usize;
        if !self.unpacker.unpack(frame.codec, &mut self.stored, raw, &mut self.content) {
            return Err(corrupt(format!("frame {index}: it does not decompress")));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&self.content);
        }
        self.bytes += self.content.len() as u64;
        self.offset += FRAME_HEADER_BYTES as u64 + u64::from(frame.stored);
        self.number += 1;
        Ok(true)
    }
}

impl Read for ContentReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.content.len() && !self.complete {
            self.next_frame().map_err(io::Error::other)?;
        }
        let count = into.len().min(self.content.len() - self.taken);
        into[..count].copy_from_slice(&self.content[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}
