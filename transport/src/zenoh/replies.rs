//! Replies: a queue bounded in bytes and a few threads that hand them to zenoh, which may block each
//! of them for seconds. A full queue loses the reply and keeps the end of the query, so that the
//! caller sees no answer at once instead of at its deadline.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zenoh::Wait;

use super::{convert, session_error};
use crate::session::{Query, Reply, Responder};
use crate::{Error, Result};

const THREADS: usize = 4;
/// Of payloads that wait.
const QUEUE_BYTES: usize = 64 << 20;
const QUEUE_REPLIES: usize = 16_384;
/// Ends of queries are small, so more of them may wait than replies.
const QUEUE_ENDS: usize = 4 * QUEUE_REPLIES;

/// How many may wait for each thread that sends, before another one helps.
const BACKLOG: usize = 64;
/// How long a thread may be held up before another one helps.
const WATCH: Duration = Duration::from_millis(2);

/// What became of the replies of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplyStats {
    /// Handed to zenoh.
    pub sent: u64,
    /// Lost because the queue was full.
    pub lost: u64,
    /// Refused by zenoh: the caller has gone, or the key does not match the query's.
    pub failed: u64,
    /// Queries that ended without an answer.
    pub unanswered: u64,
}

/// The threads and their queue.
pub(super) struct ReplyPool {
    queue: Mutex<Queue>,
    ready: Condvar,
    sent: AtomicU64,
    lost: AtomicU64,
    failed: AtomicU64,
    unanswered: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    closed: bool,
    /// Threads that are sending.
    active: usize,
    /// An idle thread looks whether they make progress.
    watched: bool,
    /// Jobs taken so far.
    taken: u64,
}

impl Queue {
    fn wants_another(&self) -> bool {
        self.jobs.len() > self.active * BACKLOG
    }
}

/// The last thing that happens to a query: with or without an answer, its end.
struct Job {
    query: zenoh::query::Query,
    reply: Option<Reply>,
    bytes: usize,
}

