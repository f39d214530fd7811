//! Clusters of divergent and single-copy shards from seeds.

use odgm_shard::cluster::Replication;
use odgm_shard::sim::{Kind, Plan, Totals, run};

/// What these kinds can meet, and must have met.
const FAULTS: [Kind; 13] = [
    Kind::Latency,
    Kind::Loss,
    Kind::Duplication,
    Kind::Reordering,
    Kind::Partition,
    Kind::AsymmetricPartition,
    Kind::PartialPartition,
    Kind::PowerLoss,
    Kind::Kill,
    Kind::KillAll,
    Kind::Pause,
    Kind::ClockJump,
    Kind::ClockDrift,
];

fn run_all(kind: Replication, seeds: u64) -> Totals {
    let mut totals = Totals::default();
    for seed in 1..=seeds {
        let report = run(&Plan::of_kind(kind, seed), false);
        if let Some(violation) = &report.violation {
            eprintln!("odgm-sim --kind {kind:?} --seed {seed}: {violation}");
        }
        totals.add(&report);
    }
    eprintln!("{kind:?}: {totals}");
    assert_eq!(totals.failures, [], "{kind:?}");
    assert!(totals.commits > 10 * seeds, "{kind:?}: the clients changed next to nothing");
    totals
}

#[test]
fn replicas_that_merge_come_to_what_the_last_writers_left() {
    let totals = run_all(Replication::Mst, 40);
    let silent: Vec<_> = FAULTS.into_iter().filter(|kind| !totals.fired.contains_key(kind)).collect();
    assert_eq!(silent, [], "kinds of faults that never struck");
}

#[test]
fn replicas_that_send_once_and_meet_come_to_what_the_last_writers_left() {
    run_all(Replication::Eventual, 20);
}

#[test]
fn a_single_copy_keeps_what_it_acknowledged_and_is_linearizable() {
    run_all(Replication::None, 20);
}

#[test]
fn a_seed_of_another_kind_gives_the_same_run_again() {
    for kind in [Replication::Mst, Replication::Eventual, Replication::None] {
        let plan = Plan::of_kind(kind, 5);
        let (first, second) = (run(&plan, false), run(&plan, true));
        assert_eq!((first.trace_hash, first.steps), (second.trace_hash, second.steps), "{kind:?}");
    }
}
