//! Whole clusters from seeds.
//!
//! `ODGM_SIM_SEED` (the first), `ODGM_SIM_SEEDS` (how many) and `ODGM_SIM_BUG` (a planted bug to look for) choose
//! other ones than the default.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use odgm_shard::planted::Bug;
use odgm_shard::sim::{Plan, Totals, run};

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_invariant_holds_over_the_seeds() {
    let first = env("ODGM_SIM_SEED").unwrap_or(1);
    let count = env("ODGM_SIM_SEEDS").unwrap_or(200);
    let bug = std::env::var("ODGM_SIM_BUG").ok().map(|name| Bug::parse(&name).expect("a planted bug"));
    let (next, totals) = (AtomicU64::new(first), Mutex::new(Totals::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let report = run(&Plan::of(seed, bug), false);
            if let Some(violation) = &report.violation {
                eprintln!("odgm-sim --seed {seed}: {violation}");
            }
            let mut totals = totals.lock().unwrap();
            totals.add(&report);
            if bug.is_some() && !totals.failures.is_empty() {
                return;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let totals = totals.into_inner().unwrap();
    eprintln!("{totals}");
    assert_eq!(totals.failures.is_empty(), bug.is_none(), "{} seeds failed", totals.failures.len());
    if count >= 200 && bug.is_none() {
        assert_eq!(totals.silent_kinds(), [], "kinds of faults that never struck");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 4] {
        let plan = Plan::of(seed, None);
        let (first, second) = (run(&plan, false), run(&plan, true));
        assert_eq!((first.trace_hash, first.steps), (second.trace_hash, second.steps), "seed {seed}");
    }
}
