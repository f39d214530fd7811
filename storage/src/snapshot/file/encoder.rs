//! What stands between a writer and its file: threads that pack frames, and one that writes them.
//!
//! Frame `n` goes through lane `n % lanes`, and the thread that writes takes from the lanes in the same
//! order, so that the file does not depend on which of them is faster. Each lane holds three frames at
//! most, its queues are bounded: a producer that is ahead waits, and memory stays below 5 MiB a lane.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use xxhash_rust::xxh3::Xxh3;

use super::codec::Packer;
use super::format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, HEADER_BYTES, header};
use super::manifest::Manifest;
use crate::disk::DiskFile;
use crate::snapshot::{Compression, FRAME_BYTES, SnapshotOptions};
use crate::{Error, Result};

/// More lanes than this would take the machine from those who serve.
const MOST_LANES: usize = 4;

/// What was written when all frames were.
pub(super) struct Written {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) manifest: Manifest,
    pub(super) end: u64,
}

/// A frame on its way to a lane.
struct Frame {
    number: u32,
    content: Vec<u8>,
}

/// A frame on its way to the file.
struct Packed {
    content: Vec<u8>,
    /// Header and stored bytes.
    sealed: Vec<u8>,
}

/// Packs and writes the frames of one snapshot.
pub(super) struct Encoder {
    lanes: Vec<SyncSender<Frame>>,
    frames: u32,
    packing: Vec<JoinHandle<()>>,
    writing: JoinHandle<Result<Written>>,
}

impl Encoder {
    /// Starts the threads; the header is written by them.
    pub(super) fn start(
        file: Arc<dyn DiskFile>,
        path: &Path,
        manifest: Manifest,
        options: &SnapshotOptions,
    ) -> Result<Self> {
        let count = lanes(options.compression);
        let (mut lanes, mut packed, mut packing) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let packer = Packer::new(options).map_err(|error| Error::io("compress", path, error))?;
            let (into, frames) = sync_channel(1);
            let (out, from) = sync_channel(1);
            packing.push(spawn("snapshot-pack", move || pack(packer, &frames, &out))?);
            lanes.push(into);
            packed.push(from);
        }
        let writing = spawn("snapshot-write", move || write(file, manifest, &packed))?;
        Ok(Encoder { lanes, frames: 0, packing, writing })
    }

    /// Hands on the next frame; waits while its lane is full. `false`: the threads have ended, and
    /// [`Encoder::end`] says why.
    pub(super) fn send(&mut self, content: Vec<u8>) -> Result<bool> {
        let number = self.frames;
        self.frames = number.checked_add(1).ok_or_else(|| Error::TooLarge {
            what: "a snapshot",
            found: (u64::from(number) + 1) * FRAME_BYTES as u64,
            limit: u64::from(u32::MAX) * FRAME_BYTES as u64,
        })?;
        let lane = number as usize % self.lanes.len();
        Ok(self.lanes[lane].send(Frame { number, content }).is_ok())
    }

    /// Lets all that was handed on be written, and waits for it.
    pub(super) fn end(self) -> Result<Written> {
        drop(self.lanes);
        let panicked = || Error::Engine("a thread of a snapshot panicked".to_owned());
        // All are joined, whatever became of the first.
        let packed: Vec<_> = self.packing.into_iter().map(JoinHandle::join).collect();
        let written = self.writing.join().map_err(|_| panicked())?;
        if packed.iter().any(Result::is_err) { Err(panicked()) } else { written }
    }
}

/// How many frames are packed at a time.
fn lanes(compression: Compression) -> usize {
    match compression {
        Compression::None => 1,
        _ => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_LANES)),
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map_err(|error: io::Error| Error::io("start thread", name, error))
}

/// A lane.
fn pack(mut packer: Packer, frames: &Receiver<Frame>, out: &SyncSender<Packed>) {
    for Frame { number, content } in frames {
        let (codec, mut sealed) = packer.pack(&content, FRAME_HEADER_BYTES);
        // Neither is more than a frame's.
        let (raw, stored) = (content.len() as u32, (sealed.len() - FRAME_HEADER_BYTES) as u32);
        FrameHeader { kind: FrameKind::Content, codec, number, raw, stored }.seal(&mut sealed);
        if out.send(Packed { content, sealed }).is_err() {
            return;
        }
    }
}

/// The thread that writes. A lane that has ended has no further frame, and so has none after it.
fn write(file: Arc<dyn DiskFile>, mut manifest: Manifest, lanes: &[Receiver<Packed>]) -> Result<Written> {
    file.write_at(&header(manifest.meta.id), 0)?;
    let mut end = HEADER_BYTES as u64;
    let mut hash = Xxh3::new();
    for lane in lanes.iter().cycle() {
        let Ok(Packed { content, sealed }) = lane.recv() else { break };
        hash.update(&content);
        file.write_at(&sealed, end)?;
        manifest.frames.push(end);
        manifest.content_bytes += content.len() as u64;
        end += sealed.len() as u64;
    }
    manifest.content_hash = hash.digest128();
    Ok(Written { file, manifest, end })
}
