//! Options of the snapshot store.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the frames of new snapshots are compressed. A frame that does not shrink is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// zstd; at level 1 faster than the disk and half the size.
    #[default]
    Zstd,
    /// Reserved: not supported by this build.
    Lz4,
    /// Reserved: not supported by this build.
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
    /// The codec's level, for zstd 1 (fast) to 19 (small). Default 1.
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
        let refuse = |option, reason: &str| Err(Error::Options { option, reason: reason.to_owned() });
        match self.compression {
            Compression::Lz4 => {
                refuse("compression", "lz4 is not supported by this build, zstd and none are")
            }
            Compression::Gzip => {
                refuse("compression", "gzip is not supported by this build, zstd and none are")
            }
            Compression::Zstd if !(1..=19).contains(&self.level) => {
                refuse("level", "zstd has levels 1 to 19")
            }
            Compression::Zstd | Compression::None => Ok(()),
        }
    }
}
