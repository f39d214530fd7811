//! A session of the simulated network.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::declared::{Server, Undeclare, Watcher};
use super::network::{State, Way};
use super::{Scope, SimNetwork};
use crate::session::{
    Call, Congestion, Declaration, LivenessHandler, Priority, Publisher, QueryHandler, Replies, Sample,
    SampleHandler, Session,
};
use crate::{Error, KeyExpr, Result};

/// A session; [`SimNetwork::session`] opens one.
pub struct SimSession {
    network: Arc<SimNetwork>,
    node: usize,
}

impl SimSession {
    pub(super) fn new(network: Arc<SimNetwork>, node: usize) -> Self {
        SimSession { network, node }
    }

    fn declare(&self, declare: impl FnOnce(&mut State, u64)) -> Result<Box<dyn Declaration>> {
        let mut state = self.network.lock();
        if !state.nodes[self.node].open {
            return Err(Error::Session("closed".into()));
        }
        let id = state.id();
        declare(&mut state, id);
        drop(state);
        Ok(Box::new(Undeclare { network: self.network.clone(), node: self.node, id }))
    }
}

impl fmt::Debug for SimSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSession").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Session for SimSession {
    fn call(&self, call: Call) -> Result<Replies> {
        self.network.ask(self.node, call)
    }

    fn serve(
        &self,
        key: &KeyExpr<'static>,
        complete: bool,
        handler: QueryHandler,
    ) -> Result<Box<dyn Declaration>> {
        let server = Server { key: key.clone(), complete, handler };
        self.declare(|state, id| {
            state.nodes[self.node].declared.servers.insert(id, server);
        })
    }

    fn publish(&self, sample: Sample, priority: Priority, congestion: Congestion) -> Result<()> {
        self.network.publish(self.node, sample, priority, congestion)
    }

    fn publisher(
        &self,
        key: &KeyExpr<'static>,
        priority: Priority,
        congestion: Congestion,
    ) -> Result<Box<dyn Publisher>> {
        let (network, node) = (self.network.clone(), self.node);
        Ok(Box::new(SimPublisher { network, node, key: key.clone(), priority, congestion }))
    }

    fn subscribe(&self, key: &KeyExpr<'static>, handler: SampleHandler) -> Result<Box<dyn Declaration>> {
        self.declare(|state, id| {
            state.nodes[self.node].declared.subscribers.insert(id, (key.clone(), handler));
        })
    }

    fn announce(&self, key: &KeyExpr<'static>) -> Result<Box<dyn Declaration>> {
        let declaration = self.declare(|state, id| {
            state.nodes[self.node].declared.tokens.insert(id, key.clone());
        })?;
        self.network.presence_changed(self.node);
        Ok(declaration)
    }

    fn watch(&self, key: &KeyExpr<'static>, handler: LivenessHandler) -> Result<Box<dyn Declaration>> {
        let declaration = self.declare(|state, id| {
            state.nodes[self.node].declared.watchers.insert(id, Watcher::new(key.clone(), handler));
        })?;
        let (node, latency) = (self.node, self.network.lock().delay());
        self.network.after(latency, move |network| network.refresh(node));
        Ok(declaration)
    }

    fn blocks(&self) -> bool {
        false
    }

    fn close(&self) -> Result<()> {
        self.network.close_node(self.node);
        Ok(())
    }
}

impl SimNetwork {
    fn publish(
        self: &Arc<Self>,
        from: usize,
        sample: Sample,
        priority: Priority,
        congestion: Congestion,
    ) -> Result<()> {
        let receivers: Vec<usize> = {
            let state = self.lock();
            if !state.nodes[from].open {
                return Err(Error::Session("closed".into()));
            }
            let hears = |node: usize| {
                let mut subscribers = state.nodes[node].declared.subscribers.values();
                subscribers.any(|(key, _)| key.intersects(&sample.key))
            };
            (0..state.nodes.len())
                .filter(|node| *node != from && state.linked(from, *node) && hears(*node))
                .collect()
        };
        let scope = match congestion {
            Congestion::Drop => Scope::Droppable,
            Congestion::Block => Scope::Publications,
        };
        for to in receivers {
            let sample = sample.clone();
            let arrival = move |network: &Arc<SimNetwork>| network.receive(to, &sample);
            self.send(Way::new(from, to, priority), Some(scope), Arc::new(arrival));
        }
        Ok(())
    }

    fn receive(&self, node: usize, sample: &Sample) {
        let handlers: Vec<SampleHandler> = {
            let state = self.lock();
            let subscribers = state.nodes[node].declared.subscribers.values();
            subscribers
                .filter(|(key, _)| key.intersects(&sample.key))
                .map(|(_, handler)| handler.clone())
                .collect()
        };
        for handler in handlers {
            handler(sample.clone());
        }
    }
}

struct SimPublisher {
    network: Arc<SimNetwork>,
    node: usize,
    key: KeyExpr<'static>,
    priority: Priority,
    congestion: Congestion,
}

impl fmt::Debug for SimPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimPublisher").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Publisher for SimPublisher {
    fn put(&self, payload: Bytes) -> Result<()> {
        let sample = Sample {
            key: self.key.clone(),
            payload: Some(payload),
            encoding: String::new(),
            attachment: None,
            timestamp: None,
        };
        self.network.publish(self.node, sample, self.priority, self.congestion)
    }
}
