//! Snapshots as portable, compressed, checksummed files; and their twin in memory.
//!
//! A snapshot is a stream of bytes that the caller defines, cut into frames of 1 MiB, each with its
//! own codec, lengths and checksum, so that a transfer can resume and a damaged frame is named. It
//! exists from the moment `finish` returns; before that there is only a temporary file, removed at
//! the next open.

pub mod file;
pub mod memory;
pub mod options;
#[cfg(feature = "testing")]
pub mod suite;

use std::fmt::Debug;
use std::io::{Read, Write};

use bytes::Bytes;
use uuid::Uuid;

use crate::Result;
use crate::log::LogPosition;

pub use file::FileSnapshots;
pub use memory::MemorySnapshots;
pub use options::{Compression, SnapshotOptions};

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
}

/// The snapshots of one shard replica, newest position last.
pub trait RaftSnapshotStorage: Send + Sync + Debug {
    /// Starts a snapshot; nothing is listed before its `finish`.
    fn create(&self, meta: SnapshotMeta, created_unix_ms: u64) -> Result<Box<dyn SnapshotWriter>>;

    /// Starts to receive the stored form of a snapshot made elsewhere, of which `stored_bytes` will come.
    /// A transfer of the same id that was broken off is taken up where it stood.
    fn receive(&self, id: Uuid, stored_bytes: u64) -> Result<Box<dyn SnapshotReceiver>>;

    /// Reads the content from the start. Every frame is verified before its bytes are handed out.
    fn read(&self, id: Uuid) -> Result<Box<dyn Read + Send>>;

    /// `len` bytes of the stored form from `offset`, fewer at its end, for sending.
    fn read_stored(&self, id: Uuid, offset: u64, len: usize) -> Result<Bytes>;

    /// All complete snapshots, oldest first.
    fn list(&self) -> Result<Vec<SnapshotInfo>>;

    /// Reads everything and compares every checksum.
    fn verify(&self, id: Uuid) -> Result<SnapshotInfo>;

    /// Removes a snapshot; absent is fine.
    fn delete(&self, id: Uuid) -> Result<()>;
}

/// A snapshot being written. Dropped without `finish`, it leaves nothing behind.
pub trait SnapshotWriter: Write + Send {
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
