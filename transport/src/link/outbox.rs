//! What is sent: a bounded queue per peer and class, drained by a sender per peer for control and
//! log and by one for bulk. A sender is a thread, since zenoh may block it; where the session never
//! blocks it is a task.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Class, Counters, Header, LinkOptions, Message, PeerId, encode, key};
use crate::session::{Congestion, Priority, Publisher};
use crate::timer::Timer;
use crate::{Error, Result, Session};

/// The classes of one sender, the first before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Fast,
    Bulk,
}

impl Lane {
    fn of(class: Class) -> Lane {
        match class {
            Class::Control | Class::Log => Lane::Fast,
            Class::Bulk => Lane::Bulk,
        }
    }
}

/// All senders of a node.
#[derive(Debug)]
pub(super) struct Lanes {
    session: Arc<dyn Session>,
    timer: Arc<dyn Timer>,
    shared: Arc<Shared>,
    open: Mutex<BTreeMap<(PeerId, Lane), Arc<Outbox>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What every sender reads.
#[derive(Debug)]
struct Shared {
    me: PeerId,
    epoch: u64,
    cluster_name: String,
    cluster: Mutex<Uuid>,
    secret: Option<Bytes>,
    queue_bytes: usize,
    frame_bytes: usize,
    counters: Arc<Counters>,
}

/// The queues of one sender.
#[derive(Debug)]
struct Outbox {
    to: PeerId,
    state: Mutex<State>,
    thread: Condvar,
    task: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By class.
    queues: [Queue; 3],
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Lanes {
    pub(super) fn new(
        session: Arc<dyn Session>,
        timer: Arc<dyn Timer>,
        options: &LinkOptions,
        counters: Arc<Counters>,
    ) -> Self {
        let shared = Arc::new(Shared {
            me: options.me,
            epoch: options.epoch,
            cluster_name: options.cluster.clone(),
            cluster: Mutex::new(Uuid::nil()),
            secret: options.secret.clone(),
            queue_bytes: options.queue_bytes,
            frame_bytes: options.frame_bytes,
            counters,
        });
        Lanes { session, timer, shared, open: Mutex::default(), threads: Mutex::default() }
    }

    pub(super) fn set_cluster(&self, cluster: Uuid) {
        *self.shared.cluster.lock().unwrap_or_else(PoisonError::into_inner) = cluster;
    }

    pub(super) fn post(&self, to: PeerId, class: Class, message: Message) -> Result<()> {
        self.outbox(to, Lane::of(class))?.push(class, message, self.shared.queue_bytes)
    }

    fn outbox(&self, to: PeerId, lane: Lane) -> Result<Arc<Outbox>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outbox) = open.get(&(to, lane)) {
            return Ok(outbox.clone());
        }
        let outbox =
            Arc::new(Outbox { to, state: Mutex::default(), thread: Condvar::new(), task: Notify::new() });
        self.start(lane, outbox.clone())?;
        open.insert((to, lane), outbox.clone());
        Ok(outbox)
    }

    fn start(&self, lane: Lane, outbox: Arc<Outbox>) -> Result<()> {
        let sender = Sender {
            session: self.session.clone(),
            shared: self.shared.clone(),
            outbox,
            publishers: [None, None, None],
        };
        if !self.session.blocks() {
            self.timer.spawn(Box::pin(sender.run_task()));
            return Ok(());
        }
        let name = format!("link-{}-{}", sender.outbox.to, if lane == Lane::Bulk { "bulk" } else { "fast" });
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || sender.run_thread())
            .map_err(|error| Error::Session(format!("no thread for a link: {error}")))?;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(())
    }

    /// Forgets what waits for a peer and ends its senders.
    pub(super) fn close(&self, to: PeerId) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in [Lane::Fast, Lane::Bulk] {
            if let Some(outbox) = open.remove(&(to, lane)) {
                outbox.close();
            }
        }
    }

    pub(super) fn close_all(&self) {
        let open = std::mem::take(&mut *self.open.lock().unwrap_or_else(PoisonError::into_inner));
        open.values().for_each(|outbox| outbox.close());
    }

    /// Waits for the senders that were closed.
    pub(super) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a sending thread of the links panicked");
            }
        }
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, class: Class, message: Message, limit: usize) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Unreachable(self.to.0));
        }
        let queue = &mut state.queues[class as usize];
        if queue.bytes > 0 && queue.bytes + message.size() > limit {
            return Err(Error::Full);
        }
        queue.bytes += message.size();
        queue.messages.push_back(message);
        drop(state);
        self.thread.notify_one();
        self.task.notify_one();
        Ok(())
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.queues = Default::default();
        drop(state);
        self.thread.notify_one();
        self.task.notify_one();
    }
}

