//! What the machine allows: a sync of one block, and big files written and read in sequence.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};

use super::{Scale, megabytes_per_second};
use crate::bench::disk::SyncedFile;
use crate::bench::load::Measured;
use crate::bench::report::{Report, Row};

const CHUNK: usize = 1 << 20;

/// The physical limits of a run.
pub(super) struct Limits {
    /// 4 KiB and an fdatasync.
    pub(super) sync: Measured,
    /// 10^6 bytes a second into a new file, synced at its end.
    pub(super) write: f64,
    /// 10^6 bytes a second out of a file that is not in memory.
    pub(super) read: f64,
}

impl Limits {
    pub(super) fn measure(dir: &Path, scale: &Scale) -> anyhow::Result<Self> {
        let sync = SyncedFile::create(&dir.join("fdatasync"))?.measure(scale.round)?;
        let path = dir.join("sequential");
        // Not zeroes, which a disk may treat as nothing.
        let mut chunk: Vec<u8> = super::corpus::noise(CHUNK).to_vec();
        let start = Instant::now();
        let mut file = File::create(&path)?;
        for _ in 0..scale.sequential_bytes / CHUNK as u64 {
            file.write_all(&chunk)?;
        }
        file.sync_data()?;
        let write = megabytes_per_second(scale.sequential_bytes, start.elapsed());
        forget(dir)?;
        let start = Instant::now();
        let mut file = File::open(&path)?;
        while file.read(&mut chunk)? > 0 {}
        let read = megabytes_per_second(scale.sequential_bytes, start.elapsed());
        fs::remove_file(&path)?;
        Ok(Limits { sync, write, read })
    }

    pub(super) fn report(&self, report: &mut Report) {
        report.disk(&self.sync);
        report.push(Row::new("sequential write", self.write, "MB/s"));
        report.push(Row::new("sequential read", self.read, "MB/s"));
    }
}

/// Writes all files under a directory to the disk, and has the operating system forget what they hold.
pub(super) fn forget(dir: &Path) -> anyhow::Result<()> {
    for found in fs::read_dir(dir)? {
        let path = found?.path();
        if path.is_dir() {
            forget(&path)?;
            continue;
        }
        match File::open(&path) {
            Ok(file) => {
                file.sync_all()?;
                fadvise(&file, 0, None, Advice::DontNeed)?;
            }
            // A compaction removed it meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
