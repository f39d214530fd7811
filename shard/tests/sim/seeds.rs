//! Whole clusters from seeds.

use odgm_shard::sim::{Plan, Totals, run};

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_invariant_holds_over_the_seeds() {
    let first = env("ODGM_SIM_SEED").unwrap_or(1);
    let count = env("ODGM_SIM_SEEDS").unwrap_or(200);
    let mut totals = Totals::default();
    for seed in first..first + count {
        let report = run(&Plan::of(seed, None), false);
        if let Some(violation) = &report.violation {
            eprintln!("seed {seed}: {violation}");
        }
        totals.add(&report);
    }
    eprintln!("{totals}");
    assert!(totals.failures.is_empty(), "{} seeds failed", totals.failures.len());
    if count >= 200 {
        assert_eq!(totals.silent_kinds(), [], "kinds of faults that never struck");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 4, 5] {
        let plan = Plan::of(seed, None);
        let (first, second) = (run(&plan, false), run(&plan, true));
        assert_eq!((first.trace_hash, first.steps), (second.trace_hash, second.steps), "seed {seed}");
    }
}
