//! What can be done about what a check found, without guessing: cut, remove what a crash left, set aside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::replica::{self, Replica};
use super::{Doctor, Finding, Part, Remedy, Report, log};
use crate::Result;
use crate::composite::aside::{self, remove};
use crate::composite::lost;
use crate::composite::{Layers, LogBackend, LogLayer};
use crate::disk::RealDisk;
use crate::log::{AppendOnlyLogStorage, GroupId, wait_durable};

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// A sentence for each thing that was done.
    pub done: Vec<String>,
    /// A check after it.
    pub report: Report,
}

impl Doctor {
    /// Checks, does what can be done, and checks again. Nothing that holds data is deleted: it is moved below
    /// `damaged/`. A replica with damage is given up whole: its group leaves the log, and a mark keeps it from
    /// beginning anew under its old id. Interrupted, it can be run again.
    ///
    /// What only [`Remedy::ReplaceNode`] helps against stays as it is.
    ///
    /// # Errors
    /// What a check or the disk answers; what was done until then stays done.
    pub fn repair(&self, options: &LogLayer) -> Result<Repair> {
        let report = self.check()?;
        let mut done = Vec::new();
        let findings = &report.findings;
        if findings.iter().any(|finding| finding.remedy == Remedy::WriteLayers)
            && let Some(layers) = report.layers
        {
            layers.write(&RealDisk, &self.dir)?;
            done.push(format!("wrote {} again", self.dir.join(Layers::FILE).display()));
        }
        for finding in findings.iter().filter(|finding| finding.remedy == Remedy::Remove) {
            remove(&finding.path)?;
            done.push(format!("removed {}", finding.path.display()));
        }
        for finding in findings.iter().filter(|finding| finding.remedy == Remedy::SetAside) {
            for path in whole(finding) {
                done.push(self.set_aside(&path)?);
            }
        }
        self.repair_log(&report, options, &mut done)?;
        Ok(Repair { done, report: self.check()? })
    }

    /// Gives damaged groups up and cuts the tail, when the log can be opened.
    fn repair_log(&self, report: &Report, options: &LogLayer, done: &mut Vec<String>) -> Result<()> {
        let all = |remedy| report.findings.iter().filter(move |finding| finding.remedy == remedy);
        let given_up = self.given_up(report)?;
        let tail = all(Remedy::CutTail).next();
        // Damage that names no group hits all of them: then nothing in the log can be changed.
        let unreadable =
            all(Remedy::ReplaceNode).any(|finding| finding.part == Part::Log && finding.group.is_none());
        let Some(layers) = report.layers.filter(|_| !unreadable && (tail.is_some() || !given_up.is_empty()))
        else {
            return Ok(());
        };
        for (replica, why) in &given_up {
            // First of all: from now on it is refused, however far this comes.
            lost::mark(&replica.dir, why)?;
        }
        if layers.log != LogBackend::MemoryLog {
            let (log, _) = log::open(layers.log, &self.log_dir(), options)?;
            let groups: BTreeSet<GroupId> = given_up.iter().map(|(replica, _)| replica.group).collect();
            for group in groups {
                remove_group(&*log, group)?;
            }
            log.close()?;
        }
        if let Some(tail) = tail {
            done.push(format!(
                "cut the tail of the log, at offset {:?} of {}",
                tail.offset.unwrap_or(0),
                tail.path.display()
            ));
        }
        for (replica, why) in &given_up {
            let (group, number) = (replica.group.0, replica.replica);
            done.push(format!(
                "gave up replica {number} of group {group}, and removed the group from the log: {why}"
            ));
            for name in replica::LAYERS {
                let path = replica.dir.join(name);
                if path.exists() {
                    done.push(self.set_aside(&path)?);
                }
            }
        }
        Ok(())
    }

    /// The replicas that are to be given up, and why: those with damage, and all of a group that is damaged in
    /// the log. A group without a replica's directory stays refused by the log.
    fn given_up(&self, report: &Report) -> Result<Vec<(Replica, String)>> {
        let (replicas, _) = replica::list(&self.shards_dir())?;
        let concerns = |replica: &Replica, finding: &Finding| {
            finding.remedy == Remedy::Refill
                && finding.group == Some(replica.group)
                && finding.replica.is_none_or(|number| number == replica.replica)
        };
        let why = |replica: &Replica| {
            let finding = report.findings.iter().find(|finding| concerns(replica, finding))?;
            Some(format!("{} in {}", finding.what, finding.path.display()))
        };
        Ok(replicas.into_iter().filter_map(|replica| why(&replica).map(|why| (replica, why))).collect())
    }

    fn set_aside(&self, path: &Path) -> Result<String> {
        aside::move_aside(&self.dir, path)
    }
}

/// What is set aside together: damage to a file of a checkpoint takes the checkpoint.
fn whole(finding: &Finding) -> Vec<PathBuf> {
    if finding.part != Part::Checkpoint {
        return vec![finding.path.clone()];
    }
    let checkpoint = finding
        .path
        .ancestors()
        .find(|path| path.parent().and_then(Path::file_name).is_some_and(|name| name == "checkpoints"));
    let Some(checkpoint) = checkpoint else { return Vec::new() };
    // Whoever made it notes beside it what it is.
    let mut note = checkpoint.as_os_str().to_owned();
    note.push(".manifest");
    let paths = [PathBuf::from(note), checkpoint.to_owned()];
    paths.into_iter().filter(|path| path.exists()).collect()
}

fn remove_group(log: &dyn AppendOnlyLogStorage, group: GroupId) -> Result<()> {
    wait_durable(|durable| {
        log.remove_group(group, durable);
        Ok(())
    })
}
