//! The data of a simulated replica: the store in memory, with a model of what a crash leaves of it.
//!
//! A batch that was not synced may be lost in a crash, but never one without all that came after it: a prefix
//! stays, as of a journal. Every state has a hash that does not depend on how it was reached.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use odgm_storage::Result;
use odgm_storage::data::{
    ApplicationDataStorage, DataImport, DataStatistics, DataView, Direction, Durability, Keyspace,
    MemoryData, WriteBatch, Writer,
};
use xxhash_rust::xxh3::Xxh3;

use super::world;
use crate::state::layout;

/// States behind the last that are remembered, for a crash to choose from.
const REMEMBERED: usize = 32;

/// Called after each change with the hash of the new state and the counters in it.
pub(crate) type StateSink = Arc<dyn Fn(u64, layout::Counters) + Send + Sync>;

/// The data of one replica.
pub(crate) struct CrashingData {
    inner: Arc<MemoryData>,
    kept: Arc<Kept>,
}

struct Kept {
    state: Mutex<State>,
    sink: StateSink,
}

struct State {
    /// The first is durable, the others follow it in order.
    views: VecDeque<Box<dyn DataView>>,
    hash: u64,
}

impl std::fmt::Debug for CrashingData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrashingData").finish_non_exhaustive()
    }
}

/// What is left of the data of a process that has ended.
pub(crate) struct Remains(Vec<u8>);

impl CrashingData {
    /// Opens what a process left, or nothing.
    pub(crate) fn open(remains: Option<&Remains>, sink: StateSink) -> Result<Arc<Self>> {
        let inner = Arc::new(MemoryData::new(1 << 30));
        if let Some(Remains(bytes)) = remains {
            let mut import = inner.import()?;
            import.read(&mut bytes.as_slice())?;
            import.finish()?;
        }
        let state = State { hash: hash_of(&*inner.view())?, views: VecDeque::from([inner.view()]) };
        Ok(Arc::new(CrashingData { inner, kept: Arc::new(Kept { state: Mutex::new(state), sink }) }))
    }

    /// What a loss of power leaves: the durable state, or any later one.
    pub(crate) fn after_power_loss(&self) -> Result<Remains> {
        let state = self.kept.lock();
        let chosen = usize::try_from(world::below(state.views.len() as u64)).unwrap_or(0);
        export(&*state.views[chosen])
    }

    /// What the death of the process leaves: everything.
    pub(crate) fn after_death(&self) -> Result<Remains> {
        export(&*self.inner.view())
    }

    /// The hash of the present state and its counters.
    pub(crate) fn fingerprint(&self) -> Result<(u64, layout::Counters)> {
        Ok((self.kept.lock().hash, counters(&*self.inner.view())?))
    }
}

fn export(view: &dyn DataView) -> Result<Remains> {
    let mut bytes = Vec::new();
    view.export(&mut bytes)?;
    Ok(Remains(bytes))
}

fn counters(view: &dyn DataView) -> Result<layout::Counters> {
    match view.get(Keyspace::Meta, layout::COUNTERS)? {
        None => Ok(layout::Counters::default()),
        Some(bytes) => layout::decode_record("counters", &bytes).map_err(|_| odgm_storage::Error::Closed),
    }
}

fn row_hash(keyspace: Keyspace, key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&[keyspace as u8]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.digest()
}

fn hash_of(view: &dyn DataView) -> Result<u64> {
    let mut hash = 0_u64;
    for keyspace in Keyspace::ALL {
        let all = std::ops::Bound::Unbounded;
        for row in view.scan(keyspace, all.clone(), all, Direction::Forward) {
            let (key, value) = row?;
            hash = hash.wrapping_add(row_hash(keyspace, &key, &value));
        }
    }
    Ok(hash)
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything up to now is durable.
    fn synced(&self) {
        let mut state = self.lock();
        let last = state.views.len() - 1;
        state.views.drain(..last);
    }

    fn changed(&self, view: Box<dyn DataView>, hash: u64) -> Result<()> {
        let counters = counters(&*view)?;
        let mut state = self.lock();
        state.hash = hash;
        state.views.push_back(view);
        if state.views.len() > REMEMBERED {
            // Not the first, which is durable.
            state.views.remove(1);
        }
        drop(state);
        (self.sink)(hash, counters);
        Ok(())
    }
}

impl ApplicationDataStorage for CrashingData {
    fn view(&self) -> Box<dyn DataView> {
        self.inner.view()
    }

    fn lock_writer(&self) -> Writer<'_> {
        self.inner.lock_writer()
    }

    fn write_as(&self, writer: &mut Writer<'_>, batch: WriteBatch, durability: Durability) -> Result<()> {
        let before = self.inner.view();
        let keys: std::collections::BTreeSet<(Keyspace, Bytes)> =
            batch.operations.iter().map(|(keyspace, key, _)| (*keyspace, key.clone())).collect();
        self.inner.write_as(writer, batch, durability)?;
        let after = self.inner.view();
        let mut hash = self.kept.lock().hash;
        for (keyspace, key) in keys {
            if let Some(old) = before.get(keyspace, &key)? {
                hash = hash.wrapping_sub(row_hash(keyspace, &key, &old));
            }
            if let Some(new) = after.get(keyspace, &key)? {
                hash = hash.wrapping_add(row_hash(keyspace, &key, &new));
            }
        }
        self.kept.changed(after, hash)?;
        if durability == Durability::Now {
            self.kept.synced();
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()?;
        self.kept.synced();
        Ok(())
    }

    fn import(&self) -> Result<Box<dyn DataImport>> {
        let import = Some(self.inner.import()?);
        Ok(Box::new(Import { import, inner: self.inner.clone(), kept: self.kept.clone() }))
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn statistics(&self) -> DataStatistics {
        self.inner.statistics()
    }

    fn flush(&self) -> Result<()> {
        self.sync()
    }

    fn compact(&self) -> Result<()> {
        self.inner.compact()
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }
}

struct Import {
    import: Option<Box<dyn DataImport>>,
    inner: Arc<MemoryData>,
    kept: Arc<Kept>,
}

impl DataImport for Import {
    fn read(&mut self, from: &mut dyn Read) -> Result<()> {
        self.import.as_mut().ok_or(odgm_storage::Error::Closed)?.read(from)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.import.take().ok_or(odgm_storage::Error::Closed)?.finish()?;
        let view = self.inner.view();
        let hash = hash_of(&*view)?;
        self.kept.changed(view, hash)?;
        self.kept.synced();
        Ok(())
    }
}
