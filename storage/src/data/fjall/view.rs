//! A consistent view of a store or of a checkpoint on Fjall.

use std::io::Write;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use fjall::{Readable, Snapshot};

use super::database::Database;
use super::engine_error;
use super::generation::Generation;
use crate::data::statistics::Operations;
use crate::data::stream::StreamWriter;
use crate::data::{DataView, Direction, Keyspace, MAX_KEY_BYTES, Row, is_empty_range};
use crate::{Error, Result};

/// What a view keeps open.
enum Source {
    Serving(Arc<Generation>),
    Checkpoint(Arc<Database>),
}

impl Source {
    fn db(&self) -> &Database {
        match self {
            Source::Serving(generation) => generation.db(),
            Source::Checkpoint(database) => database,
        }
    }
}

/// A view; one of a closed store answers [`Error::Closed`].
pub(super) struct FjallView {
    /// The snapshot goes before the database.
    open: Option<(Snapshot, Source)>,
    operations: Arc<Operations>,
}

impl FjallView {
    pub(super) fn of(generation: Option<Arc<Generation>>, operations: Arc<Operations>) -> Self {
        let open = generation.map(|generation| (generation.snapshot(), Source::Serving(generation)));
        FjallView { open, operations }
    }

    pub(super) fn of_checkpoint(database: Arc<Database>) -> Self {
        let open = Some((database.snapshot(), Source::Checkpoint(database)));
        FjallView { open, operations: Arc::default() }
    }

    fn open(&self) -> Result<(&Snapshot, &Database)> {
        self.open.as_ref().map(|(snapshot, source)| (snapshot, source.db())).ok_or(Error::Closed)
    }
}

/// A bound of a length that fjall takes: between a longer one and its head lies no key but the head.
fn within(bound: Bound<Bytes>, cut: fn(Bytes) -> Bound<Bytes>) -> Bound<Bytes> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) if key.len() > MAX_KEY_BYTES => {
            cut(key.slice(..MAX_KEY_BYTES))
        }
        other => other,
    }
}

impl DataView for FjallView {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.operations.gets.add(1);
        let (snapshot, db) = self.open()?;
        // fjall panics on a key that it cannot hold.
        if key.len() > MAX_KEY_BYTES {
            return Ok(None);
        }
        let value = snapshot.get(db.keyspace(keyspace), key);
        let value = value.map_err(|error| engine_error("read", db.path(), error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn exists(&self, keyspace: Keyspace, key: &[u8]) -> Result<bool> {
        self.operations.gets.add(1);
        let (snapshot, db) = self.open()?;
        if key.len() > MAX_KEY_BYTES {
            return Ok(false);
        }
        let found = snapshot.contains_key(db.keyspace(keyspace), key);
        found.map_err(|error| engine_error("read", db.path(), error))
    }

    fn scan<'a>(
        &'a self,
        keyspace: Keyspace,
        from: Bound<Bytes>,
        to: Bound<Bytes>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row>> + Send + 'a> {
        self.operations.scans.add(1);
        let (snapshot, db) = match self.open() {
            Ok(open) => open,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        if is_empty_range(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let from = within(from, Bound::Excluded);
        let to = within(to, Bound::Included);
        if is_empty_range(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let rows = snapshot.range(db.keyspace(keyspace), (from, to));
        let row = |guard: fjall::Guard| match guard.into_inner() {
            Ok((key, value)) => Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))),
            Err(error) => Err(engine_error("read", db.path(), error)),
        };
        match direction {
            Direction::Forward => Box::new(rows.map(row)),
            Direction::Backward => Box::new(rows.rev().map(row)),
        }
    }

    fn export(&self, into: &mut dyn Write) -> Result<()> {
        let (snapshot, db) = self.open()?;
        let mut stream = StreamWriter::new(into);
        for keyspace in Keyspace::ALL {
            stream.keyspace(keyspace)?;
            for guard in snapshot.iter(db.keyspace(keyspace)) {
                let row = guard.into_inner();
                let (key, value) = row.map_err(|error| engine_error("read", db.path(), error))?;
                stream.row(&key, &value)?;
            }
            stream.end_keyspace()?;
        }
        stream.finish()
    }
}
