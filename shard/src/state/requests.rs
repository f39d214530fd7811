//! Remembered answers: a repeat of a request id within the window gets the first answer.
//!
//! They stand in a queue in the order in which they were given, one row each. Forgetting is paid by the
//! commands: each takes up to [`FORGET_PER_COMMAND`] answers that are out of the window from the queue's front.
//! That keeps an apply short after a pause, and does not depend on how commands are split over batches
//! or calls. An answer that is out of the window counts as forgotten, whether it still stands or not.
//!
//! Where an id stands is kept in memory (about 60 bytes each), made from the rows at start: a new
//! id, which nearly all are, costs no read.

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;

use odgm_storage::data::{DataView, Direction, Keyspace};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::layout::{self, Counters, Remembered};
use super::run::Run;
use crate::state::{Command, Operation, Outcome, Refusal};
use crate::{Error, Result, codec};

/// More than one, so that forgetting overtakes remembering.
const FORGET_PER_COMMAND: usize = 2;

/// Where the answers stand.
#[derive(Debug)]
pub(crate) struct Requests {
    /// The last place of each id, by its xxh3-128.
    places: HashMap<u128, u64>,
    /// Log time and hashed id of every place from `Counters::requests_start` on.
    queue: VecDeque<(u64, u128)>,
}

impl Requests {
    /// Reads where the answers of a state stand.
    pub(crate) fn load(view: &dyn DataView, counters: &Counters) -> Result<Self> {
        let mut loaded = Requests { places: HashMap::new(), queue: VecDeque::new() };
        let bounds =
            (layout::request_key(counters.requests_start), layout::request_key(counters.requests_end));
        let (from, to) = (Bound::Included(bounds.0), Bound::Excluded(bounds.1));
        for row in view.scan(Keyspace::Index, from, to, Direction::Forward) {
            let remembered: Remembered = layout::decode_record("remembered request", &row?.1)?;
            let place = counters.requests_start + loaded.queue.len() as u64;
            loaded.push(place, remembered.time, xxh3_128(&remembered.rid));
        }
        let (found, wanted) = (loaded.queue.len() as u64, counters.requests_end - counters.requests_start);
        if found != wanted {
            return Err(Error::Internal(format!("{found} remembered requests where {wanted} are counted")));
        }
        Ok(loaded)
    }

    /// Runs a command, or finds its first answer.
    pub(crate) fn run(&mut self, run: &mut Run<'_, '_>, command: Command, window_ms: u64) -> Result<Outcome> {
        let cutoff = run.counters.log_time.saturating_sub(ntp64_ms(window_ms));
        self.forget(run, cutoff);
        let Some(rid) = command.rid else { return run.command(command.operation) };
        let (hashed, operation) = (xxh3_128(&rid), fingerprint(&command.operation));
        if let Some(place) = self.places.get(&hashed)
            && let Some(first) = run.overlay.remembered(*place)?
            && first.time >= cutoff
            && first.rid == rid
        {
            let same = first.operation == operation;
            return Ok(if same { first.outcome } else { Outcome::Refused(Refusal::RidReused) });
        }
        let outcome = run.command(command.operation)?;
        let (time, place) = (run.counters.log_time, run.counters.requests_end);
        run.counters.requests_end += 1;
        self.push(place, time, hashed);
        run.overlay.remember(place, Some(Remembered { rid, operation, time, outcome: outcome.clone() }));
        Ok(outcome)
    }

    fn push(&mut self, place: u64, time: u64, hashed: u128) {
        self.places.insert(hashed, place);
        self.queue.push_back((time, hashed));
    }

    fn forget(&mut self, run: &mut Run<'_, '_>, cutoff: u64) {
        for _ in 0..FORGET_PER_COMMAND {
            let Some((_, hashed)) = self.queue.front().copied().filter(|(time, _)| *time < cutoff) else {
                return;
            };
            self.queue.pop_front();
            let place = run.counters.requests_start;
            run.counters.requests_start += 1;
            run.overlay.remember(place, None);
            // A later answer may have taken the id since.
            if self.places.get(&hashed) == Some(&place) {
                self.places.remove(&hashed);
            }
        }
    }
}

fn fingerprint(operation: &Operation) -> u128 {
    struct Hasher(Xxh3);
    impl std::io::Write for Hasher {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(Xxh3::new());
    codec::encode_into(operation, &mut hasher);
    hasher.0.digest128()
}

/// A span of milliseconds as NTP64.
pub(crate) fn ntp64_ms(ms: u64) -> u64 {
    let seconds = (ms / 1000).min(u64::from(u32::MAX));
    (seconds << 32) | (((ms % 1000) << 32) / 1000)
}
