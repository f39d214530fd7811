//! What one write and fdatasync cost on the disk that the nodes use.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::load::Measured;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 4096;

/// A file that was written once, so that a sync has no metadata to write.
pub(super) struct SyncedFile {
    file: File,
    path: PathBuf,
}

impl SyncedFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let block = vec![0; BLOCK];
        for n in 0..BLOCKS {
            file.write_all_at(&block, n * BLOCK as u64)?;
        }
        file.sync_all()?;
        Ok(SyncedFile { file, path: path.to_owned() })
    }

    /// 4 KiB, fdatasync, again and again.
    pub(super) fn measure(self, duration: Duration) -> io::Result<Measured> {
        let mut measured = Measured::default();
        let block = vec![1; BLOCK];
        let start = Instant::now();
        let mut n = 0;
        while start.elapsed() < duration {
            let begun = Instant::now();
            self.file.write_all_at(&block, (n % BLOCKS) * BLOCK as u64)?;
            self.file.sync_data()?;
            measured.record(begun.elapsed());
            n += 1;
        }
        measured.took(start.elapsed());
        std::fs::remove_file(&self.path)?;
        Ok(measured)
    }
}