impl State {
    /// The messages of the next frame: of the first class that has some, as many as fit, at least one.
    fn drain(&mut self, frame_bytes: usize) -> Option<(Class, Vec<Message>)> {
        let class = Class::ALL.into_iter().find(|class| !self.queues[*class as usize].messages.is_empty())?;
        let queue = &mut self.queues[class as usize];
        let mut messages = Vec::new();
        let mut bytes = 0;
        while let Some(message) = queue.messages.front() {
            if bytes > 0 && bytes + message.size() > frame_bytes {
                break;
            }
            bytes += message.size();
            messages.extend(queue.messages.pop_front());
        }
        queue.bytes -= bytes;
        Some((class, messages))
    }
}

/// Drains one outbox until it is closed.
struct Sender {
    session: Arc<dyn Session>,
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    /// By class, declared with the first message.
    publishers: [Option<Box<dyn Publisher>>; 3],
}

impl Sender {
    fn run_thread(mut self) {
        let outbox = self.outbox.clone();
        loop {
            let mut state = outbox.lock();
            let (class, messages) = loop {
                if state.closed {
                    return;
                }
                match state.drain(self.shared.frame_bytes) {
                    Some(batch) => break batch,
                    None => state = outbox.thread.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            self.send(class, &messages);
        }
    }

    async fn run_task(mut self) {
        loop {
            let batch = {
                let mut state = self.outbox.lock();
                if state.closed {
                    return;
                }
                state.drain(self.shared.frame_bytes)
            };
            match batch {
                Some((class, messages)) => self.send(class, &messages),
                None => self.outbox.task.notified().await,
            }
        }
    }

    fn send(&mut self, class: Class, messages: &[Message]) {
        let shared = self.shared.clone();
        let header = Header {
            class,
            cluster: *shared.cluster.lock().unwrap_or_else(PoisonError::into_inner),
            from: shared.me,
            to: self.outbox.to,
            epoch: shared.epoch,
        };
        let frame = encode(&header, messages, shared.secret.as_deref());
        let bytes = frame.len() as u64;
        let counters = &shared.counters;
        match self.publisher(class).and_then(|publisher| publisher.put(frame)) {
            Ok(()) => {
                counters.frames_sent.fetch_add(1, Ordering::Relaxed);
                counters.messages_sent.fetch_add(messages.len() as u64, Ordering::Relaxed);
                counters.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => {
                counters.send_failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(to = %self.outbox.to, %error, "a frame was not sent");
            }
        }
    }

    fn publisher(&mut self, class: Class) -> Result<&dyn Publisher> {
        let slot = &mut self.publishers[class as usize];
        if slot.is_none() {
            let key = key::inbox(&self.shared.cluster_name, self.outbox.to, class)?;
            let priority = match class {
                Class::Control => Priority::RealTime,
                Class::Log => Priority::InteractiveHigh,
                Class::Bulk => Priority::Background,
            };
            *slot = Some(self.session.publisher(&key, priority, Congestion::Block)?);
        }
        slot.as_deref().ok_or_else(|| Error::Session("no publisher".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Kind;

    fn message(length: usize) -> Message {
        Message { kind: Kind::OneWay, correlation: 0, body: Bytes::from(vec![0; length]) }
    }

    fn outbox() -> Outbox {
        Outbox { to: PeerId(1), state: Mutex::default(), thread: Condvar::new(), task: Notify::new() }
    }

    #[test]
    fn a_full_queue_takes_nothing_more_and_leaves_the_other_classes_alone() {
        let outbox = outbox();
        outbox.push(Class::Log, message(1_000), 100).unwrap();
        assert_eq!(outbox.push(Class::Log, message(1), 100), Err(Error::Full));
        outbox.push(Class::Control, message(1), 100).unwrap();
        outbox.lock().drain(256).unwrap();
        outbox.lock().drain(256).unwrap();
        outbox.push(Class::Log, message(1), 100).unwrap();
    }

    #[test]
    fn a_frame_takes_what_fits_and_a_larger_message_travels_alone() {
        let outbox = outbox();
        for length in [10, 10, 1_000, 10] {
            outbox.push(Class::Log, message(length), 10_000).unwrap();
        }
        let mut frames = Vec::new();
        while let Some((_, messages)) = outbox.lock().drain(100) {
            frames.push(messages.iter().map(|message| message.body.len()).collect::<Vec<_>>());
        }
        assert_eq!(frames, [vec![10, 10], vec![1_000], vec![10]]);
    }

    #[test]
    fn control_goes_before_log() {
        let outbox = outbox();
        outbox.push(Class::Log, message(1), 100).unwrap();
        outbox.push(Class::Control, message(2), 100).unwrap();
        assert_eq!(outbox.lock().drain(100).unwrap().0, Class::Control);
        assert_eq!(outbox.lock().drain(100).unwrap().0, Class::Log);
        assert!(outbox.lock().drain(100).is_none());
    }

    #[test]
    fn what_is_closed_takes_nothing() {
        let outbox = outbox();
        outbox.close();
        assert_eq!(outbox.push(Class::Log, message(1), 100), Err(Error::Unreachable(1)));
    }
}
