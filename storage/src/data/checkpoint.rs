//! The manifest of a checkpoint: what it is, and every file in it with size and checksum. Written last, so
//! a directory without one is no checkpoint.
//!
//! Text (docs/formats/data.md): a line `odgm-checkpoint 2 <xxh3-64 of the rest, 16 hex digits>`, then the
//! record as JSON, for people and tools to read.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::log::LogPosition;
use crate::{Error, Result};

/// The name of the manifest in the checkpoint's directory.
pub const MANIFEST: &str = "MANIFEST.odgm";
const KIND: &str = "odgm-checkpoint";
const VERSION: &str = "2";
/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What the caller says about a checkpoint; written to its manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// Names it among all others; nil when it needs no name.
    pub id: Uuid,
    /// The last log entry whose effect is inside.
    pub last_included: Option<LogPosition>,
    /// Unix time, milliseconds; 0 when it does not matter.
    pub created_unix_ms: u64,
}

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointManifest {
    /// As requested.
    pub id: Uuid,
    /// The kind of store that it can be opened by: `fjall` or `memory`.
    pub engine: String,
    /// The engine's sequence number of its moment: rises with every write; 0 for memory.
    pub sequence: u64,
    /// As requested.
    pub last_included: Option<LogPosition>,
    /// As requested.
    pub created_unix_ms: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// All files but this one, by path.
    pub files: Vec<CheckpointFile>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointFile {
    /// Below the checkpoint's directory, with `/`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The xxh3-128 of its content.
    #[serde(with = "hex")]
    pub xxh3: u128,
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:032x}"))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

impl CheckpointManifest {
    pub(super) fn new(
        engine: &str,
        sequence: u64,
        request: &CheckpointRequest,
        mut files: Vec<CheckpointFile>,
    ) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        CheckpointManifest {
            id: request.id,
            engine: engine.to_owned(),
            sequence,
            last_included: request.last_included,
            created_unix_ms: request.created_unix_ms,
            total_bytes: files.iter().map(|file| file.bytes).sum(),
            files,
        }
    }

    /// Reads the manifest of a checkpoint of one kind of store, and compares the size of every file.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path, engine: &str) -> Result<Self> {
        let path = dir.join(MANIFEST);
        let bytes = match disk.open(&path, OpenMode::Read).and_then(|file| read_all(&*file)) {
            Err(Error::NotFound { .. }) => {
                return Err(Error::NotFound { what: format!("checkpoint {}", dir.display()) });
            }
            other => other?,
        };
        let manifest = Self::decode(&path, &bytes)?;
        if manifest.engine != engine {
            let (found, supported) = (format!("of a {} store", manifest.engine), engine.to_owned());
            return Err(Error::Format { path, found, supported });
        }
        for file in &manifest.files {
            let path = dir.join(&file.path);
            let bytes = disk.open(&path, OpenMode::Read).and_then(|open| open.len()).map_err(|error| {
                let missing = matches!(error, Error::NotFound { .. });
                if missing { corrupt(&path, "file of a checkpoint: it is missing") } else { error }
            })?;
            if bytes != file.bytes {
                let what = format!("file of a checkpoint: {bytes} bytes, not {}", file.bytes);
                return Err(corrupt(&path, &what));
            }
        }
        Ok(manifest)
    }

    /// Reads every file and compares its checksum.
    pub(crate) fn verify(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        for file in &self.files {
            let path = dir.join(&file.path);
            if hash(&*disk.open(&path, OpenMode::Read)?)? != file.xxh3 {
                return Err(corrupt(&path, "file of a checkpoint: its checksum differs"));
            }
        }
        Ok(())
    }

    /// Writes the manifest; durable when it returns, which is when the checkpoint exists.
    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let (partial, path) = (dir.join("MANIFEST.partial"), dir.join(MANIFEST));
        disk.remove(&partial)?;
        let file = disk.open(&partial, OpenMode::CreateNew)?;
        file.write_at(&self.encode(), 0)?;
        file.sync_all()?;
        disk.rename(&partial, &path)?;
        disk.sync_dir(dir)
    }

    fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_string_pretty(self).expect("a manifest is plain data with string keys");
        format!("{KIND} {VERSION} {:016x}\n{body}\n", xxh3_64(format!("{body}\n").as_bytes())).into_bytes()
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let damaged = || corrupt(path, "manifest of a checkpoint");
        let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
        let (head, body) = text.split_once('\n').ok_or_else(damaged)?;
        let mut fields = head.split(' ');
        if fields.next() != Some(KIND) {
            return Err(damaged());
        }
        let version = fields.next().unwrap_or_default();
        if version != VERSION {
            let (found, supported) = (version.to_owned(), VERSION.to_owned());
            return Err(Error::Format { path: path.to_owned(), found, supported });
        }
        if fields.next() != Some(&format!("{:016x}", xxh3_64(body.as_bytes()))) || fields.next().is_some() {
            return Err(damaged());
        }
        let manifest: Self = serde_json::from_str(body).map_err(|_| damaged())?;
        let inside = |file: &CheckpointFile| {
            let path = Path::new(&file.path);
            !file.path.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)))
        };
        if manifest.files.iter().all(inside) { Ok(manifest) } else { Err(damaged()) }
    }
}

/// A file of the checkpoint in `dir`, read for its checksum.
pub(super) fn describe(disk: &dyn Disk, dir: &Path, path: &str) -> Result<CheckpointFile> {
    let file = disk.open(&dir.join(path), OpenMode::Read)?;
    Ok(CheckpointFile { path: path.to_owned(), bytes: file.len()?, xxh3: hash(&*file)? })
}

fn hash(file: &dyn DiskFile) -> Result<u128> {
    let mut hash = Xxh3::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut chunk, offset)? {
            0 => return Ok(hash.digest128()),
            count => {
                hash.update(&chunk[..count]);
                offset += count as u64;
            }
        }
    }
}

fn read_all(file: &dyn DiskFile) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    FileStream::new(file)
        .take(64 << 20)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read", PathBuf::from(MANIFEST), error))?;
    Ok(bytes)
}

/// A file of a [`Disk`], read from the start.
pub(super) struct FileStream<F> {
    file: F,
    offset: u64,
}

impl<F> FileStream<F> {
    pub(super) fn new(file: F) -> Self {
        FileStream { file, offset: 0 }
    }
}

impl<F: std::ops::Deref<Target: DiskFile>> Read for FileStream<F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(into, self.offset).map_err(std::io::Error::other)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl<F: std::ops::Deref<Target: DiskFile>> std::io::Write for FileStream<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write_at(bytes, self.offset).map_err(std::io::Error::other)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), offset: 0, what: what.to_owned() }
}
