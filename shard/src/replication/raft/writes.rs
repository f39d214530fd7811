//! Commands become log entries: proposed at once when few are under way, gathered while many are.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use odgm_transport::timer::BoxFuture;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::OneshotResponder;
use openraft::raft::ClientWriteResult;
use openraft_rt::{Instant, WatchReceiver};
use tokio::sync::mpsc;

use super::RaftOptions;
use super::clocks::Clocks;
use super::encode::encode_batch;
use super::inbox::Raft;
use super::types::{Payload, Types};
use crate::Error;
use crate::object::NodeId;
use crate::replication::queue::{Pending, Waiter, stopped};
use crate::replication::rid_window::RidWindow;
use crate::runtime::Runtime;
use crate::state::Batch;

/// How long the first command of a new batch may wait for others that are likely to come: those that were
/// answered together are followed together.
const LINGER: Duration = Duration::from_millis(1);

/// Until the clocks of the others are looked at again.
const LISTEN: Duration = Duration::from_millis(2);

/// When to propose what waits. A log entry costs about the same whatever it holds, so under load few large ones
/// are better than many small ones: a batch is proposed beside others only once it is as large as
/// what is under way (the rule of group commit, as PostgreSQL's commit_siblings). A lone client never waits.
#[derive(Debug, Default)]
struct Pace {
    /// Commands under way at a time, lately.
    usual: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Propose,
    /// For more commands, or the end of a batch.
    Wait,
    /// As `Wait`, but not for long: nothing is under way.
    Linger,
}

impl Pace {
    fn decide(&self, waiting: usize, under_way: usize) -> Decision {
        match (waiting, under_way) {
            (0, _) => Decision::Wait,
            (_, 0) if waiting * 2 >= self.usual => Decision::Propose,
            (_, 0) => Decision::Linger,
            _ if waiting >= under_way => Decision::Propose,
            _ => Decision::Wait,
        }
    }

    /// A batch was proposed; this many commands are under way now.
    fn proposed(&mut self, under_way: usize) {
        self.usual = under_way.max(self.usual * 3 / 4);
    }
}

type Done<R> = (Vec<Waiter>, Option<ClientWriteResult<Types<R>>>);

/// What happens next.
enum Event<R: Runtime> {
    Command(Option<Pending>),
    Done(Option<Done<R>>),
    Lingered,
}

/// Proposes what comes, until the queue is closed and everything is answered.
pub(crate) async fn propose<R: Runtime>(
    raft: Raft<R>,
    clocks: Arc<Clocks<R>>,
    options: RaftOptions,
    mut queue: mpsc::UnboundedReceiver<Pending>,
) {
    let mut waiting = VecDeque::new();
    let mut batches: FuturesUnordered<BoxFuture<'static, Done<R>>> = FuturesUnordered::new();
    let mut under_way = 0;
    let mut pace = Pace::default();
    let mut window = RidWindow::<R::Instant>::new(options.rid_window);
    let mut linger: Option<Pin<Box<R::Sleep>>> = None;
    let mut open = true;
    while open || !waiting.is_empty() || !batches.is_empty() {
        waiting.extend(std::iter::from_fn(|| queue.try_recv().ok()));
        let decision = match pace.decide(waiting.len(), under_way) {
            _ if batches.len() >= options.batches_inflight => Decision::Wait,
            _ if !open && !waiting.is_empty() => Decision::Propose,
            decision => decision,
        };
        match decision {
            Decision::Propose => match now(&raft, &clocks) {
                Time::Awaited if open => linger = Some(Box::pin(R::sleep(LISTEN))),
                time => {
                    linger = None;
                    let window_ms = window.ms(R::Instant::now(), time.known());
                    let (payload, waiters) = gather(&mut waiting, time.known(), window_ms, &options);
                    let (responder, result) = OneshotResponder::new_pair();
                    match raft.client_write_ff(payload, Some(responder)).await {
                        Ok(()) => {
                            under_way += waiters.len();
                            pace.proposed(under_way);
                            batches.push(Box::pin(async move { (waiters, result.await.ok()) }));
                        }
                        Err(fatal) => fail(waiters, &Error::Unavailable(fatal.to_string())),
                    }
                    continue;
                }
            },
            Decision::Wait => linger = None,
            Decision::Linger => {
                linger.get_or_insert_with(|| Box::pin(R::sleep(LINGER)));
            }
        }
        match next(&mut queue, open, &mut batches, &mut linger).await {
            Event::Command(Some(pending)) => waiting.push_back(pending),
            Event::Command(None) => open = false,
            Event::Done(done) => {
                under_way -= done.as_ref().map_or(0, |(waiters, _)| waiters.len());
                answer(done);
            }
            Event::Lingered => pace.usual = 0,
        }
    }
}

