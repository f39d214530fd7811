//! A look at a database's files before fjall opens it, for damage that fjall does not report.
//!
//! fjall ends the replay of a journal at the first framing byte that it does not know, and cuts the rest
//! off: one flipped bit takes every later batch with it, silently. And it does not compare the checksum of
//! a tree's version file. So here:
//! - a journal in which a sound batch follows a bad one is damaged, unless the bad one ends in zeroes up
//!   to the end of a page, which is what a loss of power leaves of pages that were never synced;
//! - what a clean close left behind must all be there again;
//! - the version that a tree's `current` names must have the checksum that is noted there.
//!
//! What stays: the last batch of a journal that was not closed cannot be told from a torn one.
//!
//! A journal is batches: `01` items (4) sequence (8), the items, `03` xxh3-64 of the items (8) `FJL 03`; an
//! item is `02` type (1) codec (1) keyspace (8) key length (2) value length (4) stored length (4) key value,
//! or `04` keyspace (8); all little-endian (fjall 3.1, `journal/entry.rs`).

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{Error, Result};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const START_BYTES: usize = 13;
const TRAILER: &[u8] = b"FJL\x03";
const PAGE_BYTES: usize = 4096;
/// So many zeroes before the end of a page are no coincidence.
const HOLE_BYTES: usize = 16;
/// `current` of a tree: version, xxh3-128 of its file, kind of checksum.
const CURRENT_BYTES: usize = 25;

/// Where a journal's last sound batch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalEnd {
    /// The number in its name.
    pub(super) number: u64,
    pub(super) bytes: u64,
}

/// The journals of a database, oldest first.
///
/// # Errors
/// [`Error::Corrupt`] for a journal with damage inside.
pub(crate) fn inspect(dir: &Path) -> Result<Vec<JournalEnd>> {
    let mut found = Vec::new();
    for (number, path) in journals(dir)? {
        let bytes = read_data(&path)?;
        let end = sound_prefix(&bytes);
        check_rest(&bytes, end).map_err(|what| Error::Corrupt { path, offset: end as u64, what })?;
        found.push(JournalEnd { number, bytes: end as u64 });
    }
    Ok(found)
}

/// Where the newest journal ends, without a look behind.
pub(super) fn newest_end(dir: &Path) -> Result<Option<JournalEnd>> {
    let Some((number, path)) = journals(dir)?.pop() else { return Ok(None) };
    let bytes = sound_prefix(&read_data(&path)?) as u64;
    Ok(Some(JournalEnd { number, bytes }))
}

/// Appends the batches of a journal whose sequence numbers are in a range to `into`. The journal may grow
/// meanwhile, by batches behind that range.
///
/// # Errors
/// [`Error::Corrupt`] for a journal with damage inside.
pub(super) fn copy_batches(journal: &Path, sequences: &Range<u64>, into: &mut Vec<u8>) -> Result<()> {
    let bytes = read_data(journal)?;
    let mut at = 0;
    while let Some(end) = batch_end(&bytes, at) {
        let sequence = array(&bytes, at + 5).map(u64::from_le_bytes);
        if sequence.is_some_and(|sequence| sequences.contains(&sequence)) {
            into.extend_from_slice(&bytes[at..end]);
        }
        at = end;
    }
    let path = journal.to_owned();
    check_rest(&bytes, at).map_err(|what| Error::Corrupt { path, offset: at as u64, what })
}

/// Compares the version file of each tree with its checksum.
pub(crate) fn check_versions(dir: &Path) -> Result<()> {
    let trees = dir.join("keyspaces");
    let entries = match std::fs::read_dir(&trees) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", trees, error)),
    };
    for entry in entries {
        check_version(&entry.map_err(|error| Error::io("list", &trees, error))?.path())?;
    }
    Ok(())
}

