//! Checkpoints on disk: a directory each, complete once its manifest is beside it.

use std::io::Write;
use std::path::{Path, PathBuf};

use odgm_storage::snapshot::SnapshotMeta;
use odgm_storage::{Error, Result};
use uuid::Uuid;

use crate::codec;

/// The version of a manifest.
const MANIFEST_VERSION: u8 = 1;
const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".manifest";

/// Where the checkpoint of a snapshot goes.
pub(super) fn path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("{PREFIX}{id}"))
}

/// The complete checkpoints under `dir`; the others are removed.
pub(super) fn list(dir: &Path) -> Result<Vec<(SnapshotMeta, PathBuf)>> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |error| Error::io(operation, path, error)
    };
    std::fs::create_dir_all(dir).map_err(io("create", dir))?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("list", dir))? {
        let path = entry.map_err(io("list", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(id) = name.strip_prefix(PREFIX) else { continue };
        if id.ends_with(SUFFIX) || id.ends_with(".partial") {
            continue;
        }
        let manifest = dir.join(format!("{name}{SUFFIX}"));
        let Ok(bytes) = std::fs::read(&manifest) else {
            std::fs::remove_dir_all(&path).map_err(io("remove", &path))?;
            continue;
        };
        let meta: SnapshotMeta = codec::decode_versioned(MANIFEST_VERSION, &bytes).ok_or_else(|| {
            Error::Corrupt { path: manifest, offset: 0, what: "manifest of a checkpoint".to_owned() }
        })?;
        found.push((meta, path));
    }
    Ok(found)
}

/// Makes a checkpoint complete.
pub(super) fn write_manifest(dir: &Path, meta: &SnapshotMeta) -> Result<()> {
    let name = dir.join(format!("{PREFIX}{}{SUFFIX}", meta.id));
    let partial = dir.join(format!("{PREFIX}{}.partial", meta.id));
    let write = || {
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(&codec::encode_versioned(MANIFEST_VERSION, meta))?;
        file.sync_all()?;
        std::fs::rename(&partial, &name)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(|error| Error::io("write", name.clone(), error))
}

pub(super) fn remove(dir: &Path, checkpoint: &Path, id: Uuid) -> Result<()> {
    let manifest = dir.join(format!("{PREFIX}{id}{SUFFIX}"));
    // The manifest first: a checkpoint without one is removed at the next open.
    for result in [std::fs::remove_file(&manifest), std::fs::remove_dir_all(checkpoint)] {
        match result {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", checkpoint, error));
            }
            _ => {}
        }
    }
    Ok(())
}
