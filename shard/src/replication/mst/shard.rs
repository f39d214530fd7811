//! A divergent replica among its peers: takes writes, sends them on, and exchanges with the others what they or
//! it may lack.
//!
//! | task | does |
//! |---|---|
//! | writer | takes commands, many a batch; fsynced, then answered, then sent to the others once |
//! | listener | takes what the others send, and answers their exchanges |
//! | exchanger | leads the exchanges with the replicas of higher ids: each interval, and at once with one that comes into sight |
//!
//! Everything that touches the table runs where waiting for the disk is allowed, one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use odgm_storage::data::ApplicationDataStorage;
use odgm_transport::timer::BoxFuture;
use openraft_rt::Instant as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::exchange::{self, Exchange, Traffic};
use super::router::{Mailbox, Message, Route};
use super::{MstRouter, MstTable, Written, unsupported};
use crate::cluster::ReplicaRecord;
use crate::object::{GroupId, ReplicaId};
use crate::replication::queue::{self, Pending, Queue, WriteOptions, stopped};
use crate::replication::{ChangeSink, KeptBy, Offers, Role, ShardState, ShardStatus};
use crate::runtime::{Runtime, ntp64};
use crate::state::view::ViewSource;
use crate::state::{Command, ObjectView, Outcome, Position};
use crate::{Error, Result};

/// How long one request of an exchange may take.
const ANSWER: Duration = Duration::from_secs(2);

/// When replicas exchange, and how long they remember what was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Each interval, and a deletion until every replica of the placement has seen it: `mst`.
    Always,
    /// When they meet, or when something could not be sent; a deletion for this long: `eventual`.
    OnMeeting {
        /// How long a deletion is remembered.
        retain: Duration,
    },
}

/// How a divergent shard behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MstOptions {
    /// When replicas exchange, to begin with.
    pub policy: Policy,
    /// How often they may.
    pub interval: Duration,
    /// How commands are written.
    pub writes: WriteOptions,
}

impl MstOptions {
    /// The options of a policy: exchanges each second.
    pub fn new(policy: Policy, writes: WriteOptions) -> Self {
        MstOptions { policy, interval: Duration::from_secs(1), writes }
    }
}

/// What a replica is made of.
pub struct MstParts {
    /// The group, the same on all its replicas.
    pub group: GroupId,
    /// This replica: given once, never reused.
    pub replica: ReplicaId,
    /// All replicas, this one too, the preferred first.
    pub placement: Vec<ReplicaRecord>,
    /// The data of this replica.
    pub data: Arc<dyn ApplicationDataStorage>,
    /// Gets the changes, own and merged, in order.
    pub sink: ChangeSink,
    /// The router of this node.
    pub router: Arc<MstRouter>,
}

impl fmt::Debug for MstParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MstParts")
            .field("group", &self.group)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

/// What a divergent replica shows of itself, so that anyone can see replicas equal or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digest {
    /// Equal on replicas that hold the same: 32 hex digits.
    pub root: String,
    /// Keys, and deletions that are remembered.
    pub items: u64,
    /// How many changes this replica applied.
    pub revision: u64,
    /// Deletions that are remembered.
    pub tombstones: u64,
    /// Entries that wait until the clock has reached their stamps.
    pub held: usize,
    /// What the exchanges that this replica led have moved since its start.
    pub traffic: Traffic,
}

/// What the tasks share.
struct Core {
    group: GroupId,
    me: ReplicaId,
    options: MstOptions,
    policy: Mutex<Policy>,
    table: Mutex<MstTable>,
    sink: ChangeSink,
    router: Arc<MstRouter>,
    placement: Mutex<Vec<ReplicaRecord>>,
    status: watch::Sender<ShardStatus>,
    /// Exchange now: with those that something could not be sent to, and those that came into sight.
    owed: Mutex<BTreeSet<ReplicaId>>,
    wake: Notify,
    /// The placement changed since the table heard of it.
    replaced: AtomicBool,
    /// As of the last change of the table: whoever looks need not wait for a batch.
    digest: Mutex<Digest>,
}

