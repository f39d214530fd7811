//! Receiving the stored form of a snapshot. What came before a break is kept under the snapshot's id
//! and taken up at the end of its last sound frame.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::format::{FRAME_HEADER_BYTES, HEADER_BYTES, Parser};
use super::reader::ContentReader;
use super::shared::Shared;
use crate::disk::{DiskFile, OpenMode};
use crate::snapshot::{SnapshotInfo, SnapshotReceiver};
use crate::{Error, Result};

/// A snapshot being received.
pub(super) struct FileReceiver {
    shared: Arc<Shared>,
    id: Uuid,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    offset: u64,
    stored_bytes: u64,
    /// It is in the store already: nothing is to be named.
    known: bool,
}

impl FileReceiver {
    /// Takes up what a broken transfer left at `path`.
    pub(super) fn resume(shared: Arc<Shared>, id: Uuid, path: PathBuf, stored_bytes: u64) -> Result<Self> {
        let file = shared.disk.open(&path, OpenMode::Create)?;
        let offset = match sound_bytes(&*file, &path, id)? {
            offset if offset > stored_bytes => 0,
            offset => offset,
        };
        file.set_len(offset)?;
        Ok(FileReceiver { shared, id, path, file, offset, stored_bytes, known: false })
    }

    /// A transfer that has nothing left to do.
    pub(super) fn complete(
        shared: Arc<Shared>,
        id: Uuid,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
    ) -> Result<Self> {
        let stored_bytes = file.len()?;
        Ok(FileReceiver { shared, id, path, file, offset: stored_bytes, stored_bytes, known: true })
    }
}

/// Where the last sound frame of a broken transfer ends.
fn sound_bytes(file: &dyn DiskFile, path: &Path, id: Uuid) -> Result<u64> {
    let parser = Parser { file, path };
    let damaged = |error| match error {
        // Bytes that were not synced may be anything after a crash: they come again.
        Error::Corrupt { .. } | Error::Format { .. } => Ok(()),
        other => Err(other),
    };
    if let Err(error) = parser.header(id) {
        return damaged(error).map(|()| 0);
    }
    let (mut offset, mut number, mut stored) = (HEADER_BYTES as u64, 0, Vec::new());
    loop {
        match parser.content(offset, number, &mut stored) {
            Ok(frame) => offset += FRAME_HEADER_BYTES as u64 + u64::from(frame.stored),
            Err(error) => return damaged(error).map(|()| offset),
        }
        number += 1;
    }
}

impl SnapshotReceiver for FileReceiver {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.offset + bytes.len() as u64;
        if end > self.stored_bytes {
            return Err(Error::TooLarge { what: "a transfer", found: end, limit: self.stored_bytes });
        }
        if !bytes.is_empty() {
            self.file.write_at(bytes, self.offset)?;
            self.offset = end;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<SnapshotInfo> {
        if self.offset != self.stored_bytes {
            let what = format!("transfer: {} bytes are missing", self.stored_bytes - self.offset);
            return Err(Error::Corrupt { path: self.path.clone(), offset: self.offset, what });
        }
        let verified = ContentReader::open(self.file.clone(), Arc::default(), self.path.clone(), self.id);
        let verified = verified.and_then(ContentReader::verify);
        if self.known {
            return verified;
        }
        if let Err(Error::Corrupt { .. } | Error::Format { .. }) = verified {
            // Kept, it would be taken up again and fail again.
            self.shared.disk.remove(&self.path)?;
        }
        let info = verified?;
        if let Err(error) = self.file.sync_all() {
            // It reads well and may never reach the disk: it must not be taken up, and synced, again.
            self.shared.disk.remove(&self.path)?;
            return Err(error);
        }
        self.shared.publish(self.id, &self.path, self.file.clone(), info.clone())?;
        Ok(info)
    }
}

impl Drop for FileReceiver {
    fn drop(&mut self) {
        if !self.known {
            self.shared.release(self.id);
        }
    }
}
