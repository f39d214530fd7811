//! The mark of a replica that was given up: it must not begin anew under its old id, because the vote and the
//! entries that it acknowledged are gone.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, OpenMode, RealDisk};
use crate::{Error, Result};

const FILE: &str = "lost";

/// The mark in a replica's directory.
pub(crate) fn path(replica: &Path) -> PathBuf {
    replica.join(FILE)
}

/// Leaves the mark, durably.
pub(crate) fn mark(replica: &Path, why: &str) -> Result<()> {
    let file = RealDisk.open(&path(replica), OpenMode::Create)?;
    let text = format!("odgm-lost 1\n{why}\n");
    file.set_len(0)?;
    file.write_at(text.as_bytes(), 0)?;
    file.sync_all()?;
    RealDisk.sync_dir(replica)
}

/// Refuses a replica that was given up.
///
/// # Errors
/// [`Error::Refused`], with what to do.
pub(crate) fn refuse(disk: &dyn Disk, replica: &Path) -> Result<()> {
    match disk.open(&path(replica), OpenMode::Read) {
        Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Error::Refused {
            what: "replica",
            reason: format!(
                "{} was given up by `odgm doctor --repair`: rebuild it from the other replicas by `odgm node replace`",
                replica.display()
            ),
        }),
    }
}
