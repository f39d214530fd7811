//! A store of snapshots, watched.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use uuid::Uuid;

use super::{Call, Matter, Watch};
use crate::snapshot::{
    RaftSnapshotStorage, RetainPolicy, SnapshotHold, SnapshotInfo, SnapshotMeta, SnapshotReceiver,
    SnapshotWriter,
};
use crate::{Error, Result};

/// The snapshots of a shard, watched.
#[derive(Debug)]
pub(in crate::composite) struct WatchedSnapshots {
    inner: Arc<dyn RaftSnapshotStorage>,
    watch: Watch,
}

impl WatchedSnapshots {
    pub(in crate::composite) fn new(inner: Arc<dyn RaftSnapshotStorage>, watch: Watch) -> Self {
        WatchedSnapshots { inner, watch }
    }
}

impl RaftSnapshotStorage for WatchedSnapshots {
    fn create(&self, meta: SnapshotMeta, created_unix_ms: u64) -> Result<Box<dyn SnapshotWriter>> {
        let inner = self.watch.run(|| self.inner.create(meta, created_unix_ms))?;
        Ok(Box::new(Watched { inner, watch: self.watch.clone() }))
    }

    fn receive(&self, id: Uuid, stored_bytes: u64) -> Result<Box<dyn SnapshotReceiver>> {
        let inner = self.watch.run(|| self.inner.receive(id, stored_bytes))?;
        Ok(Box::new(Watched { inner, watch: self.watch.clone() }))
    }

    fn read_from(&self, id: Uuid, offset: u64) -> Result<Box<dyn Read + Send>> {
        let inner = self.watch.run_read(|| self.inner.read_from(id, offset))?;
        Ok(Box::new(Watched { inner, watch: self.watch.clone() }))
    }

    fn read_stored(&self, id: Uuid, offset: u64, len: usize) -> Result<Bytes> {
        let bytes = self.watch.run_read(|| self.inner.read_stored(id, offset, len))?;
        self.watch.meter().read(bytes.len() as u64);
        Ok(bytes)
    }

    fn list(&self) -> Result<Vec<SnapshotInfo>> {
        self.inner.list()
    }

    fn damaged(&self) -> Vec<(Uuid, Error)> {
        self.inner.damaged()
    }

    fn verify(&self, id: Uuid) -> Result<SnapshotInfo> {
        self.watch.run_read(|| self.inner.verify(id))
    }

    fn delete(&self, id: Uuid) -> Result<()> {
        self.watch.run(|| self.inner.delete(id))?;
        // If another one is damaged, too, the next check finds it.
        self.watch.clear(Matter::Damage);
        Ok(())
    }

    fn hold(&self, id: Uuid) -> Result<SnapshotHold> {
        self.inner.hold(id)
    }

    fn retain(&self, policy: RetainPolicy, now_unix_ms: u64) -> Result<Vec<Uuid>> {
        self.watch.run(|| self.inner.retain(policy, now_unix_ms))
    }
}

/// A writer, receiver or reader, watched.
struct Watched<T> {
    inner: T,
    watch: Watch,
}

impl Write for Watched<Box<dyn SnapshotWriter>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.watch.meter().wrote(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl SnapshotWriter for Watched<Box<dyn SnapshotWriter>> {
    fn set_entries(&mut self, entries: u64) {
        self.inner.set_entries(entries);
    }

    fn finish(self: Box<Self>) -> Result<SnapshotInfo> {
        let Watched { inner, watch } = *self;
        let info = watch.run(|| inner.finish())?;
        watch.clear(Matter::Failure);
        watch.meters.snapshots_created.fetch_add(1, Ordering::Relaxed);
        Ok(info)
    }
}

impl SnapshotReceiver for Watched<Box<dyn SnapshotReceiver>> {
    fn offset(&self) -> u64 {
        self.inner.offset()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Watched { inner, watch } = self;
        watch.run(|| inner.write(bytes))?;
        watch.meter().wrote(bytes.len() as u64);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<SnapshotInfo> {
        let Watched { inner, watch } = *self;
        // Damage on the way is the sender's, or the network's: nothing of it stays here.
        let outcome = watch.run_foreign(|| inner.finish());
        if let Err(error @ (Error::Io { .. } | Error::Full { .. })) = &outcome {
            watch.note(Call::Write, error);
        }
        let info = outcome?;
        watch.clear(Matter::Failure);
        Ok(info)
    }
}

impl Read for Watched<Box<dyn Read + Send>> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(into) {
            Ok(count) => {
                self.watch.meter().read(count as u64);
                Ok(count)
            }
            Err(error) => {
                // Ours, with file and offset, is inside.
                let inside = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
                if let Some(error) = inside {
                    self.watch.note(Call::Read, error);
                }
                Err(error)
            }
        }
    }
}
