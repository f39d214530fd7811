//! A node: starts its parts in order, stops them in reverse.
//!
//! Order of start: storage (and its lock), sessions, presence, links, membership of a cluster, the
//! system shard, the shards that its records want here. Everything behind "membership" runs in tasks:
//! a node that waits to be founded is alive and not ready.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use odgm_shard::object::NodeId;
use odgm_shard::replication::mst::{MST_MESSAGE, MstRouter};
use odgm_shard::replication::raft::{RAFT_MESSAGE, RaftRouter};
use odgm_shard::replication::{ShardFactory, ShardState};
use odgm_shard::runtime::{Runtime as _, TokioRuntime};
use odgm_shard::shard::{Budget, Limits};
use odgm_storage::composite::Status;
use odgm_transport::Session;
use odgm_transport::link::{LinkOptions, Links, PeerId};
use odgm_transport::timer::TokioTimer;
use odgm_transport::zenoh::ZenohSession;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::NodeConfig;
use crate::enrolment::Enrolment;
use crate::identity::Identity;
use crate::presence::Presence;
use crate::serving::{self, Serving};
use crate::shards::Shards;
pub use crate::status::Check;
use crate::stores::Stores;
use crate::system::{SYSTEM_GROUP, SystemShard};
use crate::{admin, answers, collections, founding, health, messages, meta, shards, status, steering};

/// How long a starting node listens for another process of its id before it announces itself.
const LISTEN: Duration = Duration::from_secs(1);
/// How often a node looks after its own health.
const WATCHDOG: Duration = Duration::from_millis(250);

/// Why a node stopped by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The log could not be written or synced: nothing is acknowledged any more.
    #[error("the storage failed: {0}")]
    Storage(String),
    /// Another process runs as this node, or the node was replaced.
    #[error("{0}")]
    Identity(String),
    /// A part could not start.
    #[error("{0}")]
    Start(String),
}

/// What the parts of a node share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: NodeConfig,
    pub(crate) node: NodeId,
    pub(crate) stores: Arc<Stores>,
    pub(crate) client: Arc<dyn Session>,
    pub(crate) links: Arc<Links>,
    pub(crate) factory: ShardFactory<TokioRuntime>,
    pub(crate) enrolment: Arc<Enrolment>,
    pub(crate) serving: Serving,
    pub(crate) shards: Shards,
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<Budget>,
    pub(crate) stop: CancellationToken,
    system: OnceLock<Arc<SystemShard>>,
    started: Instant,
    failure: watch::Sender<Option<Failure>>,
}

impl Core {
    /// The system shard, once this node is a member.
    pub(crate) fn system(&self) -> Option<Arc<SystemShard>> {
        self.system.get().cloned()
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn fail(&self, failure: Failure) {
        tracing::error!(%failure, "this node stops");
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(failure);
            }
            first
        });
    }
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    core: Arc<Core>,
    cluster: Arc<dyn Session>,
    tasks: TaskTracker,
}

