//! The session: what a zenoh session and its simulated twin both do.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{KeyExpr, Result};

/// The commit time of a sample: NTP64 and the id of the clock that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// NTP64: seconds since the Unix epoch in the upper 32 bits, their fraction in the lower.
    pub time: u64,
    /// The id of the clock, never all zero.
    pub clock: [u8; 16],
}

/// Which of zenoh's priorities a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Votes and heartbeats: sent alone, at once.
    RealTime,
    /// Log replication.
    InteractiveHigh,
    /// Clients' data.
    Data,
    /// Snapshots.
    Background,
}

/// What to do when a link's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Congestion {
    /// Wait; a peer that takes nothing for seconds loses its link.
    Block,
    /// Lose the message.
    Drop,
}

/// A value under a key, or its removal (`payload: None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// A concrete key.
    pub key: KeyExpr<'static>,
    /// The value; `None` is a delete.
    pub payload: Option<Bytes>,
    /// zenoh's encoding, as its string; empty means none was given.
    pub encoding: String,
    /// The attachment.
    pub attachment: Option<Bytes>,
    /// The commit time.
    pub timestamp: Option<Timestamp>,
}

/// An error reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    /// Its payload.
    pub payload: Bytes,
    /// Its encoding.
    pub encoding: String,
}

/// One answer to a call.
pub type Reply = std::result::Result<Sample, ErrorReply>;

/// A request to whoever serves a key.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is asked; may have wildcards.
    pub key: KeyExpr<'static>,
    /// `a=1;b=2`, percent-encoded.
    pub parameters: String,
    /// The request's payload.
    pub payload: Option<Bytes>,
    /// The payload's encoding; empty means none is given.
    pub encoding: String,
    /// The attachment.
    pub attachment: Option<Bytes>,
    /// When the query ends at the latest.
    pub timeout: Duration,
    /// The priority of the query and of its replies.
    pub priority: Priority,
    /// Ask every matching server, not the nearest complete one.
    pub all: bool,
    /// Many replies are expected: they share the link's batches and come in groups, the last with the query's end.
    /// That costs a lone reply up to a millisecond.
    pub many: bool,
}

impl Call {
    /// A call without payload, of clients' priority, that asks the best matching servers.
    pub fn new(key: KeyExpr<'static>, timeout: Duration) -> Self {
        Call {
            key,
            parameters: String::new(),
            payload: None,
            encoding: String::new(),
            attachment: None,
            timeout,
            priority: Priority::Data,
            all: false,
            many: false,
        }
    }
}

/// The replies of one call, in order of arrival, not consolidated. Ends with `None` once the query
/// has ended, by its servers or by its deadline.
#[derive(Debug)]
pub struct Replies {
    groups: UnboundedReceiver<Vec<Reply>>,
    /// What is left of the group that came last.
    came: std::vec::IntoIter<Reply>,
}

impl Replies {
    /// What comes in groups through a channel; no group is empty.
    pub(crate) fn new(groups: UnboundedReceiver<Vec<Reply>>) -> Self {
        Replies { groups, came: Vec::new().into_iter() }
    }

    /// The next reply. Cancel-safe.
    pub async fn next(&mut self) -> Option<Reply> {
        if let Some(reply) = self.came.next() {
            return Some(reply);
        }
        self.came = self.groups.recv().await?.into_iter();
        self.came.next()
    }
}

/// A query as its server sees it. The caller's query ends when it is answered or dropped.
#[derive(Debug)]
pub struct Query {
    /// The key that was asked; may have wildcards.
    pub key: KeyExpr<'static>,
    /// `a=1;b=2`, percent-encoded.
    pub parameters: String,
    /// The request's payload.
    pub payload: Option<Bytes>,
    /// The payload's encoding; empty when none was given.
    pub encoding: String,
    /// The attachment.
    pub attachment: Option<Bytes>,
    pub(crate) responder: Box<dyn Responder>,
}

impl Query {
    /// Answers once and ends the query. Never blocks: the reply goes through a bounded queue of the
    /// session; when that is full it is lost and counted, and the caller sees no answer.
    pub fn respond(self, reply: Reply) {
        self.responder.respond(reply);
    }

    /// Answers many times. For threads that may block.
    pub fn stream(self) -> ReplyStream {
        ReplyStream { responder: self.responder }
    }
}

/// Sends the replies of one query, one after the other; the query ends when it is dropped.
#[derive(Debug)]
pub struct ReplyStream {
    responder: Box<dyn Responder>,
}

impl ReplyStream {
    /// Sends a reply. Blocks while the caller's link is full, for seconds at most.
    ///
    /// # Errors
    /// When the caller's link is gone.
    pub fn send(&self, reply: Reply) -> Result<()> {
        self.responder.send(reply)
    }
}

/// How a backend answers a query.
pub trait Responder: Send + Sync + Debug {
    /// Queues the only reply.
    fn respond(self: Box<Self>, reply: Reply);
    /// Sends one of many, possibly blocking.
    fn send(&self, reply: Reply) -> Result<()>;
}

/// Called for each query, on the session's receiving thread: it must not block.
pub type QueryHandler = Arc<dyn Fn(Query) + Send + Sync>;
/// Called for each sample, on the session's receiving thread: it must not block.
pub type SampleHandler = Arc<dyn Fn(Sample) + Send + Sync>;
/// Called with a key and whether it is alive, on the session's receiving thread: it must not block.
pub type LivenessHandler = Arc<dyn Fn(KeyExpr<'static>, bool) + Send + Sync>;

/// Something declared on a session; undeclared when dropped (not from within its own handler).
pub trait Declaration: Send + Sync + Debug {}

/// A declared key to publish on.
pub trait Publisher: Send + Sync + Debug {
    /// Sends bytes on the key. With [`Congestion::Block`] it blocks while the link is full.
    fn put(&self, payload: Bytes) -> Result<()>;
}

/// A session.
pub trait Session: Send + Sync + Debug {
    /// Asks; the replies come as they arrive. May block while the link is full, for seconds at most.
    fn call(&self, call: Call) -> Result<Replies>;

    /// Serves queries that match `key`. With `complete` the nearest of all complete servers answers
    /// alone, else all that match are asked.
    fn serve(
        &self,
        key: &KeyExpr<'static>,
        complete: bool,
        handler: QueryHandler,
    ) -> Result<Box<dyn Declaration>>;

    /// Publishes a sample; `Block` may block for seconds.
    fn publish(&self, sample: Sample, priority: Priority, congestion: Congestion) -> Result<()>;

    /// Declares a key to publish on many times. What is put is sent at once: batch before it.
    fn publisher(
        &self,
        key: &KeyExpr<'static>,
        priority: Priority,
        congestion: Congestion,
    ) -> Result<Box<dyn Publisher>>;

    /// Receives what other sessions publish on matching keys.
    fn subscribe(&self, key: &KeyExpr<'static>, handler: SampleHandler) -> Result<Box<dyn Declaration>>;

    /// Announces presence under a concrete key for as long as the declaration lives.
    fn announce(&self, key: &KeyExpr<'static>) -> Result<Box<dyn Declaration>>;

    /// Watches presence: first what is there, then the changes.
    fn watch(&self, key: &KeyExpr<'static>, handler: LivenessHandler) -> Result<Box<dyn Declaration>>;

    /// Whether sending may block its thread, for seconds: true for a network, false for a simulation,
    /// where senders are tasks and not threads.
    fn blocks(&self) -> bool {
        true
    }

    /// Closes the session and everything declared on it.
    fn close(&self) -> Result<()>;
}
