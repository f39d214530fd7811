//! The router: hands what comes over the links to the replica it is for, and refuses the rest.
//!
//! It runs on the receiving thread of the links: it decodes a header and tries to queue, no more.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock};

use odgm_transport::link::{Incoming, Links, PeerId, ReplyToken};
use tokio::sync::mpsc;

use super::encode::Reader;
use super::message::{Header, Kind};
use crate::object::GroupId;
use crate::runtime::Runtime;

/// First byte of every message of this module on a link.
pub const RAFT_MESSAGE: u8 = 1;

/// Messages that may wait for one replica: appends, and the others.
const QUEUE: usize = 1024;

/// A request for a replica, its header read.
pub(crate) struct Request {
    pub(crate) header: Header,
    pub(crate) body: Reader,
    pub(crate) from: PeerId,
    pub(crate) reply: ReplyToken,
}

/// Where the requests for a replica come out.
pub(crate) struct Mailbox {
    pub(crate) appends: mpsc::Receiver<Request>,
    pub(crate) others: mpsc::Receiver<Request>,
}

struct Slot {
    replica: u64,
    appends: mpsc::Sender<Request>,
    others: mpsc::Sender<Request>,
}

/// Demultiplexes the Raft messages of a node by group. One per node.
pub struct RaftRouter<R: Runtime> {
    links: Arc<Links>,
    slots: RwLock<HashMap<GroupId, Slot>>,
    runtime: PhantomData<fn() -> R>,
}

impl<R: Runtime> RaftRouter<R> {
    /// A router without groups, over the links of this node. The caller sets the links' handler and
    /// passes to [`RaftRouter::receive`] what begins with [`RAFT_MESSAGE`].
    pub fn new(links: Arc<Links>) -> Arc<Self> {
        Arc::new(RaftRouter { links, slots: RwLock::default(), runtime: PhantomData })
    }

    /// The links it sends over.
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Takes a message whose payload begins with [`RAFT_MESSAGE`]. Never blocks: what finds its queue
    /// full, an unknown group or another replica is refused.
    pub fn receive(&self, incoming: Incoming) {
        let Some(reply) = incoming.reply else { return };
        let (header, body) = match Header::decode(incoming.payload) {
            Ok(decoded) => decoded,
            Err(malformed) => return reply.refuse(malformed.to_string()),
        };
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get(&header.group) else {
            return reply.refuse(format!("no replica of group {} here", header.group));
        };
        if slot.replica != header.target {
            let present = slot.replica;
            return reply.refuse(format!("replica {present} of the group is here, not {}", header.target));
        }
        let queue = if header.kind == Kind::Append { &slot.appends } else { &slot.others };
        let request = Request { header, body, from: incoming.from, reply };
        if let Err(refused) = queue.try_send(request) {
            refused.into_inner().reply.refuse("the replica is busy".to_owned());
        }
    }

    /// Opens the mailbox of a replica; `None` when the group has a replica here already.
    pub(crate) fn register(&self, group: GroupId, replica: u64) -> Option<Mailbox> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.contains_key(&group) {
            return None;
        }
        let (append_sender, appends) = mpsc::channel(QUEUE);
        let (other_sender, others) = mpsc::channel(QUEUE);
        slots.insert(group, Slot { replica, appends: append_sender, others: other_sender });
        Some(Mailbox { appends, others })
    }

    /// Closes the mailbox of a group: its receivers end.
    pub(crate) fn unregister(&self, group: GroupId) {
        self.slots.write().unwrap_or_else(PoisonError::into_inner).remove(&group);
    }
}

impl<R: Runtime> fmt::Debug for RaftRouter<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftRouter").field("links", &self.links).finish_non_exhaustive()
    }
}
