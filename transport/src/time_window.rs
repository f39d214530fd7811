//! The times that zenoh's parameter `_time` asks for, such as `[now(-1h)..]`.

use std::time::{Duration, SystemTime};

use zenoh::query::TimeRange;
use zenoh::time::NTP64;

/// From a moment to a moment, either may be open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimeWindow(TimeRange<SystemTime>);

impl TimeWindow {
    /// Reads zenoh's form of a range; `now` is NTP64. `None` when it is none.
    pub fn parse(text: &str, now: u64) -> Option<Self> {
        let range: TimeRange = text.parse().ok()?;
        let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(now >> 32))?
            + Duration::from_nanos(((now & 0xffff_ffff) * 1_000_000_000) >> 32);
        Some(TimeWindow(range.resolve_at(now)))
    }

    /// Whether a moment, NTP64, is within.
    pub fn contains(&self, time: u64) -> bool {
        self.0.contains(NTP64(time).to_system_time())
    }
}

#[cfg(test)]
mod tests {
    use super::TimeWindow;

    const SECOND: u64 = 1 << 32;
    const NOW: u64 = 1_800_000_000 * SECOND;

    #[test]
    fn a_window_is_counted_from_now() {
        let window = TimeWindow::parse("[now(-2s)..]", NOW).unwrap();
        assert!(window.contains(NOW - SECOND) && window.contains(NOW + SECOND));
        assert!(!window.contains(NOW - 3 * SECOND));
        let closed = TimeWindow::parse("[now(-5s)..now(-2s)]", NOW).unwrap();
        assert!(closed.contains(NOW - 3 * SECOND) && !closed.contains(NOW));
        for text in ["", "now", "[now(-2s)", "[a..b]"] {
            assert_eq!(TimeWindow::parse(text, NOW), None, "{text}");
        }
    }
}
