//! What a session has declared.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::SimNetwork;
use crate::KeyExpr;
use crate::session::{Declaration, LivenessHandler, QueryHandler, SampleHandler};

/// One session's side of the network.
#[derive(Default)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) open: bool,
    pub(super) declared: Declared,
}

/// By declaration id.
#[derive(Default)]
pub(super) struct Declared {
    pub(super) servers: BTreeMap<u64, Server>,
    pub(super) subscribers: BTreeMap<u64, (KeyExpr<'static>, SampleHandler)>,
    pub(super) tokens: BTreeMap<u64, KeyExpr<'static>>,
    pub(super) watchers: BTreeMap<u64, Arc<Watcher>>,
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) key: KeyExpr<'static>,
    pub(super) complete: bool,
    pub(super) handler: QueryHandler,
}

/// Tokens in the order of their keys.
pub(super) type Tokens = BTreeMap<String, KeyExpr<'static>>;

/// Told the difference between what it knows and what is.
pub(super) struct Watcher {
    key: KeyExpr<'static>,
    handler: LivenessHandler,
    known: Mutex<Tokens>,
}

impl Watcher {
    pub(super) fn new(key: KeyExpr<'static>, handler: LivenessHandler) -> Arc<Self> {
        Arc::new(Watcher { key, handler, known: Mutex::default() })
    }
}

/// Removes what was declared, when it is dropped.
pub(super) struct Undeclare {
    pub(super) network: Arc<SimNetwork>,
    pub(super) node: usize,
    pub(super) id: u64,
}

impl Declaration for Undeclare {}

impl fmt::Debug for Undeclare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undeclare").field("node", &self.node).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Undeclare {
    fn drop(&mut self) {
        // What is removed is dropped outside of the lock: it may end with a call of its own.
        let removed = {
            let mut state = self.network.lock();
            let declared = &mut state.nodes[self.node].declared;
            (
                declared.servers.remove(&self.id),
                declared.subscribers.remove(&self.id),
                declared.tokens.remove(&self.id),
                declared.watchers.remove(&self.id),
            )
        };
        if removed.2.is_some() {
            self.network.presence_changed(self.node);
        }
    }
}

impl SimNetwork {
    /// Tells every session that can see this one, when word has reached it.
    pub(super) fn presence_changed(self: &Arc<Self>, node: usize) {
        let observers: Vec<_> = {
            let mut state = self.lock();
            let others = 0..state.nodes.len();
            others
                .filter(|other| !state.nodes[*other].declared.watchers.is_empty())
                .collect::<Vec<_>>()
                .into_iter()
                .map(|other| (other, state.latency(node, other)))
                .collect()
        };
        for (observer, latency) in observers {
            self.after(latency, move |network| network.refresh(observer));
        }
    }

    /// Tells the watchers of a session what has changed for them, in the order of the keys.
    pub(super) fn refresh(&self, node: usize) {
        let watchers: Vec<_> = self.lock().nodes[node].declared.watchers.values().cloned().collect();
        for watcher in watchers {
            // Held over the handler, so that it sees the changes in order.
            let mut known = watcher.known.lock().unwrap_or_else(PoisonError::into_inner);
            let visible = self.lock().visible(node, &watcher.key);
            let without = |one: &Tokens, other: &Tokens| -> Vec<KeyExpr<'static>> {
                one.iter().filter(|(key, _)| !other.contains_key(*key)).map(|(_, key)| key.clone()).collect()
            };
            let (gone, new) = (without(&known, &visible), without(&visible, &known));
            *known = visible;
            gone.into_iter().for_each(|key| (watcher.handler)(key, false));
            new.into_iter().for_each(|key| (watcher.handler)(key, true));
        }
    }
}
