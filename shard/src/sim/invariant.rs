//! The invariants: one file a property, each with where it comes from.

mod acknowledged;
mod availability;
mod barrier;
mod committed;
mod convergence;
mod durable;
mod elected;
mod election_safety;
mod events;
mod exactly_once;
mod failures;
mod last_writer;
mod leader_append_only;
mod leader_completeness;
mod linearizable;
mod local_reads;
mod log_matching;
mod purge;
mod quorum;
mod replica_order;
mod revisions;
mod state_machine;
mod votes;

use super::watch::{Facts, Seen, Spot};

/// A property that must always hold.
pub(crate) trait Invariant: Send {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Where it is demanded.
    fn source(&self) -> &'static str;

    /// Looks at something that happens; `facts` are those of before.
    fn see(&mut self, facts: &Facts, at: Spot, seen: &Seen) -> Result<(), String>;

    /// Looks at the end of a run.
    fn end(&mut self, _facts: &Facts) -> Result<(), String> {
        Ok(())
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<votes::Votes>::default(),
        Box::<election_safety::ElectionSafety>::default(),
        Box::<elected::DurablyElected>::default(),
        Box::new(leader_append_only::LeaderAppendOnly),
        Box::<log_matching::LogMatching>::default(),
        Box::new(leader_completeness::LeaderCompleteness),
        Box::<state_machine::StateMachineSafety>::default(),
        Box::new(committed::CommittedStays),
        Box::<quorum::DurableOnQuorum>::default(),
        Box::new(durable::DurableStays),
        Box::new(purge::PurgeBound),
        Box::new(barrier::Barrier),
        Box::<revisions::Revisions>::default(),
        Box::<exactly_once::ExactlyOnce>::default(),
        Box::new(acknowledged::Acknowledged::default()),
        Box::<local_reads::LocalReads>::default(),
        Box::<events::Events>::default(),
        Box::new(availability::Availability),
        Box::new(failures::NoFailure),
        Box::<convergence::Convergence>::default(),
        Box::<replica_order::ReplicaOrder>::default(),
        Box::<last_writer::LastWriter>::default(),
        Box::<linearizable::Linearizable>::default(),
    ]
}
