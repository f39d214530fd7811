//! The data layer in memory: persistent ordered maps, so that a view costs a pointer.
//!
//! Nothing outlives the process but what `checkpoint` writes. A batch that would take the store over
//! its limit is refused whole; one that shrinks it is always taken.

use std::io::{BufReader, Read, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use imbl::OrdMap;

use super::stream::{StreamReader, StreamWriter};
use super::{
    ApplicationDataStorage, DataImport, DataView, Direction, Durability, Keyspace, Row,
    SnapshotCapableStorage, WriteBatch,
};
use crate::disk::{Disk, DiskFile, OpenMode, RealDisk};
use crate::{Error, Result};

/// What a row costs beside its key and value.
const ROW_OVERHEAD_BYTES: u64 = 96;
/// The one file of a checkpoint.
const EXPORT_FILE: &str = "export";

/// All keyspaces at one moment, and what they weigh.
#[derive(Debug, Default, Clone)]
struct State {
    maps: [OrdMap<Bytes, Bytes>; 4],
    bytes: u64,
}

impl State {
    fn put(&mut self, keyspace: Keyspace, key: Bytes, value: Bytes) {
        self.bytes += weight(&key, &value);
        let key_bytes = key.len() as u64;
        if let Some(old) = self.maps[keyspace.slot()].insert(key, value) {
            self.bytes -= key_bytes + old.len() as u64 + ROW_OVERHEAD_BYTES;
        }
    }

    fn delete(&mut self, keyspace: Keyspace, key: &Bytes) {
        if let Some(old) = self.maps[keyspace.slot()].remove(key) {
            self.bytes -= weight(key, &old);
        }
    }

    fn apply(&mut self, batch: WriteBatch) {
        for (keyspace, key, value) in batch.operations {
            match value {
                Some(value) => self.put(keyspace, own(&key), own(&value)),
                None => self.delete(keyspace, &key),
            }
        }
    }
}

/// A copy: a slice would keep the whole message alive that it came in.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn weight(key: &Bytes, value: &Bytes) -> u64 {
    key.len() as u64 + value.len() as u64 + ROW_OVERHEAD_BYTES
}

/// The data of one shard replica, in memory.
#[derive(Debug)]
pub struct MemoryData {
    /// `None` once closed.
    state: Arc<RwLock<Option<Arc<State>>>>,
    max_bytes: u64,
    disk: Arc<dyn Disk>,
}

impl MemoryData {
    /// An empty store that takes up to `max_bytes`, rows counted with their overhead.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self::with_disk(max_bytes, Arc::new(RealDisk))
    }

    /// As [`MemoryData::new`], its checkpoints written to `disk`.
    #[must_use]
    pub fn with_disk(max_bytes: u64, disk: Arc<dyn Disk>) -> Self {
        let state = Arc::new(RwLock::new(Some(Arc::new(State::default()))));
        MemoryData { state, max_bytes, disk }
    }

    fn present(&self) -> Option<Arc<State>> {
        read(&self.state).clone()
    }
}

type Shared = RwLock<Option<Arc<State>>>;

fn read(state: &Shared) -> RwLockReadGuard<'_, Option<Arc<State>>> {
    state.read().expect("no holder of this lock panics")
}

fn write(state: &Shared) -> RwLockWriteGuard<'_, Option<Arc<State>>> {
    state.write().expect("no holder of this lock panics")
}

fn check_limit(bytes: u64, limit: u64) -> Result<()> {
    if bytes > limit {
        return Err(Error::TooLarge { what: "the data in memory", found: bytes, limit });
    }
    Ok(())
}

impl ApplicationDataStorage for MemoryData {
    fn view(&self) -> Box<dyn DataView> {
        Box::new(MemoryView { state: self.present() })
    }

    fn write(&self, batch: WriteBatch, _durability: Durability) -> Result<()> {
        batch.validate()?;
        let adds: u64 = batch
            .operations
            .iter()
            .filter_map(|(_, key, value)| value.as_ref().map(|value| weight(key, value)))
            .sum();
        let mut guard = write(&self.state);
        let state = guard.as_mut().ok_or(Error::Closed)?;
        if state.bytes + adds <= self.max_bytes {
            Arc::make_mut(state).apply(batch);
            return Ok(());
        }
        // It may still fit, when it replaces or removes: try on a copy, which shares its rows.
        let mut next = State::clone(state);
        next.apply(batch);
        if next.bytes > state.bytes {
            check_limit(next.bytes, self.max_bytes)?;
        }
        *state = Arc::new(next);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        read(&self.state).as_ref().map(|_| ()).ok_or(Error::Closed)
    }

