//! What a run does, all of it from its seed.

use std::time::Duration;

use crate::cluster::Replication;
use crate::planted::Bug;
use crate::replication::raft::{RaftOptions, ReadMode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::faults::Kind;

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Everything else follows from it.
    pub seed: u64,
    /// How many nodes; each group has a replica on each of them.
    pub nodes: u64,
    /// The kind of all groups.
    pub kind: Replication,
    /// How many groups.
    pub shards: u64,
    /// How long faults go on.
    pub unsafe_for: Duration,
    /// The faults of this run: a part of all, so that each has runs in which it meets few others.
    pub faults: Vec<Kind>,
    /// The mean pause between two faults.
    pub pace: Duration,
    /// Clients of each group.
    pub clients: u64,
    /// Objects of each group, as many counters beside.
    pub objects: u64,
    /// Whether the data outlive the process, as on disk, or not, as in memory.
    pub data_outlives: bool,
    /// How the replicas behave.
    pub raft: RaftOptions,
    /// A bug to be found.
    pub bug: Option<Bug>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x0051_4d00);
        // The last kind came later, and leaves the seeds as they were that others are recorded by.
        let (early, late) = Kind::ALL.split_at(Kind::ALL.len() - 1);
        let mut faults: Vec<Kind> = early.iter().copied().filter(|_| random.random_bool(0.5)).collect();
        if seed % 8 == 7 {
            faults.extend(late);
        }
        let raft = RaftOptions {
            deadline: Duration::from_millis(1_500),
            snapshot_entries: random.random_range(20..200),
            keep_entries: random.random_range(0..20),
            batch_commands: 16,
            batch_bytes: 4 << 10,
            inflight_bytes: 1 << 20,
            window_bytes: 64 << 10,
            reads: if random.random_bool(0.7) { ReadMode::Lease } else { ReadMode::Index },
            ..RaftOptions::default()
        };
        Plan {
            seed,
            kind: Replication::Raft,
            nodes: if random.random_bool(0.2) { 5 } else { 3 },
            shards: random.random_range(1..=2),
            unsafe_for: Duration::from_millis(random.random_range(2_500..6_000)),
            faults,
            pace: Duration::from_millis(random.random_range(60..500)),
            clients: random.random_range(2..=4),
            objects: random.random_range(1..=3),
            data_outlives: random.random_bool(0.5),
            raft,
            bug,
        }
    }

    /// The plan of a seed for groups of another kind: what goes wrong is what they can meet.
    pub fn of_kind(kind: Replication, seed: u64) -> Self {
        if kind == Replication::Raft {
            return Plan::of(seed, None);
        }
        let mut random = StdRng::seed_from_u64(seed ^ 0x006b_696e_6473);
        let alone = kind == Replication::None;
        let meets = |fault: &Kind| match fault {
            Kind::PowerLoss
            | Kind::Kill
            | Kind::KillAll
            | Kind::Pause
            | Kind::ClockJump
            | Kind::ClockDrift => true,
            Kind::Latency
            | Kind::Loss
            | Kind::Duplication
            | Kind::Reordering
            | Kind::Partition
            | Kind::AsymmetricPartition
            | Kind::PartialPartition => !alone,
            // What concerns a log, which these kinds have not; its disk is the only one that is simulated.
            Kind::TornWrite
            | Kind::DiskError
            | Kind::DiskFull
            | Kind::SlowDisk
            | Kind::Transfer
            | Kind::Snapshot
            | Kind::Rebuild
            | Kind::LeaderCutOff => false,
        };
        let faults = Kind::ALL.into_iter().filter(meets).filter(|_| random.random_bool(0.6)).collect();
        let nodes = if alone { 1 } else { random.random_range(2..=4) };
        // One group: those who wait for a change of the same links are woken in an order of tokio's own.
        Plan { kind, nodes, shards: 1, faults, data_outlives: true, ..Plan::of(seed, None) }
    }
}
