//! Copies of engine directories that may be written to, without their tables.

use std::path::Path;

use super::journal;
use crate::{Error, Result};

/// Copies a directory of fjall: tables and versions of trees, which are never written again, as symbolic
/// links; everything else byte by byte, without the holes that journals end with.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|error| Error::io("create", to, error))?;
    let tables = from.file_name().is_some_and(|name| name == "tables");
    let entries = std::fs::read_dir(from).map_err(|error| Error::io("list", from, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("list", from, error))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(|error| Error::io("read", &source, error))?;
        if kind.is_dir() {
            copy(&source, &target)?;
        } else if tables || is_version(&entry.file_name()) {
            let linked = std::os::unix::fs::symlink(&source, &target);
            linked.map_err(|error| Error::io("link", &target, error))?;
        } else {
            let bytes = journal::read_data(&source)?;
            std::fs::write(&target, bytes).map_err(|error| Error::io("write", &target, error))?;
        }
    }
    Ok(())
}

fn is_version(name: &std::ffi::OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix('v'));
    number.is_some_and(|number| number.parse::<u64>().is_ok())
}

/// The same error, of the directory that was copied.
pub(crate) fn of_source(error: Error, scratch: &Path, source: &Path) -> Error {
    let back =
        |path: &Path| path.strip_prefix(scratch).map_or_else(|_| path.to_owned(), |below| source.join(below));
    let text = |text: String| text.replace(&*scratch.to_string_lossy(), &source.to_string_lossy());
    match error {
        Error::Corrupt { path, offset, what } => {
            Error::Corrupt { path: back(&path), offset, what: text(what) }
        }
        Error::Format { path, found, supported } => Error::Format { path: back(&path), found, supported },
        Error::Io { operation, path, source } => Error::Io { operation, path: back(&path), source },
        Error::Engine(what) => Error::Engine(text(what)),
        other => other,
    }
}

/// Removes a copy.
pub(crate) fn remove(scratch: &Path) -> Result<()> {
    match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", scratch, error))
        }
        _ => Ok(()),
    }
}
