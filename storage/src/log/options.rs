//! Options of the log.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// When an append counts as durable. Votes, truncations and removals are always synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncPolicy {
    /// After an fdatasync that it shares with all that was queued before the sync began.
    #[default]
    Batch,
    /// After an fdatasync of its own.
    Always,
    /// When it was handed to the operating system: survives the process, not a loss of power. Whether
    /// there was one is told by [`super::boot`].
    None,
}

/// Options of [`super::AppendLog`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// When an append counts as durable; default `batch`.
    pub sync: SyncPolicy,
    /// Bytes of a segment file, 16 KiB to 1 GiB; one append must fit into one. Default 64 MiB.
    pub segment_bytes: u64,
    /// Segments kept ready beyond the one in use, 1 to 16: what can still be written when the disk
    /// is full. Default 2.
    pub reserve_segments: usize,
    /// Files of freed segments kept to be used again, beyond the reserve, 1 to 64; a log that is purged
    /// by more at once than this fills new files with zeroes later. Default 4.
    pub spare_segments: usize,
    /// Payload bytes of recent entries held in memory for all groups together; what is not durable
    /// is held on top. Default 64 MiB.
    pub cache_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            sync: SyncPolicy::Batch,
            segment_bytes: 64 << 20,
            reserve_segments: 2,
            spare_segments: 4,
            cache_bytes: 64 << 20,
        }
    }
}

impl LogOptions {
    /// Checks the limits given in the fields' documentation.
    ///
    /// # Errors
    /// [`Error::Options`], naming the field.
    pub fn validate(&self) -> Result<()> {
        if !(16 << 10..=1 << 30).contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(4096) {
            return Err(Error::Options {
                option: "segment_bytes",
                reason: format!("{} is not a multiple of 4096 from 16 KiB to 1 GiB", self.segment_bytes),
            });
        }
        if !(1..=16).contains(&self.reserve_segments) {
            return Err(Error::Options {
                option: "reserve_segments",
                reason: format!("{} is not from 1 to 16", self.reserve_segments),
            });
        }
        if !(1..=64).contains(&self.spare_segments) {
            return Err(Error::Options {
                option: "spare_segments",
                reason: format!("{} is not from 1 to 64", self.spare_segments),
            });
        }
        Ok(())
    }
}

/// Options of [`super::FjallLog`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FjallLogOptions {
    /// When an append counts as durable; default `batch`.
    pub sync: SyncPolicy,
    /// Bytes of memtables at which they are written to tables, 1 MiB to 1 GiB; as much again may wait to
    /// be written, twice. Default 64 MiB.
    pub memtable_bytes: u64,
    /// Payload bytes of recent entries held in memory for all groups together, beside the memtables; what
    /// is not durable is held on top. Default 64 MiB.
    pub cache_bytes: u64,
}

impl Default for FjallLogOptions {
    fn default() -> Self {
        FjallLogOptions { sync: SyncPolicy::Batch, memtable_bytes: 64 << 20, cache_bytes: 64 << 20 }
    }
}

impl FjallLogOptions {
    /// Checks the limits given in the fields' documentation.
    ///
    /// # Errors
    /// [`Error::Options`], naming the field.
    pub fn validate(&self) -> Result<()> {
        if !(1 << 20..=1 << 30).contains(&self.memtable_bytes) {
            return Err(Error::Options {
                option: "memtable_bytes",
                reason: format!("{} is not from 1 MiB to 1 GiB", self.memtable_bytes),
            });
        }
        Ok(())
    }
}