/// One replica of a divergent shard. Close it before its data.
pub struct MstShard<R: Runtime> {
    core: Arc<Core>,
    views: ViewSource,
    status: watch::Receiver<ShardStatus>,
    queue: Mutex<Option<Queue>>,
    stop: CancellationToken,
    tasks: Arc<Mutex<Vec<R::JoinHandle<()>>>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R: Runtime> MstShard<R> {
    /// Opens what the data layer holds, and takes part.
    ///
    /// # Errors
    /// When the data layer fails, or the group has a replica on this node already.
    pub async fn start(parts: MstParts, options: MstOptions) -> Result<Arc<Self>> {
        let MstParts { group, replica, placement, data, sink, router } = parts;
        let table = R::blocking(move || MstTable::open(data, replica)).await?;
        let Mailbox { messages, lost } = router
            .register(group, replica)
            .ok_or_else(|| Error::Invalid(format!("group {group} has a replica on this node already")))?;
        let views = table.views();
        let (status_sender, status) = watch::channel(ShardStatus::unknown());
        let (queue, commands) = queue::channel(options.writes.inflight_bytes);
        let core = Arc::new(Core {
            group,
            me: replica,
            policy: Mutex::new(options.policy),
            options,
            table: Mutex::new(table),
            sink,
            router,
            placement: Mutex::new(placement),
            status: status_sender,
            owed: Mutex::default(),
            wake: Notify::new(),
            replaced: AtomicBool::new(false),
            digest: Mutex::default(),
        });
        core.note(&lock(&core.table));
        core.look();
        let stop = CancellationToken::new();
        let tasks = vec![
            R::spawn(write::<R>(core.clone(), commands, stop.clone())),
            R::spawn(listen::<R>(core.clone(), messages, stop.clone())),
            R::spawn(lead::<R>(core.clone(), lost, stop.clone())),
        ];
        let tasks = Arc::new(Mutex::new(tasks));
        Ok(Arc::new(MstShard { core, views, status, queue: Mutex::new(Some(queue)), stop, tasks }))
    }

    /// This replica.
    pub fn replica(&self) -> ReplicaId {
        self.core.me
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.core.group
    }

    /// The replicas of the shard are these from now on.
    pub fn place(&self, placement: Vec<ReplicaRecord>) {
        let mut present = lock(&self.core.placement);
        if *present != placement {
            *present = placement;
            drop(present);
            self.core.replaced.store(true, Ordering::SeqCst);
            self.core.look();
            self.core.wake.notify_one();
        }
    }

    /// Deletions are remembered for so long from now on, where time decides it.
    pub fn remember(&self, deletions: Duration) {
        if let Policy::OnMeeting { retain } = &mut *lock(&self.core.policy) {
            *retain = deletions;
        }
    }

    /// What it holds.
    pub fn digest(&self) -> Digest {
        lock(&self.core.digest).clone()
    }

    /// Hands this replica's own writes to a replica that stays: this one is no longer of the placement.
    ///
    /// # Errors
    /// When no replica that stays took them; then they are only here.
    pub async fn hand_over(&self) -> Result<()> {
        let others = self.core.others();
        let mut failed = Error::Unavailable("no replica of the shard is in sight".to_owned());
        for other in others {
            match hand_over_to::<R>(&self.core, other).await {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

async fn hand_over_to<R: Runtime>(core: &Arc<Core>, other: ReplicaRecord) -> Result<()> {
    let mut from = Bytes::new();
    loop {
        let reading = core.clone();
        let at = from.clone();
        let (message, rest) = R::blocking(move || exchange::inheritance(&lock(&reading.table), at)).await?;
        core.router.request(other.node, core.route(other.replica), &message, ANSWER).await?;
        match rest {
            Some(rest) => from = rest,
            None => return Ok(()),
        }
    }
}

impl Core {
    fn others(&self) -> Vec<ReplicaRecord> {
        lock(&self.placement).iter().filter(|record| record.replica != self.me).copied().collect()
    }

    fn policy(&self) -> Policy {
        *lock(&self.policy)
    }

    fn is_placed(&self) -> bool {
        lock(&self.placement).iter().any(|record| record.replica == self.me)
    }

    fn route(&self, target: ReplicaId) -> Route {
        Route { group: self.group, target, sender: self.me }
    }

    /// Who serves, as far as this replica sees: the first of the placement that is in sight. On each side of a
    /// cut there is one.
    fn look(&self) {
        let placement = lock(&self.placement).clone();
        let serving = placement.iter().find(|record| self.router.sees(record.node));
        let role = match serving {
            Some(record) if record.replica == self.me => Role::Serving,
            Some(_) => Role::Following,
            None => Role::Leaderless,
        };
        let serving = serving.map(|record| record.node);
        let voters: Vec<_> = placement.iter().map(|record| (record.replica, record.node)).collect();
        self.status.send_if_modified(|status| {
            let changed = status.role != Role::Stopped
                && (status.role, status.serving, &status.voters) != (role, serving, &voters);
            if changed {
                // Nothing written is a state, too.
                let applied = status.applied.or(Some(Position { term: 0, index: 0 }));
                *status = ShardStatus { role, serving, voters, applied, ..status.clone() };
            }
            changed
        });
    }

    /// The data layer failed: nothing is taken any more.
    fn fail(&self, error: &Error) {
        tracing::error!(group = %self.group, %error, "the data of a replica failed: it stops");
        self.status.send_modify(|status| {
            (status.role, status.serving) = (Role::Stopped, None);
            status.failure.get_or_insert_with(|| error.to_string());
        });
    }

    fn has_failed(&self) -> bool {
        self.status.borrow().role == Role::Stopped
    }

    /// Sends entries to every other replica, once.
    fn spread(&self, messages: &[Bytes]) {
        for other in self.others() {
            let lost = messages
                .iter()
                .any(|message| self.router.send(other.node, self.route(other.replica), message).is_err());
            if lost {
                lock(&self.owed).insert(other.replica);
            }
        }
    }
}

/// Whether an error leaves the table unfit for use.
fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::Storage(_) | Error::Internal(_))
}

/// Writes what clients give, until the queue is gone, `stop`, or a failure of the data layer.
async fn write<R: Runtime>(
    core: Arc<Core>,
    mut commands: mpsc::UnboundedReceiver<Pending>,
    stop: CancellationToken,
) {
    let mut batch = Vec::new();
    while !core.has_failed() {
        let taken = commands.recv_many(&mut batch, core.options.writes.batch_commands);
        if stop.run_until_cancelled(taken).await.unwrap_or(0) == 0 {
            break;
        }
        let (given, waiters): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|pending| (pending.command, pending.waiter)).unzip();
        let writing = core.clone();
        let written = R::blocking(move || {
            let WriteOptions { durability, .. } = writing.options.writes;
            let window_ms = writing.options.writes.rid_window_ms();
            let now = R::wall_clock();
            let mut table = lock(&writing.table);
            let Written { outcomes, changes, entries } = table.write(given, now, window_ms, durability)?;
            let messages = exchange::push(&mut table, entries, now);
            (writing.sink)(changes);
            writing.note(&table);
            drop(table);
            writing.spread(&messages);
            Ok(outcomes)
        })
        .await;
        match written {
            Ok(outcomes) => {
                for (waiter, outcome) in waiters.into_iter().zip(outcomes) {
                    waiter.answer(Ok(outcome));
                }
            }
            Err(error) => {
                if is_fatal(&error) {
                    core.fail(&error);
                }
                for waiter in waiters {
                    waiter.answer(Err(error.clone()));
                }
            }
        }
    }
    commands.close();
    while let Ok(pending) = commands.try_recv() {
        pending.waiter.answer(Err(stopped()));
    }
}

/// Takes what the other replicas send, until `stop`.
async fn listen<R: Runtime>(core: Arc<Core>, mut messages: mpsc::Receiver<Message>, stop: CancellationToken) {
    while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
        let Message { sender, body, reply } = message;
        if exchange::is_nudge(&body) {
            lock(&core.owed).insert(sender);
            continue;
        }
        let answering = core.clone();
        let answer = R::blocking(move || {
            let now = R::wall_clock();
            let mut table = lock(&answering.table);
            let placed = answering.others().iter().any(|record| record.replica == sender);
            let (answer, changes) = if placed {
                exchange::answer(&mut table, sender, &body, now)?
            } else {
                exchange::answer_stranger(&mut table, &body, now)?
            };
            (answering.sink)(changes);
            answering.note(&table);
            Ok(answer)
        })
        .await;
        match (answer, reply) {
            (Ok(answer), Some(reply)) => reply.send(answer),
            (Ok(_), None) => {}
            (Err(error), reply) => {
                if is_fatal(&error) {
                    core.fail(&error);
                }
                if let Some(reply) = reply {
                    reply.refuse(error.to_string());
                }
            }
        }
    }
}

/// What the exchanger knows of another replica.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    in_sight: bool,
    /// It has tombstones to agree on.
    buries: bool,
}

