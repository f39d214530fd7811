//! A subscriber that holds itself to the rule for watchers (INTERFACE §6) and to nothing else: it drops what it
//! has, takes what comes next, and asks for what is missing by `from=`. Every sample is judged where zenoh hands
//! it over, so that a subscriber that is too slow makes its link full and not its memory.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use odgm_shard::object::{CollectionName, Partition};
use odgm_shard::protocol::reply::{Answer, decode};
use odgm_shard::protocol::{Attachment, Code, End, Keys, Plane};
use odgm_transport::Session;
use odgm_transport::session::Call;
use tokio::sync::Notify;

/// Changes a page.
const PAGE: u64 = 1000;
/// After so long without a change it asks what it missed.
const QUIET: Duration = Duration::from_secs(5);
/// After a page that did not come whole.
const PAUSE: Duration = Duration::from_millis(50);
/// For a page.
const DEADLINE: Duration = Duration::from_secs(10);

/// How a change came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Live,
    Replay,
}

/// What a subscriber has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The revision that it takes next.
    pub(super) next: u64,
    /// Of all changes that it took, in their order.
    pub(super) digest: Digest,
    /// Came live although it had them: published again, or overtaken by a replay.
    pub(super) repeats: u64,
    /// Times at which something was missing.
    pub(super) holes: u64,
    /// Taken from the history.
    pub(super) replayed: u64,
    /// What must not be.
    pub(super) fault: Option<String>,
    incarnation: Option<[u8; 16]>,
    /// The highest revision that came live and was not taken.
    ahead: u64,
}

/// Tells any two sequences of changes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Digest(u64);

impl Digest {
    /// Takes in a change: its revision and what was put.
    pub(super) fn add(&mut self, revision: u64, payload: &[u8]) {
        let number = payload.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        let mixed = (self.0 ^ revision).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = (mixed ^ (mixed >> 32) ^ number).wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(23);
    }
}

impl Place {
    fn new() -> Self {
        Place {
            next: 1,
            digest: Digest::default(),
            repeats: 0,
            holes: 0,
            replayed: 0,
            fault: None,
            incarnation: None,
            ahead: 0,
        }
    }

    /// Judges a change; whether it was taken.
    fn see(&mut self, source: Source, numbers: &Attachment, payload: &[u8]) -> bool {
        let revision = numbers.revision;
        if *self.incarnation.get_or_insert(numbers.incarnation) != numbers.incarnation {
            self.fail(format!("revision {revision} is of another incarnation"));
            return false;
        }
        if revision == self.next {
            self.next += 1;
            self.digest.add(revision, payload);
            self.replayed += u64::from(source == Source::Replay);
            return true;
        }
        match source {
            Source::Live if revision < self.next => self.repeats += 1,
            Source::Live => {
                self.holes += u64::from(!self.is_behind());
                self.ahead = self.ahead.max(revision);
            }
            // Two servers may answer one query while they change.
            Source::Replay if revision < self.next => {}
            Source::Replay => self.fail(format!("a replay leaps from {} to {revision}", self.next)),
        }
        false
    }

    fn is_behind(&self) -> bool {
        self.ahead >= self.next
    }

    fn fail(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}

/// A subscriber of one partition.
#[derive(Debug)]
pub(super) struct Follower {
    place: Mutex<Place>,
    behind: Notify,
}

impl Follower {
    pub(super) fn new() -> Self {
        Follower { place: Mutex::new(Place::new()), behind: Notify::new() }
    }

    /// Takes what was published; whether it was what comes next.
    pub(super) fn live(&self, attachment: &[u8], payload: &[u8]) -> bool {
        let mut place = self.lock();
        let Some(numbers) = Attachment::decode(&Bytes::copy_from_slice(attachment)) else {
            place.fail("an event has no attachment of the grid".into());
            return false;
        };
        let taken = place.see(Source::Live, &numbers, payload);
        if place.is_behind() {
            self.behind.notify_one();
        }
        taken
    }

    /// Where it stands.
    pub(super) fn place(&self) -> Place {
        self.lock().clone()
    }

