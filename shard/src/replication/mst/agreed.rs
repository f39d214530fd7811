//! What a replica agreed with the others: how far each has what the other had, and so which tombstones
//! nobody needs any more.
//!
//! An exchange that ran to its end proves that each side has everything that the other had when it began, told
//! by their clocks. Once everything stamped up to a time H is here, and everything that was here at that
//! moment is at every other replica, all of them have everything up to H: that is the floor, true for all,
//! so that it may be told and believed. A replica leaves the tombstones at or below any floor it knows out of
//! its fingerprints, and forgets those at or below the floor that it found itself: what could still
//! revive them is a message older than the last exchange with its sender, and such a message is ignored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::object::ReplicaId;

/// Kept in the data layer; times are NTP64.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Agreed {
    /// No stamp at or below this is given here any more.
    pub(super) promised: u64,
    /// Everything that they had at this time of their clock is here.
    pub(super) have: BTreeMap<ReplicaId, u64>,
    /// Everything that was here at this time of the own clock is there.
    pub(super) seen: BTreeMap<ReplicaId, u64>,
    /// Everything up to the first is here, and was at the second, of the own clock.
    candidate: Option<(u64, u64)>,
    /// The floor found here.
    pub(super) floor: u64,
    /// The highest floor known.
    pub(super) retired: u64,
    /// The time of the newest tombstone that was forgotten.
    pub(super) dropped: u64,
}

impl Agreed {
    /// An exchange with a replica ended: it began when the clocks were there.
    pub(super) fn met(&mut self, peer: ReplicaId, theirs: u64, ours: u64) {
        let have = self.have.entry(peer).or_default();
        *have = theirs.max(*have);
        let seen = self.seen.entry(peer).or_default();
        *seen = ours.max(*seen);
    }

    /// Whether a message that left a replica at this time of its clock can hold nothing new.
    pub(super) fn is_stale(&self, peer: ReplicaId, clock: u64) -> bool {
        self.have.get(&peer).is_some_and(|have| clock <= *have)
    }

    /// Raises the floor as far as the others of the placement allow. `now` is the own clock.
    pub(super) fn advance(&mut self, others: &BTreeSet<ReplicaId>, now: u64) {
        let least = |times: &BTreeMap<ReplicaId, u64>| {
            others.iter().map(|other| times.get(other).copied().unwrap_or(0)).min().unwrap_or(now)
        };
        // The own writes are complete up to now, and no further.
        let (complete, seen) = (least(&self.have).min(now), least(&self.seen));
        let (candidate, at) = *self.candidate.get_or_insert((complete, now));
        if at <= seen {
            self.raise(candidate);
            self.candidate = Some((complete, now));
        }
    }

    /// This floor holds here.
    pub(super) fn raise(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.retired = self.retired.max(self.floor);
    }

    /// The others of the placement changed: what was about to be found is void, since the new ones were not asked.
    pub(super) fn reconsider(&mut self) {
        self.candidate = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: ReplicaId = ReplicaId(2);
    const C: ReplicaId = ReplicaId(3);

    #[test]
    fn a_replica_whose_clock_is_behind_vouches_for_no_write_that_it_may_still_stamp() {
        let others = BTreeSet::from([B]);
        let mut agreed = Agreed::default();
        agreed.met(B, 500, 100);
        agreed.advance(&others, 101);
        agreed.met(B, 510, 102);
        agreed.advance(&others, 103);
        assert_eq!(agreed.floor, 101);
    }

    #[test]
    fn the_floor_waits_for_every_replica_in_both_directions() {
        let others = BTreeSet::from([B, C]);
        let mut agreed = Agreed::default();
        agreed.met(B, 100, 101);
        agreed.advance(&others, 110);
        assert_eq!(agreed.floor, 0, "nothing was heard of C");
        agreed.met(C, 120, 121);
        agreed.met(B, 130, 131);
        agreed.advance(&others, 140);
        agreed.advance(&others, 141);
        assert_eq!(agreed.floor, 0, "what is complete since 140 was shown to nobody yet");
        agreed.met(B, 150, 151);
        agreed.advance(&others, 152);
        assert_eq!(agreed.floor, 0);
        agreed.met(C, 160, 161);
        agreed.advance(&others, 162);
        assert_eq!(agreed.floor, 120);
    }
}
