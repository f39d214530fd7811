//! The faults: what goes wrong in a run, one after the other and on top of each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use odgm_storage::disk::Fault;
use odgm_transport::sim::{Faults, Scope};
use openraft_rt::AsyncRuntime;

use super::cluster::Cluster;
use super::node::{Power, name};
use super::runtime::SimulatedRuntime;
use super::watch::Spot;
use super::{life, world};
use crate::object::{NodeId, ReplicaId};
use crate::replication::Role;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Messages take long.
    Latency,
    /// Messages between nodes are lost.
    Loss,
    /// Messages between nodes arrive twice.
    Duplication,
    /// Messages between nodes overtake each other.
    Reordering,
    /// Two sides do not hear each other.
    Partition,
    /// One hears the other, and not the other way.
    AsymmetricPartition,
    /// Two nodes do not hear each other, and everybody else does.
    PartialPartition,
    /// The power goes: what was not synced is lost.
    PowerLoss,
    /// The power goes in the midst of a call of the disk: a part of what it writes may stay.
    TornWrite,
    /// The process is killed.
    Kill,
    /// All processes are killed.
    KillAll,
    /// The process is frozen for a while.
    Pause,
    /// The wall clock jumps.
    ClockJump,
    /// The clocks of a process run fast or slow.
    ClockDrift,
    /// A call of the disk fails.
    DiskError,
    /// No file can grow for a while.
    DiskFull,
    /// Each fsync takes long.
    SlowDisk,
    /// The leader hands over.
    Transfer,
    /// A snapshot is taken, and the log purged behind it.
    Snapshot,
    /// A node loses its disk and is rebuilt as another replica.
    Rebuild,
    /// A leader loses sight of one follower, and later of all, while the others restart.
    LeaderCutOff,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 21] = [
        Kind::Latency,
        Kind::Loss,
        Kind::Duplication,
        Kind::Reordering,
        Kind::Partition,
        Kind::AsymmetricPartition,
        Kind::PartialPartition,
        Kind::PowerLoss,
        Kind::TornWrite,
        Kind::Kill,
        Kind::KillAll,
        Kind::Pause,
        Kind::ClockJump,
        Kind::ClockDrift,
        Kind::DiskError,
        Kind::DiskFull,
        Kind::SlowDisk,
        Kind::Transfer,
        Kind::Snapshot,
        Kind::Rebuild,
        Kind::LeaderCutOff,
    ];
}

fn ms(low: u64, high: u64) -> Duration {
    Duration::from_millis(world::between(low, high))
}

/// Lets things go wrong until the moment.
pub(crate) async fn run(cluster: Arc<Cluster>, until: Duration) {
    let kinds = cluster.around.plan.faults.clone();
    set_network(&cluster, &kinds);
    let pace = u64::try_from(cluster.around.plan.pace.as_millis()).unwrap_or(500);
    while world::now() < until && !kinds.is_empty() {
        SimulatedRuntime::sleep(ms(1, 2 * pace)).await;
        let kind = kinds[usize::try_from(world::below(kinds.len() as u64)).unwrap_or(0)];
        cluster.around.watch.note(|| format!("fault {kind:?}"));
        strike(&cluster, kind, until).await;
    }
}

/// Lets something run beside, and end what it did before the faults end.
fn beside(task: impl Future<Output = ()> + Send + 'static) {
    life::spawn(None, Box::pin(task));
}

async fn wait_at_most(span: Duration, until: Duration) {
    SimulatedRuntime::sleep(span.min(until.saturating_sub(world::now()))).await;
}

async fn strike(cluster: &Arc<Cluster>, kind: Kind, until: Duration) {
    let node = cluster.any_node();
    match kind {
        Kind::Latency | Kind::Loss | Kind::Duplication | Kind::Reordering => {
            set_network(cluster, &cluster.around.plan.faults);
        }
        Kind::Partition | Kind::AsymmetricPartition | Kind::PartialPartition => {
            cut(cluster, kind, node, until);
        }
        Kind::PowerLoss => power_loss(cluster, node).await,
        Kind::TornWrite => cluster.arm(node, kind, Fault::PowerLoss),
        Kind::DiskError => cluster.arm(node, kind, Fault::Io),
        Kind::Kill => {
            // A supervisor restarts it at once, or somebody does later.
            let away = if world::one_in(2) { ms(1, 50) } else { ms(50, 2_000) };
            kill(cluster, node, kind, away);
        }
        // A rate is that of a life: it takes a restart to have another.
        Kind::ClockDrift => kill(cluster, node, kind, ms(1, 100)),
        Kind::KillAll => kill_all(cluster),
        Kind::Pause => pause(cluster, node, until),
        Kind::ClockJump => clock_jump(cluster, node),
        Kind::DiskFull => disk_full(cluster, node, until),
        Kind::SlowDisk => slow_disk(cluster, node, until),
        Kind::Transfer => transfer(cluster).await,
        Kind::Snapshot => snapshot(cluster, node),
        Kind::LeaderCutOff => cut_off_leader(cluster, until),
        Kind::Rebuild => {
            if let Some((old, new)) = cluster.begin_rebuild(node) {
                cluster.fired(kind);
                beside(rebuild(cluster.clone(), node, old, new));
            }
        }
    }
}

