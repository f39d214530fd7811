//! The links: order, latency, faults, partitions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::declared::{Node, Tokens};
use super::query::Asked;
use super::{Faults, Scope, SimNetwork, SimStats};
use crate::KeyExpr;
use crate::session::Priority;

/// What happens at the receiver; twice for a duplicate.
pub(super) type Arrival = Arc<dyn Fn(&Arc<SimNetwork>) + Send + Sync>;

/// A direction of a link and a priority: what is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) from: usize,
    pub(super) to: usize,
    priority: u8,
}

impl Way {
    pub(super) fn new(from: usize, to: usize, priority: Priority) -> Self {
        Way { from, to, priority: priority as u8 }
    }
}

/// Whatever is random is drawn under one lock; every table is ordered.
pub(super) struct State {
    rng: StdRng,
    pub(super) faults: Faults,
    pub(super) nodes: Vec<Node>,
    next_id: u64,
    pub(super) blocked: BTreeSet<(usize, usize)>,
    /// Since when a link is blocked, by its ends in order.
    blocked_since: BTreeMap<(usize, usize), Duration>,
    /// Links that have closed, by their ends in order.
    closed: BTreeSet<(usize, usize)>,
    queues: BTreeMap<Way, Queue>,
    pub(super) asked: BTreeMap<u64, Asked>,
    pub(super) stats: SimStats,
}

/// Messages under way, in order.
struct Queue {
    /// Tells it from an earlier one of the same way, whose link has closed.
    id: u64,
    messages: VecDeque<Arrival>,
    last: Duration,
    /// Arrivals that found the way blocked.
    stalled: usize,
    /// Held while one arrives, so that the next does not overtake it on another thread.
    order: Arc<Mutex<()>>,
}

