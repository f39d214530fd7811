//! Reads a log that nobody has open, and changes nothing.

use std::path::{Path, PathBuf};

use super::frame::FrameHeader;
use super::recovery::{self, Recovered};
use super::segments::{self, open_segment};
use crate::disk::Disk;
use crate::log::GroupId;
use crate::{Error, Result};

/// What an open would find.
#[derive(Debug)]
pub(crate) struct Examined {
    /// Segments that hold frames.
    pub(crate) segments: u64,
    /// The size of the newest one.
    pub(crate) segment_bytes: Option<u64>,
    /// Groups that are whole.
    pub(crate) groups: u64,
    /// Groups that are not.
    pub(crate) damaged: Vec<(GroupId, Error)>,
    /// Damage that hit nothing.
    pub(crate) blemishes: Vec<Error>,
    /// Where a frame begins that was never acknowledged, when its header can be read.
    pub(crate) tail: Option<(PathBuf, u64)>,
}

/// Reads every frame of the log in a directory.
///
/// # Errors
/// What an open would answer.
pub(crate) fn examine(disk: &dyn Disk, dir: &Path) -> Result<Examined> {
    let found = segments::find(disk, dir)?;
    let Recovered { groups, damaged, blemishes, used, end, .. } = recovery::recover(disk, &found)?;
    let mut tail = None;
    let last = used.values().next_back();
    if let Some(last) = last {
        let mut bytes = Vec::new();
        open_segment(disk, &last.path, last.sequence, &mut bytes)?;
        tail = FrameHeader::decode(&bytes, last.nonce, end).map(|_| (last.path.clone(), end.offset));
    }
    Ok(Examined {
        segments: used.len() as u64,
        segment_bytes: last.map(|last| last.bytes),
        groups: groups.len() as u64,
        damaged: damaged.into_iter().collect(),
        blemishes,
        tail,
    })
}

/// The files of a log in a directory, its lock left out.
pub(crate) fn files(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>> {
    match segments::find(disk, dir) {
        Err(Error::NotFound { .. }) => Ok(Vec::new()),
        found => found.map(|found| found.segments.into_values().chain(found.spares).collect()),
    }
}
