//! Seeds in which something did not hold once. Each names what it was; see `docs/track-record.md`.

use odgm_shard::cluster::Replication;
use odgm_shard::sim::{Plan, run};

#[track_caller]
fn holds(seed: u64) {
    let violation = run(&Plan::of(seed, None), false).violation;
    assert_eq!(violation, None, "seed {seed}");
}

/// The leader's clock went two minutes ahead, log time with it, and the answers remembered by request id were
/// forgotten while their clients still repeated.
#[test]
fn a_wall_clock_that_jumps_does_not_let_a_command_run_twice() {
    holds(4);
    holds(6);
}

/// A process ended at a failed sync; the next one read from the page cache what was on no disk, synced it to
/// no effect, acknowledged what came after it, and lost it with the power.
#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_at_the_next_start() {
    holds(26);
    holds(60);
}

/// The clocks of a majority agreed on a wrong time for a while: log time stepped a minute ahead when it ended, and
/// commands that were repeated across the step ran twice.
#[test]
fn log_time_that_steps_ahead_does_not_let_a_command_run_twice() {
    for seed in [458, 504, 1413, 2886, 3958, 4739, 5041, 5617, 5757, 6434] {
        holds(seed);
    }
}

/// A leader that had heard no other clock stamped the first command of its group with 1970: its event was too old to
/// be kept, and a ttl would have been over before it began.
#[test]
fn the_first_command_of_a_group_has_a_time() {
    holds(1663);
}

/// A follower was offered the same snapshot in two terms of one leader. Installing it in the first failed, which the
/// second took for done: it sent what comes behind the snapshot for ever.
#[test]
fn a_snapshot_offered_in_two_terms_is_installed() {
    holds(6486);
}

/// A replica that saw another one again asked it for an exchange by a message that was lost, and nobody noticed:
/// without a next meeting they stayed different.
#[test]
fn replicas_that_meet_again_exchange_though_the_first_word_is_lost() {
    for seed in [131, 558, 1568, 1717, 9293] {
        let violation = run(&Plan::of_kind(Replication::Eventual, seed), false).violation;
        assert_eq!(violation, None, "seed {seed}");
    }
}

/// A deletion was lost on a link that was not seen to end. Nothing was written to that object any more, and the
/// replicas, which saw each other all the time, never compared.
#[test]
fn what_is_lost_between_replicas_that_see_each_other_is_found_once_it_is_quiet() {
    for seed in [1421, 1761] {
        let violation = run(&Plan::of_kind(Replication::Eventual, seed), false).violation;
        assert_eq!(violation, None, "seed {seed}");
    }
}
