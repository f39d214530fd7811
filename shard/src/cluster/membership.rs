//! The next step of a shard's membership towards what its record wants: one at a time, add before
//! remove.

use std::collections::BTreeSet;

use crate::cluster::ReplicaRecord;

/// One change of membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipStep {
    /// Bring a new replica up to date without a vote.
    AddLearner(ReplicaRecord),
    /// Replace the voters, all of whom are members already, in one joint change; those that lose
    /// their vote leave.
    Voters(BTreeSet<ReplicaRecord>),
    /// Drop a learner that nobody wants.
    RemoveLearner(ReplicaRecord),
}

/// The next step, or `None` when the present membership is the wanted one.
pub fn next_step(
    wanted: &[ReplicaRecord],
    voters: &[ReplicaRecord],
    learners: &[ReplicaRecord],
) -> Option<MembershipStep> {
    let wanted: BTreeSet<_> = wanted.iter().copied().collect();
    let voters: BTreeSet<_> = voters.iter().copied().collect();
    if wanted.is_empty() {
        return None;
    }
    if let Some(missing) =
        wanted.iter().find(|replica| !voters.contains(replica) && !learners.contains(replica))
    {
        return Some(MembershipStep::AddLearner(*missing));
    }
    if wanted != voters {
        return Some(MembershipStep::Voters(wanted));
    }
    learners
        .iter()
        .find(|learner| !wanted.contains(learner))
        .map(|learner| MembershipStep::RemoveLearner(*learner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{NodeId, ReplicaId};

    fn replica(id: u64) -> ReplicaRecord {
        ReplicaRecord { replica: ReplicaId(id), node: NodeId(id) }
    }

    #[test]
    fn a_replaced_replica_is_added_before_the_old_one_leaves() {
        let wanted = [replica(1), replica(2), replica(4)];
        let voters = [replica(1), replica(2), replica(3)];
        assert_eq!(next_step(&wanted, &voters, &[]), Some(MembershipStep::AddLearner(replica(4))));
        assert_eq!(
            next_step(&wanted, &voters, &[replica(4)]),
            Some(MembershipStep::Voters(wanted.into_iter().collect()))
        );
        assert_eq!(
            next_step(&wanted, &wanted, &[replica(3)]),
            Some(MembershipStep::RemoveLearner(replica(3)))
        );
        assert_eq!(next_step(&wanted, &wanted, &[]), None);
    }

    #[test]
    fn no_wish_is_no_order_to_leave() {
        assert_eq!(next_step(&[], &[replica(1)], &[]), None);
    }
}
