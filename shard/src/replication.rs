//! Replication: when a command is applied. Each kind is one module; the kind is matched once, in
//! [`ShardFactory`].

pub mod basic;
mod factory;
pub mod mst;
mod queue;
pub mod raft;
mod rid_window;

use std::fmt::Debug;
use std::sync::Arc;

use odgm_transport::timer::BoxFuture;
use tokio::sync::watch;

use crate::Result;
use crate::object::{NodeId, ReplicaId};
use crate::state::{Change, Command, ObjectView, Outcome, Position};

pub use factory::{Opened, ReplicaParts, ShardFactory};
pub use queue::WriteOptions;

/// What this replica is to its shard, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It serves: it may take commands and answer linearizable reads.
    Serving,
    /// Another replica serves.
    Following,
    /// It knows nobody who serves.
    Leaderless,
    /// It stopped, by order or by a failure.
    Stopped,
}

/// What a shard says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// What this replica is.
    pub role: Role,
    /// The node that serves.
    pub serving: Option<NodeId>,
    /// The current term; 0 for kinds without one.
    pub term: u64,
    /// The replicas that vote, with their nodes.
    pub voters: Vec<(ReplicaId, NodeId)>,
    /// The replicas that only learn, with their nodes.
    pub learners: Vec<(ReplicaId, NodeId)>,
    /// The last entry applied here.
    pub applied: Option<Position>,
    /// The last entry in the log here.
    pub last_log_index: Option<u64>,
    /// The last entry purged here.
    pub purged_log_index: Option<u64>,
    /// The last snapshot's index.
    pub snapshot_index: Option<u64>,
    /// Why it stopped.
    pub failure: Option<String>,
}

impl ShardStatus {
    /// Before anything is known.
    pub(crate) fn unknown() -> Self {
        ShardStatus {
            role: Role::Leaderless,
            serving: None,
            term: 0,
            voters: Vec::new(),
            learners: Vec::new(),
            applied: None,
            last_log_index: None,
            purged_log_index: None,
            snapshot_index: None,
            failure: None,
        }
    }
}

/// What a kind of replication offers beyond writes and reads of what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offers {
    /// Reads that see everything that was acknowledged before them, by anyone.
    pub linearizable: bool,
    /// Numbers of each object that are the same on every replica: its first revision and its count of changes.
    pub object_numbers: bool,
    /// Who does the upkeep.
    pub kept_by: KeptBy,
}

/// Which replicas ask for what time brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptBy {
    /// The serving one, for all: its commands are applied everywhere.
    ServingReplica,
    /// Each for itself: its history and indexes follow its own order of changes. What is one change for all of them,
    /// the end of a key, is left to the one that serves.
    EachReplica,
}

/// Gets the changes of each applied batch, in order, on every replica, after they became visible.
/// Called where commands are applied: it must not block.
pub type ChangeSink = Arc<dyn Fn(Vec<Change>) + Send + Sync>;

/// One replica of a shard, whatever its kind.
pub trait ShardState: Send + Sync + Debug {
    /// Proposes a command; completes when it is durable as the kind promises, and applied here.
    /// Dropping the future does not take the command back.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`]: this kind cannot do it. [`crate::Error::NotLeader`] and [`crate::Error::Busy`]: nothing happened.
    /// [`crate::Error::Unavailable`] and [`crate::Error::Timeout`]: unknown; repeat it with the same request id.
    fn write(&self, command: Command) -> BoxFuture<'static, Result<Outcome>>;

    /// Completes when a view taken afterwards holds everything that was acknowledged, by anyone,
    /// before this call began; for a kind without linearizable reads, by this replica.
    fn read_barrier(&self) -> BoxFuture<'static, Result<()>>;

    /// What this kind offers.
    fn offers(&self) -> Offers;

    /// The present state of this replica.
    fn view(&self) -> ObjectView;

    /// Role and bounds, as they change.
    fn status(&self) -> watch::Receiver<ShardStatus>;

    /// Stops serving and waits until nothing of the shard runs any more.
    fn close(&self) -> BoxFuture<'static, ()>;
}
