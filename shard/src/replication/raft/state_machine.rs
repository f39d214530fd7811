//! The state machine of a group as openraft drives it: one batch of the data layer for each run of entries.
//!
//! What may wait for the disk runs off the runtime's threads; openraft serialises the calls, so entries are
//! applied in order and a snapshot is taken between two of them.

use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use futures_util::{Stream, TryStreamExt};
use odgm_storage::data::{ApplicationDataStorage, Durability, Keyspace, WriteBatch};
use odgm_storage::snapshot::SnapshotMeta as StoredMeta;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft_rt::Instant;
use tokio::sync::Notify;
use uuid::Uuid;

use super::encode::{decode_batch, decode_membership, encode_membership};
use super::snapshot::{Frozen, SnapshotHandle, SnapshotSet};
use super::types::{
    Entry, EntryPayload, LogId, Outcomes, Snapshot, SnapshotMeta, StoredMembership, Types, io_error, log_id,
    position,
};
use crate::planted::{Bug, planted};
use crate::replication::ChangeSink;
use crate::runtime::{Runtime, unix_ms};
use crate::state::layout;
use crate::state::view::{ViewSource, read_counters};
use crate::state::{Applied, Input, ObjectTable, ObjectView, Position};

/// The most entries in one batch of the data layer.
const CHUNK_ENTRIES: usize = 512;
/// Bytes of entries after which a batch of the data layer is full.
const CHUNK_BYTES: usize = 4 << 20;

/// The state of a replica, shared between what applies and what reads.
pub(crate) struct ReplicaState {
    table: Mutex<ObjectTable>,
    views: RwLock<ViewSource>,
    /// What the views show, so that asking does not wait for a batch being applied.
    applied: Mutex<Option<Position>>,
    pub(crate) snapshots: Arc<SnapshotSet>,
    pub(crate) growth: Growth,
}

impl ReplicaState {
    pub(crate) fn open(snapshots: Arc<SnapshotSet>, growth: Growth) -> crate::Result<Self> {
        let table = ObjectTable::open(snapshots.data())?;
        let views = RwLock::new(table.views());
        let applied = Mutex::new(table.applied());
        Ok(ReplicaState { table: Mutex::new(table), views, applied, snapshots, growth })
    }

    /// The present state.
    pub(crate) fn view(&self) -> ObjectView {
        self.views.read().unwrap_or_else(PoisonError::into_inner).view()
    }

    /// The last position whose effect is in the views.
    pub(crate) fn applied(&self) -> Option<Position> {
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, inputs: Vec<(Position, Input)>) -> crate::Result<Applied> {
        let last = inputs.last().map(|(position, _)| *position);
        let applied = self.table().apply(inputs)?;
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = last;
        Ok(applied)
    }

    fn table(&self) -> MutexGuard<'_, ObjectTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the table anew after the data below it were replaced.
    fn reopen(&self) -> crate::Result<Option<Position>> {
        let table = ObjectTable::open(self.snapshots.data())?;
        let applied = table.applied();
        *self.views.write().unwrap_or_else(PoisonError::into_inner) = table.views();
        *self.table() = table;
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = applied;
        Ok(applied)
    }

    fn applied_state(&self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let table = self.table();
        let membership = match table.membership() {
            Some(bytes) => decode_membership(&bytes).map_err(io_error)?,
            None => StoredMembership::default(),
        };
        Ok((table.applied().map(log_id), membership))
    }
}

/// What was applied since the last snapshot; says when the next one is due.
pub(crate) struct Growth {
    entries: AtomicU64,
    bytes: AtomicU64,
    most_entries: u64,
    most_bytes: u64,
    due: Notify,
}

impl Growth {
    pub(crate) fn new(most_entries: u64, most_bytes: u64) -> Self {
        Growth {
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            most_entries,
            most_bytes,
            due: Notify::new(),
        }
    }

    fn add(&self, entries: u64, bytes: u64) {
        let entries = self.entries.fetch_add(entries, Ordering::Relaxed) + entries;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if entries >= self.most_entries || bytes >= self.most_bytes {
            self.due.notify_one();
        }
    }

