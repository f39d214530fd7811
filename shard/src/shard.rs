//! The object shard: answers clients for one replica of one partition.
//!
//! It follows the role of its [`ShardState`] and declares the shard's keys accordingly, takes
//! requests within the node's [`Budget`], and turns them into commands, barriers and views; the
//! [`EventManager`] publishes what was committed. It knows nothing of how its shard replicates.
//!
//! # Way of a request
//! receiving thread → intake (bounded) → worker → admission → read, list or command → reply.

mod admit;
mod ahead;
mod answer;
pub mod budget;
pub mod events;
mod intake;
mod lifecycle;
mod list;
pub mod metrics;
mod read;
mod refusal;
mod replay;
mod upkeep;
mod worker;
mod write;

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use odgm_transport::Session;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

pub use budget::Budget;
pub use events::EventManager;

use self::answer::Answerer;
use self::events::Outlet;
use self::intake::Intake;
use self::lifecycle::Lifecycle;
use self::metrics::ShardMetrics;
use self::upkeep::Keeper;
use self::worker::Worker;
use crate::object::{CollectionName, Partition};
use crate::protocol::{Keys, ShardAddress, Voice};
use crate::replication::ShardState;
use crate::runtime::Runtime;
use crate::state::Settings;
use crate::{Error, Result};

/// How long closing waits for the answers under way.
const CLOSE: Duration = Duration::from_secs(5);

/// What requests may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest payload of a value, `limits.value_bytes`.
    pub value_bytes: u64,
    /// How long a request is worked on when it does not say `timeout=`.
    pub timeout: Duration,
    /// The same for the replies of a list, which take as long as their caller reads.
    pub list_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            value_bytes: 8 << 20,
            timeout: Duration::from_secs(5),
            list_timeout: Duration::from_secs(60),
        }
    }
}

/// What an object shard is made of.
#[derive(Debug)]
pub struct ShardParts {
    /// `cluster.root`.
    pub root: String,
    /// The collection.
    pub collection: CollectionName,
    /// Which of its partitions.
    pub partition: Partition,
    /// How many it has.
    pub partitions: u32,
    /// The collection's incarnation; the replica's, for kinds whose replicas count alone.
    pub incarnation: [u8; 16],
    /// What the collection's description means for its state, as it changes.
    pub settings: watch::Receiver<Settings>,
    /// What one request may take.
    pub limits: Limits,
    /// What all requests of the node may take together.
    pub budget: Arc<Budget>,
    /// How long an election may take: after two of them without a leader the shard says so.
    pub election_timeout: Duration,
    /// The replica.
    pub state: Arc<dyn ShardState>,
    /// The event manager whose sink the replica was given.
    pub events: Arc<EventManager>,
    /// The clients' session.
    pub session: Arc<dyn Session>,
}

/// Answers clients for one replica of one partition.
pub struct ObjectShard<R: Runtime> {
    voice: Arc<Voice>,
    state: Arc<dyn ShardState>,
    /// Undeclares everything.
    stop: CancellationToken,
    /// Ends what is streamed.
    abort: CancellationToken,
    tasks: Mutex<Option<Tasks<R>>>,
}

/// In the order in which they end.
struct Tasks<R: Runtime> {
    lifecycle: R::JoinHandle<()>,
    worker: R::JoinHandle<()>,
    publisher: R::JoinHandle<()>,
    keeper: R::JoinHandle<()>,
}

impl<R: Runtime> Debug for ObjectShard<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectShard").field("shard", self.voice.shard()).finish_non_exhaustive()
    }
}

impl<R: Runtime> ObjectShard<R> {
    /// Starts to answer. The keys are declared as the role of the replica allows, soon after.
    ///
    /// # Errors
    /// When `root` is no key expression.
    pub fn start(parts: ShardParts) -> Result<Arc<Self>> {
        let ShardParts { collection, partition, partitions, state, events, session, .. } = parts;
        let metrics = Arc::new(ShardMetrics::new(&collection, partition));
        let keys = Keys::new(&parts.root).map_err(|refused| Error::Invalid(refused.to_string()))?;
        let shard = ShardAddress { collection, partition, partitions };
        let voice = Voice::new(keys, shard, parts.incarnation);
        let numbers = state.offers().object_numbers;
        let voice = Arc::new(if numbers { voice } else { voice.without_object_numbers() });
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let (intake, jobs) = Intake::new(voice.clone(), parts.budget.clone(), metrics.clone());
        let answerer = Arc::new(Answerer::<R> {
            voice: voice.clone(),
            state: state.clone(),
            status: state.status(),
            budget: parts.budget,
            metrics: metrics.clone(),
            limits: parts.limits,
            settings: parts.settings.clone(),
            stop: abort.clone(),
            runtime: std::marker::PhantomData,
        });
        let keeper = Keeper::new(state.clone(), events.clone(), parts.settings);
        let outlet = Outlet {
            voice: voice.clone(),
            session: session.clone(),
            state: state.clone(),
            metrics: metrics.clone(),
        };
        let publisher = events.clone().run::<R>(outlet, abort.clone());
        let lifecycle = Lifecycle {
            voice: voice.clone(),
            session,
            state: state.clone(),
            intake,
            events,
            metrics,
            election_timeout: parts.election_timeout,
        };
        let tasks = Tasks {
            lifecycle: R::spawn(lifecycle.run::<R>(stop.clone())),
            worker: R::spawn(Worker::new(answerer, jobs).run(abort.clone())),
            publisher: R::spawn(publisher),
            keeper: R::spawn(keeper.run::<R>(stop.clone())),
        };
        let tasks = Mutex::new(Some(tasks));
        Ok(Arc::new(ObjectShard { voice, state, stop, abort, tasks }))
    }

    /// The replica behind it.
    pub fn state(&self) -> &Arc<dyn ShardState> {
        &self.state
    }

    /// Undeclares the keys, answers what was taken, for seconds at most, and ends. The replica goes
    /// on: its owner closes it, afterwards.
    pub async fn close(&self) {
        self.stop.cancel();
        // Held to the end: whoever else closes waits for the same.
        let mut tasks = self.tasks.lock().await;
        let Some(Tasks { lifecycle, mut worker, publisher, keeper }) = tasks.take() else { return };
        let ended = lifecycle.await;
        let answered = R::timeout(CLOSE, &mut worker).await;
        self.abort.cancel();
        let answered = match answered {
            Ok(ended) => ended,
            Err(_) => worker.await,
        };
        for ended in [ended, answered, publisher.await, keeper.await] {
            if let Err(error) = ended {
                tracing::error!(shard = ?self.voice.shard(), %error, "a task of the shard failed");
            }
        }
    }
}

impl<R: Runtime> Drop for ObjectShard<R> {
    fn drop(&mut self) {
        self.stop.cancel();
        self.abort.cancel();
    }
}