    /// Fills what is missing, for as long as it is polled.
    pub(super) async fn fill(&self, session: &dyn Session, keys: &Keys, collection: &CollectionName) {
        let Ok(key) = keys.matching(Plane::Event, collection, Partition(0), "**") else {
            return self.lock().fail("the collection has no keys".into());
        };
        loop {
            let before = self.lock().next;
            let quiet = tokio::time::timeout(QUIET, self.behind.notified()).await.is_err();
            if quiet && self.lock().next != before {
                continue;
            }
            loop {
                let from = self.lock().next;
                let mut call = Call::new(key.clone(), DEADLINE);
                call.parameters = format!("from={from};limit={PAGE};end=1");
                call.many = true;
                let is_full = match self.page(session, call).await {
                    Some(end) => end.count >= PAGE,
                    None => {
                        tokio::time::sleep(PAUSE).await;
                        true
                    }
                };
                let place = self.lock();
                if place.fault.is_some() {
                    return;
                }
                if !is_full && !place.is_behind() {
                    break;
                }
            }
        }
    }

    /// Takes a page; its END, when it came.
    async fn page(&self, session: &dyn Session, call: Call) -> Option<End> {
        let mut replies = session.call(call).ok()?;
        let mut end = None;
        while let Some(reply) = replies.next().await {
            match decode(reply) {
                Answer::Sample(sample) => {
                    let numbers = sample.attachment.as_ref().and_then(Attachment::decode)?;
                    let payload = sample.payload.unwrap_or_default();
                    self.lock().see(Source::Replay, &numbers, &payload);
                }
                Answer::End(came) => end = Some(came),
                Answer::Refused(refused) if refused.code == Code::Compacted => {
                    self.lock().fail("what was missing is not retained any more".into());
                }
                // Somebody serves again in a moment.
                Answer::Refused(_) | Answer::Foreign(_) => {}
            }
        }
        end
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        // Numbers that are whole between any two calls.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64) -> Attachment {
        Attachment { revision, incarnation: [1; 16], ..Attachment::default() }
    }

    fn all(revisions: &[(u64, &[u8])]) -> Digest {
        let mut digest = Digest::default();
        revisions.iter().for_each(|(revision, payload)| digest.add(*revision, payload));
        digest
    }

    #[test]
    fn repeats_are_dropped_and_holes_are_filled_from_a_replay() {
        let mut place = Place::new();
        assert!(place.see(Source::Live, &change(1), b"number a"));
        assert!(!place.see(Source::Live, &change(1), b"number a"));
        assert!(!place.see(Source::Live, &change(4), b"number d"));
        assert!(!place.see(Source::Live, &change(5), b"number e"));
        assert!(place.is_behind());
        for (revision, payload) in [(2, b"number b"), (3, b"number c"), (4, b"number d"), (5, b"number e")] {
            assert!(place.see(Source::Replay, &change(revision), payload));
        }
        assert!(!place.is_behind());
        assert_eq!((place.repeats, place.holes, place.replayed, place.next), (1, 1, 4, 6));
        let expected: [(u64, &[u8]); 5] =
            [(1, b"number a"), (2, b"number b"), (3, b"number c"), (4, b"number d"), (5, b"number e")];
        assert_eq!(place.digest, all(&expected));
        assert_eq!(place.fault, None);
    }

    #[test]
    fn a_replay_that_leaps_and_another_incarnation_are_faults() {
        let mut place = Place::new();
        place.see(Source::Live, &change(1), b"number a");
        let mut leap = place.clone();
        leap.see(Source::Replay, &change(3), b"number c");
        assert!(leap.fault.unwrap().contains("from 2 to 3"));
        place.see(Source::Live, &Attachment { incarnation: [2; 16], ..change(2) }, b"number b");
        assert!(place.fault.unwrap().contains("another incarnation"));
    }

    #[test]
    fn sequences_with_other_contents_or_another_order_have_another_digest() {
        let right = all(&[(1, b"number a"), (2, b"number b")]);
        assert_ne!(right, all(&[(1, b"number b"), (2, b"number a")]));
        assert_ne!(right, all(&[(2, b"number b"), (1, b"number a")]));
        assert_ne!(right, all(&[(1, b"number a")]));
    }
}
