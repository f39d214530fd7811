//! A replica of a Raft group as the rest of the crate sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use odgm_storage::data::{ApplicationDataStorage, SnapshotCapableStorage};
use odgm_storage::log::RaftLogStorage;
use odgm_storage::snapshot::RaftSnapshotStorage;
use odgm_transport::timer::BoxFuture;
use tokio::sync::watch;

use super::{RaftOptions, RaftRouter};
use crate::object::{GroupId, NodeId, ReplicaId};
use crate::replication::{ChangeSink, ShardState, ShardStatus};
use crate::runtime::Runtime;
use crate::state::{Command, ObjectView, Outcome};
use crate::{Error, Result};

/// The data layer of a replica, and how a snapshot of it is taken.
#[derive(Debug, Clone)]
pub enum ReplicaData {
    /// By a checkpoint on disk, without copying; the portable file is written from it when a follower asks.
    Checkpointed(Arc<dyn SnapshotCapableStorage>),
    /// By exporting a view into the snapshot store at once: for data in memory.
    Exported(Arc<dyn ApplicationDataStorage>),
}

/// What a replica is made of.
pub struct RaftParts<R: Runtime> {
    /// The group, the same on all its replicas.
    pub group: GroupId,
    /// This replica; never used before by another one of the group, nor by this one before it lost its disk.
    pub replica: ReplicaId,
    /// The group's log on this node.
    pub log: Arc<dyn RaftLogStorage>,
    /// The portable snapshots of this replica.
    pub snapshots: Arc<dyn RaftSnapshotStorage>,
    /// The data of this replica.
    pub data: ReplicaData,
    /// A directory of this replica's own, for checkpoints; made when absent.
    pub dir: PathBuf,
    /// Gets the changes, on every replica, in order.
    pub sink: ChangeSink,
    /// The router of this node.
    pub router: Arc<RaftRouter<R>>,
}

impl<R: Runtime> std::fmt::Debug for RaftParts<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftParts")
            .field("group", &self.group)
            .field("replica", &self.replica)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// How far a replica is behind, as its leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The replica.
    pub replica: ReplicaId,
    /// Its last log index known to be there; `None` before its first answer.
    pub matched: Option<u64>,
    /// Entries it lacks.
    pub lag: u64,
}

/// One replica of a Raft group.
#[derive(Debug)]
pub struct RaftShard<R: Runtime> {
    runtime: PhantomData<fn() -> R>,
}

impl<R: Runtime> RaftShard<R> {
    /// Opens the replica from its layers and takes part in its group. A replica without any log or
    /// data waits for [`RaftShard::initialize`] or for a leader that adds it.
    ///
    /// # Errors
    /// When the options cannot be, a layer fails, or log and data do not belong together.
    pub async fn start(parts: RaftParts<R>, options: RaftOptions) -> Result<Arc<Self>> {
        options.validate()?;
        drop(parts);
        Err(Error::Unsupported("raft".to_owned()))
    }

    /// Founds the group with these voters. On a founded group it changes nothing. Called on one of them,
    /// or on all of them with the same members.
    pub async fn initialize(&self, members: BTreeMap<ReplicaId, NodeId>) -> Result<()> {
        drop(members);
        Err(Error::Unsupported("raft".to_owned()))
    }

    /// Adds a replica that learns and has no vote, and begins to send to it; does not wait until it has
    /// caught up (see [`RaftShard::progress`]). Idempotent. On the leader only.
    pub async fn add_learner(&self, replica: ReplicaId, node: NodeId) -> Result<()> {
        Err(Error::Unsupported(format!("{replica} {node}")))
    }

    /// Gives votes to learners and removes voters, in one change. Removed voters leave the group.
    /// Idempotent. On the leader only; a leader that removes itself steps down afterwards.
    pub async fn change_membership(
        &self,
        add: BTreeSet<ReplicaId>,
        remove: BTreeSet<ReplicaId>,
    ) -> Result<()> {
        Err(Error::Unsupported(format!("{add:?} {remove:?}")))
    }

    /// Removes a learner. Idempotent. On the leader only.
    pub async fn remove_learner(&self, replica: ReplicaId) -> Result<()> {
        Err(Error::Unsupported(replica.to_string()))
    }

    /// Hands leadership to a voter and waits until this replica no longer leads.
    ///
    /// # Errors
    /// [`Error::Timeout`] when it did not happen within the options' deadline.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<()> {
        Err(Error::Unsupported(to.to_string()))
    }

    /// Campaigns now (with pre-vote), instead of waiting for the election timeout: for when the leader's node is
    /// known to be gone. Respects the leader's lease.
    pub async fn campaign(&self) -> Result<()> {
        Err(Error::Unsupported("raft".to_owned()))
    }

    /// Takes a snapshot of all that is applied, and purges the log behind it.
    pub async fn snapshot(&self) -> Result<()> {
        Err(Error::Unsupported("raft".to_owned()))
    }

    /// Waits until the entry at `index` is applied here.
    pub async fn wait_applied(&self, index: u64, timeout: Duration) -> Result<()> {
        Err(Error::Unsupported(format!("{index} {timeout:?}")))
    }

    /// How far the others are, as this leader knows; empty on a follower.
    pub fn progress(&self) -> Vec<Progress> {
        Vec::new()
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        GroupId(0)
    }

    /// This replica.
    pub fn replica(&self) -> ReplicaId {
        ReplicaId(0)
    }
}

impl<R: Runtime> ShardState for RaftShard<R> {
    fn write(&self, command: Command) -> BoxFuture<'static, Result<Outcome>> {
        drop(command);
        Box::pin(async { Err(Error::Unsupported("raft".to_owned())) })
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<()>> {
        Box::pin(async { Err(Error::Unsupported("raft".to_owned())) })
    }

    fn view(&self) -> ObjectView {
        unreachable!("no replica can be started yet")
    }

    fn status(&self) -> watch::Receiver<ShardStatus> {
        unreachable!("no replica can be started yet")
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
