//! What a store holds and what was done with it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a store holds, and what was done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DataStatistics {
    /// Rows of each keyspace, in the order of [`super::Keyspace::ALL`]. Exact in memory; on Fjall an
    /// estimate that also counts what was overwritten or deleted and is not compacted yet.
    pub rows: [u64; 4],
    /// Bytes on disk, or in memory.
    pub bytes: u64,
    /// Bytes of it that are in memory only, beside the journal that can repeat them.
    pub unflushed_bytes: u64,
    /// Tables on disk; 0 in memory.
    pub tables: u64,
    /// What was done.
    pub operations: OperationCounts,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Calls by kind, since the store was opened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct OperationCounts {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters behind [`OperationCounts`].
        #[derive(Debug, Default)]
        pub(super) struct Operations {
            $(pub(super) $name: Counter,)*
        }

        impl Operations {
            pub(super) fn counts(&self) -> OperationCounts {
                OperationCounts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

operations! {
    /// Views taken: read transactions.
    views,
    /// Keys read.
    gets,
    /// Scans begun.
    scans,
    /// Batches written: write transactions, too.
    batches,
    /// Rows put by them.
    puts,
    /// Rows deleted by them.
    deletes,
    /// Batches refused or failed.
    refused,
    /// Syncs asked for.
    syncs,
    /// Replacements of all data, by an import or from a checkpoint.
    installs,
    /// Checkpoints taken.
    checkpoints,
}

/// A count that grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

impl Operations {
    /// Counts a batch by what became of it.
    pub(super) fn wrote(&self, puts: u64, deletes: u64, taken: bool) {
        if taken {
            self.batches.add(1);
            self.puts.add(puts);
            self.deletes.add(deletes);
        } else {
            self.refused.add(1);
        }
    }
}
