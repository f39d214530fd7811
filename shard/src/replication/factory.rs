//! The factory: the one place where the kind of replication decides anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use odgm_storage::log::RaftLogStorage;
use odgm_storage::snapshot::{RaftSnapshotStorage, RetainPolicy};
use odgm_transport::timer::BoxFuture;

use super::basic::{BasicParts, BasicShard};
use super::mst::{MstOptions, MstParts, MstRouter, MstShard, Policy};
use super::raft::{RaftOptions, RaftRouter, RaftShard, ReplicaData};
use super::{ChangeSink, ShardState, WriteOptions};
use crate::Result;
use crate::cluster::collection::Replication;
use crate::cluster::{ReplicaRecord, ShardRecord};
use crate::object::{GroupId, NodeId, ReplicaId};
use crate::runtime::Runtime;

/// Opens replicas of every kind. One per node.
#[derive(Debug)]
pub struct ShardFactory<R: Runtime> {
    /// This node.
    pub node: NodeId,
    /// The router of the node's Raft groups.
    pub raft_router: Arc<RaftRouter<R>>,
    /// The router of the node's divergent shards.
    pub mst_router: Arc<MstRouter>,
    /// How Raft shards behave.
    pub raft: RaftOptions,
    /// How shards without a log write.
    pub writes: WriteOptions,
}

/// What a replica of any kind may be made of; each takes what it uses.
pub struct ReplicaParts {
    /// The group, the same on all replicas of the shard.
    pub group: GroupId,
    /// This replica.
    pub replica: ReplicaId,
    /// The group's log on this node.
    pub log: Arc<dyn RaftLogStorage>,
    /// The portable snapshots of this replica.
    pub snapshots: Arc<dyn RaftSnapshotStorage>,
    /// How long snapshots are kept that newer ones follow.
    pub retain: RetainPolicy,
    /// Its data.
    pub data: ReplicaData,
    /// A directory of its own, for checkpoints; made when absent.
    pub dir: PathBuf,
    /// Gets the changes, in order.
    pub sink: ChangeSink,
    /// How long an `eventual` replica remembers what was deleted.
    pub tombstones: Duration,
}

impl std::fmt::Debug for ReplicaParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaParts")
            .field("group", &self.group)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

/// A replica, and what only its kind can do.
#[derive(Debug, Clone)]
pub struct Opened<R: Runtime> {
    /// The replica as everybody uses it.
    pub state: Arc<dyn ShardState>,
    /// Membership, leadership and snapshots of a Raft replica.
    pub raft: Option<Arc<RaftShard<R>>>,
    /// Placement and digests of a divergent replica.
    pub mst: Option<Arc<MstShard<R>>>,
}

impl<R: Runtime> ShardFactory<R> {
    /// Opens a replica of a shard, and founds the shard when this is one of its founders.
    ///
    /// # Errors
    /// When the options cannot be, a layer fails, or a replica of the group is open on this node.
    ///
    /// Boxed, so that what awaits it may move between threads.
    pub fn open(
        &self,
        kind: Replication,
        parts: ReplicaParts,
        shard: ShardRecord,
    ) -> BoxFuture<'static, Result<Opened<R>>> {
        match kind {
            Replication::Raft => {
                let opening = RaftShard::start(parts, self.raft_router.clone(), self.raft.clone());
                Box::pin(open_raft(opening, shard))
            }
            Replication::Mst => self.open_divergent(Policy::Always, parts, shard.replicas),
            Replication::Eventual => {
                let policy = Policy::OnMeeting { retain: parts.tombstones };
                self.open_divergent(policy, parts, shard.replicas)
            }
            Replication::None => {
                let ReplicaParts { replica, data, sink, .. } = parts;
                let parts = BasicParts { replica, node: self.node, data: data.storage(), sink };
                let opening = BasicShard::<R>::start(parts, self.writes.clone());
                Box::pin(async move { Ok(Opened { state: opening.await?, raft: None, mst: None }) })
            }
        }
    }

    fn open_divergent(
        &self,
        policy: Policy,
        parts: ReplicaParts,
        placement: Vec<ReplicaRecord>,
    ) -> BoxFuture<'static, Result<Opened<R>>> {
        let ReplicaParts { group, replica, data, sink, .. } = parts;
        let router = self.mst_router.clone();
        let parts = MstParts { group, replica, placement, data: data.storage(), sink, router };
        let opening = MstShard::<R>::start(parts, MstOptions::new(policy, self.writes.clone()));
        Box::pin(async move {
            let mst = opening.await?;
            Ok(Opened { state: mst.clone(), raft: None, mst: Some(mst) })
        })
    }
}

async fn open_raft<R: Runtime>(
    opening: BoxFuture<'static, Result<Arc<RaftShard<R>>>>,
    shard: ShardRecord,
) -> Result<Opened<R>> {
    let raft = opening.await?;
    if shard.founders.iter().any(|founder| founder.replica == raft.replica()) {
        let members: BTreeMap<ReplicaId, NodeId> =
            shard.founders.iter().map(|founder| (founder.replica, founder.node)).collect();
        raft.initialize(members).await?;
    }
    Ok(Opened { state: raft.clone(), raft: Some(raft), mst: None })
}
