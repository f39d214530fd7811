//! Queries: who is asked, and when they end.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::network::{State, Way};
use super::{Scope, SimNetwork};
use crate::session::{Call, Priority, Query, Replies, Reply, Responder};
use crate::{Error, KeyExpr, Result};

/// A query under way.
pub(super) struct Asked {
    caller: usize,
    replies: mpsc::UnboundedSender<Vec<Reply>>,
    /// The servers that have not ended it, by session and declaration.
    waiting: BTreeSet<(usize, u64)>,
}

impl State {
    /// zenoh's rule: the own servers that match; and of the others all that match, or, unless all
    /// are wanted, the first that covers the whole query, when there is one.
    fn servers(&self, caller: usize, call: &Call) -> Vec<(usize, u64)> {
        let mut own = Vec::new();
        let mut others = Vec::new();
        let mut complete = None;
        for (node, side) in self.nodes.iter().enumerate() {
            if !self.linked(caller, node) {
                continue;
            }
            for (id, server) in &side.declared.servers {
                if !server.key.intersects(&call.key) {
                    continue;
                }
                if node == caller {
                    own.push((node, *id));
                    continue;
                }
                others.push((node, *id));
                if complete.is_none() && server.complete && server.key.includes(&call.key) {
                    complete = Some((node, *id));
                }
            }
        }
        match complete {
            Some(one) if !call.all => own.push(one),
            _ => own.append(&mut others),
        }
        own
    }
}

impl SimNetwork {
    pub(super) fn ask(self: &Arc<Self>, caller: usize, call: Call) -> Result<Replies> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (id, servers) = {
            let mut state = self.lock();
            if !state.nodes[caller].open {
                return Err(Error::Session("closed".into()));
            }
            let servers = state.servers(caller, &call);
            let id = state.id();
            let waiting: BTreeSet<_> = servers.iter().copied().collect();
            if !waiting.is_empty() {
                state.asked.insert(id, Asked { caller, replies: sender, waiting });
            }
            (id, servers)
        };
        if servers.is_empty() {
            return Ok(Replies::new(receiver));
        }
        let call = Arc::new(call);
        for server in servers {
            let call = call.clone();
            let way = Way::new(caller, server.0, call.priority);
            let arrival = move |network: &Arc<SimNetwork>| network.serve(id, caller, server, &call);
            self.send(way, Some(Scope::Everything), Arc::new(arrival));
        }
        self.after(call.timeout, move |network| drop(network.forget(id)));
        Ok(Replies::new(receiver))
    }

    /// A query arrives at a server.
    fn serve(self: &Arc<Self>, id: u64, caller: usize, server: (usize, u64), call: &Call) {
        let responder = SimResponder {
            network: self.clone(),
            id,
            server,
            caller,
            priority: call.priority,
            key: call.key.clone(),
        };
        let handler =
            self.lock().nodes[server.0].declared.servers.get(&server.1).map(|server| server.handler.clone());
        // An undeclared server drops the query, and so ends it.
        let Some(handler) = handler else { return };
        handler(Query {
            key: call.key.clone(),
            parameters: call.parameters.clone(),
            payload: call.payload.clone(),
            encoding: call.encoding.clone(),
            attachment: call.attachment.clone(),
            responder: Box::new(responder),
        });
    }

    /// The query ends for its caller; what it held is dropped by who calls this, outside of the lock.
    fn forget(&self, id: u64) -> Option<Asked> {
        self.lock().asked.remove(&id)
    }

    /// One server has ended a query.
    fn ended(&self, id: u64, server: (usize, u64)) {
        let mut state = self.lock();
        let Some(asked) = state.asked.get_mut(&id) else { return };
        asked.waiting.remove(&server);
        if asked.waiting.is_empty() {
            state.asked.remove(&id);
        }
    }

    /// Ends queries for the servers of a link or of a session that is gone.
    pub(super) fn end_queries(&self, gone: impl Fn(usize, usize) -> bool) {
        let mut state = self.lock();
        state.asked.retain(|_, asked| {
            let caller = asked.caller;
            asked.waiting.retain(|(server, _)| !gone(caller, *server));
            !asked.waiting.is_empty()
        });
    }
}

struct SimResponder {
    network: Arc<SimNetwork>,
    id: u64,
    server: (usize, u64),
    caller: usize,
    priority: Priority,
    key: KeyExpr<'static>,
}

impl SimResponder {
    fn way(&self) -> Way {
        Way::new(self.server.0, self.caller, self.priority)
    }
}

impl Responder for SimResponder {
    fn respond(self: Box<Self>, reply: Reply) {
        if let Err(error) = self.send(reply) {
            tracing::debug!(key = %self.key, %error, "a reply was not sent");
        }
    }

    fn send(&self, reply: Reply) -> Result<()> {
        if let Ok(sample) = &reply
            && !self.key.intersects(&sample.key)
        {
            return Err(Error::Session(format!("a reply on {} to a query of {}", sample.key, self.key)));
        }
        if !self.network.lock().linked(self.server.0, self.caller) {
            return Err(Error::Session("the caller has gone".into()));
        }
        let id = self.id;
        let arrival = move |network: &Arc<SimNetwork>| {
            if let Some(asked) = network.lock().asked.get(&id) {
                // The caller may have gone.
                let _ = asked.replies.send(vec![reply.clone()]);
            }
        };
        self.network.send(self.way(), Some(Scope::Everything), Arc::new(arrival));
        Ok(())
    }
}

impl Drop for SimResponder {
    fn drop(&mut self) {
        let (id, server) = (self.id, self.server);
        let arrival = move |network: &Arc<SimNetwork>| network.ended(id, server);
        self.network.send(self.way(), None, Arc::new(arrival));
    }
}

impl fmt::Debug for SimResponder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimResponder").field("id", &self.id).finish_non_exhaustive()
    }
}
