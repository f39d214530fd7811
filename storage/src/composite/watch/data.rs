//! The data of a shard, watched.

use std::io::{Read, Write};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Call, Watch};
use crate::Result;
use crate::data::{
    ApplicationDataStorage, CheckpointManifest, CheckpointRequest, DataImport, DataStatistics, DataView,
    Direction, Durability, Keyspace, Row, SnapshotCapableStorage, WriteBatch, Writer,
};

/// The data of a shard, watched.
#[derive(Debug)]
pub(in crate::composite) struct WatchedData {
    inner: Arc<dyn SnapshotCapableStorage>,
    watch: Watch,
}

impl WatchedData {
    pub(in crate::composite) fn new(inner: Arc<dyn SnapshotCapableStorage>, watch: Watch) -> Self {
        WatchedData { inner, watch }
    }

    fn watched(&self, inner: Box<dyn DataView>) -> Box<dyn DataView> {
        Box::new(WatchedView { inner, watch: self.watch.clone() })
    }
}

impl ApplicationDataStorage for WatchedData {
    fn view(&self) -> Box<dyn DataView> {
        self.watched(self.inner.view())
    }

    fn lock_writer(&self) -> Writer<'_> {
        self.inner.lock_writer()
    }

    fn write_as(&self, writer: &mut Writer<'_>, batch: WriteBatch, durability: Durability) -> Result<()> {
        let bytes: usize = batch
            .operations
            .iter()
            .map(|(_, key, value)| key.len() + value.as_ref().map_or(0, Bytes::len))
            .sum();
        self.watch.run(|| self.inner.write_as(writer, batch, durability))?;
        self.watch.meter().wrote(bytes as u64);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.watch.run(|| self.inner.sync())
    }

    fn import(&self) -> Result<Box<dyn DataImport>> {
        let inner = self.watch.run(|| self.inner.import())?;
        Ok(Box::new(WatchedImport { inner, watch: self.watch.clone() }))
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn statistics(&self) -> DataStatistics {
        self.inner.statistics()
    }

    fn flush(&self) -> Result<()> {
        self.watch.run(|| self.inner.flush())
    }

    fn compact(&self) -> Result<()> {
        self.watch.run(|| self.inner.compact())
    }

    fn close(&self) -> Result<()> {
        self.watch.run(|| self.inner.close())
    }
}

impl SnapshotCapableStorage for WatchedData {
    fn checkpoint_as(&self, target: &Path, request: &CheckpointRequest) -> Result<CheckpointManifest> {
        // It changes nothing of the store, and may fail where its target is.
        self.watch.run_read(|| self.inner.checkpoint_as(target, request))
    }

    fn open_checkpoint(&self, target: &Path) -> Result<Box<dyn DataView>> {
        Ok(self.watched(self.watch.run_read(|| self.inner.open_checkpoint(target))?))
    }

    fn verify_checkpoint(&self, target: &Path) -> Result<CheckpointManifest> {
        self.watch.run_read(|| self.inner.verify_checkpoint(target))
    }

    fn restore(&self, checkpoint: &Path) -> Result<CheckpointManifest> {
        // What is wrong with a checkpoint says nothing of the store.
        let manifest = self.watch.run_foreign(|| self.inner.restore(checkpoint))?;
        self.watch.meters.snapshots_restored.fetch_add(1, Ordering::Relaxed);
        Ok(manifest)
    }
}

struct WatchedView {
    inner: Box<dyn DataView>,
    watch: Watch,
}

impl DataView for WatchedView {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.watch.run_read(|| self.inner.get(keyspace, key))?;
        self.watch.meter().read(value.as_ref().map_or(0, Bytes::len) as u64);
        Ok(value)
    }

    fn exists(&self, keyspace: Keyspace, key: &[u8]) -> Result<bool> {
        self.watch.run_read(|| self.inner.exists(keyspace, key))
    }

    fn multi_get(&self, keyspace: Keyspace, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let values = self.watch.run_read(|| self.inner.multi_get(keyspace, keys))?;
        let bytes: usize = values.iter().flatten().map(Bytes::len).sum();
        self.watch.meter().read(bytes as u64);
        Ok(values)
    }

    fn scan<'a>(
        &'a self,
        keyspace: Keyspace,
        from: Bound<Bytes>,
        to: Bound<Bytes>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row>> + Send + 'a> {
        // Lazy: it takes the time that its user takes, so only its start is timed.
        let rows = self.watch.run_read(|| Ok(self.inner.scan(keyspace, from, to, direction)));
        let rows = rows.into_iter().flatten();
        Box::new(rows.inspect(|row| match row {
            Ok((key, value)) => self.watch.meter().read((key.len() + value.len()) as u64),
            Err(error) => self.watch.note(Call::Read, error),
        }))
    }

    fn export(&self, into: &mut dyn Write) -> Result<()> {
        let mut counted = Counted { inner: into, bytes: 0 };
        let outcome = self.watch.run_foreign(|| self.inner.export(&mut counted));
        self.watch.meter().read(counted.bytes);
        outcome
    }
}

struct WatchedImport {
    inner: Box<dyn DataImport>,
    watch: Watch,
}

impl DataImport for WatchedImport {
    fn read(&mut self, from: &mut dyn Read) -> Result<()> {
        let WatchedImport { inner, watch } = self;
        let mut counted = Counted { inner: from, bytes: 0 };
        let outcome = watch.run_foreign(|| inner.read(&mut counted));
        watch.meter().wrote(counted.bytes);
        outcome
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let WatchedImport { inner, watch } = *self;
        watch.run(|| inner.finish())?;
        watch.meters.snapshots_restored.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A stream whose bytes are counted.
struct Counted<T> {
    inner: T,
    bytes: u64,
}

impl Write for Counted<&mut dyn Write> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl Read for Counted<&mut dyn Read> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(into)?;
        self.bytes += count as u64;
        Ok(count)
    }
}