impl ReplyPool {
    pub(super) fn start(name: &str) -> Result<Arc<Self>> {
        let pool = Arc::new(ReplyPool {
            queue: Mutex::default(),
            ready: Condvar::new(),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        });
        for number in 0..THREADS {
            let worker = pool.clone();
            let started = std::thread::Builder::new()
                .name(format!("{name}-reply-{number}"))
                .spawn(move || worker.run());
            if let Err(error) = started {
                pool.close();
                return Err(Error::Session(format!("no thread for replies: {error}")));
            }
        }
        Ok(pool)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread sends as long as there is something: handing replies around costs more than
    /// sending them. Another joins when many wait, or when the first makes no progress, because zenoh
    /// holds it up: that is what the watch is for, which one idle thread keeps meanwhile.
    fn run(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                queue.bytes -= job.bytes;
                queue.taken += 1;
                queue.active += 1;
                let alone = !queue.watched;
                drop(queue);
                if alone {
                    self.ready.notify_one();
                }
                if let Some(reply) = job.reply {
                    // Counted; there is nobody left to tell.
                    let _ = self.send(&job.query, reply);
                }
                drop(job.query);
                queue = self.lock();
                queue.active -= 1;
            } else if queue.closed {
                return;
            } else if queue.active > 0 && !queue.watched {
                queue = self.watch(queue);
            } else {
                queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Returns when there is something to do for one more thread, or nothing for any.
    fn watch<'a>(&self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.watched = true;
        while queue.active > 0 && !queue.closed && !queue.wants_another() {
            let taken = queue.taken;
            queue = self.ready.wait_timeout(queue, WATCH).unwrap_or_else(PoisonError::into_inner).0;
            if queue.taken == taken && !queue.jobs.is_empty() {
                break;
            }
        }
        queue.watched = false;
        queue
    }

    fn push(&self, query: zenoh::query::Query, mut reply: Option<Reply>) {
        let mut bytes = reply.as_ref().map_or(0, size);
        let mut queue = self.lock();
        let full =
            queue.jobs.len() >= QUEUE_REPLIES || (queue.bytes > 0 && queue.bytes + bytes > QUEUE_BYTES);
        if reply.is_some() && full {
            self.lost.fetch_add(1, Ordering::Relaxed);
            (reply, bytes) = (None, 0);
        }
        if queue.closed || queue.jobs.len() >= QUEUE_ENDS {
            // Ends it here: the last resort, it may block.
            drop(queue);
            return;
        }
        queue.bytes += bytes;
        queue.jobs.push_back(Job { query, reply, bytes });
        let wake = queue.active == 0 || queue.wants_another();
        drop(queue);
        if wake {
            self.ready.notify_one();
        }
    }

    fn send(&self, query: &zenoh::query::Query, reply: Reply) -> Result<()> {
        let sent = send(query, reply);
        match &sent {
            Ok(()) => self.sent.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(key = %query.key_expr(), %error, "a reply was not sent");
                self.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
        sent
    }

    pub(super) fn stats(&self) -> ReplyStats {
        ReplyStats {
            sent: self.sent.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            unanswered: self.unanswered.load(Ordering::Relaxed),
        }
    }

    /// The threads end once they have sent what waits.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }
}

fn size(reply: &Reply) -> usize {
    match reply {
        Ok(sample) => {
            sample.payload.as_ref().map_or(0, |payload| payload.len())
                + sample.attachment.as_ref().map_or(0, |attachment| attachment.len())
        }
        Err(error) => error.payload.len(),
    }
}

/// Whether it is batched is the query's to say: zenoh gives replies its quality of service (`route_send_response`).
fn send(query: &zenoh::query::Query, reply: Reply) -> Result<()> {
    match reply {
        Ok(sample) => {
            let timestamp = sample.timestamp.map(convert::to_timestamp).transpose()?;
            match sample.payload {
                Some(payload) => query
                    .reply(sample.key, payload)
                    .encoding(convert::to_encoding(sample.encoding))
                    .timestamp(timestamp)
                    .attachment(sample.attachment)
                    .wait(),
                None => query.reply_del(sample.key).timestamp(timestamp).attachment(sample.attachment).wait(),
            }
        }
        Err(error) => query.reply_err(error.payload).encoding(convert::to_encoding(error.encoding)).wait(),
    }
    .map_err(session_error)
}

/// Our view of zenoh's query.
pub(super) fn query(query: zenoh::query::Query, pool: &Arc<ReplyPool>) -> Query {
    Query {
        key: query.key_expr().clone(),
        parameters: query.parameters().as_str().to_owned(),
        payload: query.payload().map(convert::bytes),
        encoding: query.encoding().map(convert::encoding).unwrap_or_default(),
        attachment: query.attachment().map(convert::bytes),
        responder: Box::new(ZenohResponder {
            query: Some(query),
            streamed: AtomicBool::new(false),
            pool: pool.clone(),
        }),
    }
}

/// Ends its query on the pool when it is dropped.
struct ZenohResponder {
    /// Taken by the answer or by the drop.
    query: Option<zenoh::query::Query>,
    streamed: AtomicBool,
    pool: Arc<ReplyPool>,
}

impl Responder for ZenohResponder {
    fn respond(mut self: Box<Self>, reply: Reply) {
        if let Some(query) = self.query.take() {
            self.pool.push(query, Some(reply));
        }
    }

    fn send(&self, reply: Reply) -> Result<()> {
        let query = self.query.as_ref().ok_or_else(|| Error::Session("the query has ended".into()))?;
        self.streamed.store(true, Ordering::Relaxed);
        self.pool.send(query, reply)
    }
}

impl Drop for ZenohResponder {
    fn drop(&mut self) {
        if let Some(query) = self.query.take() {
            if !*self.streamed.get_mut() {
                self.pool.unanswered.fetch_add(1, Ordering::Relaxed);
            }
            self.pool.push(query, None);
        }
    }
}

impl fmt::Debug for ZenohResponder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZenohResponder").finish_non_exhaustive()
    }
}