/// Leads exchanges with the replicas of higher ids, until `stop`.
async fn lead<R: Runtime>(core: Arc<Core>, lost: Arc<AtomicBool>, stop: CancellationToken) {
    let mut peers = core.router.links().watch();
    let mut known: BTreeMap<ReplicaId, Known> = BTreeMap::new();
    let mut next = R::Instant::now();
    while !core.has_failed() {
        peers.borrow_and_update();
        core.look();
        let is_due = R::Instant::now() >= next;
        if is_due {
            next = R::Instant::now() + core.options.interval;
            // What did not find room was not told to whoever sent it: it may be of any of them.
            if lost.swap(false, Ordering::SeqCst) {
                lock(&core.owed).extend(core.others().iter().map(|other| other.replica));
            }
            if let Err(error) = keep::<R>(&core).await {
                core.fail(&error);
                break;
            }
        }
        let mut partners = Vec::new();
        if core.is_placed() {
            for other in core.others() {
                let in_sight = core.router.sees(other.node);
                let before =
                    known.insert(other.replica, Known { in_sight, ..known_of(&known, other.replica) });
                let met = in_sight && !before.is_some_and(|before| before.in_sight);
                // What this one owes, the other finds out by the exchange that it leads.
                let owes = is_due && lock(&core.owed).remove(&other.replica);
                let regularly = is_due && core.policy() == Policy::Always;
                if in_sight && other.replica > core.me && (met || owes || regularly) {
                    partners.push(other);
                } else if in_sight && other.replica < core.me && (met || owes) {
                    let nudge = exchange::nudge();
                    let _ = core.router.send(other.node, core.route(other.replica), &nudge);
                }
            }
        }
        let exchanges = partners.into_iter().map(|other| {
            let buries = known_of(&known, other.replica).buries;
            let core = core.clone();
            async move { (other.replica, exchange_with::<R>(&core, other, buries).await) }
        });
        let Some(ended) = stop.run_until_cancelled(join_all(exchanges)).await else { break };
        for (other, outcome) in ended {
            match outcome {
                Ok(buries) => known.entry(other).or_default().buries = buries,
                Err(error) if is_fatal(&error) => core.fail(&error),
                Err(error) => {
                    tracing::debug!(group = %core.group, replica = %other, %error, "an exchange broke off");
                    lock(&core.owed).insert(other);
                }
            }
        }
        let pause = async {
            tokio::select! {
                biased;
                () = R::sleep_until(next) => {}
                _ = peers.changed() => {}
                () = core.wake.notified() => {}
            }
        };
        if stop.run_until_cancelled(pause).await.is_none() {
            break;
        }
    }
}

