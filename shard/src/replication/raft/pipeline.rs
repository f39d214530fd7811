//! The appends under way to one follower: sent as they come, answered in order.
//!
//! Two things differ from plainly passing them on.
//!
//! openraft tells its followers of each commit by an append without entries. Such a one waits a moment for the next
//! entries, which carry the same: under load it would cost as much as an append with entries.
//!
//! openraft takes an answer as a sign of life of the time at which the *last* append up to the same position was
//! made, also when that was made after the follower answered. A leader would count its lease from then, too
//! long by up to the time of the answer's way. So an answer that took long is not handed on while such an append
//! stands behind it; the answer to that one says the same, and is from later.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use odgm_transport::timer::BoxFuture;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft_rt::Instant;

use super::types::Types;
use crate::runtime::Runtime;

/// What became of an append.
pub(crate) type Answer<R> = Result<StreamAppendResult<Types<R>>, RPCError<Types<R>>>;

/// An append on its way.
pub(crate) struct Sent<R: Runtime> {
    /// What it takes of the window.
    pub(crate) bytes: usize,
    pub(crate) answer: BoxFuture<'static, Answer<R>>,
}

/// How a pipeline behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    /// Bytes that may be under way.
    pub(crate) window_bytes: usize,
    /// How long an append without entries waits for some.
    pub(crate) hold: Duration,
    /// From when on an answer is late: less than what a leader's lease is shorter than its followers' trust.
    pub(crate) late: Duration,
}

/// An append that waits for its answer.
struct Waiting<R: Runtime> {
    sent: Sent<R>,
    at: R::Instant,
    /// It has no entries.
    bare: bool,
}

/// An append without entries that waits for some.
struct Held<R: Runtime> {
    request: AppendEntriesRequest<Types<R>>,
    end: Pin<Box<R::Sleep>>,
}

/// The appends of one stream.
pub(crate) struct Pipeline<R: Runtime, S, T> {
    flow: Flow,
    /// `None` once it has ended.
    input: Option<S>,
    transmit: T,
    held: Option<Held<R>>,
    waiting: VecDeque<Waiting<R>>,
    bytes: usize,
}

enum Event<R: Runtime> {
    Answer(Answer<R>),
    Input(Option<AppendEntriesRequest<Types<R>>>),
    HeldLongEnough,
    End,
}

