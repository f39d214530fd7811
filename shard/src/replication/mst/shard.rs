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

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use odgm_storage::data::ApplicationDataStorage;
use odgm_transport::timer::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::intake::{listen, write};
use super::lead::{hand_over_to, lead};
use super::options::{MstOptions, Policy};
use super::replica::{Core, Digest, lock};
use super::router::{Mailbox, MstRouter};
use super::table::MstTable;
use super::unsupported;
use crate::cluster::ReplicaRecord;
use crate::object::{GroupId, ReplicaId};
use crate::replication::queue::{self, Queue, stopped};
use crate::replication::{ChangeSink, KeptBy, Offers, Role, ShardState, ShardStatus};
use crate::runtime::Runtime;
use crate::state::view::ViewSource;
use crate::state::{Command, ObjectView, Outcome};
use crate::{Error, Result};

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

/// One replica of a divergent shard. Close it before its data.
pub struct MstShard<R: Runtime> {
    core: Arc<Core>,
    views: ViewSource,
    status: watch::Receiver<ShardStatus>,
    queue: Mutex<Option<Queue>>,
    stop: CancellationToken,
    tasks: Arc<Mutex<Vec<R::JoinHandle<()>>>>,
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
            spread: AtomicBool::new(false),
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