impl Node {
    /// Opens the storage and both sessions, and starts to take part. Returns before the node is ready.
    ///
    /// # Errors
    /// When the data directory is in use, damaged or a copy of a running node's, or a port is taken.
    pub async fn start(config: NodeConfig) -> anyhow::Result<Node> {
        let opening = config.clone();
        let stores = tokio::task::spawn_blocking(move || Stores::open(&opening))
            .await
            .context("opening the storage")??;
        let stores = Arc::new(stores);
        let identity = Identity::open(&stores.disk, &stores.dir)?;
        let node = identity.node;
        let enrolment = Enrolment::new(stores.disk.clone(), stores.dir.clone(), identity);
        let secret = read_secret(&config.cluster.secret_file)?;

        let cluster: Arc<dyn Session> = ZenohSession::open(&config.cluster_session(), "cluster")
            .await
            .context("opening the cluster's session")?;
        let epoch = new_epoch();
        let mut presence = Presence::open(&cluster, &config.cluster.name, node, epoch)?;
        let listen = if config.cluster.peers.is_empty() { Duration::ZERO } else { LISTEN };
        presence.admit(listen).await?;
        let client: Arc<dyn Session> = ZenohSession::open(&config.client_session(), "client")
            .await
            .context("opening the clients' session")?;
        let mut options =
            LinkOptions::new(config.cluster.name.clone(), PeerId(node.0), config.node.name.clone(), epoch);
        options.secret = secret;
        let links = Links::open(cluster.clone(), Arc::new(TokioTimer::current()?), options)?;
        let core = Arc::new(Core {
            node,
            factory: ShardFactory {
                node,
                raft_router: RaftRouter::new(links.clone()),
                mst_router: MstRouter::new(links.clone()),
                raft: config.raft_options(),
                writes: config.write_options(),
            },
            links,
            stores,
            client,
            enrolment,
            serving: Serving::default(),
            shards: Shards::default(),
            limits: config.shard_limits(),
            budget: Budget::new(config.limits.inflight_bytes.bytes()),
            stop: CancellationToken::new(),
            system: OnceLock::new(),
            started: Instant::now(),
            failure: watch::Sender::new(None),
            config,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(answers::answer(core.clone(), receive(&core)));
        tasks.spawn(watchdog(core.clone(), presence));
        tasks.spawn(health::watch(core.clone()));
        tasks.spawn(take_part(core.clone(), tasks.clone()));
        Ok(Node { core, cluster, tasks })
    }

    /// Completes when the node is ready and somebody serves every shard that it holds a replica of.
    ///
    /// # Errors
    /// When the node fails first.
    pub async fn ready(&self) -> Result<(), Failure> {
        let mut failure = self.core.failure.subscribe();
        loop {
            if status::readiness(&self.core).is_ok() && status::served(&self.core) {
                return Ok(());
            }
            let pause = tokio::time::timeout(Duration::from_millis(20), failure.wait_for(Option::is_some));
            if let Ok(Ok(failed)) = pause.await {
                return Err(failed.clone().unwrap_or_else(|| Failure::Start("unknown".into())));
            }
        }
    }

    /// Whether the node can serve; the reasons why not. Never asks for a quorum.
    ///
    /// # Errors
    /// One line for each reason.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        status::readiness(&self.core)
    }

    /// The node, its shards and its layers.
    pub fn status(&self) -> serde_json::Value {
        status::status(&self.core)
    }

    /// A handle that outlives borrows of the node, for HTTP.
    pub fn probe(&self) -> Probe {
        Probe { core: self.core.clone() }
    }

    /// Completes when the node failed and must stop.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.core.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await.map(|failed| failed.clone());
        failed.ok().flatten().unwrap_or_else(|| Failure::Start("the node is gone".into()))
    }

    /// Stops: hands leadership over, closes the shards, syncs and closes the log, leaves the cluster.
    pub async fn stop(self) {
        let failed = self.core.failure.borrow().is_some();
        if !failed {
            shards::hand_over_leadership(&self.core).await;
        }
        self.core.stop.cancel();
        self.core.shards.close().await;
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(system) = self.core.system() {
            system.raft.close().await;
        }
        let (core, cluster) = (self.core, self.cluster);
        let closed = tokio::task::spawn_blocking(move || {
            if !failed && let Err(error) = core.stores.log.close() {
                tracing::error!(%error, "the log did not close cleanly");
            }
            core.links.close();
            for session in [&core.client, &cluster] {
                if let Err(error) = session.close() {
                    tracing::debug!(%error, "closing a session");
                }
            }
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "stopping failed");
        }
    }
}

/// Looks at a node from outside of its tasks.
#[derive(Debug, Clone)]
pub struct Probe {
    core: Arc<Core>,
}

impl Probe {
    /// What must be well for the node to serve, and what of it is not; as [`Node::readiness`].
    pub fn checks(&self) -> Vec<Check> {
        status::checks(&self.core)
    }

    /// As [`Node::status`].
    pub fn status(&self) -> serde_json::Value {
        status::status(&self.core)
    }
}

/// Names this start: later ones are greater, as far as the clock goes; no two are the same. 63 bits, as
/// node ids.
fn new_epoch() -> u64 {
    const RANDOM: u64 = (1 << 20) - 1;
    (TokioRuntime::wall_clock() >> 1) & !RANDOM | (Uuid::new_v4().as_u128() as u64) & RANDOM
}

fn read_secret(path: &str) -> anyhow::Result<Option<Bytes>> {
    if path.is_empty() {
        return Ok(None);
    }
    let secret = std::fs::read(path).with_context(|| format!("cluster.secret_file {path}"))?;
    anyhow::ensure!(
        secret.len() >= 16,
        "cluster.secret_file {path} has {} bytes, at least 16 are needed",
        secret.len()
    );
    Ok(Some(secret.into()))
}

/// Sorts what comes over the links: the shards' messages to the router, the nodes' to a queue.
fn receive(core: &Arc<Core>) -> mpsc::Receiver<odgm_transport::link::Incoming> {
    let (sender, receiver) = mpsc::channel(answers::QUEUE);
    let (raft, mst) = (core.factory.raft_router.clone(), core.factory.mst_router.clone());
    core.links.serve(Arc::new(move |incoming| match incoming.payload.first() {
        Some(&RAFT_MESSAGE) => raft.receive(incoming),
        Some(&MST_MESSAGE) => mst.receive(incoming),
        Some(&messages::FAMILY) => {
            // A full queue drops the message; its sender asks again.
            let _ = sender.try_send(incoming);
        }
        _ => tracing::debug!(from = %incoming.from, "a message of an unknown family"),
    }));
    receiver
}