fn check_version(tree: &Path) -> Result<()> {
    let path = tree.join("current");
    let corrupt =
        |path: &Path, what: &str| Error::Corrupt { path: path.to_owned(), offset: 0, what: what.to_owned() };
    let current = match std::fs::read(&path) {
        Ok(current) => current,
        // The tree was being made.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    let parts = (current.first_chunk::<8>(), current.get(8..24).and_then(|sum| sum.try_into().ok()));
    let ((Some(id), Some(sum)), CURRENT_BYTES, Some(0)) = (parts, current.len(), current.last()) else {
        return Err(corrupt(&path, "pointer to the version of a tree"));
    };
    let version = tree.join(format!("v{}", u64::from_le_bytes(*id)));
    match std::fs::read(&version) {
        Ok(bytes) if xxh3_128(&bytes) == u128::from_le_bytes(sum) => Ok(()),
        Ok(_) => Err(corrupt(&version, "version of a tree, or the checksum in its pointer")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(corrupt(&path, "pointer to the version of a tree: there is no such version"))
        }
        Err(error) => Err(Error::io("read", version, error)),
    }
}

/// The journals of a database by their numbers.
pub(super) fn journals(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::io("list", dir, error))?.path();
        let number = path.extension().is_some_and(|end| end == "jnl").then(|| path.file_stem()).flatten();
        if let Some(number) = number.and_then(|number| number.to_str()?.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// A file up to the end of its last data: a journal is extended by a hole far ahead.
pub(crate) fn read_data(path: &Path) -> Result<Vec<u8>> {
    use rustix::fs::{SeekFrom, seek};
    let fail = |error| Error::io("read", path, error);
    let file = File::open(path).map_err(fail)?;
    let len = file.metadata().map_err(fail)?.len();
    let mut end = 0;
    while let Ok(data) = seek(&file, SeekFrom::Data(end)) {
        end = seek(&file, SeekFrom::Hole(data)).unwrap_or(len);
    }
    // A file system that does not know holes answers neither.
    let end = if end == 0 { len } else { end };
    seek(&file, SeekFrom::Start(0)).map_err(|error| fail(error.into()))?;
    let mut bytes = Vec::new();
    file.take(end).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// The end of the sound batches that the bytes begin with.
fn sound_prefix(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(end) = batch_end(bytes, at) {
        at = end;
    }
    at
}

/// Says what is wrong with what follows the sound batches.
fn check_rest(bytes: &[u8], end: usize) -> Result<(), String> {
    if bytes[end..].iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let Some(next) = (end + 1..bytes.len()).find(|&at| batch_end(bytes, at).is_some()) else {
        return Ok(());
    };
    if has_hole(bytes, end, next) {
        return Ok(());
    }
    Err(format!("journal of fjall: the batch here is damaged, a sound one follows at {next}"))
}

/// Whether a page between ends in zeroes, as one does that was written and never synced.
fn has_hole(bytes: &[u8], from: usize, to: usize) -> bool {
    let first_page = (from / PAGE_BYTES + 1) * PAGE_BYTES;
    (first_page..=to).step_by(PAGE_BYTES).any(|page| {
        let tail = page.saturating_sub(HOLE_BYTES).max(from);
        bytes.get(tail..page).is_some_and(|tail| tail.len() == HOLE_BYTES && tail.iter().all(|b| *b == 0))
    })
}

/// Where the sound batch that begins here ends.
fn batch_end(bytes: &[u8], start: usize) -> Option<usize> {
    if *bytes.get(start)? != START {
        return None;
    }
    let items = u32::from_le_bytes(array(bytes, start + 1)?);
    let first = start + START_BYTES;
    let mut at = first;
    for _ in 0..items {
        at = match *bytes.get(at)? {
            ITEM => {
                let key = usize::from(u16::from_le_bytes(array(bytes, at + 11)?));
                let stored = u32::from_le_bytes(array(bytes, at + 17)?) as usize;
                at.checked_add(21 + key)?.checked_add(stored)?
            }
            CLEAR => at + 9,
            _ => return None,
        };
    }
    let checksum = u64::from_le_bytes(array(bytes, at + 1)?);
    let sound = *bytes.get(at)? == END
        && bytes.get(at + 9..at + 13)? == TRAILER
        && xxh3_64(bytes.get(first..at)?) == checksum;
    sound.then_some(at + 13)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
