//! Reads a store that nobody has open, and changes nothing.

use std::ops::Bound::Unbounded;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::database::Database;
use super::engine::FjallEngine;
use super::pointer::{self, generation_dir};
use super::view::FjallView;
use super::{checkpoint, mirror, store};
use crate::data::checkpoint::describe;
use crate::data::{DataView, Direction, Keyspace};
use crate::disk::RealDisk;
use crate::{Error, Result};

/// What a look at a store found.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// What is damaged.
    pub(crate) damaged: Vec<Error>,
    /// What the next open removes.
    pub(crate) leftovers: Vec<PathBuf>,
    /// Rows that were read.
    pub(crate) rows: u64,
}

/// Reads all of a store: what an open checks, every table against its checksum, and every row.
///
/// # Errors
/// What concerns `copy`, the directory of a copy that fjall opens.
pub(crate) fn examine(engine: &Arc<FjallEngine>, dir: &Path, copy: &Path) -> Result<Examined> {
    let mut found = Examined::default();
    if !dir.exists() {
        return Ok(found);
    }
    let path = match serving(dir) {
        Ok(Some(path)) => path,
        Ok(None) => return Ok(found),
        Err(error) => {
            found.damaged.push(error);
            return Ok(found);
        }
    };
    found.leftovers = leftovers(dir, &path)?;
    mirror::remove(copy)?;
    mirror::copy(&path, copy)?;
    if let Err(error) = read(engine, copy, &mut found) {
        found.damaged.push(error);
    }
    found.damaged = found.damaged.drain(..).map(|error| mirror::of_source(error, copy, &path)).collect();
    mirror::remove(copy)?;
    Ok(found)
}

/// The generation that serves; `None` when none ever did.
fn serving(dir: &Path) -> Result<Option<PathBuf>> {
    let Some(number) = pointer::read(dir)? else {
        if pointer::generations(dir)?.is_empty() {
            return Ok(None);
        }
        let what = "store: generations without a pointer".to_owned();
        return Err(Error::Corrupt { path: dir.to_owned(), offset: 0, what });
    };
    let (path, staging) = (generation_dir(dir, number), pointer::staging_dir(dir));
    if number == 1 && !path.exists() && staging.exists() {
        return Ok(Some(staging));
    }
    if !path.exists() {
        let what = "store: the generation that serves is missing".to_owned();
        return Err(Error::Corrupt { path, offset: 0, what });
    }
    store::check_journals(dir, number)?;
    Ok(Some(path))
}

fn leftovers(dir: &Path, serving: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        pointer::generations(dir)?.into_iter().map(|number| generation_dir(dir, number)).collect();
    paths.push(pointer::staging_dir(dir));
    paths.extend([checkpoint::LINKED_DIR, "current.partial", "closed.partial"].map(|name| dir.join(name)));
    paths.retain(|path| path != serving && path.exists());
    Ok(paths)
}

fn read(engine: &Arc<FjallEngine>, copy: &Path, found: &mut Examined) -> Result<()> {
    let database = engine.checkpoint(copy)?;
    for keyspace in Keyspace::ALL {
        compare_tables(&database, keyspace, found)?;
    }
    if !found.damaged.is_empty() {
        return Ok(());
    }
    let view = FjallView::of_checkpoint(database);
    for keyspace in Keyspace::ALL {
        for row in view.scan(keyspace, Unbounded, Unbounded, Direction::Forward) {
            row?;
            found.rows += 1;
        }
    }
    Ok(())
}

/// Compares each table of a tree with the checksum that fjall took when it wrote it.
fn compare_tables(database: &Database, keyspace: Keyspace, found: &mut Examined) -> Result<()> {
    let tree = database.frozen_tree(keyspace);
    for &(table, xxh3) in &tree.tables {
        let path = format!("{}/tables/{table}", database.tree_dir(keyspace));
        if describe(&RealDisk, database.path(), &path)?.xxh3 != xxh3 {
            let (path, what) = (database.path().join(path), "table: its checksum differs".to_owned());
            found.damaged.push(Error::Corrupt { path, offset: 0, what });
        }
    }
    Ok(())
}
