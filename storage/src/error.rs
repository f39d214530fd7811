//! The one error of the storage layers; a variant exists where a caller acts differently.

use std::path::PathBuf;

/// Result of a storage call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a storage layer could not do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused. Writes of the layer that met it are poisoned.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb: `write`, `fdatasync`, `open`.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::sync::Arc<std::io::Error>,
    },
    /// Bytes on disk are not what was written. Never served, never cut silently.
    #[error("corrupt {what} in {path} at offset {offset}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Byte offset of the damaged structure.
        offset: u64,
        /// The damaged structure, and the groups it held when they are known.
        what: String,
    },
    /// A file of a format that this build does not read.
    #[error("{path} has format {found}, this build reads {supported}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: String,
        /// The formats this build reads.
        supported: String,
    },
    /// An earlier write or fsync failed: nothing is acknowledged any more until the process restarts.
    #[error("storage is poisoned by an earlier failure: {cause}")]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// The disk is full; nothing of the call took effect.
    #[error("no space left for {path}", path = path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// An append that does not follow the last index.
    #[error("append at index {found} leaves a gap, expected {expected}")]
    Gap {
        /// The index that was to come next.
        expected: u64,
        /// The index that came.
        found: u64,
    },
    /// The directory belongs to another running process.
    #[error("{path} is in use by another process", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// What was asked for does not exist.
    #[error("{what} not found")]
    NotFound {
        /// The thing asked for.
        what: String,
    },
    /// A limit of the layer.
    #[error("{what} is {found} bytes, allowed are {limit}")]
    TooLarge {
        /// The thing that is too large.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A bound that was configured is reached: nothing of the call took effect, and it may succeed
    /// once something was dropped.
    #[error("{what} reached its limit of {limit}")]
    LimitReached {
        /// What is bounded, with its unit.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// An option has a value that the layer does not take.
    #[error("option {option}: {reason}")]
    Options {
        /// The option's name.
        option: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The layer was closed.
    #[error("storage is closed")]
    Closed,
    /// The request does not fit what is stored; nothing changed.
    #[error("{what} refused: {reason}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why it cannot be.
        reason: String,
    },
    /// The engine below failed in a way that has no other variant.
    #[error("storage engine: {0}")]
    Engine(String),
}

impl Error {
    /// Wraps an error of the system with what was tried on which path; a full disk becomes
    /// [`Error::Full`], and an error of this crate that went through a reader comes out as it was.
    pub fn io(operation: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        if let Some(own) = source.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return own.clone();
        }
        let path = path.into();
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Error::Full { path };
        }
        Error::Io { operation, path, source: std::sync::Arc::new(source) }
    }
}
