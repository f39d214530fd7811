//! The durability mark: which batch of the log is durable, said outside the database.
//!
//! A file of two slots, each on a page of its own, written in turn: a torn write spoils at most the newer
//! one. A slot is written when its batch was synced, so that it never runs ahead. It is synced itself when
//! the log rests, is closed, or every 100 ms: after a loss of power it may be that much behind.

use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::{Error, Result};

pub(super) const NAME: &str = "mark";
const MAGIC: [u8; 8] = *b"odgmmark";
const VERSION: u32 = 1;
const SLOT: usize = 512;
const PAGE: u64 = 4096;
/// Flag: written by `close`.
const CLOSED: u32 = 1;

/// The newest slot, and the file to write the next one to.
#[derive(Debug)]
pub(super) struct Mark {
    file: Arc<dyn DiskFile>,
    /// Rises with each slot written; says which of the two is next.
    counter: u64,
    /// Batches up to this one are durable.
    pub batch: u64,
    pub closed: bool,
    unsynced: bool,
}

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    counter: u64,
    batch: u64,
    flags: u32,
}

impl Slot {
    fn encode(&self) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.counter.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.batch.to_le_bytes());
        let checksum = xxh3_64(&bytes[..SLOT - 8]);
        bytes[SLOT - 8..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `Ok(None)` when it is damaged, the version when it is another.
    fn decode(bytes: &[u8; SLOT]) -> Result<Option<Slot>, u32> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if bytes[..8] != MAGIC || xxh3_64(&bytes[..SLOT - 8]) != u64_at(SLOT - 8) {
            return Ok(None);
        }
        match u32_at(8) {
            VERSION => Ok(Some(Slot { flags: u32_at(12), counter: u64_at(16), batch: u64_at(24) })),
            other => Err(other),
        }
    }
}

/// The newer sound slot, and where those are that are damaged.
fn slots(file: &dyn DiskFile, path: &Path) -> Result<(Option<Slot>, Vec<u64>)> {
    let mut newest: Option<Slot> = None;
    let mut bad = Vec::new();
    for offset in [0, PAGE] {
        let mut bytes = [0; SLOT];
        file.read_at(&mut bytes, offset)?;
        match Slot::decode(&bytes) {
            Ok(Some(slot)) => newest = newest.filter(|other| other.counter > slot.counter).or(Some(slot)),
            Ok(None) if bytes == [0; SLOT] => {}
            Ok(None) => bad.push(offset),
            Err(found) => {
                let (found, supported) = (found.to_string(), VERSION.to_string());
                return Err(Error::Format { path: path.to_owned(), found, supported });
            }
        }
    }
    Ok((newest, bad))
}

fn corrupt(path: &Path, offset: u64, what: &str) -> Error {
    Error::Corrupt { path: path.to_owned(), offset, what: format!("{what}, groups: all") }
}

/// The damaged slots of a log's mark whose other slot is sound; changes nothing.
///
/// # Errors
/// [`Error::Corrupt`] when there is no sound slot, [`Error::Format`], or what the disk answers.
pub(crate) fn spoiled_marks(disk: &dyn Disk, dir: &Path) -> Result<Vec<Error>> {
    let path = dir.join(NAME);
    let file = match disk.open(&path, OpenMode::Read) {
        Err(Error::NotFound { .. }) => return Err(corrupt(&path, 0, "durability mark, which is missing")),
        opened => opened?,
    };
    match slots(&*file, &path)? {
        (None, bad) => Err(corrupt(&path, bad.first().copied().unwrap_or(0), "durability mark")),
        (Some(_), bad) => {
            Ok(bad.into_iter().map(|offset| corrupt(&path, offset, "slot of the durability mark")).collect())
        }
    }
}

impl Mark {
    /// Opens the mark in a log's directory; makes one when the database is `fresh`, which means that it
    /// was never there.
    pub(super) fn open(disk: &dyn Disk, dir: &Path, fresh: bool) -> Result<Mark> {
        let path = dir.join(NAME);
        let corrupt = |offset: u64, what: &str| corrupt(&path, offset, what);
        let file = match disk.open(&path, OpenMode::Write) {
            Err(Error::NotFound { .. }) if fresh => {
                let file = disk.open(&path, OpenMode::CreateNew)?;
                disk.sync_dir(dir)?;
                file
            }
            Err(Error::NotFound { .. }) => return Err(corrupt(0, "durability mark, which is missing")),
            opened => opened?,
        };
        let (newest, bad) = slots(&*file, &path)?;
        let slot = match (newest, bad.first()) {
            (Some(slot), Some(&offset)) => {
                let error = corrupt(offset, "slot of the durability mark");
                tracing::warn!(%error, batch = slot.batch, "the other slot is used");
                slot
            }
            (Some(slot), None) => slot,
            // A crash before the first slot was written.
            (None, _) if fresh => Slot { counter: 0, batch: 0, flags: 0 },
            (None, bad) => return Err(corrupt(bad.copied().unwrap_or(0), "durability mark")),
        };
        let mut mark = Mark {
            file,
            counter: slot.counter,
            batch: slot.batch,
            closed: slot.flags & CLOSED != 0,
            unsynced: false,
        };
        if newest.is_none() {
            mark.write(0, false)?;
            mark.sync()?;
        }
        Ok(mark)
    }

    /// Says that batches up to `batch` are durable. Survives the process; a loss of power after
    /// [`Mark::sync`].
    pub(super) fn write(&mut self, batch: u64, closed: bool) -> Result<()> {
        assert!(batch >= self.batch, "a durable batch stays durable: {batch} after {}", self.batch);
        self.counter += 1;
        let slot = Slot { counter: self.counter, batch, flags: if closed { CLOSED } else { 0 } };
        self.file.write_at(&slot.encode(), self.counter % 2 * PAGE)?;
        (self.batch, self.closed, self.unsynced) = (batch, closed, true);
        Ok(())
    }

    /// Makes what was written durable.
    pub(super) fn sync(&mut self) -> Result<()> {
        if std::mem::take(&mut self.unsynced) {
            self.file.sync_data()?;
        }
        Ok(())
    }

    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_format_1_never_change() {
        let slot = Slot { counter: 3, batch: 4, flags: CLOSED };
        assert_eq!(Slot::decode(&slot.encode()), Ok(Some(slot)));
        let found = xxh3_64(&slot.encode());
        assert_eq!(found, 0xd0c8_d434_41c5_b7ef, "{found:#x}");
    }
}
