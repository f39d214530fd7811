//! The kinds of faults, and how each is inflicted.

use std::time::Duration;

use clap::ValueEnum;
use rand::Rng;
use rand::seq::SliceRandom;
use serde::Serialize;

use crate::nemesis::{Hit, Nemesis};

/// How a node may be frozen, in milliseconds.
const FREEZE: std::ops::Range<u64> = 1_000..15_000;
/// How long wires are bad.
const WIRES: std::ops::Range<u64> = 2_000..12_000;
/// How long a killed node stays away.
const AWAY: std::ops::Range<u64> = 0..5_000;

/// What can be done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// SIGKILL to the node that serves most.
    KillLeader,
    /// SIGKILL to any node.
    KillAny,
    /// SIGKILL to all nodes.
    KillAll,
    /// SIGSTOP for 1 to 15 s.
    Freeze,
    /// SIGSTOP, then SIGKILL.
    FreezeThenKill,
    /// A node without wires to the others, in both directions.
    Isolate,
    /// A node whom the others do not hear, or who does not hear them.
    IsolateOneWay,
    /// Two nodes without a wire between them.
    CutPair,
    /// Wires that take up to 300 ms.
    Delay,
    /// Wires that stall and connections that break.
    Loss,
    /// The leader of a partition is told to hand over.
    Transfer,
    /// SIGTERM to one node after the other, each back before the next.
    RollingRestart,
    /// Loses what a node had not synced: its disk as it was while the process stood still.
    PowerCut,
    /// Damages files of a stopped node, which then must refuse, or be repaired or replaced.
    FlippedBytes,
    /// Leaves a node no room on its disk.
    FullDisk,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it needs a disk of the node's own.
    pub(crate) fn needs_disk(self) -> bool {
        matches!(self, Kind::PowerCut | Kind::FullDisk)
    }
}

impl Nemesis {
    /// Strikes; gives whose partitions were hit. What is left of it is healed by the caller.
    pub(crate) async fn inflict(&mut self, kind: Kind, leader: usize) -> Hit {
        let hit = match kind {
            Kind::KillLeader => leader,
            Kind::KillAll | Kind::Delay | Kind::Loss | Kind::Transfer | Kind::RollingRestart => usize::MAX,
            Kind::KillAny
            | Kind::Freeze
            | Kind::FreezeThenKill
            | Kind::Isolate
            | Kind::IsolateOneWay
            | Kind::CutPair
            | Kind::PowerCut
            | Kind::FlippedBytes
            | Kind::FullDisk => self.victim(leader),
        };
        match kind {
            Kind::KillLeader | Kind::KillAny => {
                self.grid.kill(hit);
                self.pass(AWAY).await;
            }
            Kind::KillAll => {
                self.grid.kill_all();
                self.pass(0..1_000).await;
            }
            Kind::Freeze => {
                self.grid.freeze(hit);
                self.pass(FREEZE).await;
                self.grid.thaw(hit);
            }
            Kind::FreezeThenKill => {
                self.grid.freeze(hit);
                self.pass(FREEZE).await;
                self.grid.kill(hit);
                self.pass(0..1_000).await;
            }
            Kind::Isolate | Kind::IsolateOneWay | Kind::CutPair => self.cut_off(kind, hit).await,
            Kind::Delay => {
                for way in self.grid.proxy.ways() {
                    let delay = Duration::from_millis(self.random.random_range(0..300));
                    self.grid.proxy.delay(way, delay);
                }
                self.pass(WIRES).await;
            }
            Kind::Loss => self.lose().await,
            Kind::Transfer => {
                let partition = self.random.random_range(0..self.around.stage.partitions);
                if let Err(error) = self.grid.transfer(partition).await {
                    self.note(format!("transfer of a partition: {error}"));
                }
                self.pass(100..1_000).await;
            }
            Kind::RollingRestart => self.restart_in_turn().await,
            Kind::PowerCut => self.cut_power(hit).await,
            Kind::FlippedBytes => self.flip_bytes(hit).await,
            Kind::FullDisk => self.fill_disk(hit).await,
        }
        if hit < self.grid.count() { Hit::Node(hit) } else { Hit::All }
    }

    async fn cut_off(&mut self, kind: Kind, node: usize) {
        let (outward, count) = (self.random.random_bool(0.5), self.grid.count());
        let other = (node + self.random.random_range(1..count)) % count;
        for (from, to) in self.grid.proxy.ways() {
            let cut = match kind {
                Kind::CutPair => (from, to) == (node, other) || (from, to) == (other, node),
                Kind::IsolateOneWay => (if outward { from } else { to }) == node,
                _ => from == node || to == node,
            };
            if cut {
                self.grid.proxy.block((from, to));
            }
        }
        self.pass(WIRES).await;
    }

    /// What a lossy network does to TCP.
    async fn lose(&mut self) {
        for _ in 0..self.random.random_range(4..16) {
            let mut ways = self.grid.proxy.ways();
            ways.shuffle(&mut self.random);
            let breaks = self.random.random_bool(0.3);
            let count = self.random.random_range(1..=3);
            for way in ways.into_iter().take(count) {
                if breaks { self.grid.proxy.cut(way) } else { self.grid.proxy.block(way) }
            }
            self.pass(50..900).await;
            self.grid.proxy.heal();
            self.pass(50..500).await;
        }
    }

    async fn restart_in_turn(&mut self) {
        for node in 0..self.grid.count() {
            if let Some(end) = self.grid.terminate(node).await {
                let log = self.grid.log(node);
                self.around.record.violated(format!("odgm-{node} ended with {end} on SIGTERM:\n{log}"));
            }
            self.grid.heal();
            // As the operations page says: the next when the last is ready and every shard is served.
            self.await_recovery(Kind::RollingRestart).await;
        }
    }
}
