//! A frozen copy of a database by hard links, without a sync while writers wait.
//!
//! All files of an LSM tree but the journal are written once and replaced by name, so a link freezes
//! them. First everything is flushed while writes go on. Then, under the write gate, the version of each
//! tree is linked and its tables are held, and the journals are linked. After it the tables are linked, and
//! the few batches that came in between are copied out of the journals into one of their own: what a
//! crash at that moment would have left, without what is in tables already. Tables carry the checksum
//! that fjall took when it wrote them, so none is read. The manifest comes last, and the name of the whole
//! after everything is synced. For another file system the links are made beside the store, and copied.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::database::{Database, FrozenTree};
use super::generation::{Gate, close_gate, remove_dir};
use super::journal;
use super::pointer::sync_dir;
use crate::data::Keyspace;
use crate::data::checkpoint::{CheckpointFile, CheckpointManifest, CheckpointRequest, describe};
use crate::disk::RealDisk;
use crate::{Error, Result};

/// What manifests call this store.
pub(super) const ENGINE: &str = "fjall";
/// Where links are made that are to be copied; removed at the next open.
pub(super) const LINKED_DIR: &str = "checkpoint.linked";
/// Links to the journals, while a checkpoint is made.
const JOURNALS_DIR: &str = "journals";
/// Changes of `current` during one round of links, each by a flush or a compaction that ended.
const ROUNDS: usize = 1000;

/// Freezes a database of the store in `dir` under `target`, which must not exist. One at a time.
pub(super) fn take(
    dir: &Path,
    database: &Database,
    gate: &Gate,
    target: &Path,
    request: &CheckpointRequest,
) -> Result<CheckpointManifest> {
    if target.exists() {
        return Err(Error::Options { option: "target", reason: format!("{} exists", target.display()) });
    }
    let parent =
        target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let partial = parent.join(format!("{name}.partial"));
    let linked = if device(parent)? == device(dir)? { partial.clone() } else { dir.join(LINKED_DIR) };
    remove_dir(&partial)?;
    remove_dir(&linked)?;
    let made = make(database, gate, &linked, &partial, request);
    if linked != partial {
        remove_dir(&linked)?;
    }
    let manifest = match made {
        Ok(manifest) => manifest,
        Err(error) => {
            remove_dir(&partial)?;
            return Err(error);
        }
    };
    std::fs::rename(&partial, target).map_err(|error| Error::io("rename", target, error))?;
    sync_dir(parent)?;
    Ok(manifest)
}

fn make(
    database: &Database,
    gate: &Gate,
    linked: &Path,
    partial: &Path,
    request: &CheckpointRequest,
) -> Result<CheckpointManifest> {
    let since = {
        let _gate = close_gate(gate);
        database.sequence()
    };
    // What was written until here is in tables after this, so the journals need not be read for it.
    database.flush()?;
    let Frozen { sequence, trees } = freeze(database, gate, linked)?;
    let mut files = Files::default();
    for tree in &trees {
        link_tables(database, tree, linked, &mut files)?;
    }
    drop(trees);
    link_meta_tree(database.path(), linked, &mut files)?;
    copy(&database.path().join("version"), &linked.join("version"))?;
    write(&linked.join("lock"), b"")?;
    write_journal(linked, &(since..sequence))?;
    files.others.extend(["version", "lock", "0.jnl"].map(str::to_owned));
    let Files { mut tables, others } = files;
    if linked != partial {
        for path in tables.iter().map(|table| &table.path).chain(&others) {
            let to = partial.join(path);
            create_dir(to.parent().unwrap_or(partial))?;
            copy(&linked.join(path), &to)?;
        }
    }
    for path in &others {
        sync_file(&partial.join(path))?;
        tables.push(describe(&RealDisk, partial, path)?);
    }
    sync_dirs(partial)?;
    let manifest = CheckpointManifest::new(ENGINE, sequence, request, tables);
    manifest.write(&RealDisk, partial)?;
    Ok(manifest)
}

/// The files of a checkpoint, by paths below it.
#[derive(Default)]
struct Files {
    tables: Vec<CheckpointFile>,
    /// Everything else: small, and not synced yet.
    others: Vec<String>,
}

/// What was frozen while nobody wrote.
struct Frozen<V> {
    /// That of the next write.
    sequence: u64,
    trees: Vec<FrozenTree<V>>,
}

/// Takes hold of all trees and journals at one moment. Nothing in here waits for the disk.
fn freeze(database: &Database, gate: &Gate, linked: &Path) -> Result<Frozen<impl Sized + use<>>> {
    let journals = linked.join(JOURNALS_DIR);
    create_dir(&journals)?;
    for keyspace in Keyspace::ALL {
        create_dir(&linked.join(database.tree_dir(keyspace)).join("tables"))?;
    }
    let _gate = close_gate(gate);
    for (number, path) in journal::journals(database.path())? {
        // One that is gone has all it held in tables.
        link(&path, &journals.join(format!("{number}.jnl")))?;
    }
    let trees = Keyspace::ALL.into_iter().map(|keyspace| freeze_tree(database, keyspace, linked));
    Ok(Frozen { trees: trees.collect::<Result<_>>()?, sequence: database.sequence() })
}