/// Cuts the nodes in two, one of them off in one direction, or two of them off from each other.
fn cut(cluster: &Arc<Cluster>, kind: Kind, node: u64, until: Duration) {
    let ways = match kind {
        Kind::AsymmetricPartition => {
            let outwards = world::one_in(2);
            ways(cluster, |from, to| if outwards { from == node } else { to == node })
        }
        Kind::PartialPartition => {
            let other = cluster.any_node();
            ways(cluster, |from, to| (from, to) == (node, other) || (from, to) == (other, node))
        }
        _ => {
            let others = (1..=cluster.around.plan.nodes).filter(|_| world::one_in(2));
            let side: BTreeSet<u64> = others.chain([node]).collect();
            ways(cluster, |from, to| side.contains(&from) != side.contains(&to))
        }
    };
    block(cluster, kind, ways, until);
}

/// What a lease must outlast: one follower campaigns since it does not hear the leader, and those that granted the
/// lease come back from a restart when the leader can no longer be asked.
fn cut_off_leader(cluster: &Arc<Cluster>, until: Duration) {
    let group = world::between(1, cluster.around.plan.shards);
    let (Some((leader, _)), other) = (cluster.serving(group), cluster.any_node()) else { return };
    if leader == other {
        return;
    }
    cluster.fired(Kind::LeaderCutOff);
    let first = ways(cluster, |from, to| (from, to) == (leader, other) || (from, to) == (other, leader));
    let rest: Vec<_> = ways(cluster, |from, to| from == leader || to == leader)
        .into_iter()
        .filter(|way| !first.contains(way))
        .collect();
    let (cluster, campaign, gone) = (cluster.clone(), ms(400, 1_500), ms(100, 1_000));
    beside(async move {
        first.iter().for_each(|(from, to)| cluster.block(*from, *to));
        wait_at_most(campaign, until).await;
        rest.iter().for_each(|(from, to)| cluster.block(*from, *to));
        for node in (1..=cluster.around.plan.nodes).filter(|node| ![leader, other].contains(node)) {
            cluster.crash(node, Power::Kept, ms(1, 20));
        }
        wait_at_most(gone, until).await;
        cluster.unblock(&first);
        cluster.unblock(&rest);
    });
}

fn kill(cluster: &Arc<Cluster>, node: u64, kind: Kind, away: Duration) {
    if cluster.crash(node, Power::Kept, away) {
        cluster.fired(kind);
    }
}

fn kill_all(cluster: &Arc<Cluster>) {
    let power = if world::one_in(2) { Power::Lost } else { Power::Kept };
    for node in 1..=cluster.around.plan.nodes {
        cluster.crash(node, power, ms(1, 500));
    }
    cluster.fired(Kind::KillAll);
}

/// Of any node: they may even come to agree on a wrong time.
fn clock_jump(cluster: &Arc<Cluster>, node: u64) {
    let jump = i64::try_from(world::between(1, 120_000)).unwrap_or(0) * 1_000_000;
    let offset = if world::one_in(2) { jump } else { -jump };
    let jumped = cluster.with_node(node, |node| {
        node.wall_offset = offset;
        node.process.iter().for_each(|process| process.life.set_wall_offset(offset));
    });
    if jumped.is_some() {
        cluster.fired(Kind::ClockJump);
    }
}

fn slow_disk(cluster: &Arc<Cluster>, node: u64, until: Duration) {
    let set = move |cluster: &Cluster, micros: u64| {
        cluster.with_node(node, |node| {
            node.process.iter().for_each(|process| process.disk_delay.store(micros, Ordering::Relaxed));
        })
    };
    if set(cluster, world::between(5_000, 300_000)).is_none() {
        return;
    }
    cluster.fired(Kind::SlowDisk);
    let (cluster, span) = (cluster.clone(), ms(50, 2_000));
    beside(async move {
        wait_at_most(span, until).await;
        // None when the process has ended: the next one has a disk that is not slow.
        let _ = set(&cluster, 0);
    });
}

fn snapshot(cluster: &Arc<Cluster>, node: u64) {
    let group = world::between(1, cluster.around.plan.shards);
    let Some(running) = cluster.running(Spot { node, group }) else { return };
    let cluster = cluster.clone();
    beside(async move {
        let Some(raft) = running.raft() else { return };
        if raft.snapshot().await.is_ok() {
            cluster.fired(Kind::Snapshot);
        }
    });
}

