//! A disk in memory that is as bad as a real one may be.
//!
//! What was not synced is, at [`SimDisk::crash`], lost, kept or torn, page by page and in any order;
//! names that were not synced with their directory may or may not be there. After a failed sync the
//! bytes it should have saved are never durable, however often it is repeated. Everything follows
//! from the seed.

mod file;
mod inode;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::file::{SimFile, SimLock};
use self::inode::Inode;
use self::names::NameChange;
use super::{Disk, DiskFile, DiskLock, OpenMode};
use crate::{Error, Result};

/// What goes wrong at a chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// That call fails with EIO; later ones work.
    Io,
    /// That call fails with ENOSPC; later ones work.
    Full,
    /// From that call on no file can grow, until [`SimDisk::set_capacity`].
    FullFromNow,
    /// The power goes: that call may take effect in part, it and all later ones fail.
    PowerLoss,
}

/// A simulated disk; clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone)]
struct State {
    rng: StdRng,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    /// Rises at each crash: handles of before are dead.
    boot: u64,
    calls: u64,
    fault: Option<(u64, Fault)>,
    dark: bool,
    capacity: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        SimDisk {
            state: Arc::new(Mutex::new(State {
                rng: StdRng::seed_from_u64(seed),
                inodes: BTreeMap::new(),
                next_inode: 1,
                dirs: BTreeSet::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                name_changes: Vec::new(),
                locks: BTreeSet::new(),
                boot: 0,
                calls: 0,
                fault: None,
                dark: false,
                capacity: u64::MAX,
            })),
        }
    }

    /// Another disk with the same content, cached and durable, and no fault.
    pub fn fork(&self) -> SimDisk {
        let mut state = self.state().clone();
        state.locks.clear();
        state.fault = None;
        state.dark = false;
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// Loses power and comes back: what was not synced is decided by the seed, open files and locks are gone.
    pub fn crash(&self) {
        self.state().crash();
    }

    /// Calls so far that change something or sync: the points at which a fault can strike.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Lets the call with this number (the first is 1) go wrong.
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.state().fault = Some((call, fault));
    }

    /// Lets no chosen call go wrong any more.
    pub fn clear_fault(&self) {
        self.state().fault = None;
    }

    /// Whether a [`Fault::PowerLoss`] has struck: nothing works until [`SimDisk::crash`].
    pub fn is_dark(&self) -> bool {
        self.state().dark
    }

    /// Bytes that all files together have now.
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// Bytes that were written and not synced.
    pub fn unsynced_bytes(&self) -> u64 {
        let state = self.state();
        let pending = state.inodes.values().flat_map(|inode| &inode.pending);
        pending.map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Bytes that all files together may have.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Inverts the bits of `mask` in one byte, durably.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) {
        let mut state = self.state();
        let inode = state.names[path];
        let inode = state.inodes.get_mut(&inode).expect("a name points to an inode");
        inode.cached[offset as usize] ^= mask;
        if let Some(byte) = inode.durable.get_mut(offset as usize) {
            *byte ^= mask;
        }
    }

    /// The bytes of a file as a reader sees them now.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.inodes[state.names.get(path)?].cached.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn eio(operation: &'static str, path: &Path) -> Error {
    // 5 is EIO.
    Error::io(operation, path, io::Error::from_raw_os_error(5))
}

impl State {
    /// Counts a call and lets it fail when its time has come. `Ok(true)`: take effect in part, then fail.
    fn strike(&mut self, operation: &'static str, path: &Path) -> Result<bool> {
        if self.dark {
            return Err(eio(operation, path));
        }
        self.calls += 1;
        match self.fault {
            Some((at, fault)) if at == self.calls => match fault {
                Fault::Io => Err(eio(operation, path)),
                Fault::Full => Err(Error::Full { path: path.to_owned() }),
                Fault::FullFromNow => {
                    self.capacity = self.used();
                    Ok(false)
                }
                Fault::PowerLoss => {
                    self.dark = true;
                    Ok(true)
                }
            },
            _ => Ok(false),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[inode].cached.len() as u64).sum()
    }

    fn room(&self, path: &Path, grow: usize) -> Result<()> {
        if grow > 0 && self.used() + grow as u64 > self.capacity {
            return Err(Error::Full { path: path.to_owned() });
        }
        Ok(())
    }

    fn crash(&mut self) {
        self.boot += 1;
        self.dark = false;
        self.fault = None;
        self.locks.clear();
        for change in std::mem::take(&mut self.name_changes) {
            if self.rng.random() {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
        let alive: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|id, _| alive.contains(id));
        for inode in self.inodes.values_mut() {
            inode.crash(&mut self.rng);
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let present = state.names.get(path).copied();
        let inode = match (present, mode) {
            (Some(_), OpenMode::CreateNew) => {
                let exists = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(Error::io("open", path, exists));
            }
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::Write | OpenMode::WriteDirect) => {
                return Err(Error::NotFound { what: path.display().to_string() });
            }
            (None, _) => {
                if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
                    return Err(Error::NotFound { what: path.display().to_string() });
                }
                let half = state.strike("open", path)?;
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                state.names.insert(path.to_owned(), inode);
                state.name_changes.push(NameChange::Link(path.to_owned(), inode));
                if half {
                    return Err(eio("open", path));
                }
                inode
            }
        };
        Ok(Arc::new(SimFile::new(self.clone(), inode, state.boot, path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state();
        let Some(inode) = state.names.get(from).copied() else {
            return Err(Error::NotFound { what: from.display().to_string() });
        };
        let half = state.strike("rename", from)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned(), inode);
        change.clone().apply(&mut state.names);
        state.name_changes.push(change);
        if half { Err(eio("rename", from)) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Ok(());
        }
        let half = state.strike("remove", path)?;
        let change = NameChange::Unlink(path.to_owned());
        change.clone().apply(&mut state.names);
        state.name_changes.push(change);
        if half { Err(eio("remove", path)) } else { Ok(()) }
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>> {
        let state = self.state();
        if !state.dirs.contains(dir) {
            return Err(Error::NotFound { what: dir.display().to_string() });
        }
        let files = state.names.keys().filter(|path| path.parent() == Some(dir));
        let dirs = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        let names: BTreeSet<OsString> =
            files.chain(dirs).filter_map(|path| path.file_name().map(ToOwned::to_owned)).collect();
        Ok(names.into_iter().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        // Directories are durable at once: what is lost with them is lost with their files, too.
        self.state().dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let mut state = self.state();
        if state.strike("fsync directory", dir)? {
            return Err(eio("fsync directory", dir));
        }
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.name_changes).into_iter().partition(|change| change.touches(dir));
        state.name_changes = later;
        for change in now {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>> {
        let mut state = self.state();
        if !state.locks.insert(path.to_owned()) {
            return Err(Error::Locked { path: path.to_owned() });
        }
        Ok(Box::new(SimLock::new(self.clone(), state.boot, path)))
    }

    fn free_bytes(&self, _dir: &Path) -> Result<u64> {
        let state = self.state();
        Ok(state.capacity.saturating_sub(state.used()))
    }
}
