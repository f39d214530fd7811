//! Links between the nodes of a cluster: one-way messages, requests and responses, and presence.
//!
//! One inbox per node and class, one declared publisher per peer and class, and one frame for
//! everything that waits to the same peer, so that the heartbeats of all shards travel together.
//! Messages are ordered per peer and class and delivered at most once; what is under way when a
//! peer's presence ends is lost, and its requests fail at once. Frames carry the cluster's id and,
//! with a secret, a MAC. The layout is in `docs/formats/wire.md`.
//!
//! ```text
//! @odgm/{cluster}/link/{to}/{class}              the inbox of a node
//! @odgm/{cluster}/node/{id}/{name}/{epoch}       presence; the epoch tells a restart from its predecessor
//! ```
//!
//! It knows node ids and bytes, nothing of what they mean.

mod frame;
mod inbox;
mod key;
mod options;
mod outbox;
mod peers;
mod pending;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

pub use self::frame::{Decoded, FRAME_VERSION, Header, Kind, Malformed, Message, decode, encode};
pub use self::options::LinkOptions;
use self::outbox::Lanes;
use self::peers::Peers;
use self::pending::Pending;
use crate::session::Declaration;
use crate::timer::Timer;
use crate::{Error, Result, Session};

/// The id of a node, as shard 0 gives it; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What a message may wait for. Ordered within a class, never between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Votes and heartbeats: before everything else, sent at once.
    Control,
    /// Log entries.
    Log,
    /// Snapshots: behind everything else, on a thread of its own.
    Bulk,
}

/// A message from a peer.
#[derive(Debug)]
pub struct Incoming {
    /// Who sent it.
    pub from: PeerId,
    /// The sender's start: differs after each restart of the peer.
    pub epoch: u64,
    /// The sender's cluster; nil before its founding. Never another one than ours, when we have one.
    pub cluster: Uuid,
    /// The class it came in; a reply takes the same.
    pub class: Class,
    /// The message.
    pub payload: Bytes,
    /// How to answer; `None` for a one-way message.
    pub reply: Option<ReplyToken>,
}

/// Called for each message, on the session's receiving thread: it must not block.
pub type IncomingHandler = Arc<dyn Fn(Incoming) + Send + Sync>;

/// Answers one request. Dropped unanswered, it refuses, so that the requester need not wait for its
/// deadline. Never blocks; an answer that finds its queue full is lost and counted.
#[derive(Debug)]
pub struct ReplyToken {
    inner: Arc<Inner>,
    to: PeerId,
    class: Class,
    correlation: u64,
    answered: bool,
}

impl ReplyToken {
    /// Answers.
    pub fn send(mut self, body: Bytes) {
        self.answer(Kind::Response, body);
    }

    /// Refuses: the requester gets [`Error::Refused`] with the reason.
    pub fn refuse(mut self, reason: String) {
        self.answer(Kind::Refusal, Bytes::from(reason));
    }

    fn answer(&mut self, kind: Kind, body: Bytes) {
        self.answered = true;
        let message = Message { kind, correlation: self.correlation, body };
        if self.inner.post(self.to, self.class, message).is_err() {
            self.inner.counters.replies_lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ReplyToken {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(Kind::Refusal, Bytes::from_static(b"the request was dropped"));
        }
    }
}

/// What the links have counted since they were opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames sent.
    pub frames_sent: u64,
    /// Messages in them.
    pub messages_sent: u64,
    /// Bytes in them.
    pub bytes_sent: u64,
    /// Frames received and accepted.
    pub frames_received: u64,
    /// Frames that could not be read, or were not for this node.
    pub malformed: u64,
    /// Frames without the right MAC.
    pub unauthentic: u64,
    /// Frames of another cluster.
    pub foreign: u64,
    /// Frames that zenoh did not take.
    pub send_failures: u64,
    /// Replies that found their queue full or their peer gone.
    pub replies_lost: u64,
    /// Messages that came before a handler was set.
    pub unserved: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    frames_sent: AtomicU64,
    messages_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    malformed: AtomicU64,
    unauthentic: AtomicU64,
    foreign: AtomicU64,
    send_failures: AtomicU64,
    replies_lost: AtomicU64,
    unserved: AtomicU64,
}

/// The links of one node. Close them before their session; dropping them closes them too (not from
/// within a handler).
pub struct Links {
    inner: Arc<Inner>,
    declarations: Mutex<Vec<Box<dyn Declaration>>>,
}

pub(crate) struct Inner {
    options: LinkOptions,
    timer: Arc<dyn Timer>,
    cluster: RwLock<Uuid>,
    handler: OnceLock<IncomingHandler>,
    pending: Pending,
    peers: Peers,
    lanes: Lanes,
    counters: Arc<Counters>,
}

