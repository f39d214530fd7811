//! Which backends wrote a directory: what its list says, else what is there.

use std::path::Path;

use super::{Finding, Part, Remedy, Report, Severity};
use crate::composite::{DataBackend, LOG, Layers, LogBackend, SHARDS, SnapshotBackend};
use crate::disk::{Disk, RealDisk};
use crate::{Error, Result};

/// The backends of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backends {
    /// `None` when they cannot be told.
    pub(super) layers: Option<Layers>,
    /// The list says so: what belongs to others is left over.
    pub(super) listed: bool,
}

impl Backends {
    /// Reads the list; notes in `report` what is wrong with it.
    pub(super) fn find(dir: &Path, report: &mut Report) -> Result<Self> {
        let partial = dir.join(Layers::PARTIAL);
        if partial.exists() {
            let what = "list of backends that was never completed";
            report.findings.push(Finding::new(Severity::Leftover, Part::Node, partial, what, Remedy::Remove));
        }
        match Layers::read(&RealDisk, dir) {
            Ok(Some(layers)) => Ok(Backends { layers: Some(layers), listed: true }),
            // It was used before there was a list.
            Ok(None) => Ok(Backends { layers: Some(Layers::default()), listed: false }),
            Err(error) => {
                let layers = shown(dir)?;
                let remedy = match (&error, layers) {
                    (Error::Corrupt { .. }, Some(_)) => Remedy::WriteLayers,
                    _ => Remedy::ReplaceNode,
                };
                report.findings.push(Finding::damage(Part::Node, &dir.join(Layers::FILE), &error, remedy));
                Ok(Backends { layers, listed: false })
            }
        }
    }
}

/// What the files of a directory show; `None` when they do not tell.
fn shown(dir: &Path) -> Result<Option<Layers>> {
    let log_dir = dir.join(LOG);
    let has = |backend| super::log::files(backend, &log_dir).map(|files| !files.is_empty());
    let log = match (has(LogBackend::AppendLog)?, has(LogBackend::Fjall)?) {
        (true, false) => LogBackend::AppendLog,
        (false, true) => LogBackend::Fjall,
        _ => return Ok(None),
    };
    let shards = dir.join(SHARDS);
    let replicas = match RealDisk.list(&shards) {
        Err(Error::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    let Some(replica) = replicas.first().map(|name| shards.join(name)) else { return Ok(None) };
    // A backend in memory makes no directory.
    let snapshot = match replica.join("snapshots").exists() {
        true => SnapshotBackend::CompressedFile,
        false => SnapshotBackend::MemorySnapshot,
    };
    let data = if replica.join("data").exists() { DataBackend::Fjall } else { DataBackend::Memory };
    Ok(Some(Layers { log, snapshot, data }))
}
