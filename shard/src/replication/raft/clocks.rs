//! The wall clocks of a group, as its leader hears them with every vote and heartbeat: the time of a command is never
//! far ahead of what a majority of the voters believes.
//!
//! Log time only rises. Were it taken from the leader's clock alone, one clock that jumps would let every
//! remembered answer and every ttl of the group end at once, and a repeated command run twice.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt::Instant;

use super::encode::Malformed;
use super::message;
use crate::runtime::{Runtime, ntp64};

/// How far ahead of the majority a leader's clock may be.
const TOLERANCE: Duration = Duration::from_secs(1);

/// What the others' clocks showed, and when that was by the own monotone clock.
pub(crate) struct Clocks<R: Runtime> {
    heard: Mutex<BTreeMap<u64, (u64, R::Instant)>>,
}

impl<R: Runtime> Default for Clocks<R> {
    fn default() -> Self {
        Clocks { heard: Mutex::default() }
    }
}

impl<R: Runtime> Clocks<R> {
    /// Notes the clock in front of an answer that came just now; what is left is the answer.
    pub(crate) fn hear_before(&self, replica: u64, bytes: Bytes) -> Result<Bytes, Malformed> {
        let (wall, answer) = message::split_clock(bytes)?;
        self.lock().insert(replica, (wall, R::Instant::now()));
        Ok(answer)
    }

    /// The time for a command, NTP64: the own clock's, but no more than the tolerance ahead of a majority of the
    /// voters; `None` while too few of them were heard.
    pub(crate) fn time(&self, own: u64, voters: impl Iterator<Item = u64>) -> Option<u64> {
        let wall = R::wall_clock();
        let heard = self.lock();
        let shows = |voter: u64| {
            if voter == own {
                return wall;
            }
            heard.get(&voter).map_or(0, |(then, at)| then.saturating_add(ntp64(at.elapsed())))
        };
        let clocks: Vec<u64> = voters.map(shows).collect();
        limited(wall, clocks)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (u64, R::Instant)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `wall`, or what a majority of the clocks has reached with the tolerance on top.
fn limited(wall: u64, mut clocks: Vec<u64>) -> Option<u64> {
    clocks.sort_unstable_by(|one, other| other.cmp(one));
    match clocks.get(clocks.len() / 2) {
        None | Some(0) => None,
        Some(reached) => Some(wall.min(reached.saturating_add(ntp64(TOLERANCE)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1 << 32;

    #[test]
    fn a_clock_that_jumps_ahead_is_held_back_by_the_majority() {
        assert_eq!(limited(500 * SECOND, vec![500 * SECOND, 100 * SECOND, 99 * SECOND]), Some(101 * SECOND));
        // Two of three agree.
        assert_eq!(limited(500 * SECOND, vec![500 * SECOND, 499 * SECOND, 99 * SECOND]), Some(500 * SECOND));
    }

    #[test]
    fn a_clock_that_is_behind_is_its_own() {
        assert_eq!(limited(90 * SECOND, vec![90 * SECOND, 100 * SECOND, 99 * SECOND]), Some(90 * SECOND));
    }

    #[test]
    fn the_time_is_unknown_until_a_majority_was_heard() {
        assert_eq!(limited(500 * SECOND, vec![500 * SECOND, 0, 0]), None);
        assert_eq!(limited(500 * SECOND, vec![500 * SECOND, 0]), None);
        assert_eq!(limited(500 * SECOND, vec![500 * SECOND]), Some(500 * SECOND));
    }
}