fn known_of(known: &BTreeMap<ReplicaId, Known>, replica: ReplicaId) -> Known {
    known.get(&replica).copied().unwrap_or_default()
}

/// What time brings: held entries, and tombstones that nobody needs.
async fn keep<R: Runtime>(core: &Arc<Core>) -> Result<()> {
    let core = core.clone();
    R::blocking(move || {
        let now = R::wall_clock();
        let mut table = lock(&core.table);
        if core.replaced.swap(false, Ordering::SeqCst) {
            table.reconsider();
        }
        let merged = table.release(now, core.options.writes.durability)?;
        (core.sink)(merged.changes);
        match core.policy() {
            Policy::Always if core.is_placed() => {
                let others = core.others().into_iter().map(|record| record.replica).collect();
                table.collect(&others, now)?;
            }
            Policy::Always => {}
            Policy::OnMeeting { retain } => {
                table.collect_until(now.saturating_sub(ntp64(retain)))?;
            }
        }
        core.note(&table);
        Ok(())
    })
    .await
}

/// One exchange; says whether the other has tombstones to agree on.
async fn exchange_with<R: Runtime>(core: &Arc<Core>, other: ReplicaRecord, buries: bool) -> Result<bool> {
    let (mut exchange, mut counted) = (Exchange::new(other.replica), Traffic::default());
    let agrees = core.policy() == Policy::Always;
    loop {
        let (table, mut stepping) = (core.clone(), exchange);
        let (stepped, request) = R::blocking(move || {
            let mut table = lock(&table.table);
            let agree = agrees && (buries || table.tombstones() > 0);
            let request = stepping.next(&mut table, agree, R::wall_clock());
            (stepping, request)
        })
        .await;
        exchange = stepped;
        core.count(exchange.traffic().since(counted));
        counted = exchange.traffic();
        let Some(request) = request? else { return Ok(exchange.other_buries()) };
        let response = core.router.request(other.node, core.route(other.replica), &request, ANSWER).await?;
        let (table, mut stepping) = (core.clone(), exchange);
        let (stepped, answered) = R::blocking(move || {
            let mut locked = lock(&table.table);
            let answered = stepping.answered(&mut locked, &response, R::wall_clock());
            let answered = answered.map(|changes| (table.sink)(changes));
            table.note(&locked);
            (stepping, answered)
        })
        .await;
        exchange = stepped;
        answered?;
    }
}

