//! The small files of a store: the pointer to the generation that serves, replaced by rename, so that a
//! crash leaves the old one or the new one; and the mark of a clean close.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::journal::JournalEnd;
use crate::{Error, Result};

const FILE: &str = "current";
const PARTIAL: &str = "current.partial";
const VERSION: &str = "1";
const KIND: &str = "odgm-data";
const CLOSED_FILE: &str = "closed";
const CLOSED_KIND: &str = "odgm-closed";

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
    let line = read_line(&dir.join(FILE), KIND, "pointer to a generation")?;
    Ok(line.map(|[generation]| generation))
}

/// Points to a generation; durable and visible when it returns.
pub(super) fn switch(dir: &Path, number: u64) -> Result<()> {
    let (partial, path) = (dir.join(PARTIAL), dir.join(FILE));
    write_line(&partial, KIND, &[number])?;
    std::fs::rename(&partial, &path).map_err(|error| Error::io("rename", &path, error))?;
    sync_dir(dir)
}

/// The generation that was closed, and what its newest journal held then.
pub(super) fn read_closed(dir: &Path) -> Result<Option<(u64, JournalEnd)>> {
    let line = read_line(&dir.join(CLOSED_FILE), CLOSED_KIND, "mark of a clean close")?;
    Ok(line.map(|[generation, number, bytes]| (generation, JournalEnd { number, bytes })))
}

/// Leaves the mark of a clean close. It stays true whatever is written later: a journal only grows, or goes.
pub(super) fn mark_closed(dir: &Path, generation: u64, end: &JournalEnd) -> Result<()> {
    let partial = dir.join("closed.partial");
    write_line(&partial, CLOSED_KIND, &[generation, end.number, end.bytes])?;
    let path = dir.join(CLOSED_FILE);
    std::fs::rename(&partial, &path).map_err(|error| Error::io("rename", &path, error))?;
    sync_dir(dir)
}

/// The numbers in a one-line file of ours; `None` when it is absent.
fn read_line<const N: usize>(path: &Path, kind: &str, what: &str) -> Result<Option<[u64; N]>> {
    let corrupt = || Error::Corrupt { path: path.to_owned(), offset: 0, what: what.to_owned() };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| corrupt())?;
    let fields: Vec<_> = text.split_ascii_whitespace().collect();
    let [found, version, numbers @ .., _checksum] = &fields[..] else { return Err(corrupt()) };
    if *found != kind {
        return Err(corrupt());
    }
    if *version != VERSION {
        let (found, supported) = ((*version).to_owned(), VERSION.to_owned());
        return Err(Error::Format { path: path.to_owned(), found, supported });
    }
    let numbers: Vec<u64> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
    let numbers: [u64; N] = numbers.try_into().map_err(|_| corrupt())?;
    if line(kind, &numbers) == text { Ok(Some(numbers)) } else { Err(corrupt()) }
}

fn line(kind: &str, numbers: &[u64]) -> String {
    let mut body = format!("{kind} {VERSION}");
    for number in numbers {
        body.push_str(&format!(" {number}"));
    }
    format!("{body} {:08x}\n", crc32fast::hash(body.as_bytes()))
}

fn write_line(path: &Path, kind: &str, numbers: &[u64]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(line(kind, numbers).as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| Error::io("write", path, error))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
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
