//! Who this node is: a random id, kept with the data, never reused; and the cluster it belongs to.
//!
//! One small file, replaced by write, fsync, rename and directory fsync. A directory without it is a
//! new node.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use odgm_shard::cluster::NodeRecord;
use odgm_shard::object::{NodeId, ReplicaId};
use odgm_storage::disk::{Disk, OpenMode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) const FILE: &str = "node.json";
const TEMPORARY: &str = "node.json.tmp";
const FORMAT: u32 = 1;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The format of this file.
    pub(crate) format: u32,
    /// The node.
    pub(crate) node: NodeId,
    /// Its cluster; `None` until it is founded or joined.
    pub(crate) membership: Option<Membership>,
}

/// A node's part in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Membership {
    /// The cluster.
    pub(crate) cluster: Uuid,
    /// This node's replica of the system shard.
    pub(crate) system_replica: ReplicaId,
    /// The founding members, when this node is one: the system shard's first membership.
    pub(crate) founders: Vec<NodeRecord>,
}

impl Identity {
    /// Reads the identity of a data directory, or gives it a new one.
    ///
    /// # Errors
    /// When the file can't be read, is damaged, or of another format.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> anyhow::Result<Self> {
        if let Some(identity) = Self::read(dir)? {
            return Ok(identity);
        }
        // 63 bits: the id appears in JSON, where readers may know signed numbers only.
        let node = NodeId((Uuid::new_v4().as_u128() as u64) >> 1);
        let identity = Identity { format: FORMAT, node, membership: None };
        identity.save(disk, dir)?;
        Ok(identity)
    }

    /// Lets the next [`Identity::open`] give a new identity; durable when it returns.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn forget(disk: &Arc<dyn Disk>, dir: &Path) -> anyhow::Result<()> {
        let forgotten = disk.remove(&dir.join(FILE)).and_then(|()| disk.sync_dir(dir));
        forgotten.with_context(|| format!("removing {}", dir.join(FILE).display()))
    }

    /// Reads the identity of a data directory; `None` for a new node.
    ///
    /// # Errors
    /// When the file can't be read, is damaged, or of another format.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let identity: Identity = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged: restore it, or replace this node", path.display()))?;
        anyhow::ensure!(
            identity.format == FORMAT,
            "{} has format {}, this build reads {FORMAT}",
            path.display(),
            identity.format
        );
        Ok(Some(identity))
    }

    /// Replaces the file; durable when it returns.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn save(&self, disk: &Arc<dyn Disk>, dir: &Path) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).context("encoding the identity")?;
        replace_file(disk, dir, &bytes).with_context(|| format!("writing {}", dir.join(FILE).display()))
    }
}

fn replace_file(disk: &Arc<dyn Disk>, dir: &Path, bytes: &[u8]) -> odgm_storage::Result<()> {
    let temporary = dir.join(TEMPORARY);
    disk.remove(&temporary)?;
    let file = disk.open(&temporary, OpenMode::CreateNew)?;
    file.write_at(bytes, 0)?;
    file.sync_all()?;
    disk.rename(&temporary, &dir.join(FILE))?;
    disk.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use odgm_storage::disk::RealDisk;

    fn disk() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    #[test]
    fn an_identity_is_kept_and_never_made_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Identity::open(&disk(), dir.path()).unwrap();
        first.membership = Some(Membership {
            cluster: Uuid::from_u128(7),
            system_replica: ReplicaId(3),
            founders: Vec::new(),
        });
        first.save(&disk(), dir.path()).unwrap();
        assert_eq!(Identity::open(&disk(), dir.path()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Identity::open(&disk(), other.path()).unwrap().node, first.node);
    }

    #[test]
    fn a_damaged_identity_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        let error = format!("{:#}", Identity::open(&disk(), dir.path()).unwrap_err());
        assert!(error.contains("damaged"), "{error}");
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), b"{");
    }
}
