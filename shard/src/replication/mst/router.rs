//! The router: hands what the divergent replicas say to each other to the one it is for.
//!
//! It runs on the receiving thread of the links: it decodes a header and tries to queue, no more.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use odgm_transport::link::{Class, Incoming, Links, PeerId, ReplyToken};
use tokio::sync::mpsc;

use crate::object::{GroupId, NodeId, ReplicaId};
use crate::{Error, Result};

/// First byte of every message of this module on a link.
pub const MST_MESSAGE: u8 = 3;

/// Messages that may wait for one replica.
const QUEUE: usize = 256;
/// Family, group, target and sender.
const HEADER_BYTES: usize = 1 + 3 * 8;

/// A message for a replica, its header read.
pub(super) struct Message {
    pub(super) sender: ReplicaId,
    pub(super) body: Bytes,
    /// `None`: it is not to be answered.
    pub(super) reply: Option<ReplyToken>,
}

struct Slot {
    replica: ReplicaId,
    messages: mpsc::Sender<Message>,
    lost: Arc<AtomicBool>,
}

/// Where the messages for a replica come out.
pub(super) struct Mailbox {
    pub(super) messages: mpsc::Receiver<Message>,
    /// Set when one found the queue full.
    pub(super) lost: Arc<AtomicBool>,
}

/// Demultiplexes the messages of a node's divergent replicas by group. One per node.
pub struct MstRouter {
    links: Arc<Links>,
    slots: RwLock<HashMap<GroupId, Slot>>,
}

/// Where a message goes to, and who sends it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) group: GroupId,
    pub(super) target: ReplicaId,
    pub(super) sender: ReplicaId,
}

impl Route {
    fn frame(self, body: &[u8]) -> Bytes {
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + body.len());
        frame.put_u8(MST_MESSAGE);
        frame.put_u64_le(self.group.0);
        frame.put_u64_le(self.target.0);
        frame.put_u64_le(self.sender.0);
        frame.put_slice(body);
        frame.freeze()
    }

    fn read(mut frame: Bytes) -> Option<(Self, Bytes)> {
        if frame.len() < HEADER_BYTES || frame.get_u8() != MST_MESSAGE {
            return None;
        }
        let route = Route {
            group: GroupId(frame.get_u64_le()),
            target: ReplicaId(frame.get_u64_le()),
            sender: ReplicaId(frame.get_u64_le()),
        };
        Some((route, frame))
    }
}

impl MstRouter {
    /// A router without groups, over the links of this node. The caller sets the links' handler and
    /// passes to [`MstRouter::receive`] what begins with [`MST_MESSAGE`].
    pub fn new(links: Arc<Links>) -> Arc<Self> {
        Arc::new(MstRouter { links, slots: RwLock::default() })
    }

    /// The links it sends over.
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Takes a message whose payload begins with [`MST_MESSAGE`]. Never blocks: what finds its queue
    /// full, an unknown group or another replica is refused, or lost when nobody waits for an answer.
    pub fn receive(&self, incoming: Incoming) {
        let Incoming { payload, reply, .. } = incoming;
        let refuse = |reply: Option<ReplyToken>, reason: &str| {
            if let Some(reply) = reply {
                reply.refuse(reason.to_owned());
            }
        };
        let Some((route, body)) = Route::read(payload) else {
            return refuse(reply, "a malformed message between replicas");
        };
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get(&route.group).filter(|slot| slot.replica == route.target) else {
            return refuse(reply, "no such replica here");
        };
        let message = Message { sender: route.sender, body, reply };
        if let Err(full) = slot.messages.try_send(message) {
            slot.lost.store(true, Ordering::SeqCst);
            refuse(full.into_inner().reply, "the replica is busy");
        }
    }

    /// Opens the mailbox of a replica; `None` when the group has a replica here already.
    pub(super) fn register(&self, group: GroupId, replica: ReplicaId) -> Option<Mailbox> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.contains_key(&group) {
            return None;
        }
        let (sender, messages) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicBool::new(false));
        slots.insert(group, Slot { replica, messages: sender, lost: lost.clone() });
        Some(Mailbox { messages, lost })
    }

    /// Closes the mailbox of a group: its receiver ends.
    pub(super) fn unregister(&self, group: GroupId) {
        self.slots.write().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }

    /// Whether a node is there, as far as is known.
    pub(super) fn sees(&self, node: NodeId) -> bool {
        self.links.me().0 == node.0 || self.links.peers().contains_key(&PeerId(node.0))
    }

    /// Sends without waiting for an answer.
    pub(super) fn send(&self, node: NodeId, route: Route, body: &[u8]) -> Result<()> {
        Ok(self.links.send(PeerId(node.0), Class::Log, route.frame(body))?)
    }

    /// Sends a request, and waits for its answer.
    pub(super) fn request(
        &self,
        node: NodeId,
        route: Route,
        body: &[u8],
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes>> + Send + use<> {
        let asked = self.links.request(PeerId(node.0), Class::Log, route.frame(body), timeout);
        async move { asked.await.map_err(Error::from) }
    }
}

impl fmt::Debug for MstRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MstRouter").field("links", &self.links).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_read_as_it_was_framed_and_garbage_is_not() {
        let route = Route { group: GroupId(7), target: ReplicaId(1), sender: ReplicaId(2) };
        let frame = route.frame(b"body");
        let (read, body) = Route::read(frame.clone()).unwrap();
        assert_eq!(
            (read.group, read.target, read.sender, &body[..]),
            (GroupId(7), ReplicaId(1), ReplicaId(2), &b"body"[..])
        );
        for end in 0..HEADER_BYTES {
            assert!(Route::read(frame.slice(..end)).is_none());
        }
        assert!(Route::read(Bytes::from_static(&[1; 64])).is_none());
    }
}
