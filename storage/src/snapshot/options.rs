//! Options of the snapshot store.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the frames of new snapshots are compressed. A frame that does not shrink is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// zstd, levels 1 (fast) to 19 (small); at level 1 faster than the disk and half the size.
    #[default]
    Zstd,
    /// LZ4 blocks; the fastest, it has no levels.
    Lz4,
    /// gzip, levels 1 (fast) to 9 (small); for tools that know nothing else.
    Gzip,
    /// As it is.
    None,
}

/// How snapshots are written. What is read says itself how it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotOptions {
    /// The codec of frames. Default `zstd`.
    pub compression: Compression,
    /// The codec's level: zstd 1 to 19, gzip 1 to 9; the others have none and ignore it. Default 1.
    pub level: i32,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        SnapshotOptions { compression: Compression::Zstd, level: 1 }
    }
}

impl SnapshotOptions {
    /// Checks what the fields' documentation says.
    ///
    /// # Errors
    /// [`Error::Options`], naming the field.
    pub fn validate(&self) -> Result<()> {
        let levels = match self.compression {
            Compression::Zstd => 1..=19,
            Compression::Gzip => 1..=9,
            Compression::Lz4 | Compression::None => return Ok(()),
        };
        if levels.contains(&self.level) {
            return Ok(());
        }
        let codec = if self.compression == Compression::Zstd { "zstd" } else { "gzip" };
        let reason = format!("{}, but {codec} has levels {} to {}", self.level, levels.start(), levels.end());
        Err(Error::Options { option: "level", reason })
    }
}
