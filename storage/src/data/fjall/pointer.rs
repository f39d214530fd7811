//! The pointer file of a store: which generation serves. Replaced by rename, so a crash leaves the
//! old one or the new one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const FILE: &str = "current";
const PARTIAL: &str = "current.partial";
const VERSION: &str = "1";
const KIND: &str = "odgm-data";

/// The directory of a generation.
pub(super) fn generation_dir(dir: &Path, number: u64) -> PathBuf {
    dir.join(number.to_string())
}

/// The directory in which the first generation is made, before the pointer exists.
pub(super) fn staging_dir(dir: &Path) -> PathBuf {
    dir.join("1.new")
}

/// The generation that serves; `None` when none ever did.
pub(super) fn read(dir: &Path) -> Result<Option<u64>> {
    let path = dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    let corrupt =
        || Error::Corrupt { path: path.clone(), offset: 0, what: "pointer to a generation".to_owned() };
    let fields: Vec<_> = text.split_ascii_whitespace().collect();
    let &[KIND, version, number, checksum] = &fields[..] else { return Err(corrupt()) };
    if version != VERSION {
        return Err(Error::Format { path, found: version.to_owned(), supported: VERSION.to_owned() });
    }
    let number = number.parse().map_err(|_| corrupt())?;
    if line(number) != text || checksum.is_empty() {
        return Err(corrupt());
    }
    Ok(Some(number))
}

fn line(number: u64) -> String {
    let body = format!("{KIND} {VERSION} {number}");
    format!("{body} {:08x}\n", crc32fast::hash(body.as_bytes()))
}

/// Points to a generation; durable and visible when it returns.
pub(super) fn switch(dir: &Path, number: u64) -> Result<()> {
    let (partial, path) = (dir.join(PARTIAL), dir.join(FILE));
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(line(number).as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Error::io("write", &partial, error))?;
    std::fs::rename(&partial, &path).map_err(|error| Error::io("rename", &path, error))?;
    sync_dir(dir)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|error| Error::io("fsync", dir, error))
}

/// The generations found in a directory, the staged one left out.
pub(super) fn generations(dir: &Path) -> Result<Vec<u64>> {
    let entries = std::fs::read_dir(dir).map_err(|error| Error::io("list", dir, error))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", dir, error))?;
        found.extend(entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    Ok(found)
}
