//! The replicas of a node: data, checkpoints and snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::backends::Backends;
use super::{Doctor, Finding, Part, Remedy, Report, Severity};
use crate::composite::lost;
use crate::composite::shard::replica_of;
use crate::composite::{DataBackend, Layers, SnapshotBackend};
use crate::data::fjall::{Examined, FjallEngine, examine};
use crate::data::{CheckpointManifest, DataOptions};
use crate::disk::{Disk, RealDisk};
use crate::log::GroupId;
use crate::snapshot::file;
use crate::{Error, Result};

/// Block cache of a check: everything is read once.
const CACHE_BYTES: u64 = 16 << 20;

/// What a replica's directory holds.
pub(super) const LAYERS: [&str; 3] = ["data", "checkpoints", "snapshots"];

/// A replica by the name of its directory.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) group: GroupId,
    pub(super) replica: u64,
    pub(super) dir: PathBuf,
}

/// All replicas of a node, and directories that are none.
pub(super) fn list(shards: &Path) -> Result<(Vec<Replica>, Vec<PathBuf>)> {
    let names = match RealDisk.list(shards) {
        Err(Error::NotFound { .. }) => Vec::new(),
        other => other?,
    };
    let (mut replicas, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        let dir = shards.join(&name);
        match replica_of(&name) {
            Some((group, replica)) => replicas.push(Replica { group, replica, dir }),
            None => unknown.push(dir),
        }
    }
    Ok((replicas, unknown))
}

/// Reads all of every replica.
pub(super) fn check_all(doctor: &Doctor, backends: &Backends, report: &mut Report) -> Result<()> {
    let (replicas, unknown) = list(&doctor.shards_dir())?;
    for path in unknown {
        let what = "no directory of a replica";
        report.findings.push(Finding::new(Severity::Warning, Part::Data, path, what, Remedy::None));
    }
    let Some(layers) = backends.layers else { return Ok(()) };
    let options = DataOptions { cache_bytes: CACHE_BYTES, ..DataOptions::default() };
    let engine = FjallEngine::new(&options)?;
    for replica in replicas {
        let marker = lost::path(&replica.dir);
        if marker.exists() {
            // A repair that was interrupted left some of it here.
            let (what, remedy) = match LAYERS.iter().any(|layer| replica.dir.join(layer).exists()) {
                true => {
                    ("this replica was given up by a repair that did not come to its end", Remedy::Refill)
                }
                false => {
                    ("this replica was given up by a repair, and waits to be replaced", Remedy::ReplaceNode)
                }
            };
            let lost = Finding::new(Severity::Lost, Part::Data, marker, what, remedy);
            report.findings.push(lost.of(replica.group, Some(replica.replica)));
            continue;
        }
        report.checked.replicas += 1;
        let mut look = Look { replica: &replica, layers, report };
        if layers.data == DataBackend::Fjall {
            look.data(&engine, &doctor.scratch.join("data"))?;
        }
        look.checkpoints()?;
        if layers.snapshot == SnapshotBackend::CompressedFile {
            look.snapshots()?;
        }
    }
    Ok(())
}

/// A look at one replica.
struct Look<'a> {
    replica: &'a Replica,
    layers: Layers,
    report: &'a mut Report,
}

impl Look<'_> {
    fn push(&mut self, finding: Finding) {
        self.report.findings.push(finding.of(self.replica.group, Some(self.replica.replica)));
    }

    fn leftover(&mut self, part: Part, path: PathBuf, what: &str) {
        self.push(Finding::new(Severity::Leftover, part, path, what, Remedy::Remove));
    }

    /// What cannot be read of a replica whose group is not the system's is refilled.
    fn refill(&self) -> Remedy {
        if self.replica.group == GroupId(0) { Remedy::ReplaceNode } else { Remedy::Refill }
    }

    fn data(&mut self, engine: &Arc<FjallEngine>, scratch: &Path) -> Result<()> {
        let dir = self.replica.dir.join("data");
        let Examined { damaged, leftovers, rows } = examine(engine, &dir, scratch)?;
        self.report.checked.rows += rows;
        for error in damaged {
            self.push(Finding::damage(Part::Data, &dir, &error, self.refill()));
        }
        for path in leftovers {
            self.leftover(Part::Data, path, "left behind by a crash");
        }
        Ok(())
    }

    fn checkpoints(&mut self) -> Result<()> {
        let dir = self.replica.dir.join("checkpoints");
        let engine = match self.layers.data {
            DataBackend::Fjall => "fjall",
            DataBackend::Memory => "memory",
        };
        for path in entries(&dir)? {
            if path.extension().is_some_and(|kind| kind == "partial") {
                self.leftover(Part::Checkpoint, path, "checkpoint that was never completed");
            } else if path.is_dir() {
                self.report.checked.checkpoints += 1;
                let read = CheckpointManifest::read(&RealDisk, &path, engine);
                let verified = read.and_then(|manifest| manifest.verify(&RealDisk, &path));
                if let Err(error) = verified {
                    self.push(Finding::damage(Part::Checkpoint, &path, &error, Remedy::SetAside));
                }
            }
        }
        Ok(())
    }

    fn snapshots(&mut self) -> Result<()> {
        for path in entries(&self.replica.dir.join("snapshots"))? {
            match path.extension().and_then(|kind| kind.to_str()) {
                Some("partial") => self.leftover(Part::Snapshot, path, "snapshot that was never completed"),
                Some("snapshot") => {
                    self.report.checked.snapshots += 1;
                    if let Err(error) = file::verify_file(&RealDisk, &path) {
                        // With data in memory it is all that there is.
                        let remedy = match self.layers.data {
                            DataBackend::Fjall => Remedy::SetAside,
                            DataBackend::Memory => self.refill(),
                        };
                        self.push(Finding::damage(Part::Snapshot, &path, &error, remedy));
                    }
                }
                // A transfer that is taken up again.
                _ => {}
            }
        }
        Ok(())
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match RealDisk.list(dir) {
        Err(Error::NotFound { .. }) => Ok(Vec::new()),
        other => Ok(other?.into_iter().map(|name| dir.join(name)).collect()),
    }
}
