//! Which backend each layer uses, and how it is set up.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::data::DataOptions;
use crate::log::{FjallLogOptions, LogOptions};
use crate::snapshot::{RetainPolicy, SnapshotOptions};

/// Kinds of log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogBackend {
    /// Files of its own, written by one committer.
    #[default]
    AppendLog,
    /// An LSM tree of its own.
    Fjall,
    /// Memory: forgotten at a restart.
    MemoryLog,
}

/// Kinds of snapshot store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotBackend {
    /// Files.
    #[default]
    CompressedFile,
    /// Memory: forgotten at a restart.
    MemorySnapshot,
}

/// Kinds of data store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataBackend {
    /// An LSM tree on disk.
    #[default]
    Fjall,
    /// Memory: restored from snapshot and log.
    Memory,
}

/// The log of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLayer {
    /// Which. Default `append_log`.
    pub backend: LogBackend,
    /// Of `append_log`.
    pub options: LogOptions,
    /// Of `fjall`.
    pub fjall: FjallLogOptions,
    /// What each group of `memory_log` holds at most. Default 100,000.
    pub max_entries: u64,
}

impl Default for LogLayer {
    fn default() -> Self {
        LogLayer {
            backend: LogBackend::default(),
            options: LogOptions::default(),
            fjall: FjallLogOptions::default(),
            max_entries: 100_000,
        }
    }
}

/// The snapshots of each shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLayer {
    /// Which. Default `compressed_file`.
    pub backend: SnapshotBackend,
    /// Of both.
    pub options: SnapshotOptions,
    /// What is kept when a coordinated snapshot was taken. Default: the latest 3.
    pub retain: RetainPolicy,
}

impl Default for SnapshotLayer {
    fn default() -> Self {
        SnapshotLayer {
            backend: SnapshotBackend::default(),
            options: SnapshotOptions::default(),
            retain: RetainPolicy::Latest { count: 3 },
        }
    }
}

/// The data of each shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DataLayer {
    /// Which. Default `fjall`.
    pub backend: DataBackend,
    /// Of both.
    pub options: DataOptions,
}

/// The three layers of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompositeOptions {
    /// The log.
    pub log: LogLayer,
    /// Snapshots.
    pub snapshot: SnapshotLayer,
    /// Data.
    pub data: DataLayer,
}

impl CompositeOptions {
    /// Checks the options of each layer, whether its backend uses them or not.
    ///
    /// # Errors
    /// [`crate::Error::Options`], naming the field.
    pub fn validate(&self) -> Result<()> {
        self.log.options.validate()?;
        self.log.fjall.validate()?;
        self.snapshot.options.validate()?;
        self.data.options.validate()
    }
}
