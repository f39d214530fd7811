//! A frozen copy of a database by hard links, in the time of a flush.
//!
//! All files of an LSM tree but the journal are written once and replaced by name, so a link freezes
//! them. Under the write gate: flush, so that the journal is not needed; then for each tree link the
//! version that `current` names and all tables, and begin again when `current` has changed meanwhile;
//! then an empty journal. The manifest comes last, and the name of the whole after everything is synced.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::database::Database;
use super::generation::{Gate, close_gate, remove_dir};
use super::pointer::sync_dir;
use crate::{Error, Result};

const MANIFEST: &str = "MANIFEST.odgm";
const MANIFEST_TEXT: &str = "odgm-checkpoint 1\n";
/// Changes of `current` during one round of links, each by a flush or a compaction that ended.
const ROUNDS: usize = 1000;

/// Freezes a database under `target`, which must not exist.
pub(super) fn take(database: &Database, gate: &Gate, target: &Path) -> Result<()> {
    if target.exists() {
        return Err(Error::Options { option: "target", reason: format!("{} exists", target.display()) });
    }
    let parent =
        target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let partial = parent.join(format!("{name}.partial"));
    remove_dir(&partial)?;
    // Most of it without the gate, so that writes wait for what came meanwhile only.
    database.flush()?;
    let linked = freeze(database, gate, &partial).and_then(|()| seal(&partial));
    if let Err(error) = linked {
        remove_dir(&partial)?;
        return Err(error);
    }
    std::fs::rename(&partial, target).map_err(|error| Error::io("rename", target, error))?;
    sync_dir(parent)
}

/// Whether a directory holds a complete checkpoint of this format.
pub(super) fn check(target: &Path) -> Result<()> {
    let path = target.join(MANIFEST);
    match std::fs::read_to_string(&path) {
        Ok(text) if text == MANIFEST_TEXT => Ok(()),
        Ok(text) => {
            let found = text.trim_end().to_owned();
            Err(Error::Format { path, found, supported: MANIFEST_TEXT.trim_end().to_owned() })
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::NotFound { what: format!("checkpoint {}", target.display()) })
        }
        Err(error) => Err(Error::io("read", path, error)),
    }
}

fn freeze(database: &Database, gate: &Gate, partial: &Path) -> Result<()> {
    let _gate = close_gate(gate);
    database.flush()?;
    assert!(database.is_flushed(), "nobody writes under the gate, so nothing is left in memory");
    let source = database.path();
    let (trees, frozen) = (source.join("keyspaces"), partial.join("keyspaces"));
    create_dir(&frozen)?;
    for tree in names(&trees)? {
        link_tree(&trees.join(&tree), &frozen.join(&tree))?;
    }
    copy(&source.join("version"), &partial.join("version"))?;
    write(&partial.join("lock"), b"")?;
    write(&partial.join("0.jnl"), b"")
}

/// Links a tree at one of its versions.
fn link_tree(source: &Path, target: &Path) -> Result<()> {
    for _ in 0..ROUNDS {
        remove_dir(target)?;
        create_dir(target)?;
        let current = read(&source.join("current"))?;
        let Some(id) = current.first_chunk::<8>() else {
            let what = "pointer to a version".to_owned();
            return Err(Error::Corrupt { path: source.join("current"), offset: 0, what });
        };
        let version = format!("v{}", u64::from_le_bytes(*id));
        if !link(&source.join(&version), &target.join(&version))? {
            continue;
        }
        for kind in ["tables", "blobs"] {
            let from = source.join(kind);
            if !from.exists() {
                continue;
            }
            let to = target.join(kind);
            create_dir(&to)?;
            for file in names(&from)? {
                // One that is gone was replaced: then `current` has changed too.
                link(&from.join(&file), &to.join(&file))?;
            }
        }
        if read(&source.join("current"))? == current {
            return write(&target.join("current"), &current);
        }
    }
    Err(Error::Engine(format!("{} changes faster than it can be linked", source.display())))
}

/// Syncs everything below, then writes the manifest.
fn seal(partial: &Path) -> Result<()> {
    let mut dirs = vec![partial.to_owned()];
    while let Some(dir) = dirs.pop() {
        for name in names(&dir)? {
            let path = dir.join(name);
            if path.is_dir() {
                dirs.push(path);
            }
        }
        sync_dir(&dir)?;
    }
    write(&partial.join(MANIFEST), MANIFEST_TEXT.as_bytes())?;
    sync_dir(partial)
}

/// Links a file, or copies it to another file system; `false` when the source is gone.
fn link(from: &Path, to: &Path) -> Result<bool> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == ErrorKind::CrossesDevices => match copy(from, to) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        },
        Err(error) => Err(Error::io("link", to, error)),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = std::fs::copy(from, to).and_then(|_| File::open(to)?.sync_all());
    copied.map_err(|error| Error::io("copy", to, error))
}

fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| Error::io("create", path, error))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io("read", path, error))
}

/// Writes a small file and syncs it.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| Error::io("write", path, error))
}

fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|error| Error::io("list", dir, error))?;
    entries
        .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())))
        .collect::<std::io::Result<_>>()
        .map_err(|error| Error::io("list", dir, error))
}