/// From membership to running shards; ends with the node.
async fn take_part(core: Arc<Core>, tasks: TaskTracker) {
    let started = tokio::select! {
        () = core.stop.cancelled() => return,
        started = become_member(&core) => started,
    };
    let system = match started {
        Ok(system) => system,
        Err(error) => return core.fail(Failure::Start(format!("{error:#}"))),
    };
    let follow = system.clone();
    let stop = core.stop.clone();
    tasks.spawn(async move { stop.run_until_cancelled(follow.follow()).await });
    tasks.spawn(steering::steer(core.clone(), SYSTEM_GROUP, system.raft.clone(), core.stop.clone()));
    tasks.spawn(shards::follow(core.clone()));
    tasks.spawn(collections::ensure(core.clone()));
    tasks.spawn(admin::serve(core.clone()));
    tasks.spawn(meta::serve(core.clone()));
    tasks.spawn(tell_serving(core.clone()));
    tasks.spawn(found_records(core.clone()));
    tasks.spawn(adopt_members(core.clone()));
    if let Some(membership) = core.enrolment.membership().borrow().clone() {
        let core = core.clone();
        tasks.spawn(async move {
            let handing = founding::hand_over(&core.links, core.node, &membership);
            core.stop.run_until_cancelled(handing).await;
        });
    }
}

async fn become_member(core: &Arc<Core>) -> anyhow::Result<Arc<SystemShard>> {
    founding::join(&core.config, &core.links, &core.enrolment).await?;
    let membership =
        core.enrolment.membership().borrow().clone().context("membership was granted and is gone")?;
    core.links.set_cluster(membership.cluster);
    let system = SystemShard::start(core.stores.clone(), &core.factory, &membership).await?;
    core.system.get_or_init(|| system.clone());
    Ok(system)
}

/// The first records, written once by whoever first serves the system shard.
async fn found_records(core: Arc<Core>) {
    let Some(system) = core.system() else { return };
    let Some(membership) = core.enrolment.membership().borrow().clone() else { return };
    let mut map = system.map();
    while map.borrow_and_update().counters.is_none() {
        if system.serves() && !membership.founders.is_empty() {
            let found = odgm_shard::cluster::transaction::found(&membership.founders);
            let command = odgm_shard::state::Command { rid: None, operation: found };
            if let Err(error) = system.raft.write(command).await {
                tracing::debug!(%error, "the first records are not written yet");
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = tokio::time::timeout(Duration::from_millis(100), map.changed()) => {}
        }
    }
}

/// While this node serves the system shard, brings in nodes that the records name.
async fn adopt_members(core: Arc<Core>) {
    let (Some(system), Some(cluster)) = (core.system(), core.enrolment.cluster()) else { return };
    loop {
        if system.serves() {
            let map = system.map().borrow().clone();
            founding::adopt(&core.links, cluster, &map).await;
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// Tells the others what this node serves, when it changes and every two seconds.
async fn tell_serving(core: Arc<Core>) {
    let mut told = (Vec::new(), Duration::ZERO);
    loop {
        let groups = status::serving_groups(&core);
        let now = core.now();
        core.serving.heard(core.node, &groups, now);
        if groups != told.0 || now.saturating_sub(told.1) >= serving::REPEAT {
            let message = messages::encode(&messages::NodeRequest::Serving { groups: groups.clone() });
            for peer in core.links.peers().into_keys() {
                // Presence is a hint: a peer that is gone hears it later.
                let _ = core.links.send(peer, odgm_transport::link::Class::Control, message.clone());
            }
            told = (groups, now);
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

/// Ends the node when its storage fails, another process runs as it, or it was replaced.
async fn watchdog(core: Arc<Core>, mut presence: Presence) {
    let replaced = founding::told_replaced(&core);
    tokio::pin!(replaced);
    let doubled = presence.doubled();
    tokio::pin!(doubled);
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = &mut doubled => {
                let reason = "another process runs as this node: one of the data directories is a copy";
                return core.fail(Failure::Identity(reason.into()));
            }
            name = &mut replaced => {
                let reason = format!("this node was replaced, says {name}: start it empty to use it again");
                return core.fail(Failure::Identity(reason));
            }
            () = tokio::time::sleep(WATCHDOG) => {}
        }
        if let Some(error) = core.stores.log.poisoned() {
            return core.fail(Failure::Storage(error.to_string()));
        }
        // The replicas of a store that takes no writes have stopped; a start goes on from the log again.
        if let Status::Unhealthy { error } = core.stores.storage.health().data {
            return core.fail(Failure::Storage(error));
        }
    }
}
