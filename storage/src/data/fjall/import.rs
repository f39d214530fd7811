//! The replacement of a store's data: a new generation, built beside the one that serves.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use super::database::Database;
use super::engine_error;
use super::generation::{Generation, remove_dir};
use super::pointer::{generation_dir, sync_dir};
use super::store::Inner;
use crate::data::stream::StreamReader;
use crate::data::{DataImport, Keyspace};
use crate::{Error, Result};

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Empty,
    Reading,
    Complete,
}

/// An import. Its directory goes with it, unless `finish` made it the one that serves.
#[derive(Debug)]
pub(super) struct FjallImport {
    store: Arc<Inner>,
    number: u64,
    path: PathBuf,
    /// `None` once it was handed over.
    database: Option<Arc<Database>>,
    progress: Progress,
}

impl FjallImport {
    pub(super) fn new(store: Arc<Inner>) -> Result<Self> {
        let number = store.reserve_generation();
        let path = generation_dir(&store.dir, number);
        remove_dir(&path)?;
        let database = Some(store.engine.database(&path)?);
        Ok(FjallImport { store, number, path, database, progress: Progress::Empty })
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("only finish takes the database")
    }
}

impl DataImport for FjallImport {
    fn read(&mut self, from: &mut dyn Read) -> Result<()> {
        if self.progress != Progress::Empty {
            return Err(Error::Engine("an import reads one stream".to_owned()));
        }
        self.progress = Progress::Reading;
        ingest(self.database(), StreamReader::new(from))?;
        self.progress = Progress::Complete;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if self.progress != Progress::Complete {
            return Err(Error::NotFound { what: "an imported stream".to_owned() });
        }
        self.database().sync()?;
        sync_dir(&self.path)?;
        sync_dir(&self.store.dir)?;
        let database = self.database.take().expect("only finish takes the database");
        let generation = Generation::new(
            self.number,
            database,
            self.store.engine.buffers.clone(),
            self.store.gate.clone(),
        );
        let replaced = self.store.replace(generation.clone());
        if replaced.is_err() && super::pointer::read(&self.store.dir).ok().flatten() != Some(self.number) {
            generation.retire();
        }
        replaced
    }
}

impl Drop for FjallImport {
    fn drop(&mut self) {
        if let Some(database) = self.database.take() {
            drop(database);
            if let Err(error) = remove_dir(&self.path) {
                tracing::warn!(%error, "an unfinished import stays until the next start");
            }
        }
    }
}

/// Writes the rows of a stream as sorted tables, keyspace by keyspace, past journal and memtables.
fn ingest(database: &Database, mut stream: StreamReader<'_>) -> Result<()> {
    let fail = |error| engine_error("ingest", database.path(), error);
    for keyspace in Keyspace::ALL {
        let mut ingestion = database.keyspace(keyspace).start_ingestion().map_err(fail)?;
        while let Some((key, value)) = stream.row(keyspace)? {
            ingestion.write(key, value).map_err(fail)?;
        }
        ingestion.finish().map_err(fail)?;
    }
    stream.finish()
}
