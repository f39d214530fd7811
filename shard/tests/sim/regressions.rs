//! Seeds in which something did not hold once. Each names what it was; see `docs/track-record.md`.

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
