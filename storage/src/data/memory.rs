//! The data layer in memory: persistent ordered maps, so that a view costs a pointer.
//!
//! Nothing outlives the process but what `checkpoint` writes. A batch that would take the store over
//! its limit is refused whole; one that shrinks it is always taken.

mod checkpoint;

use std::io::{Read, Write};
use std::ops::Bound;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use imbl::OrdMap;

use super::statistics::Operations;
use super::stream::{StreamReader, StreamWriter};
use super::{
    ApplicationDataStorage, DataImport, DataStatistics, DataView, Direction, Durability, Keyspace, Row,
    WriteBatch, Writer, WriterLock,
};
use crate::disk::{Disk, RealDisk};
use crate::{Error, Result};

/// What a row costs beside its key and value.
const ROW_OVERHEAD_BYTES: u64 = 96;

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
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
}

/// What the store shares with its views and imports.
#[derive(Debug)]
struct Shared {
    writer: WriterLock,
    /// `None` once closed.
    state: RwLock<Option<Arc<State>>>,
    max_bytes: u64,
    operations: Arc<Operations>,
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
        let state = RwLock::new(Some(Arc::new(State::default())));
        let shared = Shared { writer: WriterLock::default(), state, max_bytes, operations: Arc::default() };
        MemoryData { shared: Arc::new(shared), disk }
    }
}

impl Shared {
    fn present(&self) -> Option<Arc<State>> {
        self.read().clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Arc<State>>> {
        self.state.read().expect("no holder of this lock panics")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Arc<State>>> {
        self.state.write().expect("no holder of this lock panics")
    }

    fn open(&self) -> Result<()> {
        self.read().as_ref().map(|_| ()).ok_or(Error::Closed)
    }

    fn apply(&self, batch: WriteBatch) -> Result<()> {
        let adds: u64 = batch
            .operations
            .iter()
            .filter_map(|(_, key, value)| value.as_ref().map(|value| weight(key, value)))
            .sum();
        let mut guard = self.write();
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

    /// Lets other data serve.
    fn replace(&self, next: State) -> Result<()> {
        let mut writer = self.writer.lock();
        *self.write().as_mut().ok_or(Error::Closed)? = Arc::new(next);
        writer.forget();
        self.operations.installs.add(1);
        Ok(())
    }
}

fn check_limit(bytes: u64, limit: u64) -> Result<()> {
    if bytes > limit {
        return Err(Error::TooLarge { what: "the data in memory", found: bytes, limit });
    }
    Ok(())
}

impl ApplicationDataStorage for MemoryData {
    fn view(&self) -> Box<dyn DataView> {
        self.shared.operations.views.add(1);
        Box::new(MemoryView { state: self.shared.present(), operations: self.shared.operations.clone() })
    }

    fn lock_writer(&self) -> Writer<'_> {
        self.shared.writer.lock()
    }

    fn write_as(&self, writer: &mut Writer<'_>, batch: WriteBatch, _durability: Durability) -> Result<()> {
        writer.assert_of(&self.shared.writer);
        let (puts, deletes) = batch.count();
        writer.wrote(&batch);
        let taken = batch.validate().and_then(|()| self.shared.apply(batch));
        self.shared.operations.wrote(puts, deletes, taken.is_ok());
        taken
    }

    fn sync(&self) -> Result<()> {
        self.shared.operations.syncs.add(1);
        self.shared.open()
    }

    fn import(&self) -> Result<Box<dyn DataImport>> {
        self.shared.open()?;
        Ok(Box::new(MemoryImport { into: self.shared.clone(), staged: None }))
    }

    fn size_bytes(&self) -> u64 {
        self.shared.present().map_or(0, |state| state.bytes)
    }

    fn statistics(&self) -> DataStatistics {
        let operations = self.shared.operations.counts();
        let Some(state) = self.shared.present() else {
            return DataStatistics { operations, ..DataStatistics::default() };
        };
        let rows = Keyspace::ALL.map(|keyspace| state.maps[keyspace.slot()].len() as u64);
        DataStatistics { rows, bytes: state.bytes, unflushed_bytes: state.bytes, tables: 0, operations }
    }

    fn flush(&self) -> Result<()> {
        self.shared.open()
    }

    fn compact(&self) -> Result<()> {
        self.shared.open()
    }

    fn close(&self) -> Result<()> {
        self.shared.write().take();
        Ok(())
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
    staged: Option<State>,
}

impl DataImport for MemoryImport {
    fn read(&mut self, from: &mut dyn Read) -> Result<()> {
        self.staged = None;
        self.staged = Some(load(from, self.into.max_bytes)?);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let staged = self.staged.ok_or_else(|| Error::NotFound { what: "an imported stream".to_owned() })?;
        self.into.replace(staged)
    }
}

#[derive(Debug)]
struct MemoryView {
    /// `None` when the store was closed before.
    state: Option<Arc<State>>,
    operations: Arc<Operations>,
}

impl MemoryView {
    fn state(&self) -> Result<&State> {
        self.state.as_deref().ok_or(Error::Closed)
    }
}

impl DataView for MemoryView {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.operations.gets.add(1);
        Ok(self.state()?.maps[keyspace.slot()].get(key).cloned())
    }

    fn scan<'a>(
        &'a self,
        keyspace: Keyspace,
        from: Bound<Bytes>,
        to: Bound<Bytes>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row>> + Send + 'a> {
        self.operations.scans.add(1);
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
