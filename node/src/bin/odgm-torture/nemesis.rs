//! What breaks the cluster: draws faults from the seed, one after the other, and heals each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::fault::Kind;
use crate::grid::Grid;
use crate::report::Gap;
use crate::worker::Surroundings;

/// How long a healed cluster may take until every partition acknowledges again.
pub(crate) const RECOVERY: Duration = Duration::from_secs(120);
/// Between two looks at whether it does.
const PAUSE: Duration = Duration::from_millis(50);

/// Draws and strikes.
#[derive(Debug)]
pub(crate) struct Nemesis {
    pub(crate) grid: Grid,
    pub(crate) around: Arc<Surroundings>,
    pub(crate) random: StdRng,
    kinds: Vec<Kind>,
    pub(crate) fired: BTreeMap<Kind, u64>,
    pub(crate) gaps: BTreeMap<Kind, Vec<Gap>>,
    /// Notes that explain figures.
    pub(crate) notes: BTreeMap<String, u64>,
}

impl Nemesis {
    pub(crate) fn new(grid: Grid, around: Arc<Surroundings>, seed: u64, kinds: Vec<Kind>) -> Self {
        let (fired, gaps, notes) = Default::default();
        let random = StdRng::seed_from_u64(seed);
        Nemesis { grid, around, random, kinds, fired, gaps, notes }
    }

    /// Strikes until `until`, then heals.
    pub(crate) async fn run(&mut self, until: Instant) {
        let mut bag = Vec::new();
        let began = Instant::now();
        while Instant::now() < until {
            // Every kind comes before any comes again.
            if bag.is_empty() {
                bag = self.kinds.clone();
            }
            let kind = bag.swap_remove(self.random.random_range(0..bag.len()));
            eprintln!("{:>6.1} s {}", began.elapsed().as_secs_f64(), kind.name());
            self.strike(kind).await;
            // A replica that was lost is whole again before anything else is: nobody promises to survive the loss of two.
            if self.random.random_ratio(3, 4) || kind == Kind::FlippedBytes {
                self.await_recovery(kind).await;
                self.pass(500..3_000).await;
            }
        }
        self.grid.heal();
    }

    /// One fault from its beginning to its end, and how long nothing was acknowledged.
    pub(crate) async fn strike(&mut self, kind: Kind) {
        *self.fired.entry(kind).or_default() += 1;
        let led = self.grid.leaders().await;
        let leader = most_led(&led, self.grid.count());
        let at = Instant::now();
        let hit = self.inflict(kind, leader).await;
        self.grid.heal();
        let all: Vec<u32> = (0..self.around.stage.partitions).collect();
        let hit: Vec<u32> = match hit {
            Hit::All => all,
            Hit::Node(node) => {
                all.into_iter().filter(|p| led.get(*p as usize) == Some(&Some(node))).collect()
            }
        };
        // An acknowledgement from before the fault struck may come behind `at`: what counts is one after its end.
        if !hit.is_empty() && self.await_served(Instant::now(), &hit).await {
            let record = &self.around.record;
            let worst = hit.iter().map(|partition| record.longest_gap(*partition, at)).max();
            let gap = Gap { worst: worst.unwrap_or_default(), any: record.longest_silence(at) };
            self.gaps.entry(kind).or_default().push(gap);
        }
        for (node, end) in self.grid.ended() {
            if kind == Kind::FullDisk {
                self.note(format!("odgm-{node} ended on a full disk: {end}"));
                continue;
            }
            let log = self.grid.log(node);
            self.around
                .record
                .violated(format!("odgm-{node} ended by itself ({end}) after {}:\n{log}", kind.name()));
        }
        self.grid.heal();
    }

    /// Whether these partitions acknowledged something since, within the time for it.
    async fn await_served(&self, since: Instant, partitions: &[u32]) -> bool {
        let start = Instant::now();
        while !self.around.record.is_served_since(since, partitions) {
            if start.elapsed() > RECOVERY {
                return false;
            }
            tokio::time::sleep(PAUSE).await;
        }
        true
    }

    /// Waits until all nodes are ready and every partition acknowledges; it is a violation when that does not come.
    pub(crate) async fn await_recovery(&mut self, after: Kind) {
        let start = Instant::now();
        let all: Vec<u32> = (0..self.around.stage.partitions).collect();
        loop {
            self.grid.heal();
            let unready = self.grid.unready();
            if unready.is_empty() && self.around.record.is_served_since(start, &all) {
                return;
            }
            if start.elapsed() > RECOVERY {
                let status = self.grid.reasons();
                let late = format!("not served {RECOVERY:?} after {} was healed: {status}", after.name());
                self.around.record.violated(late);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A drawn time, in milliseconds.
    pub(crate) async fn pass(&mut self, millis: std::ops::Range<u64>) {
        let time = Duration::from_millis(self.random.random_range(millis));
        tokio::time::sleep(time).await;
    }

    /// The leader, or another as likely.
    pub(crate) fn victim(&mut self, leader: usize) -> usize {
        if self.random.random_bool(0.5) {
            return leader;
        }
        let nodes: Vec<usize> = (0..self.grid.count()).collect();
        nodes.choose(&mut self.random).copied().unwrap_or(leader)
    }
}

/// Whose partitions a fault hits.
pub(crate) enum Hit {
    Node(usize),
    All,
}

/// Who serves most.
fn most_led(led: &[Option<usize>], nodes: usize) -> usize {
    let count = |node: usize| led.iter().filter(|leader| **leader == Some(node)).count();
    (0..nodes).max_by_key(|node| count(*node)).unwrap_or(0)
}