    /// Completes when a snapshot is due.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    fn reset(&self) {
        self.entries.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }
}

/// The adapter to openraft.
pub(crate) struct StateMachine<R: Runtime> {
    state: Arc<ReplicaState>,
    sink: ChangeSink,
    /// The replica's start: snapshots count time from it.
    started: R::Instant,
    runtime: PhantomData<fn() -> R>,
}

impl<R: Runtime> StateMachine<R> {
    pub(crate) fn new(state: Arc<ReplicaState>, sink: ChangeSink, started: R::Instant) -> Self {
        StateMachine { state, sink, started, runtime: PhantomData }
    }

    async fn apply_chunk(&self, chunk: &mut Chunk<R>) -> io::Result<()> {
        let Chunk { entries, responders, bytes } = std::mem::take(chunk);
        if entries.is_empty() {
            return Ok(());
        }
        let (state, count) = (self.state.clone(), entries.len() as u64);
        let applied = R::blocking(move || {
            let inputs = entries.into_iter().map(input).collect::<io::Result<Vec<_>>>()?;
            state.apply(inputs).map_err(io_error)
        })
        .await?;
        if applied.outcomes.len() != responders.len() {
            return Err(io::Error::other("the state machine gave another number of outcomes than entries"));
        }
        for (responder, outcomes) in responders.into_iter().zip(applied.outcomes) {
            if let Some(responder) = responder {
                responder.send(Outcomes(outcomes));
            }
        }
        if !applied.changes.is_empty() {
            (self.sink)(applied.changes);
        }
        self.state.growth.add(count, bytes as u64);
        Ok(())
    }
}

/// Entries that are applied together.
struct Chunk<R: Runtime> {
    entries: Vec<Entry>,
    responders: Vec<Option<openraft::storage::ApplyResponder<Types<R>>>>,
    bytes: usize,
}

impl<R: Runtime> Default for Chunk<R> {
    fn default() -> Self {
        Chunk { entries: Vec::new(), responders: Vec::new(), bytes: 0 }
    }
}

fn input(entry: Entry) -> io::Result<(Position, Input)> {
    let at = position(&entry.log_id);
    let input = match entry.payload {
        EntryPayload::Blank => Input::Blank,
        EntryPayload::Normal(payload) => Input::Batch(decode_batch(&payload).map_err(io_error)?),
        EntryPayload::Membership(membership) => {
            let stored = StoredMembership::new(Some(entry.log_id), membership);
            Input::Membership(encode_membership(&stored))
        }
    };
    Ok((at, input))
}

