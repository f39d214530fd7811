//! The router: hands what comes over the links to the replica it is for, and refuses the rest.
//!
//! It runs on the receiving thread of the links: it decodes a header and tries to queue, no more.

use std::marker::PhantomData;
use std::sync::Arc;

use odgm_transport::link::{Incoming, Links};

use crate::runtime::Runtime;

/// First byte of every message of this module on a link.
pub const RAFT_MESSAGE: u8 = 1;

/// Demultiplexes the Raft messages of a node by group. One per node.
#[derive(Debug)]
pub struct RaftRouter<R: Runtime> {
    links: Arc<Links>,
    runtime: PhantomData<fn() -> R>,
}

impl<R: Runtime> RaftRouter<R> {
    /// A router without groups, over the links of this node. The caller sets the links' handler and
    /// passes to [`RaftRouter::receive`] what begins with [`RAFT_MESSAGE`].
    pub fn new(links: Arc<Links>) -> Arc<Self> {
        Arc::new(RaftRouter { links, runtime: PhantomData })
    }

    /// The links it sends over.
    pub fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Takes a message whose payload begins with [`RAFT_MESSAGE`]. Never blocks: what finds its queue
    /// full, an unknown group or another replica is refused.
    pub fn receive(&self, incoming: Incoming) {
        drop(incoming);
    }
}
