//! What the write-buffer thread remembers of each memtable between two looks.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::database::MemtableSizes;
use crate::data::Keyspace;

/// How often flushed memtables are asked for while a view holds them.
const RELEASE_PAUSE: Duration = Duration::from_secs(5);
/// How soon after they were flushed.
const RELEASE_DELAY: Duration = Duration::from_millis(20);

/// All memtables of the node.
#[derive(Debug, Default)]
pub(super) struct Watch {
    memtables: HashMap<(usize, Keyspace), Seen>,
    /// When a generation may next be asked to release, and what it then held.
    releases: HashMap<usize, (Instant, u64)>,
}

/// One keyspace's.
#[derive(Debug)]
pub(super) struct Seen {
    active: u64,
    at: Instant,
    /// Since when nothing was written.
    pub(super) since: Instant,
    /// Sizes of those handed to a worker, oldest first.
    pub(super) sealed: VecDeque<u64>,
}

impl Seen {
    pub(super) fn sealed_bytes(&self) -> u64 {
        self.sealed.iter().sum()
    }
}

impl Watch {
    /// Notes what was measured.
    pub(super) fn see(
        &mut self,
        generation: usize,
        keyspace: Keyspace,
        sizes: MemtableSizes,
        now: Instant,
    ) -> &mut Seen {
        let fresh = || Seen { active: sizes.active, at: now, since: now, sealed: VecDeque::new() };
        let seen = self.memtables.entry((generation, keyspace)).or_insert_with(fresh);
        if seen.active != sizes.active {
            (seen.active, seen.since) = (sizes.active, now);
        }
        seen.at = now;
        while seen.sealed.len() > sizes.sealed {
            seen.sealed.pop_front();
        }
        seen
    }

    /// Whether a generation that keeps so many flushed bytes in memory is to let go of them now; fewer
    /// than `least` are not asked for.
    pub(super) fn may_release(&mut self, generation: usize, kept: u64, least: u64, now: Instant) -> bool {
        if kept < least {
            self.releases.remove(&generation);
            return false;
        }
        let &mut (due, before) = self.releases.entry(generation).or_insert((now + RELEASE_DELAY, kept));
        let grown = kept > before + least;
        if now < due && !grown {
            return false;
        }
        self.releases.insert(generation, (now + RELEASE_PAUSE, kept));
        true
    }

    /// The generation was asked to release and had no time for it.
    pub(super) fn release_soon(&mut self, generation: usize, kept: u64, now: Instant) {
        self.releases.insert(generation, (now + RELEASE_DELAY, kept));
    }

    /// Forgets those that were not measured this time.
    pub(super) fn forget_unseen(&mut self, now: Instant) {
        self.memtables.retain(|_, seen| seen.at == now);
        let memtables = &self.memtables;
        self.releases.retain(|&generation, _| memtables.contains_key(&(generation, Keyspace::Data)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_asked_to_release_again_soon_when_it_had_no_time_and_late_when_a_view_holds_on() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        assert!(!watch.may_release(1, 100, 10, start), "it was just flushed");
        let asked = start + RELEASE_DELAY;
        assert!(watch.may_release(1, 100, 10, asked));
        assert!(!watch.may_release(1, 100, 10, asked + RELEASE_DELAY), "a view holds on to it");
        watch.release_soon(1, 100, asked);
        assert!(watch.may_release(1, 100, 10, asked + RELEASE_DELAY));
        assert!(!watch.may_release(1, 100, 10, asked + 2 * RELEASE_DELAY));
        assert!(watch.may_release(1, 111, 10, asked + 2 * RELEASE_DELAY), "it grew");
        assert!(!watch.may_release(1, 9, 10, asked + 10 * RELEASE_PAUSE), "there is little to release");
    }
}
