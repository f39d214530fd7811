//! The upkeep: what a replica asks for because time goes by. It looks at the clock and at a view, and proposes; what
//! is applied decides. It knows nothing of how its shard replicates, but who keeps it ([`KeptBy`]): where all apply one
//! order of commands the serving replica asks, for all; where each has an order of its own, each sees to its settings,
//! history and indexes, and the serving one to the ends of keys.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::events::EventManager;
use crate::replication::{KeptBy, Role, ShardState, ShardStatus};
use crate::runtime::{Runtime, unix_ms};
use crate::state::{Change, Command, ObjectView, Operation, Settings, Upkeep};
use crate::{Error, Result};

/// How often the clock is looked at; a key ends at most a second late.
const TICK: Duration = Duration::from_millis(200);
/// The most keys of one command.
const EXPIRE_KEYS: usize = 500;
/// How many looks at the clock pass between notes of what was published, and between looks at the history.
const MARK_TICKS: u64 = 5;
const SWEEP_TICKS: u64 = 10;
/// How many pass until a replica that does not serve believes that what it merged was published by the one that does:
/// far more than it takes to miss that one, and to serve in its place.
const BELIEVE_TICKS: u64 = 50;
/// The most commands of one such look.
const SWEEPS: usize = 10;
/// How long one command of the upkeep may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The earliest deadline that may stand in the state: a look at the clock is enough while it is ahead.
#[derive(Debug)]
pub(super) struct Deadlines(AtomicU64);

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines(AtomicU64::new(u64::MAX))
    }
}

impl Deadlines {
    /// Hears of applied changes.
    pub(super) fn note(&self, changes: &[Change]) {
        let deadlines = changes.iter().map(|change| change.expires_unix_ms).filter(|unix_ms| *unix_ms > 0);
        if let Some(earliest) = deadlines.min() {
            self.expect(earliest);
        }
    }

    fn expect(&self, unix_ms: u64) {
        self.0.fetch_min(unix_ms, Ordering::SeqCst);
    }

    /// The earliest, if one may be over. The caller then reads which; what is noted from now on is told again.
    fn take_due(&self, now_unix_ms: u64) -> Option<u64> {
        let is_due = self.0.load(Ordering::SeqCst) <= now_unix_ms;
        is_due.then(|| self.0.swap(u64::MAX, Ordering::SeqCst))
    }
}

/// Does the upkeep of one shard, for as long as it is this replica's to do.
pub(super) struct Keeper {
    state: Arc<dyn ShardState>,
    kept_by: KeptBy,
    status: watch::Receiver<ShardStatus>,
    /// Whether it serves, as its lifecycle has made it known. Waited for instead of the status: tokio wakes those who
    /// wait for one value in a random order, and a simulation must not.
    serves: watch::Receiver<bool>,
    events: Arc<EventManager>,
    deadlines: Arc<Deadlines>,
    settings: watch::Receiver<Settings>,
    /// What the state is known to have been told.
    told: Option<Settings>,
    /// Whether an index may be under construction.
    unsettled: bool,
    /// What the state is known to have of [`EventManager::published`].
    marked: u64,
    /// The last revision when a replica that does not serve looked last.
    seen: Option<u64>,
    /// No deadline is below this that was not noted since: log time was there when the last ones were removed.
    swept_unix_ms: u64,
}

impl Keeper {
    pub(super) fn new(
        state: Arc<dyn ShardState>,
        events: Arc<EventManager>,
        settings: watch::Receiver<Settings>,
    ) -> Self {
        let (status, serves, deadlines) = (state.status(), events.serves(), events.deadlines());
        let kept_by = state.offers().kept_by;
        Keeper {
            state,
            kept_by,
            status,
            serves,
            events,
            deadlines,
            settings,
            told: None,
            unsettled: false,
            marked: 0,
            seen: None,
            swept_unix_ms: 0,
        }
    }

