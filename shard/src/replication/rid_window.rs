//! How far back answers are remembered by request id: a window of the writer's monotone clock, said in log time.
//!
//! Log time comes from wall clocks, and steps ahead with them: when a machine without a battery hears NTP for the
//! first time, or when another replica leads. A window of log time alone would end at such a step, and a command
//! that is repeated a second later would run twice.

use std::collections::VecDeque;
use std::time::Duration;

use openraft_rt::Instant;

use crate::runtime::unix_ms;

/// The window is at most this part longer than asked.
const PARTS: u32 = 64;

/// The times that a writer gave to what it wrote, and when that was by its monotone clock.
#[derive(Debug)]
pub(super) struct RidWindow<I> {
    length: Duration,
    /// In order; the first is the newest one that is out of the window, if any is.
    stamped: VecDeque<(I, u64)>,
}

impl<I: Instant> RidWindow<I> {
    pub(super) fn new(length: Duration) -> Self {
        RidWindow { length, stamped: VecDeque::new() }
    }

    /// The window of a batch written `now` at log time `time` (NTP64), in milliseconds before that time. A writer that
    /// has not written for a whole window does not know the times of what others wrote since, and forgets nothing.
    pub(super) fn ms(&mut self, now: I, time: u64) -> u64 {
        let spaced = |(last, _): &(I, u64)| now - *last >= self.length / PARTS;
        if self.stamped.back().is_none_or(spaced) {
            self.stamped.push_back((now, time));
        }
        while self.stamped.get(1).is_some_and(|(at, _)| now - *at > self.length) {
            self.stamped.pop_front();
        }
        match self.stamped.front() {
            Some((at, stamp)) if now - *at > self.length => unix_ms(time).saturating_sub(unix_ms(*stamp)),
            _ => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::runtime::ntp64;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    /// What a batch forgets that is written `after` the start, when the wall clock shows `wall`.
    fn forgets_before(
        window: &mut RidWindow<Instant>,
        start: Instant,
        after: Duration,
        wall: Duration,
    ) -> Duration {
        let ms = window.ms(start + after, ntp64(wall));
        wall.saturating_sub(Duration::from_millis(ms))
    }

    #[test]
    fn nothing_is_forgotten_before_a_window_has_passed() {
        let (mut window, start) = (RidWindow::new(MINUTE), Instant::now());
        assert_eq!(forgets_before(&mut window, start, Duration::ZERO, HOUR), Duration::ZERO);
        assert_eq!(forgets_before(&mut window, start, MINUTE, HOUR + MINUTE), Duration::ZERO);
    }

    #[test]
    fn with_a_steady_clock_what_is_older_than_the_window_is_forgotten() {
        let (mut window, start) = (RidWindow::new(MINUTE), Instant::now());
        for second in 0..200 {
            let cut = forgets_before(&mut window, start, second * SECOND, HOUR + second * SECOND);
            let asked = HOUR + second.saturating_sub(60) * SECOND;
            assert!(cut <= asked && (second < 65 || cut >= asked - 3 * SECOND), "after {second} s: {cut:?}");
        }
    }

    #[test]
    fn a_clock_that_steps_ahead_forgets_no_sooner() {
        let (mut window, start) = (RidWindow::new(MINUTE), Instant::now());
        for second in 0..100 {
            forgets_before(&mut window, start, second * SECOND, HOUR + second * SECOND);
        }
        let stepped = forgets_before(&mut window, start, 100 * SECOND, 1000 * HOUR);
        assert!(stepped <= HOUR + 40 * SECOND, "{stepped:?}");
        let later = forgets_before(&mut window, start, 130 * SECOND, 1000 * HOUR + 30 * SECOND);
        assert!(later <= HOUR + 70 * SECOND, "{later:?}");
        let over = forgets_before(&mut window, start, 165 * SECOND, 1000 * HOUR + 65 * SECOND);
        assert!(over >= 1000 * HOUR, "{over:?}");
    }

    #[test]
    fn who_did_not_write_for_a_window_forgets_what_it_wrote_before_only() {
        let (mut window, start) = (RidWindow::new(MINUTE), Instant::now());
        forgets_before(&mut window, start, Duration::ZERO, HOUR);
        let cut = forgets_before(&mut window, start, 600 * SECOND, HOUR + 600 * SECOND);
        assert!((HOUR - SECOND..=HOUR).contains(&cut), "{cut:?}");
    }
}
