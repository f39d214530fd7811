//! Remembered answers: a repeat of a request id within the window gets the first answer.
//!
//! They stand in a queue in the order in which they were given. Forgetting is paid by the commands:
//! each takes up to [`FORGET_PER_COMMAND`] answers that are out of the window from the queue's front.
//! That keeps an apply short after a pause, and does not depend on how commands are split over batches
//! or calls. An answer that is out of the window counts as forgotten, whether it still stands or not.

use xxhash_rust::xxh3::Xxh3;

use super::layout::{Queued, Remembered};
use super::run::Run;
use crate::state::{Command, Operation, Outcome, Refusal};
use crate::{Error, Result, codec};

/// More than one, so that forgetting overtakes remembering.
const FORGET_PER_COMMAND: usize = 2;

/// The front of the queue, as last read: a cache, nothing that decides.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    front: Option<(u64, Queued)>,
}

impl Requests {
    /// Runs a command, or finds its first answer.
    pub(crate) fn run(&mut self, run: &mut Run<'_, '_>, command: Command, window_ms: u64) -> Result<Outcome> {
        let cutoff = run.counters.log_time.saturating_sub(ntp64_ms(window_ms));
        self.forget(run, cutoff)?;
        let Some(rid) = command.rid else { return run.command(command.operation) };
        let operation = fingerprint(&command.operation);
        match run.overlay.remembered(&rid)? {
            Some(first) if first.time >= cutoff => {
                let same = first.operation == operation;
                return Ok(if same { first.outcome } else { Outcome::Refused(Refusal::RidReused) });
            }
            _ => {}
        }
        let outcome = run.command(command.operation)?;
        let (time, place) = (run.counters.log_time, run.counters.requests_end);
        run.counters.requests_end += 1;
        run.overlay.enqueue(place, Some(Queued { time, rid: rid.clone() }));
        let remembered = Remembered { operation, time, place, outcome: outcome.clone() };
        run.overlay.remember(&rid, Some(remembered));
        Ok(outcome)
    }

    fn forget(&mut self, run: &mut Run<'_, '_>, cutoff: u64) -> Result<()> {
        for _ in 0..FORGET_PER_COMMAND {
            let place = run.counters.requests_start;
            if place == run.counters.requests_end {
                return Ok(());
            }
            let queued = self.front(run, place)?;
            if queued.time >= cutoff {
                return Ok(());
            }
            let rid = queued.rid.clone();
            // A later answer may have taken the id since.
            if run.overlay.remembered(&rid)?.is_some_and(|answer| answer.place == place) {
                run.overlay.remember(&rid, None);
            }
            run.overlay.enqueue(place, None);
            run.counters.requests_start += 1;
        }
        Ok(())
    }

    fn front(&mut self, run: &Run<'_, '_>, place: u64) -> Result<&Queued> {
        if self.front.as_ref().is_none_or(|(at, _)| *at != place) {
            let queued = run.overlay.queued(place)?;
            let missing = || Error::Internal(format!("no remembered request at place {place}"));
            self.front = Some((place, queued.ok_or_else(missing)?));
        }
        let (_, queued) = self.front.as_ref().expect("set above");
        Ok(queued)
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
fn ntp64_ms(ms: u64) -> u64 {
    let seconds = (ms / 1000).min(u64::from(u32::MAX));
    (seconds << 32) | (((ms % 1000) << 32) / 1000)
}
