//! The system shard on this node: group 0, whose objects are the cluster's records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use odgm_shard::cluster::ClusterMap;
use odgm_shard::cluster::transaction::Refused;
use odgm_shard::object::{GroupId, NodeId, ReplicaId};
use odgm_shard::replication::raft::RaftShard;
use odgm_shard::replication::{ChangeSink, Role, ShardFactory, ShardState};
use odgm_shard::runtime::TokioRuntime;
use odgm_shard::state::{Command, Operation, Outcome};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::identity::Membership;
use crate::stores::Stores;

/// The group of the system shard.
pub(crate) const SYSTEM_GROUP: GroupId = GroupId(0);
/// How often a change of the records is tried again when somebody was faster.
const RETRIES: usize = 5;
/// How long an applied change may take to appear in the map.
const MAP_DEADLINE: Duration = Duration::from_secs(5);

/// This node's replica of the system shard.
#[derive(Debug)]
pub(crate) struct SystemShard {
    pub(crate) raft: Arc<RaftShard<TokioRuntime>>,
    map: watch::Sender<Arc<ClusterMap>>,
    changed: Arc<Notify>,
}

impl SystemShard {
    /// Opens the replica and, on a founding member, founds the group: the same on all of them.
    pub(crate) async fn start(
        stores: Arc<Stores>,
        factory: &ShardFactory<TokioRuntime>,
        membership: &Membership,
    ) -> anyhow::Result<Arc<Self>> {
        let changed = Arc::new(Notify::new());
        let notified = changed.clone();
        let sink: ChangeSink = Arc::new(move |_| notified.notify_one());
        let replica = membership.system_replica;
        let parts = tokio::task::spawn_blocking(move || stores.replica(SYSTEM_GROUP, replica, sink))
            .await
            .context("opening the system shard")??;
        let raft = RaftShard::start(parts, factory.raft_router.clone(), factory.raft.clone())
            .await
            .context("starting the system shard")?;
        if !membership.founders.is_empty() {
            let members: BTreeMap<ReplicaId, NodeId> =
                membership.founders.iter().map(|node| (node.system_replica, node.id)).collect();
            raft.initialize(members).await.context("founding the system shard")?;
        }
        let map = ClusterMap::read(&raft.view()).context("reading the cluster's records")?;
        Ok(Arc::new(SystemShard { raft, map: watch::Sender::new(Arc::new(map)), changed }))
    }

    /// Keeps the map up to date; runs until the node stops.
    pub(crate) async fn follow(&self) {
        let mut status = self.raft.status();
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                // An installed snapshot changes the state without changes.
                outcome = status.changed() => if outcome.is_err() { return },
            }
            self.refresh();
        }
    }

    fn refresh(&self) {
        match ClusterMap::read(&self.raft.view()) {
            Ok(map) => {
                self.map.send_if_modified(|known| {
                    let newer = **known != map;
                    if newer {
                        *known = Arc::new(map);
                    }
                    newer
                });
            }
            Err(error) => tracing::error!(%error, "the cluster's records can't be read"),
        }
    }

    /// The records as this replica has applied them.
    pub(crate) fn map(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    /// Whether this replica serves the system shard.
    pub(crate) fn serves(&self) -> bool {
        self.raft.status().borrow().role == Role::Serving
    }

    /// Changes the records: reads them linearizably, computes one transaction, applies it, and starts
    /// over when somebody was faster. Returns once the map shows it.
    ///
    /// # Errors
    /// What `compute` refuses; or that the system shard can't be written.
    pub(crate) async fn change<T>(
        &self,
        compute: impl Fn(&ClusterMap) -> Result<(Operation, T), Refused>,
    ) -> Result<T, ChangeError> {
        self.change_if(|map| compute(map).map(|(operation, result)| (Some(operation), result))).await
    }

    /// As [`SystemShard::change`]; without a transaction nothing changes.
    pub(crate) async fn change_if<T>(
        &self,
        compute: impl Fn(&ClusterMap) -> Result<(Option<Operation>, T), Refused>,
    ) -> Result<T, ChangeError> {
        for _ in 0..RETRIES {
            self.raft.read_barrier().await?;
            let map = ClusterMap::read(&self.raft.view())?;
            let (operation, result) = compute(&map)?;
            let Some(operation) = operation else { return Ok(result) };
            let rid = Some(bytes::Bytes::copy_from_slice(Uuid::new_v4().as_bytes()));
            match self.raft.write(Command { rid, operation }).await? {
                Outcome::Txn(done) if done.then => {
                    self.refresh();
                    let mut map = self.map();
                    let shown = map.wait_for(|map| map.revision >= done.revision);
                    let _ = tokio::time::timeout(MAP_DEADLINE, shown).await;
                    return Ok(result);
                }
                _ => tracing::debug!("somebody changed the cluster's records first, trying again"),
            }
        }
        Err(ChangeError::Shard(odgm_shard::Error::Busy("the cluster's records are being changed by others")))
    }
}

/// Why the records were not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The request is refused; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The system shard can't be written.
    #[error(transparent)]
    Shard(#[from] odgm_shard::Error),
}