fn ends(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

impl State {
    pub(super) fn new(rng: StdRng) -> Self {
        State {
            rng,
            faults: Faults::default(),
            nodes: Vec::new(),
            next_id: 0,
            blocked: BTreeSet::new(),
            blocked_since: BTreeMap::new(),
            closed: BTreeSet::new(),
            queues: BTreeMap::new(),
            asked: BTreeMap::new(),
            stats: SimStats::default(),
        }
    }

    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn open(&mut self, name: &str) -> usize {
        self.nodes.push(Node { name: name.to_owned(), open: true, ..Node::default() });
        self.nodes.len() - 1
    }

    pub(super) fn node(&self, name: &str) -> Option<usize> {
        self.nodes.iter().rposition(|node| node.name == name)
    }

    /// Whether there is a link, or would be one.
    pub(super) fn linked(&self, one: usize, other: usize) -> bool {
        self.nodes[one].open && self.nodes[other].open && !self.closed.contains(&ends(one, other))
    }

    /// The tokens that a session sees.
    pub(super) fn visible(&self, node: usize, key: &KeyExpr<'static>) -> Tokens {
        (0..self.nodes.len())
            .filter(|other| self.linked(node, *other))
            .flat_map(|other| self.nodes[other].declared.tokens.values())
            .filter(|token| key.intersects(token))
            .map(|token| (token.to_string(), token.clone()))
            .collect()
    }

    fn draw(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let nanos = |duration: &Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (low, high) = (nanos(range.start()), nanos(range.end()));
        Duration::from_nanos(self.rng.random_range(low..=high.max(low)))
    }

    pub(super) fn latency(&mut self, from: usize, to: usize) -> Duration {
        if from == to { Duration::ZERO } else { self.delay() }
    }

    /// How long something takes to travel.
    pub(super) fn delay(&mut self) -> Duration {
        let range = self.faults.latency.clone();
        self.draw(&range)
    }

    fn chance(&mut self, part: f64) -> bool {
        part > 0.0 && self.rng.random_bool(part.min(1.0))
    }

    fn queue(&mut self, way: Way) -> &mut Queue {
        let fresh = self.next_id + 1;
        let queue = self.queues.entry(way).or_insert_with(|| Queue {
            id: fresh,
            messages: VecDeque::new(),
            last: Duration::ZERO,
            stalled: 0,
            order: Arc::default(),
        });
        self.next_id = self.next_id.max(queue.id);
        queue
    }
}

impl SimNetwork {
    /// Sends something over a link. `scope` is the narrowest scope of faults that it falls under;
    /// `None` is never lost on its own.
    pub(super) fn send(self: &Arc<Self>, way: Way, scope: Option<Scope>, arrival: Arrival) {
        let mut state = self.lock();
        if !state.linked(way.from, way.to) {
            state.stats.lost += 1;
            return;
        }
        let faulty = way.from != way.to && scope.is_some_and(|scope| scope <= state.faults.scope);
        let faults = state.faults.clone();
        if faulty && state.chance(faults.loss) {
            state.stats.lost += 1;
            return;
        }
        let latency = state.latency(way.from, way.to);
        let aside = faulty && state.chance(faults.reorder);
        let twice = faulty && state.chance(faults.duplicate);
        let late = latency * state.rng.random_range(1..=4);
        let now = self.timer.now();
        let queue = state.queue(way);
        let id = queue.id;
        if !aside {
            queue.messages.push_back(arrival.clone());
            queue.last = queue.last.max(now + latency);
        }
        let due = queue.last.saturating_sub(now);
        state.stats.reordered += u64::from(aside);
        state.stats.duplicated += u64::from(twice);
        drop(state);
        if !aside {
            self.after(due, move |network| network.arrive(way, id));
        }
        for _ in 0..u32::from(aside) + u32::from(twice) {
            let arrival = arrival.clone();
            self.after(late, move |network| network.arrive_aside(way, &arrival));
        }
    }

    /// The first message of a way arrives, or waits for the way to open.
    fn arrive(self: &Arc<Self>, way: Way, id: u64) {
        let same = |queue: &&mut Queue| queue.id == id;
        let Some(order) = self.lock().queues.get_mut(&way).filter(same).map(|queue| queue.order.clone())
        else {
            return;
        };
        let _order = order.lock().unwrap_or_else(PoisonError::into_inner);
        let arrival = {
            let mut state = self.lock();
            let blocked = state.blocked.contains(&(way.from, way.to));
            let Some(queue) = state.queues.get_mut(&way).filter(same) else { return };
            if blocked {
                queue.stalled += 1;
                return;
            }
            let arrival = queue.messages.pop_front();
            state.stats.delivered += u64::from(arrival.is_some());
            arrival
        };
        if let Some(arrival) = arrival {
            arrival(self);
        }
    }

    fn arrive_aside(self: &Arc<Self>, way: Way, arrival: &Arrival) {
        {
            let mut state = self.lock();
            if state.blocked.contains(&(way.from, way.to)) || !state.linked(way.from, way.to) {
                state.stats.lost += 1;
                return;
            }
            state.stats.delivered += 1;
        }
        arrival(self);
    }

    pub(super) fn block_nodes(self: &Arc<Self>, from: usize, to: usize) {
        let pair = ends(from, to);
        let now = self.timer.now();
        let lease = {
            let mut state = self.lock();
            if from == to || !state.blocked.insert((from, to)) || state.blocked_since.contains_key(&pair) {
                return;
            }
            state.blocked_since.insert(pair, now);
            state.faults.lease
        };
        self.after(lease, move |network| {
            if network.lock().blocked_since.get(&pair) == Some(&now) {
                network.close_link(pair);
            }
        });
    }

    pub(super) fn unblock_nodes(self: &Arc<Self>, from: usize, to: usize) {
        let pair = ends(from, to);
        let (stalled, reopen) = {
            let mut state = self.lock();
            if !state.blocked.remove(&(from, to)) {
                return;
            }
            let open = !state.blocked.contains(&(to, from));
            if open {
                state.blocked_since.remove(&pair);
            }
            let mut stalled = Vec::new();
            for (way, queue) in &mut state.queues {
                if (way.from, way.to) == (from, to) {
                    stalled.push((*way, queue.id, std::mem::take(&mut queue.stalled)));
                }
            }
            let range = state.faults.reconnect.clone();
            let reopen = (open && state.closed.contains(&pair)).then(|| state.draw(&range));
            (stalled, reopen)
        };
        for (way, id, count) in stalled {
            for _ in 0..count {
                self.after(Duration::ZERO, move |network| network.arrive(way, id));
            }
        }
        if let Some(delay) = reopen {
            self.after(delay, move |network| network.reopen_link(pair));
        }
    }

    fn close_link(self: &Arc<Self>, pair: (usize, usize)) {
        let lost = {
            let mut state = self.lock();
            state.closed.insert(pair);
            let ways: Vec<Way> =
                state.queues.keys().filter(|way| ends(way.from, way.to) == pair).copied().collect();
            let lost: Vec<Queue> = ways.iter().filter_map(|way| state.queues.remove(way)).collect();
            state.stats.lost += lost.iter().map(|queue| queue.messages.len() as u64).sum::<u64>();
            lost
        };
        // Outside of the lock: a message may end with a call of its own.
        drop(lost);
        self.end_queries(|caller, server| ends(caller, server) == pair && caller != server);
        self.refresh(pair.0);
        self.refresh(pair.1);
    }

    fn reopen_link(self: &Arc<Self>, pair: (usize, usize)) {
        {
            let mut state = self.lock();
            if state.blocked_since.contains_key(&pair) || !state.closed.remove(&pair) {
                return;
            }
        }
        self.refresh(pair.0);
        self.refresh(pair.1);
    }

    pub(super) fn close_node(self: &Arc<Self>, node: usize) {
        let removed = {
            let mut state = self.lock();
            if !state.nodes[node].open {
                return;
            }
            state.nodes[node].open = false;
            std::mem::take(&mut state.nodes[node].declared)
        };
        drop(removed);
        self.end_queries(|caller, server| caller == node || server == node);
        self.presence_changed(node);
    }
}
