//! What the shards of a node may hold together: the bytes of requests under way, and the lists that
//! are streamed at the same time. Taking never waits: what does not fit is refused as `BUSY`. And whether
//! their disk has room for more: if not, what adds to it is refused as `READ_ONLY`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many lists a node streams at a time: each has a thread while it does.
pub const STREAMS: usize = 16;

/// The shared budget of a node's shards.
#[derive(Debug)]
pub struct Budget {
    bytes: usize,
    free_bytes: AtomicUsize,
    free_streams: AtomicUsize,
    disk_full: AtomicBool,
}

impl Budget {
    /// A budget of `bytes` of requests (`limits.inflight_bytes`).
    pub fn new(bytes: u64) -> Arc<Self> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Arc::new(Budget {
            bytes,
            free_bytes: AtomicUsize::new(bytes),
            free_streams: AtomicUsize::new(STREAMS),
            disk_full: AtomicBool::new(false),
        })
    }

    /// From now on the node's disk is nearly full, or no longer: commands that may add to it are refused.
    pub fn set_disk_full(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Takes room for a request, until the reservation is dropped. A request that is larger than the
    /// whole budget fits when nothing else is under way.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let bytes = bytes.min(self.bytes);
        take(&self.free_bytes, bytes).then(|| Reservation { budget: self.clone(), bytes, streams: 0 })
    }

    /// Takes the right to stream one list, until the reservation is dropped.
    pub(crate) fn reserve_stream(self: &Arc<Self>) -> Option<Reservation> {
        take(&self.free_streams, 1).then(|| Reservation { budget: self.clone(), bytes: 0, streams: 1 })
    }
}

fn take(free: &AtomicUsize, wanted: usize) -> bool {
    free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(wanted)).is_ok()
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
    streams: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.free_bytes.fetch_add(self.bytes, Ordering::Relaxed);
        self.budget.free_streams.fetch_add(self.streams, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, STREAMS};

    #[test]
    fn what_does_not_fit_is_refused_until_something_is_given_back() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).unwrap();
        assert!(budget.reserve(60).is_none());
        let second = budget.reserve(40).unwrap();
        drop(first);
        assert!(budget.reserve(60).is_some());
        drop(second);
        let mut streams: Vec<_> = (0..STREAMS).map(|_| budget.reserve_stream().unwrap()).collect();
        assert!(budget.reserve_stream().is_none());
        streams.pop();
        assert!(budget.reserve_stream().is_some());
    }

    #[test]
    fn a_request_larger_than_the_budget_fits_alone() {
        let budget = Budget::new(100);
        let other = budget.reserve(1).unwrap();
        assert!(budget.reserve(1000).is_none());
        drop(other);
        let large = budget.reserve(1000).unwrap();
        assert!(budget.reserve(1).is_none());
        drop(large);
        assert!(budget.reserve(100).is_some());
    }
}