/// The next command, the end of the first batch that ends, or of the time to linger.
async fn next<R: Runtime>(
    queue: &mut mpsc::UnboundedReceiver<Pending>,
    open: bool,
    batches: &mut FuturesUnordered<BoxFuture<'static, Done<R>>>,
    linger: &mut Option<Pin<Box<R::Sleep>>>,
) -> Event<R> {
    poll_fn(|context| {
        if !batches.is_empty()
            && let Poll::Ready(done) = batches.poll_next_unpin(context)
        {
            return Poll::Ready(Event::Done(done));
        }
        if open && let Poll::Ready(command) = queue.poll_recv(context) {
            return Poll::Ready(Event::Command(command));
        }
        match linger {
            Some(sleep) => sleep.as_mut().poll(context).map(|()| Event::Lingered),
            None => Poll::Pending,
        }
    })
    .await
}

/// The time of what is proposed now.
enum Time {
    Known(u64),
    /// The answers to a leader's first entry bring the others' clocks. Without them a command would bear the time of
    /// the one before it, and a ttl could be over before it began.
    Awaited,
    /// This replica does not lead: nothing will be proposed.
    Unknown,
}

impl Time {
    /// 0 moves nothing.
    fn known(&self) -> u64 {
        match self {
            Time::Known(time) => *time,
            Time::Awaited | Time::Unknown => 0,
        }
    }
}

fn now<R: Runtime>(raft: &Raft<R>, clocks: &Clocks<R>) -> Time {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    match clocks.time(metrics.id, metrics.membership_config.membership().voter_ids()) {
        Some(time) => Time::Known(time),
        None if metrics.state.is_leader() => Time::Awaited,
        None => Time::Unknown,
    }
}

/// One entry of what waits.
fn gather(
    waiting: &mut VecDeque<Pending>,
    time: u64,
    rid_window_ms: u64,
    options: &RaftOptions,
) -> (Payload, Vec<Waiter>) {
    let mut bytes = 0;
    let (mut commands, mut waiters) = (Vec::new(), Vec::new());
    while let Some(Pending { command, waiter }) = waiting.pop_front() {
        bytes += waiter.bytes() as usize;
        commands.push(command);
        waiters.push(waiter);
        if waiters.len() >= options.batch_commands || bytes >= options.batch_bytes {
            break;
        }
    }
    let batch = Batch { time, rid_window_ms, commands };
    (encode_batch(&batch), waiters)
}

fn answer<R: Runtime>(done: Option<Done<R>>) {
    let Some((waiting, result)) = done else { return };
    match result {
        Some(Ok(response)) => {
            let outcomes = response.data.0;
            if outcomes.len() != waiting.len() {
                let error =
                    Error::Internal("a batch has another number of outcomes than commands".to_owned());
                return fail(waiting, &error);
            }
            for (waiter, outcome) in waiting.into_iter().zip(outcomes) {
                waiter.answer(Ok(outcome));
            }
        }
        Some(Err(error)) => fail(waiting, &refusal(error)),
        None => fail(waiting, &stopped()),
    }
}

fn fail(waiting: Vec<Waiter>, error: &Error) {
    for waiter in waiting {
        waiter.answer(Err(error.clone()));
    }
}

/// What openraft refused, for the caller.
pub(crate) fn refusal<R: Runtime>(error: ClientWriteError<Types<R>>) -> Error {
    match error {
        ClientWriteError::ForwardToLeader(forward) => forward_error(&forward),
        ClientWriteError::LogEntryDiscarded(_) => {
            Error::Unavailable("the leader changed while the entry was under way".to_owned())
        }
        ClientWriteError::ChangeMembershipError(error) => Error::Invalid(error.to_string()),
        ClientWriteError::PreconditionFailed(error) => Error::Invalid(error.to_string()),
    }
}

/// Nothing was proposed: another replica leads, or nobody is known to.
pub(crate) fn forward_error<R: Runtime>(forward: &ForwardToLeader<Types<R>>) -> Error {
    match forward.reason {
        ForwardReason::LeaseExpired => Error::Unavailable("the leader hears no quorum".to_owned()),
        ForwardReason::NotLeader | ForwardReason::LeadershipTransfer => {
            Error::NotLeader { serving: forward.leader_node.map(|member| NodeId(member.node)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_client_never_waits() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            assert_eq!(pace.decide(1, 0), Decision::Propose);
            pace.proposed(1);
        }
    }

    #[test]
    fn two_clients_need_not_wait_for_each_other() {
        let mut pace = Pace::default();
        pace.proposed(1);
        assert_eq!(pace.decide(1, 1), Decision::Propose);
    }

    #[test]
    fn what_was_answered_together_is_gathered_again() {
        let mut pace = Pace::default();
        pace.proposed(16);
        assert_eq!(pace.decide(1, 0), Decision::Linger);
        assert_eq!(pace.decide(8, 0), Decision::Propose);
        assert_eq!(pace.decide(7, 8), Decision::Wait);
        assert_eq!(pace.decide(8, 8), Decision::Propose);
        assert_eq!(pace.decide(0, 0), Decision::Wait);
    }

    #[test]
    fn a_crowd_that_has_gone_is_forgotten() {
        let mut pace = Pace::default();
        pace.proposed(16);
        for _ in 0..10 {
            pace.proposed(1);
        }
        assert_eq!(pace.decide(1, 0), Decision::Propose);
    }
}
