//! A snapshot file outside of any store: a backup.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::format::{HEADER_BYTES, Parser, read_header};
use super::reader::ContentReader;
use crate::Result;
use crate::disk::{Disk, OpenMode};
use crate::snapshot::SnapshotInfo;

/// A snapshot file under any name; its content is read through [`Read`], each frame verified before its bytes
/// are handed out.
pub struct SnapshotFile {
    info: SnapshotInfo,
    reader: ContentReader,
}

impl SnapshotFile {
    /// Opens the file and checks its header, trailer and manifest.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] and [`crate::Error::Format`] for what cannot be used, or what the disk answers.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.open(path, OpenMode::Read)?;
        let parser = Parser { file: &*file, path };
        let mut header = [0; HEADER_BYTES];
        parser.read(&mut header, 0, "header")?;
        let (_, id) = read_header(&header).ok_or_else(|| parser.corrupt(0, "header"))?;
        let bytes = file.len()?;
        let reader = ContentReader::open(file, Arc::default(), path.to_owned(), id)?;
        Ok(SnapshotFile { info: reader.info(bytes), reader })
    }

    /// What its manifest says.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// Reads all of it and compares every checksum.
    ///
    /// # Errors
    /// As [`SnapshotFile::open`].
    pub fn verify(self) -> Result<SnapshotInfo> {
        self.reader.verify()
    }
}

impl Read for SnapshotFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reader.read(into)
    }
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SnapshotFile").field(&self.info.meta.id).finish()
    }
}
