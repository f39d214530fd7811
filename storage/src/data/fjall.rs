//! The data layer on Fjall: one database per shard replica, one keyspace of it per [`Keyspace`].
//!
//! A [`FjallEngine`] belongs to a node: its shards share a block cache and a budget for memtables.
//! What this module holds to, and why:
//! - Memtables are rotated by `memtables` alone, never by fjall, whose own rotation can fill the queue
//!   that its workers drain, and has no limit over databases. Each database has two workers or more.
//! - Everything is read through a snapshot of the database, taken when a batch is complete: reads
//!   beside it, or a snapshot taken at another moment, may see half a batch.
//! - The journal keeps its compression on: with it a torn tail is cut and does not stop an open.
//! - Journals and versions are checked before fjall opens them: it drops what follows damage without a word.
//! - A directory is opened with a journal in it, be it empty: without one sequence numbers start anew.
//!
//! A store's directory holds generations, each a fjall database, and a pointer to the one that serves
//! (docs/formats/data.md).

mod checkpoint;
mod database;
mod engine;
mod examine;
mod generation;
mod import;
pub(crate) mod journal;
mod memtables;
pub(crate) mod mirror;
mod pointer;
mod restore;
mod store;
mod view;
mod watch;

pub use engine::FjallEngine;
pub(crate) use examine::{Examined, examine};
pub(crate) use pointer::sync_dir;
pub use store::FjallData;

use std::path::Path;

use super::Keyspace;
use crate::Error;

/// The name of a keyspace on disk; final.
const fn name(keyspace: Keyspace) -> &'static str {
    match keyspace {
        Keyspace::Data => "data",
        Keyspace::Index => "index",
        Keyspace::History => "history",
        Keyspace::Meta => "meta",
    }
}

/// An error of fjall, met on `operation` in `path`, as one of ours.
pub(crate) fn engine_error(operation: &'static str, path: &Path, error: ::fjall::Error) -> Error {
    use ::fjall::{Error as Fjall, LsmError};
    let corrupt = |what: String| Error::Corrupt { path: path.to_owned(), offset: 0, what };
    match error {
        Fjall::Io(error) | Fjall::Storage(LsmError::Io(error)) => Error::io(operation, path, error),
        Fjall::Locked => Error::Locked { path: path.to_owned() },
        Fjall::Poisoned => Error::Poisoned { cause: format!("fjall in {}", path.display()) },
        Fjall::InvalidVersion(found) => Error::Format {
            path: path.to_owned(),
            found: format!("fjall {found:?}"),
            supported: "fjall V3".to_owned(),
        },
        Fjall::Storage(LsmError::InvalidVersion(found)) => Error::Format {
            path: path.to_owned(),
            found: format!("lsm-tree {found}"),
            supported: "lsm-tree 3".to_owned(),
        },
        Fjall::Storage(error) => corrupt(format!("table of fjall: {error:?}")),
        Fjall::JournalRecovery(error) => corrupt(format!("journal of fjall: {error:?}")),
        error @ (Fjall::Decompress(_)
        | Fjall::InvalidTag(_)
        | Fjall::InvalidTrailer
        | Fjall::Unrecoverable) => corrupt(format!("fjall database: {error:?}")),
        other => Error::Engine(format!("{operation} {}: {other:?}", path.display())),
    }
}
