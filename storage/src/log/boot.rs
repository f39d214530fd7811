//! Which boot of the operating system wrote a log last: what [`super::SyncPolicy::None`] leaves to it is
//! lost with a boot that follows no clean close.
//!
//! A caller opens the log, asks [`kept`], treats what it holds of a log that did not keep it as lost, and
//! then, when that is durable, calls [`note`]: a crash in between asks again.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::Result;
use crate::disk::{Disk, OpenMode};

const NAME: &str = "boot";
const NEXT: &str = "boot.next";
const MAGIC: [u8; 8] = *b"odgmboot";

fn encode(boot: &str) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&xxh3_64(boot.as_bytes()).to_le_bytes());
    bytes.extend_from_slice(boot.as_bytes());
    bytes
}

/// Whether a log in `dir` still holds all that was handed to the operating system: it was closed cleanly,
/// or is new (`closed_cleanly` as the log says it), or `boot`, the present one, is the one noted last. A
/// note that is missing or damaged is that of another boot.
///
/// # Errors
/// When the note cannot be read.
pub fn kept(disk: &dyn Disk, dir: &Path, boot: &str, closed_cleanly: Option<bool>) -> Result<bool> {
    if closed_cleanly != Some(false) {
        return Ok(true);
    }
    let noted = match disk.open(&dir.join(NAME), OpenMode::Read) {
        Err(crate::Error::NotFound { .. }) => return Ok(false),
        opened => opened?,
    };
    let expected = encode(boot);
    // One byte more than expected: another note must not look like ours by being cut.
    let mut found = vec![0; expected.len() + 1];
    let read = noted.read_at(&mut found, 0)?;
    Ok(found[..read] == expected)
}

/// Notes the present boot, durably.
///
/// # Errors
/// When it cannot be written; then the note of before counts.
pub fn note(disk: &dyn Disk, dir: &Path, boot: &str) -> Result<()> {
    let next = dir.join(NEXT);
    disk.remove(&next)?;
    let file = disk.open(&next, OpenMode::CreateNew)?;
    file.write_at(&encode(boot), 0)?;
    file.sync_all()?;
    disk.rename(&next, &dir.join(NAME))?;
    disk.sync_dir(dir)
}
