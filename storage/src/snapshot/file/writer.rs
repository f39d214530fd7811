//! Writing a snapshot: the caller fills frames, a thread of the writer compresses and writes them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use xxhash_rust::xxh3::Xxh3;
use zstd::bulk::Compressor;

use super::Shared;
use super::format::{FRAME_HEADER_BYTES, FrameCodec, FrameHeader, FrameKind, HEADER_BYTES, Manifest, header};
use crate::disk::{DiskFile, OpenMode};
use crate::snapshot::{
    Compression, FRAME_BYTES, SnapshotInfo, SnapshotMeta, SnapshotOptions, SnapshotWriter,
};
use crate::{Error, Result};

/// Full frames that may wait for the thread.
const QUEUED_FRAMES: usize = 2;

/// What the thread hands back.
struct Written {
    file: Arc<dyn DiskFile>,
    manifest: Manifest,
    end: u64,
}

/// A snapshot being written.
pub(super) struct FileWriter {
    shared: Arc<Shared>,
    meta: SnapshotMeta,
    partial: PathBuf,
    frame: Vec<u8>,
    /// `None` once ended.
    queue: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<Result<Written>>>,
}

impl FileWriter {
    pub(super) fn start(
        shared: Arc<Shared>,
        meta: SnapshotMeta,
        created_unix_ms: u64,
        partial: PathBuf,
    ) -> Result<Self> {
        shared.disk.remove(&partial)?;
        let file = shared.disk.open(&partial, OpenMode::CreateNew)?;
        let manifest = Manifest {
            meta: meta.clone(),
            created_unix_ms,
            content_bytes: 0,
            content_hash: 0,
            frames: Vec::new(),
        };
        let (queue, frames) = sync_channel(QUEUED_FRAMES);
        let encoder = Encoder { file, path: partial.clone(), manifest, options: shared.options.clone() };
        let thread = std::thread::Builder::new()
            .name("snapshot-write".to_owned())
            .spawn(move || encoder.run(&frames))
            .map_err(|error| Error::io("start", "thread snapshot-write", error))?;
        let frame = Vec::with_capacity(FRAME_BYTES);
        Ok(FileWriter { shared, meta, partial, frame, queue: Some(queue), thread: Some(thread) })
    }

    /// Hands the frame to the thread; waits while enough are queued.
    fn send(&mut self) -> Result<()> {
        let frame = std::mem::replace(&mut self.frame, Vec::with_capacity(FRAME_BYTES));
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        // The thread leaves before the queue is closed only with an error.
        if queue.send(frame).is_err() { self.end().map(drop) } else { Ok(()) }
    }

    /// Lets the thread end, and waits for it.
    fn end(&mut self) -> Result<Written> {
        self.queue = None;
        let thread = self.thread.take().ok_or(Error::Closed)?;
        thread.join().unwrap_or_else(|_| Err(Error::Engine("the thread of a snapshot panicked".to_owned())))
    }
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.frame.len() == FRAME_BYTES {
            self.send().map_err(io::Error::other)?;
        }
        let count = bytes.len().min(FRAME_BYTES - self.frame.len());
        self.frame.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotWriter for FileWriter {
    fn finish(mut self: Box<Self>) -> Result<SnapshotInfo> {
        if !self.frame.is_empty() {
            self.send()?;
        }
        let Written { file, manifest, end } = self.end()?;
        let tail = manifest.seal(end);
        file.write_at(&tail, end)?;
        file.sync_all()?;
        let info = manifest.info(end + tail.len() as u64);
        self.shared.publish(self.meta.id, &self.partial, file, info.clone())?;
        Ok(info)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // Its outcome does not matter: nothing was finished.
            let _ = self.end();
        }
        // After `finish` it has its final name, and nothing is here.
        if let Err(error) = self.shared.disk.remove(&self.partial) {
            tracing::warn!(%error, "an unfinished snapshot stays until the next start");
        }
        self.shared.release(self.meta.id);
    }
}

/// The thread's side.
struct Encoder {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    manifest: Manifest,
    options: SnapshotOptions,
}

impl Encoder {
    fn run(mut self, frames: &Receiver<Vec<u8>>) -> Result<Written> {
        let mut compressor = match self.options.compression {
            Compression::Zstd => {
                let started = Compressor::new(self.options.level);
                Some(started.map_err(|error| Error::io("start zstd for", &self.path, error))?)
            }
            _ => None,
        };
        self.file.write_at(&header(self.manifest.meta.id), 0)?;
        let mut end = HEADER_BYTES as u64;
        let mut hash = Xxh3::new();
        let mut out = vec![0; FRAME_HEADER_BYTES + FRAME_BYTES];
        for content in frames {
            hash.update(&content);
            let number = u32::try_from(self.manifest.frames.len()).map_err(|_| Error::TooLarge {
                what: "a snapshot",
                found: self.manifest.content_bytes,
                limit: u64::from(u32::MAX) * FRAME_BYTES as u64,
            })?;
            let raw = content.len();
            // One byte less than the content: a frame that does not shrink does not fit, and stays raw.
            let room = &mut out[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + raw - 1];
            let packed = compressor.as_mut().and_then(|zstd| zstd.compress_to_buffer(&content, room).ok());
            let (codec, stored) = match packed {
                Some(stored) => (FrameCodec::Zstd, stored),
                None => {
                    out[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + raw].copy_from_slice(&content);
                    (FrameCodec::None, raw)
                }
            };
            let frame = &mut out[..FRAME_HEADER_BYTES + stored];
            let (raw, stored) = (raw as u32, stored as u32);
            FrameHeader { kind: FrameKind::Content, codec, number, raw, stored }.seal(frame);
            self.file.write_at(frame, end)?;
            self.manifest.frames.push(end);
            self.manifest.content_bytes += u64::from(raw);
            end += frame.len() as u64;
        }
        self.manifest.content_hash = hash.digest128();
        Ok(Written { file: self.file, manifest: self.manifest, end })
    }
}