/// How messages travel from now on.
fn set_network(cluster: &Arc<Cluster>, kinds: &[Kind]) {
    let mut faults = Faults { scope: Scope::Publications, ..Faults::default() };
    let has = |kind: Kind| {
        let chosen = kinds.contains(&kind) && world::one_in(2);
        if chosen {
            cluster.fired(kind);
        }
        chosen
    };
    if has(Kind::Latency) {
        faults.latency = Duration::from_micros(world::between(100, 5_000))..=ms(5, 150);
    }
    let part = |most: u64| world::between(1, most) as f64 / 1_000.0;
    if has(Kind::Loss) {
        faults.loss = part(200);
    }
    if has(Kind::Duplication) {
        faults.duplicate = part(300);
    }
    if has(Kind::Reordering) {
        faults.reorder = part(300);
    }
    cluster.around.front.set_faults(Faults { latency: faults.latency.clone(), ..Faults::default() });
    cluster.around.network.set_faults(faults);
}

fn ways(cluster: &Arc<Cluster>, cut: impl Fn(u64, u64) -> bool) -> Vec<(u64, u64)> {
    let nodes = 1..=cluster.around.plan.nodes;
    let all = nodes.clone().flat_map(|from| nodes.clone().map(move |to| (from, to)));
    all.filter(|(from, to)| from != to && cut(*from, *to)).collect()
}

fn block(cluster: &Arc<Cluster>, kind: Kind, ways: Vec<(u64, u64)>, until: Duration) {
    if ways.is_empty() {
        return;
    }
    ways.iter().for_each(|(from, to)| cluster.block(*from, *to));
    cluster.fired(kind);
    let (cluster, span) = (cluster.clone(), ms(50, 4_000));
    beside(async move {
        wait_at_most(span, until).await;
        cluster.unblock(&ways);
    });
}

/// The power of a node goes: now, or shortly after it has queued a vote, which is when it matters most.
async fn power_loss(cluster: &Arc<Cluster>, node: u64) {
    if world::one_in(2) {
        let voted = cluster.around.watch.next_vote(node);
        // Nobody may vote in time: then now.
        let _ = SimulatedRuntime::timeout(ms(10, 1_000), voted).await;
        SimulatedRuntime::sleep(Duration::from_micros(world::between(1, 1_500))).await;
    }
    if cluster.crash(node, Power::Lost, ms(1, 2_000)) {
        cluster.fired(Kind::PowerLoss);
    }
}

fn pause(cluster: &Arc<Cluster>, node: u64, until: Duration) {
    let frozen = cluster.with_node(node, |node| {
        let life = node.process.as_ref().map(|process| process.life.clone());
        life.iter().for_each(|life| life.freeze());
        life
    });
    let Some(Some(life)) = frozen else { return };
    cluster.fired(Kind::Pause);
    // What is sent waits in its kernel until the links are given up.
    let ways = ways(cluster, |from, to| from == node || to == node);
    ways.iter().for_each(|(from, to)| cluster.block(*from, *to));
    let (cluster, span) = (cluster.clone(), ms(50, 3_000));
    beside(async move {
        wait_at_most(span, until).await;
        cluster.unblock(&ways);
        life.thaw();
    });
}

fn disk_full(cluster: &Arc<Cluster>, node: u64, until: Duration) {
    let filled = cluster.with_node(node, |node| node.set_room(Some(world::below(64 << 10))));
    if filled.is_none() {
        return;
    }
    cluster.fired(Kind::DiskFull);
    let (cluster, span) = (cluster.clone(), ms(200, 3_000));
    beside(async move {
        wait_at_most(span, until).await;
        cluster.make_room(node);
    });
}

async fn transfer(cluster: &Arc<Cluster>) {
    let group = world::between(1, cluster.around.plan.shards);
    let Some((from, running)) = cluster.serving(group) else { return };
    let to = cluster.any_node();
    let replica = cluster.with_node(to, |node| node.replica);
    let Some(replica) = replica.filter(|_| to != from) else { return };
    let Some(raft) = running.raft() else { return };
    if raft.transfer_leader(ReplicaId(replica)).await.is_ok() {
        cluster.fired(Kind::Transfer);
    }
}

/// What an operator does about a node without a disk: another replica, added as a learner, takes the place.
async fn rebuild(cluster: Arc<Cluster>, node: u64, old: u64, new: u64) {
    for group in 1..=cluster.around.plan.shards {
        loop {
            SimulatedRuntime::sleep(Duration::from_millis(100)).await;
            if old == new {
                break;
            }
            let Some((_, running)) = cluster.serving(group) else { continue };
            let Some(raft) = running.raft() else { continue };
            let status = running.status();
            let votes = |replica: u64| status.voters.iter().any(|(voter, _)| voter.0 == replica);
            if votes(new) && !votes(old) && status.role == Role::Serving {
                break;
            }
            // Each step may be repeated; what fails now is tried again.
            let _ = raft.add_learner(ReplicaId(new), NodeId(node)).await;
            let progress = raft.progress();
            // With a vote it may lead itself, in the middle of the change.
            let learned = votes(new)
                || progress.iter().any(|progress| progress.replica == ReplicaId(new) && progress.lag < 50);
            if learned {
                let (add, remove) = ([ReplicaId(new)].into(), [ReplicaId(old)].into());
                let _ = raft.change_membership(add, remove).await;
            }
        }
    }
    cluster.around.watch.note(|| format!("{} is rebuilt", name(node)));
    cluster.end_rebuild();
}
