//! The log from one backend to another.
//!
//! Both write to the same directory, under names of their own. So the new log is written beside the old one,
//! closed, and compared with it; then the list of backends is replaced, which is the one moment at which it
//! changes; then the old files go. Whatever an interrupted move left of the one that the list does not name is
//! removed by the next move or repair.

use std::sync::Arc;

use serde::Serialize;

use super::{Doctor, Severity, log};
use crate::composite::{Layers, LogBackend, LogLayer, aside};
use crate::disk::{Disk, RealDisk};
use crate::log::{AppendOnlyLogStorage, GroupId, RaftLogStorage, wait_durable};
use crate::{Error, Result};

/// Payload that is held at a time.
const CHUNK_BYTES: u64 = 4 << 20;

/// What a move of the log did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Migration {
    /// What it was.
    pub from: LogBackend,
    /// What it is.
    pub to: LogBackend,
    /// Groups moved.
    pub groups: u64,
    /// Entries moved.
    pub entries: u64,
}

impl Doctor {
    /// Moves all groups of the log, with votes, entries and positions, to another backend. Durable when it
    /// returns; interrupted, the node goes on with the log that it had, and the move can be run again. With
    /// the backend that is in force already it removes what an interrupted move left.
    ///
    /// # Errors
    /// [`Error::Refused`] for a log that keeps nothing, that is damaged, or that was not closed cleanly: start
    /// the node and stop it first. Then nothing changed. Or what a log answers.
    pub fn migrate_log(&self, to: LogBackend, options: &LogLayer) -> Result<Migration> {
        let refused = |reason: String| Error::Refused { what: "move of the log", reason };
        let layers = Layers::read(&RealDisk, &self.dir)?;
        let layers =
            layers.ok_or_else(|| refused("there is no list of backends: start the node once".to_owned()))?;
        let from = layers.log;
        if [from, to].contains(&LogBackend::MemoryLog) {
            return Err(refused("memory_log keeps nothing that could be moved".to_owned()));
        }
        let dir = self.log_dir();
        let unused = if from == to { other(to) } else { to };
        if from != to {
            self.refuse_damaged_log()?;
        }
        for path in log::files(unused, &dir)? {
            aside::remove(&path)?;
        }
        let mut moved = Migration { from, to, groups: 0, entries: 0 };
        if from == to {
            return Ok(moved);
        }
        // Nothing is written to the old log: what it says of its end stays true.
        let (source, closed) = log::open(from, &dir, options)?;
        if closed == Some(false) {
            return Err(refused("the log was not closed cleanly: start the node and stop it".to_owned()));
        }
        let (target, _) = log::open(to, &dir, options)?;
        for group in source.groups() {
            moved.groups += 1;
            moved.entries += copy(group, &*source.group(group)?, &*target.group(group)?)?;
        }
        target.close()?;
        drop(target);
        let (target, _) = log::open(to, &dir, options)?;
        compare(&*source, &*target)?;
        target.close()?;
        drop((source, target));
        RealDisk.sync_dir(&dir)?;
        Layers { log: to, ..layers }.write(&RealDisk, &self.dir)?;
        for path in log::files(from, &dir)? {
            aside::remove(&path)?;
        }
        Ok(moved)
    }

    fn refuse_damaged_log(&self) -> Result<()> {
        let report = self.check_log()?;
        let damage = report.findings.iter().find(|finding| finding.severity == Severity::Damage);
        damage.map_or(Ok(()), |finding| {
            let (path, what) = (finding.path.display(), &finding.what);
            Err(Error::Refused {
                what: "move of the log",
                reason: format!("it is damaged: {what} in {path}"),
            })
        })
    }
}

fn other(backend: LogBackend) -> LogBackend {
    match backend {
        LogBackend::AppendLog => LogBackend::Fjall,
        LogBackend::Fjall | LogBackend::MemoryLog => LogBackend::AppendLog,
    }
}

/// Copies a group; says how many entries it has.
fn copy(group: GroupId, from: &dyn RaftLogStorage, to: &dyn RaftLogStorage) -> Result<u64> {
    if let Some(vote) = from.vote() {
        wait_durable(|durable| to.save_vote(vote, durable))?;
    }
    if let Some(purged) = from.state().purged {
        to.purge(purged)?;
    }
    let mut entries = 0;
    each_chunk(from, |chunk| {
        entries += chunk.len() as u64;
        wait_durable(|durable| to.append(chunk, durable))
    })?;
    to.save_committed(from.committed())?;
    let held = from.statistics().entries;
    if entries != held {
        let what = format!("entries: {entries} of {held} of group {} were read", group.0);
        return Err(Error::Engine(what));
    }
    Ok(entries)
}

fn each_chunk(
    log: &dyn RaftLogStorage,
    mut take: impl FnMut(Vec<crate::log::LogEntry>) -> Result<()>,
) -> Result<()> {
    let mut from = log.statistics().first_index.unwrap_or(0);
    loop {
        let chunk = log.read(from, u64::MAX, CHUNK_BYTES)?;
        let Some(last) = chunk.last() else { return Ok(()) };
        from = last.position.index.saturating_add(1);
        take(chunk)?;
    }
}

/// Reads both logs and holds one against the other.
fn compare(one: &dyn AppendOnlyLogStorage, other: &dyn AppendOnlyLogStorage) -> Result<()> {
    let differs = |what: String| Error::Engine(format!("the moved log differs from the old one: {what}"));
    if one.groups() != other.groups() {
        return Err(differs("its groups".to_owned()));
    }
    for group in one.groups() {
        let logs: [Arc<dyn RaftLogStorage>; 2] = [one.group(group)?, other.group(group)?];
        let [old, new] = &logs;
        let same =
            old.state() == new.state() && old.vote() == new.vote() && old.committed() == new.committed();
        if !same || old.statistics().first_index != new.statistics().first_index {
            return Err(differs(format!("vote or positions of group {}", group.0)));
        }
        each_chunk(&**old, |chunk| {
            let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { return Ok(()) };
            let (from, to) = (first.position.index, last.position.index + 1);
            let same = new.read(from, to, u64::MAX)? == chunk;
            if same { Ok(()) } else { Err(differs(format!("entries {from} to {to} of group {}", group.0))) }
        })?;
    }
    Ok(())
}
