//! What is of no use any more and may still be looked at: it is moved below `damaged/`, by the path that it had.

use std::path::Path;

use crate::data::fjall::sync_dir;
use crate::disk::{Disk, RealDisk};
use crate::{Error, Result};

const ASIDE: &str = "damaged";

/// Moves a file or directory of the data directory `dir` aside, durably; says so in a sentence.
pub(crate) fn move_aside(dir: &Path, path: &Path) -> Result<String> {
    let below = path.strip_prefix(dir).unwrap_or(path);
    let mut target = dir.join(ASIDE).join(below);
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for number in 1_u32.. {
        if !target.exists() {
            break;
        }
        target.set_file_name(format!("{name}.{number}"));
    }
    let parent = target.parent().unwrap_or(dir).to_owned();
    RealDisk.create_dir_all(&parent)?;
    RealDisk.rename(path, &target)?;
    for above in parent.ancestors().take_while(|above| above.starts_with(dir)) {
        sync_dir(above)?;
    }
    path.parent().map_or(Ok(()), sync_dir)?;
    Ok(format!("moved {} to {}", path.display(), target.display()))
}

/// Removes a file, or a directory with all in it, durably.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, error)),
        _ => path.parent().map_or(Ok(()), sync_dir),
    }
}
