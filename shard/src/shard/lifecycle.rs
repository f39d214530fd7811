//! What a replica declares on the clients' session, as its role changes.
//!
//! | role | declared |
//! |---|---|
//! | serving | data, `@cmd` and `@ev` (queries, advanced subscribers' too), data (puts), the liveliness token |
//! | leaderless for two election timeouts | data, `@cmd` and `@ev`, to answer `UNAVAILABLE` |
//! | any, until it stops | `@near` |
//!
//! Declaring talks to the network and may wait for it: it never runs on zenoh's receiving threads nor
//! on those of the runtime.

use std::sync::Arc;
use std::time::Duration;

use odgm_transport::session::{Declaration, QueryHandler, SampleHandler};
use odgm_transport::{KeyExpr, Session};
use openraft_rt::Instant as _;
use tokio_util::sync::CancellationToken;

use super::events::EventManager;
use super::intake::Intake;
use super::metrics::ShardMetrics;
use crate::protocol::{Plane, Voice};
use crate::replication::{Role, ShardState};
use crate::runtime::Runtime;

type Declared = Vec<Box<dyn Declaration>>;

/// What is declared beside `@near`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    /// Nothing: another replica serves.
    Hidden,
    /// Everything.
    Serving,
    /// Data, `@cmd` and `@ev`: nobody serves, and somebody must say so.
    Refusing,
}

/// Follows the role of a replica.
#[derive(Clone)]
pub(super) struct Lifecycle {
    pub(super) voice: Arc<Voice>,
    pub(super) session: Arc<dyn Session>,
    pub(super) state: Arc<dyn ShardState>,
    pub(super) intake: Arc<Intake>,
    pub(super) events: Arc<EventManager>,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) election_timeout: Duration,
}

impl Lifecycle {
    /// Runs until `stop`, or until the replica stops; nothing is declared any more when it returns.
    pub(super) async fn run<R: Runtime>(self, stop: CancellationToken) {
        let patience = self.election_timeout * 2;
        let mut status = self.state.status();
        let (mut near, mut answering, mut serving) = (Declared::new(), Declared::new(), Declared::new());
        let mut leaderless_since: Option<R::Instant> = None;
        loop {
            let role = status.borrow_and_update().role;
            if role == Role::Leaderless {
                leaderless_since.get_or_insert_with(R::Instant::now);
            } else {
                leaderless_since = None;
            }
            let waited = leaderless_since.map(|since| since.elapsed());
            let face = match role {
                Role::Serving => Face::Serving,
                Role::Leaderless if waited >= Some(patience) => Face::Refusing,
                Role::Following | Role::Leaderless => Face::Hidden,
                Role::Stopped => break,
            };
            if near.is_empty() {
                near = self.declare::<R>(Self::near).await;
            }
            if face != Face::Serving {
                self.step_down::<R>(&mut serving).await;
            }
            match face {
                Face::Hidden => undeclare::<R>(&mut answering).await,
                Face::Serving | Face::Refusing if answering.is_empty() => {
                    // Before the first command is taken: what this server acknowledges has its event.
                    self.events.serve(face == Face::Serving);
                    answering = self.declare::<R>(Self::answering).await;
                }
                Face::Serving | Face::Refusing => {}
            }
            if face == Face::Serving && serving.is_empty() {
                self.events.serve(true);
                serving = self.declare::<R>(Self::serving).await;
                self.metrics.serving.set(1.0);
            }
            let failed = near.is_empty()
                || (face != Face::Hidden && answering.is_empty())
                || (face == Face::Serving && serving.is_empty());
            let again = if failed {
                Some(self.election_timeout)
            } else {
                waited.and_then(|waited| patience.checked_sub(waited)).filter(|rest| !rest.is_zero())
            };
            let changed = async {
                match again {
                    Some(pause) => R::timeout(pause, status.changed()).await.unwrap_or(Ok(())),
                    None => status.changed().await,
                }
            };
            if !matches!(stop.run_until_cancelled(changed).await, Some(Ok(()))) {
                break;
            }
        }
        self.step_down::<R>(&mut serving).await;
        answering.append(&mut near);
        undeclare::<R>(&mut answering).await;
    }

    /// Declares off the runtime's threads; nothing when one of the declarations failed.
    async fn declare<R: Runtime>(&self, what: fn(&Self) -> odgm_transport::Result<Declared>) -> Declared {
        let this = self.clone();
        match R::blocking(move || what(&this)).await {
            Ok(declared) => declared,
            Err(error) => {
                tracing::warn!(shard = ?self.voice.shard(), %error, "a shard's keys were not declared");
                Declared::new()
            }
        }
    }

    async fn step_down<R: Runtime>(&self, serving: &mut Declared) {
        self.events.serve(false);
        self.metrics.serving.set(0.0);
        undeclare::<R>(serving).await;
    }

    fn near(&self) -> odgm_transport::Result<Declared> {
        Ok(vec![self.session.serve(&self.all(Plane::Near), true, self.queries(Plane::Near))?])
    }

    fn answering(&self) -> odgm_transport::Result<Declared> {
        let serve = |plane| self.session.serve(&self.all(plane), false, self.queries(plane));
        Ok(vec![serve(Plane::Command)?, serve(Plane::Data)?, serve(Plane::Event)?])
    }

    fn serving(&self) -> odgm_transport::Result<Declared> {
        let intake = self.intake.clone();
        let samples: SampleHandler = Arc::new(move |sample| intake.offer_sample(sample));
        let shard = self.voice.shard();
        let intake = self.intake.clone();
        let caches: QueryHandler = Arc::new(move |query| intake.offer_cache(query));
        let cache = self.voice.keys().cache(&shard.collection, shard.partition, self.voice.clock());
        Ok(vec![
            self.session.subscribe(&self.all(Plane::Data), samples)?,
            self.session.serve(&cache, false, caches)?,
            self.session.announce(&self.voice.keys().live_shard(&shard.collection, shard.partition))?,
        ])
    }

    fn all(&self, plane: Plane) -> KeyExpr<'static> {
        let shard = self.voice.shard();
        self.voice.keys().shard(plane, &shard.collection, shard.partition)
    }

    fn queries(&self, plane: Plane) -> QueryHandler {
        let intake = self.intake.clone();
        Arc::new(move |query| intake.offer_query(plane, query))
    }
}

async fn undeclare<R: Runtime>(declared: &mut Declared) {
    let declared = std::mem::take(declared);
    if !declared.is_empty() {
        R::blocking(move || drop(declared)).await;
    }
}
