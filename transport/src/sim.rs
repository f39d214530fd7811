//! A simulated network: sessions that behave as zenoh's do, on the time of a [`Timer`], from a seed.
//!
//! It has no threads, no clock and no randomness of its own: the same calls in the same order with
//! the same seed give the same deliveries, in the same order. Key expressions match by zenoh's own
//! rules. All sessions are peers of one mesh.
//!
//! A link between two sessions behaves like a connection: in order within a priority. While it is
//! blocked, messages wait in it; blocked for a lease, it closes, what waits is lost, queries over it
//! end, and presence ends on both sides; healed, it opens again after a while. [`Faults`] add loss,
//! duplicates and reordering on top, to what their [`Scope`] says.

mod declared;
mod network;
mod query;
mod session;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::network::State;
pub use self::session::SimSession;
use crate::timer::Timer;

/// What [`Faults`] apply to. Presence is never lost: it is the link's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// What was published with [`crate::session::Congestion::Drop`].
    Droppable,
    /// All that is published, the links between nodes included.
    Publications,
    /// Queries and replies too.
    Everything,
}

/// What goes wrong on every link.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    /// How long a message is under way.
    pub latency: RangeInclusive<Duration>,
    /// The part of messages that is lost, 0..=1.
    pub loss: f64,
    /// The part that arrives twice, 0..=1.
    pub duplicate: f64,
    /// The part that leaves its order and comes up to four times later, 0..=1.
    pub reorder: f64,
    /// To what loss, duplicates and reordering apply.
    pub scope: Scope,
    /// How long a link may be blocked before it closes.
    pub lease: Duration,
    /// How long it takes to open again.
    pub reconnect: RangeInclusive<Duration>,
}

impl Default for Faults {
    /// A quiet local network with the lease and the retries of a node's sessions.
    fn default() -> Self {
        Faults {
            latency: Duration::from_micros(100)..=Duration::from_millis(1),
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            scope: Scope::Publications,
            lease: Duration::from_secs(2),
            reconnect: Duration::from_millis(200)..=Duration::from_secs(2),
        }
    }
}

/// What the network did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SimStats {
    /// Messages handed to their receiver.
    pub delivered: u64,
    /// Messages lost by faults or by a link that closed.
    pub lost: u64,
    /// Messages that were delivered a second time.
    pub duplicated: u64,
    /// Messages that left their order.
    pub reordered: u64,
}

/// The network.
pub struct SimNetwork {
    timer: Arc<dyn Timer>,
    state: Mutex<State>,
}

impl SimNetwork {
    /// A network without sessions.
    pub fn new(seed: u64, timer: Arc<dyn Timer>) -> Arc<Self> {
        let state = Mutex::new(State::new(StdRng::seed_from_u64(seed)));
        Arc::new(SimNetwork { timer, state })
    }

    /// Opens a session. A name names the session opened last with it.
    pub fn session(self: &Arc<Self>, name: &str) -> Arc<SimSession> {
        let node = self.lock().open(name);
        Arc::new(SimSession::new(self.clone(), node))
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Cuts one side off from the other, both ways.
    pub fn partition(self: &Arc<Self>, one: &[&str], other: &[&str]) {
        for from in one {
            for to in other {
                self.block(from, to);
                self.block(to, from);
            }
        }
    }

    /// Lets nothing through from one session to another; the other way stays open until the link closes.
    pub fn block(self: &Arc<Self>, from: &str, to: &str) {
        let pair = {
            let state = self.lock();
            state.node(from).zip(state.node(to))
        };
        if let Some((from, to)) = pair {
            self.block_nodes(from, to);
        }
    }

    /// Lets everything through again.
    pub fn heal(self: &Arc<Self>) {
        let blocked: BTreeSet<(usize, usize)> = self.lock().blocked.clone();
        for (from, to) in blocked {
            self.unblock_nodes(from, to);
        }
    }

    /// Lets everything through again from one session to another.
    pub fn unblock(self: &Arc<Self>, from: &str, to: &str) {
        let pair = {
            let state = self.lock();
            state.node(from).zip(state.node(to))
        };
        if let Some((from, to)) = pair {
            self.unblock_nodes(from, to);
        }
    }

    /// Ends a session as the death of its process does: nothing of it runs any more, the others
    /// notice at once, what it had sent still arrives.
    pub fn crash(self: &Arc<Self>, name: &str) {
        let node = self.lock().node(name);
        if let Some(node) = node {
            self.close_node(node);
        }
    }

    /// What happened so far.
    pub fn stats(&self) -> SimStats {
        self.lock().stats
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something later.
    fn after(self: &Arc<Self>, delay: Duration, then: impl FnOnce(&Arc<SimNetwork>) + Send + 'static) {
        let network = self.clone();
        let sleep = self.timer.sleep(delay);
        self.timer.spawn(Box::pin(async move {
            sleep.await;
            then(&network);
        }));
    }
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNetwork").finish_non_exhaustive()
    }
}