impl<R, S, T> Pipeline<R, S, T>
where
    R: Runtime,
    S: Stream<Item = AppendEntriesRequest<Types<R>>> + Unpin,
    T: FnMut(AppendEntriesRequest<Types<R>>) -> Sent<R>,
{
    pub(crate) fn new(flow: Flow, input: S, transmit: T) -> Self {
        Pipeline { flow, input: Some(input), transmit, held: None, waiting: VecDeque::new(), bytes: 0 }
    }

    /// The next answer; `None` when all are answered and no append comes any more.
    pub(crate) async fn next(&mut self) -> Option<Answer<R>> {
        loop {
            match self.event().await {
                Event::Input(Some(request)) if request.entries.is_empty() => self.hold(request),
                Event::Input(Some(request)) => {
                    self.held = None;
                    self.send(request);
                }
                Event::Input(None) => {
                    self.input = None;
                    self.release();
                }
                Event::HeldLongEnough => self.release(),
                Event::Answer(answer) => {
                    let done = self.waiting.pop_front().expect("an answer came, so one was waited for");
                    self.bytes -= done.sent.bytes;
                    if matches!(answer, Ok(Ok(_))) && done.at.elapsed() > self.flow.late {
                        self.release();
                        if self.waiting.iter().any(|behind| behind.bare) {
                            continue;
                        }
                    }
                    return Some(answer);
                }
                Event::End => return None,
            }
        }
    }

    async fn event(&mut self) -> Event<R> {
        poll_fn(|context| {
            if let Some(front) = self.waiting.front_mut()
                && let Poll::Ready(answer) = front.sent.answer.as_mut().poll(context)
            {
                return Poll::Ready(Event::Answer(answer));
            }
            if self.bytes < self.flow.window_bytes
                && let Some(input) = &mut self.input
                && let Poll::Ready(request) = input.poll_next_unpin(context)
            {
                return Poll::Ready(Event::Input(request));
            }
            match &mut self.held {
                Some(held) => held.end.as_mut().poll(context).map(|()| Event::HeldLongEnough),
                None if self.waiting.is_empty() && self.input.is_none() => Poll::Ready(Event::End),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// One that is held already is part of this one, which is newer.
    fn hold(&mut self, request: AppendEntriesRequest<Types<R>>) {
        if self.flow.hold.is_zero() {
            return self.send(request);
        }
        let end = match self.held.take() {
            Some(held) => held.end,
            None => Box::pin(R::sleep(self.flow.hold)),
        };
        self.held = Some(Held { request, end });
    }

    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.send(held.request);
        }
    }

    fn send(&mut self, request: AppendEntriesRequest<Types<R>>) {
        let bare = request.entries.is_empty();
        let sent = (self.transmit)(request);
        self.bytes += sent.bytes;
        self.waiting.push_back(Waiting { sent, at: R::Instant::now(), bare });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::stream::BoxStream;
    use openraft::errors::Unreachable;
    use tokio::sync::{mpsc, oneshot};

    use super::super::types::{Entry, EntryPayload, LogId, Term, Vote};
    use super::*;
    use crate::runtime::TokioRuntime;

    type Request = AppendEntriesRequest<Types<TokioRuntime>>;
    type Reply = oneshot::Sender<Answer<TokioRuntime>>;

    const NEVER: Duration = Duration::from_secs(3600);

    fn at(index: u64) -> LogId {
        LogId { leader_id: Term::new(1), index }
    }

    /// Entries behind `prev`, or none.
    fn append(prev: u64, entries: u64) -> Request {
        let entry = |index| Entry { log_id: at(index), payload: EntryPayload::Blank };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: Some(at(prev)),
            leader_commit: Some(at(prev)),
            entries: (prev + 1..=prev + entries).map(entry).collect(),
        }
    }

    fn matched(index: u64) -> Answer<TokioRuntime> {
        Ok(Ok(Some(at(index))))
    }

    fn index(answer: Option<Answer<TokioRuntime>>) -> u64 {
        answer.unwrap().unwrap().unwrap().unwrap().index
    }

    /// A follower that answers when it is told to.
    #[derive(Clone, Default)]
    struct Follower(Arc<Mutex<VecDeque<(usize, Reply)>>>);

    impl Follower {
        fn take(&self, request: Request) -> Sent<TokioRuntime> {
            let (reply, answer) = oneshot::channel();
            self.0.lock().unwrap().push_back((request.entries.len(), reply));
            let gone = || RPCError::Unreachable(Unreachable::from_string("gone"));
            Sent { bytes: 1, answer: Box::pin(async move { answer.await.unwrap_or_else(|_| Err(gone())) }) }
        }

        /// How many entries each append has that was not answered.
        fn has(&self) -> Vec<usize> {
            self.0.lock().unwrap().iter().map(|(entries, _)| *entries).collect()
        }

        fn answer(&self, answer: Answer<TokioRuntime>) {
            let (_, reply) = self.0.lock().unwrap().pop_front().unwrap();
            assert!(reply.send(answer).is_ok());
        }
    }

    type Piped = Pipeline<
        TokioRuntime,
        BoxStream<'static, Request>,
        Box<dyn FnMut(Request) -> Sent<TokioRuntime> + Send>,
    >;

    fn pipeline(
        follower: &Follower,
        hold: Duration,
        late: Duration,
    ) -> (mpsc::UnboundedSender<Request>, Piped) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let input = futures_util::stream::unfold(receiver, |mut receiver| async move {
            mpsc::UnboundedReceiver::recv(&mut receiver).await.map(|request| (request, receiver))
        });
        let follower = follower.clone();
        let flow = Flow { window_bytes: 100, hold, late };
        (sender, Pipeline::new(flow, input.boxed(), Box::new(move |request| follower.take(request))))
    }

    /// Runs it until it waits.
    async fn stir(pipeline: &mut Piped) {
        let mut next = std::pin::pin!(pipeline.next());
        poll_fn(|context| {
            assert!(next.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn an_append_without_entries_goes_with_the_next_entries() {
        let follower = Follower::default();
        let (input, mut pipeline) = pipeline(&follower, NEVER, NEVER);
        input.send(append(5, 0)).unwrap();
        input.send(append(5, 0)).unwrap();
        stir(&mut pipeline).await;
        assert!(follower.has().is_empty());
        input.send(append(5, 2)).unwrap();
        stir(&mut pipeline).await;
        assert_eq!(follower.has(), [2]);
        follower.answer(matched(7));
        assert_eq!(index(pipeline.next().await), 7);
        drop(input);
        assert!(pipeline.next().await.is_none());
    }

    #[tokio::test]
    async fn an_append_without_entries_goes_alone_after_a_while_and_at_the_end() {
        let follower = Follower::default();
        let (input, mut pipeline) = pipeline(&follower, Duration::from_millis(1), NEVER);
        input.send(append(5, 0)).unwrap();
        let answering = async {
            while follower.has().is_empty() {
                tokio::task::yield_now().await;
            }
            follower.answer(matched(5));
        };
        assert_eq!(index(tokio::join!(pipeline.next(), answering).0), 5);

        let (input, mut pipeline) = self::pipeline(&follower, NEVER, NEVER);
        input.send(append(5, 0)).unwrap();
        drop(input);
        stir(&mut pipeline).await;
        assert_eq!(follower.has(), [0]);
    }

    #[tokio::test]
    async fn a_late_answer_is_not_handed_on_before_that_of_an_append_to_the_same_position() {
        let follower = Follower::default();
        let (input, mut pipeline) = pipeline(&follower, NEVER, Duration::ZERO);
        input.send(append(5, 1)).unwrap();
        input.send(append(6, 0)).unwrap();
        stir(&mut pipeline).await;
        assert_eq!(follower.has(), [1]);
        follower.answer(matched(6));
        // What was held goes at once, and its answer stands for both.
        stir(&mut pipeline).await;
        assert_eq!(follower.has(), [0]);
        follower.answer(matched(6));
        assert_eq!(index(pipeline.next().await), 6);
    }

    #[tokio::test]
    async fn an_answer_in_time_is_handed_on_whatever_is_behind_it() {
        let follower = Follower::default();
        let (input, mut pipeline) = pipeline(&follower, NEVER, NEVER);
        input.send(append(5, 1)).unwrap();
        input.send(append(6, 0)).unwrap();
        stir(&mut pipeline).await;
        follower.answer(matched(6));
        assert_eq!(index(pipeline.next().await), 6);
        assert!(follower.has().is_empty());
    }

    #[tokio::test]
    async fn an_error_is_handed_on_however_late() {
        let follower = Follower::default();
        let (input, mut pipeline) = pipeline(&follower, NEVER, Duration::ZERO);
        input.send(append(5, 1)).unwrap();
        input.send(append(6, 0)).unwrap();
        stir(&mut pipeline).await;
        follower.0.lock().unwrap().clear();
        assert!(pipeline.next().await.unwrap().is_err());
    }
}
