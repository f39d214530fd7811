//! A disk in memory that is as bad as a real one may be.
//!
//! What was not synced is, at [`SimDisk::crash`], lost, kept or torn, page by page and in any order;
//! names that were not synced with their directory may or may not be there. After a failed sync the
//! bytes it should have saved are never durable, however often it is repeated. Everything follows
//! from the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Disk, DiskFile, DiskLock, OpenMode};
use crate::{Error, Result};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

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

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Not synced: offset and bytes, in order.
    pending: Vec<(usize, Vec<u8>)>,
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
                apply(&mut self.durable_names, change);
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

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path, inode);
        }
        NameChange::Unlink(path) => {
            names.remove(&path);
        }
        NameChange::Rename(from, to, inode) => {
            names.remove(&from);
            names.insert(to, inode);
        }
    }
}

impl NameChange {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) => path.parent() == Some(dir),
            NameChange::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

impl Inode {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        if self.cached.len() < offset + bytes.len() {
            self.cached.resize(offset + bytes.len(), 0);
        }
        self.cached[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.pending.push((offset, bytes.to_vec()));
    }

    fn sync(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            let end = (offset + bytes.len()).min(self.durable.len());
            if offset < end {
                self.durable[offset..end].copy_from_slice(&bytes[..end - offset]);
            }
        }
    }

    /// Every page that was written since the last sync takes the content after some of its writes;
    /// one in four mixes two of them sector by sector.
    fn crash(&mut self, rng: &mut StdRng) {
        if self.durable.len() != self.cached.len() && rng.random() {
            self.durable.resize(self.cached.len(), 0);
        }
        let mut pages: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
        for (offset, bytes) in &self.pending {
            let (mut at, mut rest) = (*offset, bytes.as_slice());
            while !rest.is_empty() {
                let take = (PAGE - at % PAGE).min(rest.len());
                pages.entry(at / PAGE).or_default().push((at, &rest[..take]));
                (at, rest) = (at + take, &rest[take..]);
            }
        }
        for writes in pages.into_values() {
            let kept = rng.random_range(0..=writes.len());
            let torn = rng.random_ratio(1, 4);
            for (at, bytes) in &writes[..kept] {
                for (n, piece) in sectors(*at, bytes) {
                    let end = (n + piece.len()).min(self.durable.len());
                    if n < end && !(torn && rng.random()) {
                        self.durable[n..end].copy_from_slice(&piece[..end - n]);
                    }
                }
            }
        }
        self.pending.clear();
        self.cached = self.durable.clone();
    }
}

/// Cuts a write where sectors begin.
fn sectors(mut at: usize, mut bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let take = (SECTOR - at % SECTOR).min(bytes.len());
        pieces.push((at, &bytes[..take]));
        (at, bytes) = (at + take, &bytes[take..]);
    }
    pieces
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
            (None, OpenMode::Read | OpenMode::Write) => {
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
        Ok(Arc::new(SimFile { disk: self.clone(), inode, boot: state.boot, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state();
        let Some(inode) = state.names.get(from).copied() else {
            return Err(Error::NotFound { what: from.display().to_string() });
        };
        let half = state.strike("rename", from)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned(), inode);
        apply(&mut state.names, change.clone());
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
        apply(&mut state.names, change.clone());
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
            apply(&mut state.durable_names, change);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>> {
        let mut state = self.state();
        if !state.locks.insert(path.to_owned()) {
            return Err(Error::Locked { path: path.to_owned() });
        }
        Ok(Box::new(SimLock { disk: self.clone(), boot: state.boot, path: path.to_owned() }))
    }

    fn free_bytes(&self, _dir: &Path) -> Result<u64> {
        let state = self.state();
        Ok(state.capacity.saturating_sub(state.used()))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
    boot: u64,
    path: PathBuf,
}

impl SimFile {
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

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    boot: u64,
    path: PathBuf,
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