    fn import(&self) -> Result<Box<dyn DataImport>> {
        self.sync()?;
        Ok(Box::new(MemoryImport { into: self.state.clone(), max_bytes: self.max_bytes, staged: None }))
    }

    fn size_bytes(&self) -> u64 {
        self.present().map_or(0, |state| state.bytes)
    }

    fn close(&self) -> Result<()> {
        write(&self.state).take();
        Ok(())
    }
}

impl SnapshotCapableStorage for MemoryData {
    fn checkpoint(&self, target: &Path) -> Result<()> {
        self.sync()?;
        let disk = &*self.disk;
        let file = target.join(EXPORT_FILE);
        if disk.list(target).is_ok_and(|names| names.iter().any(|name| name == EXPORT_FILE)) {
            return Err(Error::Options { option: "target", reason: format!("{} exists", target.display()) });
        }
        disk.create_dir_all(target)?;
        let partial = target.join("export.partial");
        disk.remove(&partial)?;
        let mut writer = FileStream { file: disk.open(&partial, OpenMode::CreateNew)?, offset: 0 };
        self.view().export(&mut writer)?;
        writer.file.sync_all()?;
        disk.rename(&partial, &file)?;
        disk.sync_dir(target)?;
        target.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))
    }

    fn open_checkpoint(&self, target: &Path) -> Result<Box<dyn DataView>> {
        let file = FileStream { file: self.disk.open(&target.join(EXPORT_FILE), OpenMode::Read)?, offset: 0 };
        let state = load(&mut BufReader::with_capacity(1 << 20, file), u64::MAX)
            .map_err(|error| named(error, target.join(EXPORT_FILE)))?;
        Ok(Box::new(MemoryView { state: Some(Arc::new(state)) }))
    }
}

/// Gives damage found in a stream the name of the file it was read from.
fn named(error: Error, path: PathBuf) -> Error {
    match error {
        Error::Corrupt { offset, what, .. } => Error::Corrupt { path, offset, what },
        other => other,
    }
}

/// A file of a [`Disk`] read or written from the start.
struct FileStream {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Write for FileStream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write_at(bytes, self.offset).map_err(std::io::Error::other)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for FileStream {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(into, self.offset).map_err(std::io::Error::other)?;
        self.offset += count as u64;
        Ok(count)
    }
}

fn load(from: &mut dyn Read, max_bytes: u64) -> Result<State> {
    let mut state = State::default();
    let mut reader = StreamReader::new(from);
    for keyspace in Keyspace::ALL {
        while let Some((key, value)) = reader.row(keyspace)? {
            state.put(keyspace, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            check_limit(state.bytes, max_bytes)?;
        }
    }
    reader.finish()?;
    Ok(state)
}

struct MemoryImport {
    into: Arc<Shared>,
    max_bytes: u64,
    staged: Option<State>,
}

impl DataImport for MemoryImport {
    fn read(&mut self, from: &mut dyn Read) -> Result<()> {
        self.staged = None;
        self.staged = Some(load(from, self.max_bytes)?);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let staged = self.staged.ok_or_else(|| Error::NotFound { what: "an imported stream".to_owned() })?;
        let mut guard = write(&self.into);
        *guard.as_mut().ok_or(Error::Closed)? = Arc::new(staged);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryView {
    /// `None` when the store was closed before.
    state: Option<Arc<State>>,
}

impl MemoryView {
    fn state(&self) -> Result<&State> {
        self.state.as_deref().ok_or(Error::Closed)
    }
}

impl DataView for MemoryView {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.state()?.maps[keyspace.slot()].get(key).cloned())
    }

    fn scan<'a>(
        &'a self,
        keyspace: Keyspace,
        from: Bound<Bytes>,
        to: Bound<Bytes>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row>> + Send + 'a> {
        let state = match self.state() {
            Ok(state) => state,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        if super::is_empty_range(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let rows = state.maps[keyspace.slot()].range((from, to));
        let row = |(key, value): (&Bytes, &Bytes)| Ok((key.clone(), value.clone()));
        match direction {
            Direction::Forward => Box::new(rows.map(row)),
            Direction::Backward => Box::new(rows.rev().map(row)),
        }
    }

    fn export(&self, into: &mut dyn Write) -> Result<()> {
        let state = self.state()?;
        let mut stream = StreamWriter::new(into);
        for keyspace in Keyspace::ALL {
            stream.keyspace(keyspace)?;
            for (key, value) in &state.maps[keyspace.slot()] {
                stream.row(key, value)?;
            }
            stream.end_keyspace()?;
        }
        stream.finish()
    }
}
