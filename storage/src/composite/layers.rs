//! The file that says which backend each layer of a data directory uses (docs/formats/storage.md).
//!
//! A directory written by one backend means nothing to another: opened with it, a node would begin
//! empty beside its own data. So what is there is written down once, and everything else is refused.

use std::path::Path;

use super::options::{CompositeOptions, DataBackend, LogBackend, SnapshotBackend};
use crate::disk::{Disk, OpenMode};
use crate::{Error, Result};

const KIND: &str = "odgm-storage";
const VERSION: &str = "1";
/// Longer than the file ever is.
const LIMIT: u64 = 4096;

/// The backends of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Layers {
    /// The log.
    pub log: LogBackend,
    /// Snapshots.
    pub snapshot: SnapshotBackend,
    /// Data.
    pub data: DataBackend,
}

impl From<&CompositeOptions> for Layers {
    fn from(options: &CompositeOptions) -> Self {
        Layers { log: options.log.backend, snapshot: options.snapshot.backend, data: options.data.backend }
    }
}

const LOGS: [(LogBackend, &str); 3] = [
    (LogBackend::AppendLog, "append_log"),
    (LogBackend::Fjall, "fjall"),
    (LogBackend::MemoryLog, "memory_log"),
];
const SNAPSHOTS: [(SnapshotBackend, &str); 2] = [
    (SnapshotBackend::CompressedFile, "compressed_file"),
    (SnapshotBackend::MemorySnapshot, "memory_snapshot"),
];
const DATA: [(DataBackend, &str); 2] = [(DataBackend::Fjall, "fjall"), (DataBackend::Memory, "memory")];

/// The name of a backend in a table of them.
fn name<B: Copy + PartialEq>(table: &[(B, &'static str)], backend: B) -> &'static str {
    let row = table.iter().find(|(known, _)| *known == backend);
    row.expect("each backend is in its table").1
}

fn named<B: Copy>(table: &[(B, &'static str)], name: &str) -> Option<B> {
    table.iter().find(|(_, known)| *known == name).map(|(backend, _)| *backend)
}

impl Layers {
    /// The name of the file.
    pub(crate) const FILE: &str = "storage";
    /// Its name while it is written.
    pub(crate) const PARTIAL: &str = "storage.partial";

    /// What the file in a data directory says; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged file, [`Error::Format`] for one of another version or with a
    /// backend that this build does not know, or what the disk answers.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Layers>> {
        let path = dir.join(Self::FILE);
        let file = match disk.open(&path, OpenMode::Read) {
            Err(Error::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        let mut bytes = vec![0; file.len()?.min(LIMIT) as usize];
        let count = file.read_at(&mut bytes, 0)?;
        bytes.truncate(count);
        let corrupt = || Error::Corrupt { path: path.clone(), offset: 0, what: "list of layers".to_owned() };
        let text = std::str::from_utf8(&bytes).map_err(|_| corrupt())?;
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let &[KIND, version, "log", log, "snapshot", snapshot, "data", data, "crc32", _] = &words[..] else {
            return Err(corrupt());
        };
        if sealed(version, [log, snapshot, data]) != text {
            return Err(corrupt());
        }
        let unknown = || {
            let found = format!("{version} with {log}, {snapshot} and {data}");
            Error::Format { path: path.clone(), found, supported: VERSION.to_owned() }
        };
        let known = (named(&LOGS, log), named(&SNAPSHOTS, snapshot), named(&DATA, data));
        match known {
            (Some(log), Some(snapshot), Some(data)) if version == VERSION => {
                Ok(Some(Layers { log, snapshot, data }))
            }
            _ => Err(unknown()),
        }
    }

    /// Writes the file, durably and whole or not at all.
    ///
    /// # Errors
    /// What the disk answers.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let partial = dir.join(Self::PARTIAL);
        disk.remove(&partial)?;
        let file = disk.open(&partial, OpenMode::CreateNew)?;
        file.write_at(sealed(VERSION, self.names()).as_bytes(), 0)?;
        file.sync_all()?;
        disk.rename(&partial, &dir.join(Self::FILE))?;
        disk.sync_dir(dir)
    }

    /// Opens a directory for these layers: writes the file when there is none yet.
    ///
    /// # Errors
    /// [`Error::Options`] when other backends wrote the directory, with what to do, or as
    /// [`Layers::read`] and [`Layers::write`].
    pub(super) fn agree(self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let written = Layers::read(disk, dir)?;
        // A directory that was used before there was this file was used by the first backends.
        let found = match written {
            Some(found) => found,
            None if is_used(disk, dir)? => Layers::default(),
            None => self,
        };
        let pairs = ["log", "snapshot", "data"].into_iter().zip(found.names().into_iter().zip(self.names()));
        let differ: Vec<String> = pairs
            .filter(|(_, (found, asked))| found != asked)
            .map(|(layer, (found, asked))| {
                format!("the {layer} in {} is {found}, asked for is {asked}", dir.display())
            })
            .collect();
        if differ.is_empty() {
            return if written.is_some() { Ok(()) } else { self.write(disk, dir) };
        }
        let reason = format!(
            "{}: ask for what is there, or run `odgm doctor --migrate` to move it",
            differ.join("; ")
        );
        Err(Error::Options { option: "backend", reason })
    }

    fn names(self) -> [&'static str; 3] {
        [name(&LOGS, self.log), name(&SNAPSHOTS, self.snapshot), name(&DATA, self.data)]
    }
}

fn sealed(version: &str, [log, snapshot, data]: [&str; 3]) -> String {
    let body = format!("{KIND} {version}\nlog {log}\nsnapshot {snapshot}\ndata {data}\n");
    let sum = crc32fast::hash(body.as_bytes());
    format!("{body}crc32 {sum:08x}\n")
}

/// Whether a log or a shard was ever made here.
fn is_used(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    for part in [super::LOG, super::SHARDS] {
        match disk.list(&dir.join(part)) {
            Err(Error::NotFound { .. }) => {}
            Err(other) => return Err(other),
            Ok(names) if names.is_empty() => {}
            Ok(_) => return Ok(true),
        }
    }
    Ok(false)
}
