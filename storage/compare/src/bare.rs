//! pwrite and fdatasync, over a file of zeroes that is written again from its start.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{ENTRY, Log, SEGMENT};

pub(crate) struct Bare {
    file: File,
    offset: u64,
    noise: Vec<u8>,
}

impl Bare {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path)?;
        let zeroes = vec![0; 1 << 20];
        for at in (0..SEGMENT).step_by(zeroes.len()) {
            file.write_all_at(&zeroes, at)?;
        }
        file.sync_all()?;
        let noise = crate::payload().into_bytes().repeat(256);
        Ok(Bare { file, offset: 0, noise })
    }
}

impl Log for Bare {
    fn name(&self) -> &'static str {
        "bare pwrite+fdatasync"
    }

    fn append(&mut self, count: usize) -> anyhow::Result<()> {
        let write = &self.noise[..(count * ENTRY).next_multiple_of(512).min(self.noise.len())];
        if self.offset + write.len() as u64 > SEGMENT {
            self.offset = 0;
        }
        self.file.write_all_at(write, self.offset)?;
        self.offset += write.len() as u64;
        Ok(self.file.sync_data()?)
    }

    fn purge(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
