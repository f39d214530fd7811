//! A shard of a single copy: the real object table over memory, applied at once, with a role that a
//! test sets.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use odgm_shard::object::NodeId;
use odgm_shard::replication::{ChangeSink, KeptBy, Offers, Role, ShardState, ShardStatus};
use odgm_shard::runtime::{Runtime, TokioRuntime};
use odgm_shard::state::{
    Batch, Command, HistoryBounds, Input, ObjectTable, ObjectView, Operation, Outcome, Position, Upkeep,
    ViewSource,
};
use odgm_shard::{Error, Result};
use odgm_storage::data::memory::MemoryData;
use odgm_transport::timer::BoxFuture;
use tokio::sync::watch;

/// What the single copy does with what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It does it.
    Answers,
    /// It never answers, as without a quorum.
    Hangs,
}

pub(crate) struct SingleCopy {
    table: Mutex<ObjectTable>,
    views: ViewSource,
    sink: ChangeSink,
    status: watch::Sender<ShardStatus>,
    mood: watch::Sender<Mood>,
    barriers: watch::Sender<u64>,
}

impl std::fmt::Debug for SingleCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SingleCopy")
    }
}

impl SingleCopy {
    pub(crate) fn new(role: Role, sink: ChangeSink) -> Arc<Self> {
        let mut table = ObjectTable::open(Arc::new(MemoryData::new(u64::MAX))).unwrap();
        table.apply(vec![(Position { term: 1, index: 1 }, Input::Blank)]).unwrap();
        let status = ShardStatus {
            role,
            serving: None,
            term: 1,
            voters: Vec::new(),
            learners: Vec::new(),
            applied: table.applied(),
            last_log_index: None,
            purged_log_index: None,
            snapshot_index: None,
            failure: None,
        };
        Arc::new(SingleCopy {
            views: table.views(),
            table: Mutex::new(table),
            sink,
            status: watch::Sender::new(status),
            mood: watch::Sender::new(Mood::Answers),
            barriers: watch::Sender::new(0),
        })
    }

    pub(crate) fn become_(&self, role: Role, serving: Option<NodeId>) {
        self.status.send_modify(|status| (status.role, status.serving) = (role, serving));
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// How many requests wait for its mood.
    pub(crate) fn waiting(&self) -> usize {
        self.mood.receiver_count()
    }

    /// How many barriers were asked for.
    pub(crate) fn barriers(&self) -> u64 {
        *self.barriers.borrow()
    }

    /// Where the history stands.
    pub(crate) fn history(&self) -> HistoryBounds {
        self.views.view().history().unwrap()
    }

    /// Applies a command, as a replica does for whoever proposed it.
    pub(crate) fn apply(&self, command: Command) -> Outcome {
        let mut table = self.table.lock().unwrap();
        let index = table.applied().map_or(0, |applied| applied.index) + 1;
        let batch =
            Batch { time: TokioRuntime::wall_clock(), rid_window_ms: 60_000, commands: vec![command] };
        let position = Position { term: 1, index };
        let mut applied = table.apply(vec![(position, Input::Batch(batch))]).unwrap();
        (self.sink)(applied.changes);
        applied.outcomes.remove(0).remove(0)
    }

    fn willing(&self) -> impl Future<Output = Result<()>> + Send + 'static {
        let mut mood = self.mood.subscribe();
        let status = self.status.subscribe();
        async move {
            let _ = mood.wait_for(|mood| *mood == Mood::Answers).await;
            let status = status.borrow().clone();
            match status.role {
                Role::Serving => Ok(()),
                _ => Err(Error::NotLeader { serving: status.serving }),
            }
        }
    }
}

/// `Arc<SingleCopy>` as a shard state, so that its futures may hold it.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) Arc<SingleCopy>);

impl ShardState for Shared {
    fn write(&self, command: Command) -> BoxFuture<'static, Result<Outcome>> {
        let (this, willing) = (self.0.clone(), self.0.willing());
        Box::pin(async move {
            willing.await?;
            Ok(this.apply(command))
        })
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<()>> {
        self.0.barriers.send_modify(|barriers| *barriers += 1);
        Box::pin(self.0.willing())
    }

    fn view(&self) -> ObjectView {
        self.0.views.view()
    }

    fn offers(&self) -> Offers {
        Offers { linearizable: true, object_numbers: true, kept_by: KeptBy::ServingReplica }
    }

    fn status(&self) -> watch::Receiver<ShardStatus> {
        self.0.status.subscribe()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// A put without conditions.
pub(crate) fn put(key: &str, payload: &'static [u8]) -> Command {
    use odgm_shard::object::{EntryName, ObjectId, ObjectKey, Value};
    use odgm_shard::state::{Condition, Operation};
    let (object, entry) = match key.split_once('/') {
        Some((object, entry)) => (object, Some(EntryName::parse(entry).unwrap())),
        None => (key, None),
    };
    let key = ObjectKey { object: ObjectId::parse(object).unwrap(), entry };
    let value = Value { payload: Bytes::from_static(payload), ..Value::default() };
    let operation = Operation::Put { key, value, ttl_ms: None, condition: Condition::None };
    Command { rid: None, operation }
}

/// A command of the upkeep.
pub(crate) fn upkeep(upkeep: Upkeep) -> Command {
    Command { rid: None, operation: Operation::Upkeep(upkeep) }
}