    /// Runs until `stop`, or until the replica stops.
    pub(super) async fn run<R: Runtime>(mut self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.keep::<R>()).await;
    }

    async fn keep<R: Runtime>(&mut self) {
        loop {
            if !self.await_duty::<R>().await {
                return;
            }
            // What it knew is of another time of duty: it reads once what is there.
            (self.told, self.marked, self.swept_unix_ms) = (None, 0, 0);
            self.deadlines.expect(0);
            let mut tick = 0_u64;
            while self.is_on_duty() {
                if let Err(error) = self.turn::<R>(tick).await {
                    self.deadlines.expect(0);
                    tracing::debug!(%error, "the upkeep of a shard waits");
                }
                R::sleep(TICK).await;
                tick += 1;
            }
        }
    }

    fn serves(&self) -> bool {
        self.status.borrow().role == Role::Serving
    }

    fn is_on_duty(&self) -> bool {
        match self.kept_by {
            KeptBy::ServingReplica => self.serves(),
            KeptBy::EachReplica => self.status.borrow().role != Role::Stopped,
        }
    }

    /// False when it never will be again.
    async fn await_duty<R: Runtime>(&mut self) -> bool {
        while !self.is_on_duty() {
            let made_known = *self.serves.borrow_and_update();
            let changed = self.serves.changed();
            // What is made known lags: it may never change when the replica did not serve for a moment only.
            let open = match made_known {
                true => R::timeout(TICK, changed).await.unwrap_or(Ok(())),
                false => changed.await,
            };
            if open.is_err() {
                return false;
            }
        }
        true
    }

    async fn turn<R: Runtime>(&mut self, tick: u64) -> Result<()> {
        self.configure::<R>().await?;
        if self.serves() {
            self.expire::<R>().await?;
        }
        self.settle::<R>().await?;
        if self.serves() {
            self.seen = None;
            if tick.is_multiple_of(MARK_TICKS) {
                self.mark::<R>(self.events.published()).await?;
            }
        } else if tick.is_multiple_of(BELIEVE_TICKS) {
            self.believe::<R>().await?;
        }
        if tick.is_multiple_of(SWEEP_TICKS) {
            self.sweep::<R>().await?;
        }
        Ok(())
    }

    /// Tells the state how its collection is described.
    async fn configure<R: Runtime>(&mut self) -> Result<()> {
        let wanted = self.settings.borrow().clone();
        if self.told.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.events.enable(wanted.history.is_some());
        if self.read::<R, _>(|view| view.settings()).await? != wanted {
            self.propose::<R>(Upkeep::Configure(wanted.clone())).await?;
        }
        self.told = Some(wanted);
        self.unsettled = true;
        Ok(())
    }

    /// Builds and drops indexes, step by step.
    async fn settle<R: Runtime>(&mut self) -> Result<()> {
        while self.unsettled && self.is_on_duty() {
            self.unsettled = !self.read::<R, _>(|view| view.indexes_settled()).await?;
            if self.unsettled {
                self.propose::<R>(Upkeep::IndexStep).await?;
                // Deadlines do not wait for it.
                if self.serves() {
                    self.expire::<R>().await?;
                }
            }
        }
        Ok(())
    }

    /// Notes up to where events were published: whoever serves next begins behind it.
    async fn mark<R: Runtime>(&mut self, published: u64) -> Result<()> {
        if published > self.marked {
            if self.marked > 0 || self.read::<R, _>(|view| view.history()).await?.published < published {
                self.propose::<R>(Upkeep::Published(published)).await?;
            }
            self.marked = published;
        }
        Ok(())
    }

    /// Notes what the replica that serves has published, which does not say so: should this one serve, it does not
    /// publish all that it ever merged.
    async fn believe<R: Runtime>(&mut self) -> Result<()> {
        let last = self.read::<R, _>(|view| Ok(view.revision())).await?;
        match self.seen.replace(last) {
            Some(seen) => self.mark::<R>(seen).await,
            None => Ok(()),
        }
    }

    /// Lets history go that no write comes to let go.
    async fn sweep<R: Runtime>(&self) -> Result<()> {
        for _ in 0..SWEEPS {
            let due = self.read::<R, _>(|view| view.history()).await?.sweep_unix_ms;
            if due.is_none_or(|due| due > unix_ms(R::wall_clock())) {
                break;
            }
            self.propose::<R>(Upkeep::Sweep).await?;
        }
        Ok(())
    }

    /// Has the keys deleted whose time is over.
    async fn expire<R: Runtime>(&mut self) -> Result<()> {
        while let Some(earliest) = self.deadlines.take_due(unix_ms(R::wall_clock())) {
            // What was merged may have been over before it came.
            let (now, from) = (unix_ms(R::wall_clock()), self.swept_unix_ms.min(earliest));
            let due = self.read::<R, _>(move |view| view.due(from, now, EXPIRE_KEYS)).await?;
            let bounds = due.first().cloned().zip(due.last().cloned());
            if bounds.is_some() {
                self.propose::<R>(Upkeep::Expire(due)).await?;
            }
            let next = self.read::<R, _>(move |view| view.due(from, u64::MAX, 1)).await?.pop();
            if let Some((_, last)) = &bounds {
                let left = next.as_ref().map_or(u64::MAX, |next| next.expires_unix_ms);
                self.swept_unix_ms = last.expires_unix_ms.min(left);
            }
            if let Some(next) = &next {
                self.deadlines.expect(next.expires_unix_ms);
            }
            // Log time is behind this clock, as after it was set back: what is left waits for it.
            if next.is_some() && next == bounds.map(|(first, _)| first) {
                break;
            }
        }
        Ok(())
    }

    async fn read<R: Runtime, T: Send + 'static>(
        &self,
        read: impl FnOnce(&ObjectView) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let state = self.state.clone();
        R::blocking(move || read(&state.view())).await
    }

    async fn propose<R: Runtime>(&self, upkeep: Upkeep) -> Result<()> {
        let command = Command { rid: None, operation: Operation::Upkeep(upkeep) };
        match R::timeout(PATIENCE, self.state.write(command)).await {
            Ok(outcome) => outcome.map(drop),
            Err(_) => Err(Error::Timeout(PATIENCE)),
        }
    }
}