impl Links {
    /// Declares the inbox, announces this node and starts watching for its peers.
    ///
    /// # Errors
    /// When the options cannot be, or zenoh refuses a declaration.
    pub fn open(
        session: Arc<dyn Session>,
        timer: Arc<dyn Timer>,
        options: LinkOptions,
    ) -> Result<Arc<Links>> {
        options.validate()?;
        let counters = Arc::new(Counters::default());
        let inner = Arc::new(Inner {
            pending: Pending::new(options.epoch, options.max_pending),
            peers: Peers::default(),
            lanes: Lanes::new(session.clone(), timer.clone(), &options, counters.clone()),
            timer,
            cluster: RwLock::new(Uuid::nil()),
            handler: OnceLock::new(),
            counters,
            options,
        });
        // The inboxes before the presence: who sees a node can reach it.
        let declarations = inbox::declare(&inner, session.as_ref())?;
        Ok(Arc::new(Links { inner, declarations: Mutex::new(declarations) }))
    }

    /// This node.
    pub fn me(&self) -> PeerId {
        self.inner.options.me
    }

    /// Sets who takes the messages, once; later calls change nothing. What comes before is refused.
    pub fn serve(&self, handler: IncomingHandler) {
        if self.inner.handler.set(handler).is_err() {
            tracing::warn!("the links have a handler already");
        }
    }

    /// Sets the id of our cluster, once it is founded or joined.
    pub fn set_cluster(&self, cluster: Uuid) {
        *self.inner.cluster.write().unwrap_or_else(PoisonError::into_inner) = cluster;
        self.inner.lanes.set_cluster(cluster);
    }

    /// The id of our cluster; nil while it is not known.
    pub fn cluster(&self) -> Uuid {
        self.inner.cluster()
    }

    /// Queues a one-way message. Ordered per peer and class. Never blocks.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the peer is not present, [`Error::Full`] when its queue is full,
    /// [`Error::TooLarge`] for a message over the limit; nothing was sent then.
    pub fn send(&self, to: PeerId, class: Class, payload: Bytes) -> Result<()> {
        self.inner.post(to, class, Message { kind: Kind::OneWay, correlation: 0, body: payload })
    }

    /// Sends a request and waits for its response. It is queued by this call, in the order of the
    /// calls, and not by the first poll. Many may be under way; responses come in any order.
    /// Dropping the future forgets the request.
    ///
    /// # Errors
    /// As [`Links::send`], with nothing sent. [`Error::Refused`] with the peer's reason.
    /// [`Error::Timeout`], and [`Error::Unreachable`] as soon as the peer's presence ends: the
    /// outcome is unknown.
    pub fn request(
        &self,
        to: PeerId,
        class: Class,
        payload: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes>> + Send + use<> {
        let inner = self.inner.clone();
        let queued = inner.peers.epoch(to).ok_or(Error::Unreachable(to.0)).and_then(|epoch| {
            let waiting = Pending::register(&inner, to, epoch)?;
            let message = Message { kind: Kind::Request, correlation: waiting.correlation(), body: payload };
            inner.post(to, class, message)?;
            // The presence may have ended between the look and the registration.
            match inner.peers.has(to, epoch) {
                true => Ok(waiting),
                false => Err(Error::Unreachable(to.0)),
            }
        });
        async move { queued?.wait(inner.timer.as_ref(), timeout).await }
    }

    /// The peers that are present, with their names; without this node. A hint, never membership.
    pub fn peers(&self) -> BTreeMap<PeerId, String> {
        self.inner.peers.names().borrow().clone()
    }

    /// Watches the peers that are present.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<PeerId, String>> {
        self.inner.peers.names()
    }

    /// What was counted so far.
    pub fn stats(&self) -> LinkStats {
        self.inner.counters.snapshot()
    }

    /// Ends presence, refuses what comes later, fails what is under way. Waits for the sending
    /// threads, each of which may be blocked for seconds by a peer that takes nothing.
    pub fn close(&self) {
        self.shut_down();
        self.inner.lanes.join();
    }

    fn shut_down(&self) {
        let declarations =
            std::mem::take(&mut *self.declarations.lock().unwrap_or_else(PoisonError::into_inner));
        drop(declarations);
        self.inner.peers.clear();
        self.inner.lanes.close_all();
        self.inner.pending.fail_all();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("me", &self.me()).field("peers", &self.peers()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("me", &self.options.me).finish_non_exhaustive()
    }
}

impl Inner {
    fn cluster(&self) -> Uuid {
        *self.cluster.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message for a peer that is present.
    fn post(&self, to: PeerId, class: Class, message: Message) -> Result<()> {
        let limit = self.options.max_message_bytes;
        if message.body.len() > limit {
            return Err(Error::TooLarge { found: message.body.len(), limit });
        }
        if self.peers.epoch(to).is_none() {
            return Err(Error::Unreachable(to.0));
        }
        self.lanes.post(to, class, message)
    }
}

impl Counters {
    fn snapshot(&self) -> LinkStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkStats {
            frames_sent: read(&self.frames_sent),
            messages_sent: read(&self.messages_sent),
            bytes_sent: read(&self.bytes_sent),
            frames_received: read(&self.frames_received),
            malformed: read(&self.malformed),
            unauthentic: read(&self.unauthentic),
            foreign: read(&self.foreign),
            send_failures: read(&self.send_failures),
            replies_lost: read(&self.replies_lost),
            unserved: read(&self.unserved),
        }
    }
}
