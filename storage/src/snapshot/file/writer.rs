//! Writing a snapshot: the caller fills frames, threads pack and write them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use super::encoder::{Encoder, Written};
use super::manifest::Manifest;
use super::shared::Shared;
use crate::disk::OpenMode;
use crate::snapshot::{FRAME_BYTES, SnapshotInfo, SnapshotMeta, SnapshotWriter};
use crate::{Error, Result};

/// A snapshot being written.
pub(super) struct FileWriter {
    shared: Arc<Shared>,
    id: Uuid,
    partial: PathBuf,
    frame: Vec<u8>,
    entries: Option<u64>,
    /// `None` once ended.
    encoder: Option<Encoder>,
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
        let id = meta.id;
        let manifest = Manifest::new(meta, created_unix_ms, shared.options.compression.into());
        let encoder = Encoder::start(file, &partial, manifest, &shared.options)?;
        let frame = Vec::with_capacity(FRAME_BYTES);
        Ok(FileWriter { shared, id, partial, frame, entries: None, encoder: Some(encoder) })
    }

    /// Hands the frame on; an error of the threads comes out here, or at the end.
    fn send(&mut self) -> Result<()> {
        let frame = std::mem::replace(&mut self.frame, Vec::with_capacity(FRAME_BYTES));
        let encoder = self.encoder.as_mut().ok_or(Error::Closed)?;
        if encoder.send(frame)? { Ok(()) } else { self.end().map(drop) }
    }

    fn end(&mut self) -> Result<Written> {
        self.encoder.take().ok_or(Error::Closed)?.end()
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
    fn set_entries(&mut self, entries: u64) {
        self.entries = Some(entries);
    }

    fn finish(mut self: Box<Self>) -> Result<SnapshotInfo> {
        if !self.frame.is_empty() {
            self.send()?;
        }
        let Written { file, mut manifest, end } = self.end()?;
        manifest.entries = self.entries;
        let tail = manifest.seal(end);
        file.write_at(&tail, end)?;
        file.sync_all()?;
        let info = manifest.info(end + tail.len() as u64);
        self.shared.publish(self.id, &self.partial, file, info.clone())?;
        Ok(info)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if self.encoder.is_some() {
            // Its outcome does not matter: nothing was finished.
            let _ = self.end();
        }
        // After `finish` it has its final name, and nothing is here.
        if let Err(error) = self.shared.disk.remove(&self.partial) {
            tracing::warn!(%error, "an unfinished snapshot stays until the next start");
        }
        self.shared.release(self.id);
    }
}
