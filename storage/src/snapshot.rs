//! Snapshots as portable, compressed, checksummed files; and their twin in memory.
//!
//! A snapshot is a stream of bytes that the caller defines, cut into frames of 1 MiB, each with its
//! own codec, lengths and checksum, so that a transfer can resume and a damaged frame is named. It
//! exists from the moment `finish` returns; before that there is only a temporary file, removed at
//! the next open.

pub mod file;
mod install;
pub mod memory;
pub mod options;
pub mod retention;
#[cfg(feature = "testing")]
pub mod suite;

use std::fmt::Debug;
use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::Result;
use crate::log::LogPosition;

pub use file::{FileSnapshots, SnapshotFile};
pub use memory::MemorySnapshots;
pub use options::{Compression, SnapshotOptions};
pub use retention::RetainPolicy;

/// Bytes of content in a frame, before compression.
pub const FRAME_BYTES: usize = 1 << 20;

/// What the owner of a snapshot says about it; stored in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotMeta {
    /// Names this snapshot among all others, everywhere.
    pub id: Uuid,
    /// The last log entry whose effect is inside.
    pub position: Option<LogPosition>,
    /// The membership of the group at that position; opaque here.
    pub membership: Bytes,
}

/// A complete snapshot as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotInfo {
    /// What the owner said.
    pub meta: SnapshotMeta,
    /// Unix time of creation, milliseconds.
    pub created_unix_ms: u64,
    /// Bytes of content.
    pub content_bytes: u64,
    /// Bytes as stored and sent, frames with headers and manifest.
    pub stored_bytes: u64,
    /// xxh3-128 of the content.
    pub content_hash: u128,
    /// The codec it was written with; `None` in files of version 1, which do not say. Frames that do
    /// not shrink are stored as they are, whatever it is.
    pub compression: Option<Compression>,
    /// How many entries its writer counted; see [`SnapshotWriter::set_entries`].
    pub entries: Option<u64>,
}

/// Keeps one snapshot from being let go by [`RaftSnapshotStorage::retain`], for as long as it lives.
#[derive(Debug, Clone)]
pub struct SnapshotHold {
    _held: Arc<()>,
}

/// The snapshots of one shard replica, newest position last.
pub trait RaftSnapshotStorage: Send + Sync + Debug {
    /// Starts a snapshot; nothing is listed before its `finish`.
    fn create(&self, meta: SnapshotMeta, created_unix_ms: u64) -> Result<Box<dyn SnapshotWriter>>;

    /// Starts to receive the stored form of a snapshot made elsewhere, of which `stored_bytes` will come.
    /// A transfer of the same id that was broken off is taken up where it stood.
    fn receive(&self, id: Uuid, stored_bytes: u64) -> Result<Box<dyn SnapshotReceiver>>;

    /// Takes over the stored form of a snapshot, read from its start to its end: what is here of it
    /// already is skipped, and a stream that ends early can be given again.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] for a stream that is not a whole snapshot; nothing is listed then.
    fn install(&self, stored_bytes: u64, from: &mut dyn Read) -> Result<SnapshotInfo> {
        install::install(self, stored_bytes, from)
    }

    /// Reads the content from the start. Every frame is verified before its bytes are handed out, and
    /// the hash of all of it before the end is reported. It is held while the reader lives.
    fn read(&self, id: Uuid) -> Result<Box<dyn Read + Send>> {
        self.read_from(id, 0)
    }

    /// Reads the content from a byte of it on; the frames before are not touched. Every frame is
    /// verified before its bytes are handed out; the hash of the whole only from offset 0 on.
    ///
    /// # Errors
    /// [`crate::Error::Options`] when the content is shorter than `offset`.
    fn read_from(&self, id: Uuid, offset: u64) -> Result<Box<dyn Read + Send>>;

    /// `len` bytes of the stored form from `offset`, fewer at its end, for sending.
    fn read_stored(&self, id: Uuid, offset: u64, len: usize) -> Result<Bytes>;

    /// All complete snapshots, oldest first.
    fn list(&self) -> Result<Vec<SnapshotInfo>>;

    /// The newest complete snapshot: the last of [`RaftSnapshotStorage::list`].
    fn latest(&self) -> Result<Option<SnapshotInfo>> {
        Ok(self.list()?.pop())
    }

    /// Snapshots that cannot be used, and why: they are not listed, and reading them fails the same way.
    fn damaged(&self) -> Vec<(Uuid, crate::Error)>;

    /// Reads everything and compares every checksum.
    fn verify(&self, id: Uuid) -> Result<SnapshotInfo>;

    /// Removes a snapshot, durably when it returns; absent is fine. A reader that is on it reads to its end.
    fn delete(&self, id: Uuid) -> Result<()>;

    /// Keeps a snapshot from being let go while it is sent in ranges.
    fn hold(&self, id: Uuid) -> Result<SnapshotHold>;

    /// Removes what the policy lets go at a time given as Unix milliseconds, and says what that was.
    /// Never the newest, never one that is read or held, and none that is damaged. A crash leaves each
    /// of them whole or absent.
    fn retain(&self, policy: RetainPolicy, now_unix_ms: u64) -> Result<Vec<Uuid>>;
}

/// A snapshot being written. Dropped without `finish`, it leaves nothing behind.
pub trait SnapshotWriter: Write + Send {
    /// Notes in the manifest how many entries the content has; what an entry is, is the writer's to say.
    fn set_entries(&mut self, entries: u64);

    /// Completes it: written, fsynced, named, and listed.
    fn finish(self: Box<Self>) -> Result<SnapshotInfo>;
}

/// A snapshot being received in order.
pub trait SnapshotReceiver: Send {
    /// Bytes already here: the next `write` continues at this offset.
    fn offset(&self) -> u64;
    /// Appends bytes of the stored form.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Verifies every checksum, then fsyncs, names and lists it.
    fn finish(self: Box<Self>) -> Result<SnapshotInfo>;
}