/// Links the version of a tree that `current` names, and holds its tables.
fn freeze_tree(
    database: &Database,
    keyspace: Keyspace,
    linked: &Path,
) -> Result<FrozenTree<impl Sized + use<>>> {
    let root = database.tree_dir(keyspace);
    let (source, target) = (database.path().join(&root), linked.join(&root));
    for _ in 0..ROUNDS {
        let tree = database.frozen_tree(keyspace);
        let current = read(&source.join("current"))?;
        let version = format!("v{}", tree.version);
        if version_of(&source, &current)? == version && link(&source.join(&version), &target.join(&version))?
        {
            write(&target.join("current"), &current)?;
            return Ok(tree);
        }
        // It was replaced in between.
        std::thread::yield_now();
    }
    Err(Error::Engine(format!("{} changes faster than it can be linked", source.display())))
}

/// Links the tables of a frozen tree.
fn link_tables<V>(database: &Database, tree: &FrozenTree<V>, linked: &Path, files: &mut Files) -> Result<()> {
    let root = database.tree_dir(tree.keyspace);
    for &(table, xxh3) in &tree.tables {
        let path = format!("{root}/tables/{table}");
        let from = database.path().join(&path);
        let bytes = std::fs::metadata(&from).map_err(|error| Error::io("read", &from, error))?.len();
        if !link(&from, &linked.join(&path))? {
            let what = "tree: a table is missing".to_owned();
            return Err(Error::Corrupt { path: from, offset: 0, what });
        }
        files.tables.push(CheckpointFile { path, bytes, xxh3 });
    }
    files.others.extend([format!("{root}/v{}", tree.version), format!("{root}/current")]);
    Ok(())
}

/// Makes one journal of the batches that may be in no table.
fn write_journal(linked: &Path, sequences: &std::ops::Range<u64>) -> Result<()> {
    let journals = linked.join(JOURNALS_DIR);
    let mut batches = Vec::new();
    for (_, path) in journal::journals(&journals)? {
        journal::copy_batches(&path, sequences, &mut batches)?;
    }
    remove_dir(&journals)?;
    write(&linked.join("0.jnl"), &batches)
}

/// Links the tree in which fjall keeps its keyspaces. It has no handle, and changes only when a keyspace is
/// made; a table belongs to its version when the version names it with its checksum.
fn link_meta_tree(database: &Path, partial: &Path, files: &mut Files) -> Result<()> {
    let root = "keyspaces/0";
    let (source, target) = (database.join(root), partial.join(root));
    create_dir(&target.join("tables"))?;
    let current = read(&source.join("current"))?;
    let version = version_of(&source, &current)?;
    let content = read(&source.join(&version))?;
    for name in names(&source.join("tables"))? {
        let path = format!("{root}/tables/{}", name.display());
        let table = describe(&RealDisk, database, &path)?;
        let Some(id) = name.to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
        let entry = [&id.to_le_bytes()[..], &[0], &table.xxh3.to_le_bytes()].concat();
        if content.windows(entry.len()).any(|window| window == entry) {
            link(&database.join(&path), &partial.join(&path))?;
            files.tables.push(table);
        }
    }
    link(&source.join(&version), &target.join(&version))?;
    write(&target.join("current"), &current)?;
    files.others.extend([format!("{root}/{version}"), format!("{root}/current")]);
    Ok(())
}

/// The name of the version that `current` names.
fn version_of(tree: &Path, current: &[u8]) -> Result<String> {
    let id = current.first_chunk::<8>().ok_or_else(|| Error::Corrupt {
        path: tree.join("current"),
        offset: 0,
        what: "pointer to a version".to_owned(),
    })?;
    Ok(format!("v{}", u64::from_le_bytes(*id)))
}

/// Makes the names of everything below durable.
pub(super) fn sync_dirs(root: &Path) -> Result<()> {
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for name in names(&dir)? {
            let path = dir.join(name);
            if path.is_dir() {
                dirs.push(path);
            }
        }
        sync_dir(&dir)?;
    }
    Ok(())
}

fn device(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).map_err(|error| Error::io("read", path, error))?.dev())
}

/// Links a file, or copies it where links cannot be made; `false` when the source is gone.
pub(super) fn link(from: &Path, to: &Path) -> Result<bool> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if has_no_links(error.kind()) => match copy(from, to) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        },
        Err(error) => Err(Error::io("link", to, error)),
    }
}

fn has_no_links(kind: ErrorKind) -> bool {
    use ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(kind, CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

/// Copies a file; durable, but for its name.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = std::fs::copy(from, to).and_then(|_| File::open(to)?.sync_all());
    copied.map_err(|error| Error::io("copy", to, error))
}

pub(super) fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| Error::io("create", path, error))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io("read", path, error))
}

/// Writes a small file; it is synced when no writer waits.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| Error::io("write", path, error))
}

fn sync_file(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| Error::io("fsync", path, error))
}

fn names(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|error| Error::io("list", dir, error))?;
    entries
        .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())))
        .collect::<std::io::Result<_>>()
        .map_err(|error| Error::io("list", dir, error))
}
