//! Files whose whole blocks are written past the page cache, with `O_DIRECT`.
//!
//! Who syncs after each write gains nothing by a copy of it in the page cache, and pays for it: the system
//! has to find the dirty pages again, and writes pages where blocks would do. An error of the disk is that of
//! the write, not of some later sync. Reads go through the page cache, which the system keeps coherent.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

use super::real::{RealFile, refused};
use super::{ALIGNED, DiskFile};
use crate::Result;

/// Offset and length of what goes past the page cache are multiples of this: less no disk takes.
const BLOCK: usize = 512;

/// A file with a second way in.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: RealFile,
    direct: File,
    /// The file system does not do it after all.
    refused: AtomicBool,
}

impl DirectFile {
    /// The file as it is when the file system knows no second way.
    pub(super) fn over(file: RealFile) -> std::result::Result<Self, RealFile> {
        let flag = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).expect("a flag of open");
        match File::options().write(true).custom_flags(flag).open(&file.path) {
            Ok(direct) => Ok(DirectFile { file, direct, refused: AtomicBool::new(false) }),
            Err(_) => Err(file),
        }
    }

    fn takes(&self, bytes: &[u8], offset: u64) -> bool {
        bytes.len().is_multiple_of(BLOCK)
            && offset.is_multiple_of(BLOCK as u64)
            && bytes.as_ptr().align_offset(ALIGNED) == 0
            && !self.refused.load(Ordering::Relaxed)
    }
}

impl DiskFile for DirectFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        if self.takes(bytes, offset) {
            match self.direct.write_all_at(bytes, offset) {
                // A disk with larger blocks, or a file system that does not do it.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
                    self.refused.store(true, Ordering::Relaxed);
                }
                written => return written.map_err(|error| refused("write", &self.file.path, error)),
            }
        }
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(into, offset)
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_in(dir: &std::path::Path) -> std::result::Result<DirectFile, RealFile> {
        let path = dir.join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(4 << 20).unwrap();
        DirectFile::over(RealFile { file, path })
    }

    /// Writes blocks and odd bytes over each other and reads them after each.
    fn is_coherent(file: &dyn DiskFile) {
        let mut expected = vec![0; 4 << 20];
        let writes: [(usize, usize); 7] =
            [(0, 512), (512, 3 << 20), (100, 7), (1024, 512), (1 << 20, 4608), (513, 4096), (0, 4 << 20)];
        for (n, (offset, len)) in writes.into_iter().enumerate() {
            let mut room = vec![0; len + ALIGNED];
            let start = room.as_ptr().align_offset(ALIGNED);
            let bytes = &mut room[start..start + len];
            bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251 + n) as u8);
            file.write_at(bytes, offset as u64).unwrap();
            expected[offset..offset + len].copy_from_slice(bytes);
            let mut found = vec![0; expected.len()];
            assert_eq!(file.read_at(&mut found, 0).unwrap(), expected.len());
            assert!(found == expected, "write {n}");
            file.sync_data().unwrap();
        }
    }

    #[test]
    fn what_is_written_past_the_cache_and_through_it_is_read_alike() {
        let dir = tempfile::tempdir().unwrap();
        // Not every file system knows it: then there is nothing to test.
        let Ok(file) = file_in(dir.path()) else { return };
        is_coherent(&file);
    }

    #[test]
    fn a_file_that_refuses_is_written_through_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(mut file) = file_in(dir.path()) else { return };
        // Says "invalid argument" to whatever is no number, as a disk does to blocks smaller than its own.
        file.direct = File::options().write(true).open("/proc/self/oom_score_adj").unwrap();
        is_coherent(&file);
        assert!(file.refused.into_inner());
    }
}
