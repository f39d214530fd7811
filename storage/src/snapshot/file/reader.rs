//! Reading a snapshot's content, frame by frame, each verified before its bytes are handed out.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;
use zstd::bulk::Decompressor;

use super::format::{FRAME_HEADER_BYTES, FrameCodec, HEADER_BYTES, Manifest, Parser};
use crate::disk::DiskFile;
use crate::snapshot::{FRAME_BYTES, SnapshotInfo};
use crate::{Error, Result};

/// The content of one snapshot, from the start.
pub(super) struct ContentReader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    manifest: Manifest,
    /// Where the manifest begins: the end of the frames.
    end: u64,
    decompressor: Decompressor<'static>,
    stored: Vec<u8>,
    /// The present frame's content, and how much of it was handed out.
    content: Vec<u8>,
    taken: usize,
    number: u32,
    offset: u64,
    bytes: u64,
    hash: Xxh3,
    complete: bool,
}

impl ContentReader {
    /// Starts to read; header, trailer and manifest are checked at once.
    pub(super) fn open(file: Arc<dyn DiskFile>, path: PathBuf, id: Uuid) -> Result<Self> {
        let parser = Parser { file: &*file, path: &path };
        parser.header(id)?;
        let (manifest, end) = parser.manifest()?;
        if manifest.meta.id != id {
            return Err(parser.corrupt(end, "manifest: it is another snapshot's"));
        }
        let decompressor = Decompressor::new().map_err(|error| Error::io("start zstd for", &path, error))?;
        Ok(ContentReader {
            file,
            path,
            manifest,
            end,
            decompressor,
            stored: Vec::new(),
            content: Vec::new(),
            taken: 0,
            number: 0,
            offset: HEADER_BYTES as u64,
            bytes: 0,
            hash: Xxh3::new(),
            complete: false,
        })
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
            if self.bytes != self.manifest.content_bytes
                || self.hash.digest128() != self.manifest.content_hash
            {
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
        match frame.codec {
            FrameCodec::None => std::mem::swap(&mut self.content, &mut self.stored),
            FrameCodec::Zstd => {
                self.content.resize(frame.raw as usize, 0);
                let count = self.decompressor.decompress_to_buffer(&self.stored, &mut self.content[..]);
                if count.ok() != Some(frame.raw as usize) {
                    return Err(corrupt(format!("frame {index}: it does not decompress")));
                }
            }
        }
        self.hash.update(&self.content);
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
