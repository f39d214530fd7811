//! Bugs that were planted are found, by seeds that were drawn and not made.

use odgm_shard::planted::Bug;
use odgm_shard::sim::{Plan, run};

/// For each bug a seed that finds it, and by what.
const CAUGHT: &[(Bug, u64, &str)] = &[];

#[test]
fn every_planted_bug_is_found_by_its_seed_and_the_clean_build_passes_it() {
    for (bug, seed, invariant) in CAUGHT {
        let found = run(&Plan::of(*seed, Some(*bug)), false).violation;
        let found = found.unwrap_or_else(|| panic!("{} is not found by seed {seed}", bug.name()));
        assert_eq!(found.invariant, *invariant, "{}: {found}", bug.name());
        let clean = run(&Plan::of(*seed, None), false).violation;
        assert_eq!(clean, None, "seed {seed} without a bug");
    }
}
