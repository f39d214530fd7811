//! The session on zenoh.
//!
//! Handlers run on zenoh's receiving threads. Replies go through a small pool of threads with a
//! queue bounded in bytes, since zenoh blocks a sender whose receiver takes nothing; the end of a
//! query is sent from there too. Payloads above 16 KiB are shared with zenoh's buffers, smaller ones
//! copied, so that a small value held for long does not hold a whole receive buffer.

mod convert;
mod links;
mod presence;
mod replies;
mod runtime;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use zenoh::Wait;
use zenoh::bytes::Encoding;
use zenoh::internal::runtime::{DynamicRuntime, Runtime, RuntimeBuilder};
use zenoh::query::{ConsolidationMode, QueryTarget, Selector};
use zenoh::sample::Locality;

use self::links::AllOrNone;
use self::replies::ReplyPool;
pub use self::replies::ReplyStats;
pub use self::runtime::{RUNTIME_VALUE, RUNTIME_VARIABLE, prepare_runtime};
use crate::options::SessionOptions;
use crate::session::{
    Call, Congestion, Declaration, LivenessHandler, Priority, Publisher, QueryHandler, Replies, Reply,
    Sample, SampleHandler, Session,
};
use crate::{Error, KeyExpr, Result};

/// The session's own count, and one call.
///
/// A message that zenoh may batch can wait for a whole tick of its timer, a millisecond, when the sending task
/// finds the batch still locked by the writer (zenoh-transport, pipeline.rs). A message that has no company to be
/// batched with is sent at once.
const ALONE: usize = 2;

/// Replies that are handed to the caller at once, when it expects many.
const GROUP: usize = 64;

/// A zenoh session. Needs a tokio runtime of several threads. Close it before its process ends.
pub struct ZenohSession {
    name: String,
    runtime: Runtime,
    session: zenoh::Session,
    replies: Arc<ReplyPool>,
    /// One for each call that is not over.
    calls: Arc<()>,
}

impl ZenohSession {
    /// Opens a session; `name` is for logs and thread names.
    ///
    /// # Errors
    /// [`Error::Configuration`] for options that zenoh does not take; [`Error::Session`] when it
    /// cannot listen, or nothing answered within `connect_timeout`.
    pub async fn open(options: &SessionOptions, name: &str) -> Result<Arc<ZenohSession>> {
        let config = options.to_zenoh()?;
        let (runtime, session) = Box::pin(start(config)).await.map_err(session_error)?;
        let replies = ReplyPool::start(name)?;
        Ok(Arc::new(ZenohSession { name: name.to_owned(), runtime, session, replies, calls: Arc::default() }))
    }

    /// Where the session listens, with the ports that the system chose.
    pub fn locators(&self) -> Vec<String> {
        self.session.info().locators().wait().iter().map(ToString::to_string).collect()
    }

    /// zenoh's id of this session, in hexadecimal.
    pub fn id(&self) -> String {
        self.session.zid().to_string()
    }

    /// zenoh's own session, for what this crate does not wrap.
    pub fn zenoh(&self) -> &zenoh::Session {
        &self.session
    }

    /// What became of the replies.
    pub fn stats(&self) -> ReplyStats {
        self.replies.stats()
    }
}

/// As `zenoh::open`, with an eye on the links.
async fn start(config: zenoh::Config) -> zenoh::Result<(Runtime, zenoh::Session)> {
    let mut runtime = RuntimeBuilder::new(config).build().await?;
    let shared = DynamicRuntime::from(runtime.clone());
    shared.new_handler(Arc::new(AllOrNone::default()));
    // What listens and dials finds a session behind it.
    let session = zenoh::session::init(shared).await?;
    runtime.start().await?;
    Ok((runtime, session))
}

impl Drop for ZenohSession {
    fn drop(&mut self) {
        if self.runtime.is_closed() {
            self.replies.close();
        } else if let Err(error) = self.close() {
            tracing::warn!(%error, session = self.name, "a session was left open, and could not be closed");
        }
    }
}

impl fmt::Debug for ZenohSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZenohSession")
            .field("name", &self.name)
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

pub(crate) fn session_error(error: zenoh::Error) -> Error {
    Error::Session(error.to_string())
}

impl Session for ZenohSession {
    fn call(&self, call: Call) -> Result<Replies> {
        let (delivery, groups) = Delivery::new(if call.many { GROUP } else { 1 });
        let under_way = self.calls.clone();
        // The replies take it from the query.
        let alone = Arc::strong_count(&self.calls) <= ALONE && !call.many;
        let mut get = self
            .session
            .get(Selector::owned(call.key, call.parameters))
            .target(if call.all { QueryTarget::All } else { QueryTarget::BestMatching })
            .consolidation(ConsolidationMode::None)
            .priority(convert::priority(call.priority))
            .express(alone || call.priority == Priority::RealTime)
            .timeout(call.timeout);
        if let Some(payload) = call.payload {
            get = get.payload(payload);
        }
        if !call.encoding.is_empty() {
            get = get.encoding(Encoding::from(call.encoding));
        }
        if let Some(attachment) = call.attachment {
            get = get.attachment(attachment);
        }
        get.callback(move |reply| {
            let _ = &under_way;
            if let Some(reply) = convert::reply(reply) {
                delivery.take(reply);
            }
        })
        .wait()
        .map_err(session_error)?;
        Ok(Replies::new(groups))
    }

