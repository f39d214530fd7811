//! One thing that a check found, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;
use crate::log::GroupId;

/// How bad it is; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// What was stored is not what is there.
    Damage,
    /// A replica that an earlier repair gave up, and that was not replaced yet.
    Lost,
    /// A sign that the disk spoils bytes, or what nobody knows; nothing that counts is hit.
    Warning,
    /// What a crash left behind and what the next start removes.
    Leftover,
}

/// Which part of the directory it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The node itself: who it is, and which backends it uses.
    Node,
    /// The log of all groups.
    Log,
    /// The data of a replica.
    Data,
    /// A checkpoint of a replica.
    Checkpoint,
    /// A snapshot of a replica.
    Snapshot,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// Nothing.
    None,
    /// The next start removes it, and so does a repair.
    Remove,
    /// It was never acknowledged: the next start cuts it, and so does a repair.
    CutTail,
    /// A repair writes the list of backends again, from what the directory shows.
    WriteLayers,
    /// A repair sets the file aside; the next snapshot takes its place.
    SetAside,
    /// The other replicas of the shard hold its data; a repair gives this one up, so that the rest of the node
    /// can go on.
    Refill,
    /// The node as a whole must be rebuilt from the others.
    ReplaceNode,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remedy::None => "nothing to do here; look at the disk",
            Remedy::Remove => "harmless: the next start removes it, or --repair",
            Remedy::CutTail => "never acknowledged: the next start cuts it, or --repair",
            Remedy::WriteLayers => "--repair writes it again from what the directory shows",
            Remedy::SetAside => "--repair sets it aside under damaged/, the next snapshot takes its place",
            Remedy::Refill => {
                "--repair gives this replica up and sets it aside under damaged/, the node's others go on; the other \
                 replicas of its shard hold its data: `odgm node replace`. A shard with one replica comes back only \
                 from a snapshot or a backup"
            }
            Remedy::ReplaceNode => {
                "the other nodes hold the data: start this one empty and run `odgm node replace`; keep the directory. \
                 Shards with one replica come back only from a snapshot or a backup"
            }
        })
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it concerns.
    pub part: Part,
    /// The group, when it concerns one.
    pub group: Option<GroupId>,
    /// The replica, when it concerns one.
    pub replica: Option<u64>,
    /// The file or directory.
    pub path: PathBuf,
    /// Byte offset of what is damaged in the file, where it is known.
    pub offset: Option<u64>,
    /// What it is.
    pub what: String,
    /// What can be done about it.
    pub remedy: Remedy,
}

impl Finding {
    /// A finding that names no group and no offset.
    pub fn new(
        severity: Severity,
        part: Part,
        path: PathBuf,
        what: impl Into<String>,
        remedy: Remedy,
    ) -> Self {
        Finding { severity, part, group: None, replica: None, path, offset: None, what: what.into(), remedy }
    }

    /// Damage that a layer told, met in `path` when the error names none.
    pub(super) fn damage(part: Part, path: &Path, error: &Error, remedy: Remedy) -> Self {
        let (path, offset, what) = match error {
            Error::Corrupt { path, offset, what } => (path.clone(), Some(*offset), what.clone()),
            Error::Format { path, .. } | Error::Io { path, .. } => (path.clone(), None, error.to_string()),
            other => (path.to_owned(), None, other.to_string()),
        };
        Finding { offset, ..Finding::new(Severity::Damage, part, path, what, remedy) }
    }

    pub(super) fn of(self, group: GroupId, replica: Option<u64>) -> Self {
        Finding { group: Some(group), replica, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Damage => "damage",
            Severity::Lost => "lost",
            Severity::Warning => "warning",
            Severity::Leftover => "leftover",
        };
        write!(f, "{severity}: {}", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": {}", self.what)?;
        match (self.group, self.replica) {
            (Some(group), Some(replica)) => write!(f, " (group {}, replica {replica})", group.0)?,
            (Some(group), None) => write!(f, " (group {})", group.0)?,
            _ => {}
        }
        write!(f, "\n  {}", self.remedy)
    }
}