impl<R: Runtime> RaftStateMachine<Types<R>> for StateMachine<R> {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = Builder<R>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.state.applied_state()
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types<R>>>> + Unpin + OptionalSend,
    {
        let mut chunk = Chunk::<R>::default();
        while let Some((entry, responder)) = entries.try_next().await? {
            if let EntryPayload::Normal(payload) = &entry.payload {
                chunk.bytes += payload.0.len();
            }
            chunk.entries.push(entry);
            chunk.responders.push(responder);
            if chunk.entries.len() >= CHUNK_ENTRIES || chunk.bytes >= CHUNK_BYTES {
                self.apply_chunk(&mut chunk).await?;
            }
        }
        self.apply_chunk(&mut chunk).await
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder<R>> {
        match self.freeze().await {
            Ok(builder) => Some(builder),
            Err(error) => {
                // The group goes on with the snapshot it has; its log grows until one succeeds.
                tracing::error!(%error, "no snapshot could be taken");
                None
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder<R> {
        let frozen = self.freeze().await;
        frozen.unwrap_or_else(|error| Builder {
            frozen: Err(error),
            state: self.state.clone(),
            started: self.started,
            runtime: PhantomData,
        })
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, handle: SnapshotHandle) -> io::Result<()> {
        let (state, expected, now) = (self.state.clone(), meta.last_log_id, self.started.elapsed());
        R::blocking(move || {
            handle.install(&state.snapshots.data()).map_err(io_error)?;
            if planted(Bug::ForgetRequestIds) {
                forget_requests(&*state.snapshots.data()).map_err(io_error)?;
            }
            let applied = state.reopen().map_err(io_error)?;
            if applied != expected.as_ref().map(position) {
                return Err(io::Error::other(format!(
                    "the snapshot holds {applied:?}, and was said to hold {expected:?}"
                )));
            }
            state.snapshots.adopt(&handle, now).map_err(io_error)?;
            state.growth.reset();
            Ok(())
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let Some(stored) = self.state.snapshots.current() else { return Ok(None) };
        let meta = meta(&stored)?;
        let snapshot = SnapshotHandle::new(self.state.snapshots.clone(), stored);
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

/// The planted bug [`Bug::ForgetRequestIds`].
fn forget_requests(data: &dyn ApplicationDataStorage) -> crate::Result<()> {
    let mut counters = read_counters(&*data.view())?;
    let mut batch = WriteBatch::default();
    for place in counters.requests_start..counters.requests_end {
        batch.delete(Keyspace::Index, layout::request_key(place));
    }
    counters.requests_start = counters.requests_end;
    batch.put(Keyspace::Meta, layout::COUNTERS, layout::encode_record(&counters));
    Ok(data.write(batch, Durability::Now)?)
}

/// What a stored snapshot says, as openraft takes it.
fn meta(stored: &StoredMeta) -> io::Result<SnapshotMeta> {
    let last_membership = decode_membership(&stored.membership).map_err(io_error)?;
    Ok(SnapshotMeta { last_log_id: stored.position.map(log_id), last_membership })
}

impl<R: Runtime> StateMachine<R> {
    /// Takes a snapshot of all that is applied, so that the log may be purged up to there.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(crate) async fn store_applied(&mut self) -> crate::Result<()> {
        let failed = |error: io::Error| crate::Error::Internal(format!("storing what is applied: {error}"));
        self.freeze().await.map_err(failed)?.build_snapshot().await.map_err(failed)?;
        let stored = self.state.snapshots.restorable().get();
        if stored.map(|at| at.index) < self.state.applied().map(|at| at.index) {
            return Err(crate::Error::Internal("what is applied could not be stored".to_owned()));
        }
        Ok(())
    }

    async fn freeze(&mut self) -> Result<Builder<R>, io::Error> {
        let (last_log_id, membership) = self.state.applied_state()?;
        let stored = StoredMeta {
            id: random_id::<R>(),
            position: last_log_id.as_ref().map(position),
            membership: encode_membership(&membership),
        };
        let snapshots = self.state.snapshots.clone();
        let frozen = R::blocking(move || snapshots.freeze(stored)).await.map_err(io_error)?;
        self.state.growth.reset();
        let state = self.state.clone();
        Ok(Builder { frozen: Ok(frozen), state, started: self.started, runtime: PhantomData })
    }
}

/// Names a snapshot; drawn from the runtime, so that a simulation names it from its seed.
fn random_id<R: Runtime>() -> Uuid {
    let bits = u128::from(R::random()) << 64 | u128::from(R::random());
    uuid::Builder::from_random_bytes(bits.to_le_bytes()).into_uuid()
}

/// Completes a snapshot beside what goes on being applied.
pub(crate) struct Builder<R: Runtime> {
    frozen: io::Result<Frozen>,
    state: Arc<ReplicaState>,
    started: R::Instant,
    runtime: PhantomData<fn() -> R>,
}

impl<R: Runtime> RaftSnapshotBuilder<Types<R>> for Builder<R> {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let taken = Err(io::Error::other("a builder builds one snapshot"));
        let frozen = std::mem::replace(&mut self.frozen, taken)?;
        let (now, created) = (self.started.elapsed(), unix_ms(R::wall_clock()));
        let finished = R::blocking(move || frozen.finish(now, created)).await;
        let handle = match (finished, self.state.snapshots.current()) {
            (Ok(handle), _) => handle,
            // A full disk is no reason to stop the group while it has an older snapshot.
            (Err(error), Some(older)) => {
                tracing::error!(%error, "no snapshot could be written");
                SnapshotHandle::new(self.state.snapshots.clone(), older)
            }
            (Err(error), None) => return Err(io_error(error)),
        };
        Ok(Snapshot { meta: meta(&handle.meta)?, snapshot: handle })
    }
}
