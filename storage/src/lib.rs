//! The storage layers of odgm, split by access pattern.
//!
//! | layer | written | read | durable when |
//! |---|---|---|---|
//! | [`log`] | appended by every write of a consensus group | by replication and at start | its callback fires |
//! | [`snapshot`] | rarely, as one stream | as a stream from any offset | `finish` returns |
//! | [`data`] | in batches, by the one writer of a shard | through consistent views | the batch's [`data::Durability`] says |
//!
//! [`composite`] opens the three of a node together, and watches them.
//!
//! The crate is synchronous and speaks bytes: it knows no consensus protocol, no network and no
//! async runtime. Whoever calls it decides which thread may wait for the disk.

pub mod codec;
pub mod composite;
pub mod data;
pub mod disk;
pub mod doctor;
pub mod error;
pub mod log;
pub mod snapshot;

pub use error::{Error, Result};
