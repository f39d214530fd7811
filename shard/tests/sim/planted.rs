//! Bugs that were planted are found, by seeds that were drawn and not made.

use odgm_shard::cluster::Replication;
use odgm_shard::planted::Bug;
use odgm_shard::sim::{Plan, run};

/// How many seeds behind the recorded one are tried: a change of the code that runs changes what a seed does.
const DRIFT: u64 = 40;

/// The bug is found at its recorded seed, or, when the code has changed since, soon behind it; without the bug
/// the same seed holds.
#[track_caller]
fn finds(bug: Bug, seed: u64, invariant: &str) {
    finds_in(Replication::Raft, bug, seed, invariant);
}

#[track_caller]
fn finds_in(kind: Replication, bug: Bug, seed: u64, invariant: &str) {
    let mut tried = (seed..=seed + DRIFT).filter_map(|seed| {
        let violation = run(&Plan { bug: Some(bug), ..Plan::of_kind(kind, seed) }, false).violation?;
        Some((seed, violation))
    });
    let (at, found) = tried.next().unwrap_or_else(|| panic!("{} is not found from seed {seed}", bug.name()));
    eprintln!("{}: seed {at}: {found}", bug.name());
    if at == seed {
        assert_eq!(found.invariant, invariant, "{found}");
    }
    let clean = run(&Plan::of_kind(kind, at), false).violation;
    assert_eq!(clean, None, "seed {at} without the bug");
}

#[test]
fn an_acknowledgement_before_the_fsync_is_found() {
    finds(Bug::AcknowledgeBeforeFsync, 1, "durable on a quorum");
}

#[test]
fn a_vote_before_its_fsync_is_found() {
    finds(Bug::VoteBeforeFsync, 1, "durable votes");
}

#[test]
fn a_snapshot_without_request_ids_is_found() {
    finds(Bug::ForgetRequestIds, 2, "state machine safety");
}

#[test]
fn a_read_before_the_first_commit_of_the_term_is_found() {
    finds(Bug::ReadBeforeCommit, 11, "read barrier");
}

#[test]
fn a_truncation_that_was_dropped_is_found() {
    finds(Bug::DropTruncation, 9, "no failure without a fault");
}

#[test]
fn a_failed_fsync_that_was_ignored_is_found() {
    finds(Bug::IgnoreFailedFsync, 11, "no failure without a fault");
}

#[test]
fn a_replica_id_that_was_used_again_is_found() {
    finds(Bug::ReuseReplicaId, 5, "no failure without a fault");
}

#[test]
fn a_tombstone_that_was_forgotten_is_found() {
    finds_in(Replication::Mst, Bug::ForgetTombstone, 18, "last writer");
}

#[test]
fn an_unpublished_tail_that_was_skipped_is_found() {
    finds(Bug::SkipUnpublishedTail, 1, "events");
}

#[test]
fn a_voter_that_forgets_the_lease_it_granted_is_found() {
    finds(Bug::NoBootEmbargo, 31, "read barrier");
}