impl Core {
    fn count(&self, traffic: Traffic) {
        lock(&self.digest).traffic += traffic;
    }

    /// Shows what the table holds.
    fn note(&self, table: &MstTable) {
        let root = table.root();
        let mut digest = lock(&self.digest);
        *digest = Digest {
            root: format!("{:032x}", root.sum),
            items: root.count,
            revision: table.revision(),
            tombstones: table.tombstones(),
            held: table.held(),
            traffic: digest.traffic,
        };
    }
}

impl<R: Runtime> fmt::Debug for MstShard<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MstShard")
            .field("group", &self.core.group)
            .field("replica", &self.core.me)
            .field("role", &self.status.borrow().role)
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> ShardState for MstShard<R> {
    fn write(&self, command: Command) -> BoxFuture<'static, Result<Outcome>> {
        if let Some(reason) = unsupported(&command) {
            return Box::pin(async move { Err(Error::Unsupported(reason.to_owned())) });
        }
        let submitted =
            lock(&self.queue).as_ref().ok_or_else(stopped).and_then(|queue| queue.submit(command));
        let deadline = self.core.options.writes.deadline;
        Box::pin(async move {
            match R::timeout(deadline, submitted?).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(stopped()),
                Err(_) => Err(Error::Timeout(deadline)),
            }
        })
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<()>> {
        let failed = self.core.has_failed();
        Box::pin(async move { if failed { Err(stopped()) } else { Ok(()) } })
    }

    fn view(&self) -> ObjectView {
        self.views.view()
    }

    fn status(&self) -> watch::Receiver<ShardStatus> {
        self.status.clone()
    }

    fn offers(&self) -> Offers {
        Offers { linearizable: false, object_numbers: false, kept_by: KeptBy::EachReplica }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        drop(lock(&self.queue).take());
        self.stop.cancel();
        self.core.router.unregister(self.core.group);
        let (core, tasks) = (self.core.clone(), self.tasks.clone());
        Box::pin(async move {
            let tasks = std::mem::take(&mut *lock(&tasks));
            for task in tasks {
                if let Err(error) = task.await {
                    tracing::error!(group = %core.group, %error, "a task of the replica failed");
                }
            }
            core.status.send_modify(|status| (status.role, status.serving) = (Role::Stopped, None));
        })
    }
}
