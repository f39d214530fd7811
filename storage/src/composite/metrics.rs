//! What the layers did, as counters that only rise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One layer, since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerMetrics {
    /// Calls that ended, well or not.
    pub operations: u64,
    /// Those that ended with an error.
    pub errors: u64,
    /// Payload bytes handed out.
    pub bytes_read: u64,
    /// Payload bytes taken.
    pub bytes_written: u64,
    /// The time that all operations took together; of a write to the log, until it was durable.
    pub latency: Duration,
}

/// All layers, since they were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StorageMetrics {
    /// The log, all groups together.
    pub log: LayerMetrics,
    /// The snapshots of all shards.
    pub snapshot: LayerMetrics,
    /// The data of all shards.
    pub data: LayerMetrics,
    /// Snapshots that were written and finished here.
    pub snapshots_created: u64,
    /// Snapshots that replaced a shard's data.
    pub snapshots_restored: u64,
    /// Purges that moved the start of a group's log.
    pub log_compactions: u64,
}

/// The counters of one layer.
#[derive(Debug, Default)]
pub(super) struct Meter {
    operations: AtomicU64,
    errors: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    latency_ns: AtomicU64,
}

impl Meter {
    pub(super) fn operation(&self, took: Duration, failed: bool) {
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(failed), Ordering::Relaxed);
        self.latency_ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sum(&self) -> LayerMetrics {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LayerMetrics {
            operations: value(&self.operations),
            errors: value(&self.errors),
            bytes_read: value(&self.bytes_read),
            bytes_written: value(&self.bytes_written),
            latency: Duration::from_nanos(value(&self.latency_ns)),
        }
    }
}

/// The counters of all layers.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) log: Meter,
    pub(super) snapshot: Meter,
    pub(super) data: Meter,
    pub(super) snapshots_created: AtomicU64,
    pub(super) snapshots_restored: AtomicU64,
    pub(super) log_compactions: AtomicU64,
}

impl Meters {
    pub(super) fn sum(&self) -> StorageMetrics {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StorageMetrics {
            log: self.log.sum(),
            snapshot: self.snapshot.sum(),
            data: self.data.sum(),
            snapshots_created: value(&self.snapshots_created),
            snapshots_restored: value(&self.snapshots_restored),
            log_compactions: value(&self.log_compactions),
        }
    }
}
