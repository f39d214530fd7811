//! A checkpoint as the data of a store: a new generation of links to its files, switched to by rename.

use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{ENGINE, copy, create_dir, link, sync_dirs};
use super::generation::{Generation, remove_dir};
use super::pointer;
use super::pointer::{generation_dir, sync_dir};
use super::store::Inner;
use crate::data::checkpoint::CheckpointManifest;
use crate::disk::RealDisk;
use crate::{Error, Result};

/// Verifies a checkpoint and lets it serve.
pub(super) fn install(store: &Inner, checkpoint: &Path) -> Result<CheckpointManifest> {
    let manifest = CheckpointManifest::read(&RealDisk, checkpoint, ENGINE)?;
    manifest.verify(&RealDisk, checkpoint)?;
    let number = store.reserve_generation();
    let path = generation_dir(&store.dir, number);
    remove_dir(&path)?;
    let generation = match open(store, &manifest, checkpoint, number) {
        Ok(generation) => generation,
        Err(error) => {
            remove_dir(&path)?;
            return Err(error);
        }
    };
    let replaced = store.replace(generation.clone());
    if replaced.is_err() && pointer::read(&store.dir).ok().flatten() != Some(number) {
        generation.retire();
    }
    replaced.map(|()| manifest)
}

fn open(
    store: &Inner,
    manifest: &CheckpointManifest,
    checkpoint: &Path,
    number: u64,
) -> Result<Arc<Generation>> {
    let path = generation_dir(&store.dir, number);
    for file in &manifest.files {
        let (from, to) = (checkpoint.join(&file.path), path.join(&file.path));
        create_dir(to.parent().unwrap_or(&path))?;
        if !is_immutable(&file.path) {
            copy(&from, &to)?;
        } else if !link(&from, &to)? {
            return Err(Error::NotFound { what: format!("{} of a checkpoint", from.display()) });
        }
    }
    sync_dirs(&path)?;
    sync_dir(&store.dir)?;
    let database = store.engine.database(&path)?;
    Ok(Generation::new(number, database, store.engine.buffers.clone(), store.gate.clone()))
}

/// Tables and versions of trees are never written again; the rest fjall opens for writing.
fn is_immutable(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    path.starts_with("keyspaces/") && name != "current"
}
