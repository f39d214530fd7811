//! Replays: the retained changes from a revision on, each once and in order, streamed in bounded memory.

use odgm_storage::data::Direction;
use odgm_transport::session::{Query, ReplyStream, Sample};
use openraft_rt::Instant as _;
use uuid::Uuid;

use super::ahead::{self, Ahead};
use super::answer::Answerer;
use super::refusal;
use crate::protocol::{CacheRequest, Code, Plane, Refusal, ReplayRequest};
use crate::runtime::Runtime;
use crate::state::ObjectView;

/// After so many changes a replay looks whether it is to go on.
const LOOK: usize = 32;

impl<R: Runtime> Answerer<R> {
    /// Streams a replay; as [`Answerer::stream_list`].
    pub(super) fn stream_replay(
        &self,
        view: &ObjectView,
        replay: &ReplayRequest,
        query: Query,
        deadline: R::Instant,
    ) {
        let replies = query.stream();
        if let Err(refused) = self.send_replay(view, replay, &replies, deadline) {
            self.metrics.refused(Plane::Event.name(), refused.code.name());
            // The caller may have gone.
            let _ = replies.send(refused.reply_to("", Uuid::new_v4));
        }
    }

    fn send_replay(
        &self,
        view: &ObjectView,
        replay: &ReplayRequest,
        replies: &ReplyStream,
        deadline: R::Instant,
    ) -> Result<(), Refusal> {
        let history = view.history().map_err(refusal::of)?;
        if !history.enabled {
            return Err(Refusal::new(Code::Unsupported, "the collection keeps no events"));
        }
        // Revisions begin at 1: who asks from 0 on asks from the first.
        let from = replay.from.map_or(history.oldest, |from| from.max(1));
        if from < history.oldest {
            let message = format!("changes from {} on are retained", history.oldest);
            return Err(self.compacted(message, history.oldest));
        }
        let changes = view.changes(from, history.last, Direction::Forward).map(|change| {
            let change = change?;
            let is_asked = replay.selection.contains(&change.key);
            Ok((change.revision, is_asked.then(|| self.voice.event(change))))
        });
        let next = from.max(history.last + 1);
        std::thread::scope(|scope| {
            let changes = Ahead::new(scope, changes, ahead::weight);
            self.send_changes(changes, replay, (history.last, next), replies, deadline)
        })
    }

    /// Sends the events of `changes` and what a replay ends with: the last revision, and where the next one begins.
    fn send_changes(
        &self,
        changes: impl Iterator<Item = crate::Result<(u64, Option<Sample>)>>,
        replay: &ReplayRequest,
        (last, mut next): (u64, u64),
        replies: &ReplyStream,
        deadline: R::Instant,
    ) -> Result<(), Refusal> {
        let mut count = 0;
        for (n, change) in changes.enumerate() {
            let (revision, event) = change.map_err(refusal::of)?;
            if n % LOOK == 0 && self.stop.is_cancelled() {
                return Err(Refusal::new(Code::Unavailable, "the shard closes"));
            }
            if n % LOOK == 0 && R::Instant::now() > deadline {
                return Err(Refusal::new(Code::Timeout, "the replay was not finished in time"));
            }
            let Some(event) = event else { continue };
            if replay.limit.is_some_and(|limit| count >= limit) {
                next = revision;
                break;
            }
            if replies.send(Ok(event)).is_err() {
                return Ok(()); // the caller is gone
            }
            count += 1;
        }
        self.metrics.replayed.increment(count);
        self.metrics.reads_ok(Plane::Event).increment(1);
        if replay.end {
            let _ = replies.send(Err(self.voice.end(last, count, Some(next.to_string()))));
        }
        Ok(())
    }

    /// Streams history to an advanced subscriber: the newest first, since it gives up waiting for the
    /// rest and goes on, and would then drop what is newer than what it has.
    pub(super) fn stream_cache(
        &self,
        view: &ObjectView,
        cache: &CacheRequest,
        query: Query,
        deadline: R::Instant,
    ) {
        let replies = query.stream();
        let history = match view.history() {
            Ok(history) if history.enabled => history,
            Ok(_) => return,
            Err(error) => return tracing::error!(%error, "the history can't be read"),
        };
        let mut count = 0;
        for change in view.changes(history.oldest, history.last, Direction::Backward) {
            let change = match change {
                Ok(change) => change,
                Err(error) => return tracing::error!(%error, "the history can't be read"),
            };
            let is_over = self.stop.is_cancelled() || R::Instant::now() > deadline;
            if is_over || cache.max.is_some_and(|max| count >= max) {
                break;
            }
            let is_asked = cache.window.is_none_or(|window| window.contains(change.time));
            if is_asked && cache.selection.contains(&change.key) {
                if replies.send(Ok(self.voice.event(change))).is_err() {
                    break; // the caller is gone
                }
                count += 1;
            }
        }
        self.metrics.replayed.increment(count);
    }

    /// What was asked for is not there any more.
    pub(super) fn compacted(&self, message: impl Into<String>, oldest: u64) -> Refusal {
        let incarnation = format!("{:032x}", u128::from_be_bytes(self.voice.incarnation()));
        Refusal::new(Code::Compacted, message).with("oldest", oldest).with("incarnation", incarnation)
    }
}
