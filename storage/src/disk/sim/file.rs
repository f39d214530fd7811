//! What is open on the simulated disk.

use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;

use super::inode::Inode;
use super::{SimDisk, State, eio};
use crate::Result;
use crate::disk::{DiskFile, DiskLock};

/// An open file; dead after a crash.
#[derive(Debug)]
pub(super) struct SimFile {
    disk: SimDisk,
    inode: u64,
    boot: u64,
    path: PathBuf,
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, inode: u64, boot: u64, path: &Path) -> Self {
        SimFile { disk, inode, boot, path: path.to_owned() }
    }

    /// Runs `change` on the inode, or half of it when the power goes now.
    fn change(
        &self,
        operation: &'static str,
        grow_to: usize,
        change: impl FnOnce(&mut Inode, Option<&mut StdRng>),
    ) -> Result<()> {
        let mut state = self.disk.state();
        if state.boot != self.boot {
            return Err(eio(operation, &self.path));
        }
        let half = match state.strike(operation, &self.path) {
            Err(error) => {
                if operation == "fdatasync"
                    && let Some(inode) = state.inodes.get_mut(&self.inode)
                {
                    // The pages count as clean from now on, and never reach the disk.
                    inode.pending.clear();
                }
                return Err(error);
            }
            Ok(half) => half,
        };
        let len = state.inodes.get(&self.inode).map_or(0, |inode| inode.cached.len());
        state.room(&self.path, grow_to.saturating_sub(len))?;
        let State { inodes, rng, .. } = &mut *state;
        if let Some(inode) = inodes.get_mut(&self.inode) {
            change(inode, half.then_some(rng));
        }
        if half { Err(eio(operation, &self.path)) } else { Ok(()) }
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let offset = usize::try_from(offset).map_err(|_| eio("write", &self.path))?;
        self.change("write", offset + bytes.len(), |inode, half| match half {
            None => inode.write(bytes, offset),
            Some(rng) => inode.write(&bytes[..rng.random_range(0..=bytes.len())], offset),
        })
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        let state = self.disk.state();
        if state.boot != self.boot || state.dark {
            return Err(eio("read", &self.path));
        }
        let bytes = state.inodes.get(&self.inode).map_or(&[][..], |inode| inode.cached.as_slice());
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let n = into.len().min(bytes.len() - start);
        into[..n].copy_from_slice(&bytes[start..start + n]);
        Ok(n)
    }

    fn sync_data(&self) -> Result<()> {
        self.change("fdatasync", 0, |inode, half| match half {
            None => inode.sync(),
            Some(rng) => {
                if rng.random() {
                    inode.sync();
                }
            }
        })
    }

    fn sync_all(&self) -> Result<()> {
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let len = usize::try_from(len).map_err(|_| eio("ftruncate", &self.path))?;
        self.change("ftruncate", len, |inode, _| inode.cached.resize(len, 0))
    }

    fn len(&self) -> Result<u64> {
        let state = self.disk.state();
        Ok(state.inodes.get(&self.inode).map_or(0, |inode| inode.cached.len() as u64))
    }
}

/// A lock that is held until it is dropped, or the power goes.
#[derive(Debug)]
pub(super) struct SimLock {
    disk: SimDisk,
    boot: u64,
    path: PathBuf,
}

impl SimLock {
    pub(super) fn new(disk: SimDisk, boot: u64, path: &Path) -> Self {
        SimLock { disk, boot, path: path.to_owned() }
    }
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boot == self.boot {
            state.locks.remove(&self.path);
        }
    }
}