    fn serve(
        &self,
        key: &KeyExpr<'static>,
        complete: bool,
        handler: QueryHandler,
    ) -> Result<Box<dyn Declaration>> {
        let pool = self.replies.clone();
        let queryable = self
            .session
            .declare_queryable(key.clone())
            .complete(complete)
            .callback(move |query| handler(replies::query(query, &pool)))
            .wait()
            .map_err(session_error)?;
        Ok(declared(queryable))
    }

    fn publish(&self, sample: Sample, priority: Priority, congestion: Congestion) -> Result<()> {
        let timestamp = sample.timestamp.map(convert::to_timestamp).transpose()?;
        let (urgent, priority) = (priority == Priority::RealTime, convert::priority(priority));
        let congestion = convert::congestion(congestion);
        match sample.payload {
            Some(payload) => {
                let mut put = self
                    .session
                    .put(sample.key, payload)
                    .priority(priority)
                    .congestion_control(congestion)
                    .express(urgent)
                    .timestamp(timestamp)
                    .attachment(sample.attachment);
                if !sample.encoding.is_empty() {
                    put = put.encoding(Encoding::from(sample.encoding));
                }
                put.wait()
            }
            None => self
                .session
                .delete(sample.key)
                .priority(priority)
                .congestion_control(congestion)
                .express(urgent)
                .timestamp(timestamp)
                .attachment(sample.attachment)
                .wait(),
        }
        .map_err(session_error)
    }

    fn publisher(
        &self,
        key: &KeyExpr<'static>,
        priority: Priority,
        congestion: Congestion,
    ) -> Result<Box<dyn Publisher>> {
        let publisher = self
            .session
            .declare_publisher(key.clone())
            .priority(convert::priority(priority))
            .congestion_control(convert::congestion(congestion))
            // Whoever declares a publisher sends frames that are batches already: see [`ALONE`].
            .express(true)
            .allowed_destination(Locality::Remote)
            .wait()
            .map_err(session_error)?;
        Ok(Box::new(ZenohPublisher(publisher)))
    }

    fn subscribe(&self, key: &KeyExpr<'static>, handler: SampleHandler) -> Result<Box<dyn Declaration>> {
        let subscriber = self
            .session
            .declare_subscriber(key.clone())
            .allowed_origin(Locality::Remote)
            .callback(move |sample| handler(convert::sample(sample)))
            .wait()
            .map_err(session_error)?;
        Ok(declared(subscriber))
    }

    fn announce(&self, key: &KeyExpr<'static>) -> Result<Box<dyn Declaration>> {
        let token = self.session.liveliness().declare_token(key.clone()).wait().map_err(session_error)?;
        Ok(declared(token))
    }

    fn watch(&self, key: &KeyExpr<'static>, handler: LivenessHandler) -> Result<Box<dyn Declaration>> {
        presence::watch(&self.session, key, handler)
    }

    fn close(&self) -> Result<()> {
        // On a thread of its own: zenoh waits in place, which some runtimes do not allow.
        let (session, runtime) = (self.session.clone(), self.runtime.clone());
        let close = move || session.close().wait().and_then(|()| runtime.close().wait());
        let closed = std::thread::spawn(close).join();
        self.replies.close();
        match closed {
            Ok(result) => result.map_err(session_error),
            Err(_) => Err(Error::Session("closing panicked".into())),
        }
    }
}

/// Hands replies to the task that waits for them, in groups: to wake it costs more than to take a reply. What is left
/// when the query ends is handed over then.
struct Delivery {
    group: usize,
    waiting: Mutex<Vec<Reply>>,
    sender: UnboundedSender<Vec<Reply>>,
}

impl Delivery {
    fn new(group: usize) -> (Self, UnboundedReceiver<Vec<Reply>>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (Delivery { group, waiting: Mutex::default(), sender }, receiver)
    }

    fn take(&self, reply: Reply) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            waiting.reserve_exact(self.group);
        }
        waiting.push(reply);
        if waiting.len() >= self.group {
            // The caller may have gone.
            let _ = self.sender.send(std::mem::take(&mut *waiting));
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let waiting = std::mem::take(self.waiting.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !waiting.is_empty() {
            let _ = self.sender.send(waiting);
        }
    }
}

#[derive(Debug)]
struct ZenohPublisher(zenoh::pubsub::Publisher<'static>);

impl Publisher for ZenohPublisher {
    fn put(&self, payload: Bytes) -> Result<()> {
        self.0.put(payload).wait().map_err(session_error)
    }
}

/// Something that zenoh undeclares when it is dropped.
struct Declared<T>(#[allow(dead_code, reason = "held for its drop")] T);

impl<T> fmt::Debug for Declared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Declared")
    }
}

impl<T: Send + Sync> Declaration for Declared<T> {}

fn declared<T: Send + Sync + 'static>(entity: T) -> Box<dyn Declaration> {
    Box::new(Declared(entity))
}
