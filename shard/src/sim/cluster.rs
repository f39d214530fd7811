//! The cluster as faults and clients see it: nodes that come and go, and who serves what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft_rt::AsyncRuntime;

use super::faults::Kind;
use super::node::{Node, Power, Surroundings, name};
use super::replica::Running;
use super::runtime::SimulatedRuntime;
use super::watch::{Seen, Spot};
use super::{life, world};
use crate::object::{NodeId, ReplicaId};
use crate::planted::{Bug, planted};
use crate::replication::Role;

/// How often the cluster is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a process that failed stays away.
const RESTART_AFTER: Duration = Duration::from_millis(300);

/// All nodes, and what is wrong with them.
pub(crate) struct Cluster {
    pub(crate) around: Surroundings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    /// Ways that are blocked between nodes.
    blocked: BTreeSet<(u64, u64)>,
    /// Who serves a group, and since when it does so in the reach of all clients.
    serving: BTreeMap<u64, (u64, Duration)>,
    fired: BTreeMap<Kind, u64>,
    /// Nodes whose process ended, and when they come back.
    down: BTreeMap<u64, Duration>,
    /// The call at which a disk will fail.
    armed: BTreeMap<u64, (u64, Kind)>,
    over: bool,
    rebuilding: bool,
    next_replica: u64,
}

impl Cluster {
    pub(crate) fn new(around: Surroundings) -> Arc<Self> {
        let nodes = (1..=around.plan.nodes).map(|id| (id, Node::new(id, &around.plan))).collect();
        let state = State { nodes, next_replica: 100, ..State::default() };
        Arc::new(Cluster { around, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts all nodes and founds all groups.
    pub(crate) async fn found(self: &Arc<Self>) {
        for node in 1..=self.around.plan.nodes {
            self.lock().nodes.get_mut(&node).expect("it was made").start(&self.around);
        }
        let members: BTreeMap<ReplicaId, NodeId> =
            (1..=self.around.plan.nodes).map(|id| (ReplicaId(id), NodeId(id))).collect();
        for group in 1..=self.around.plan.shards {
            // Until the process has started the replica.
            let running = loop {
                match self.running(Spot { node: 1, group }) {
                    Some(running) => break running,
                    None => SimulatedRuntime::sleep(LOOK).await,
                }
            };
            let Some(raft) = running.raft() else { continue };
            if let Err(error) = raft.initialize(members.clone()).await {
                let reason = format!("not founded: {error}");
                self.around.watch.see(Spot { node: 1, group }, Seen::Failed { reason });
            }
        }
        let this = self.clone();
        life::spawn(None, Box::pin(async move { this.look_after().await }));
    }

    pub(crate) fn running(&self, at: Spot) -> Option<Running> {
        let state = self.lock();
        let process = state.nodes.get(&at.node)?.process.as_ref()?;
        process.shards().get(&at.group).cloned()
    }

    pub(crate) fn all_running(&self) -> Vec<(Spot, Running)> {
        let state = self.lock();
        let mut all = Vec::new();
        for (id, node) in &state.nodes {
            for (group, running) in node.process.iter().flat_map(super::node::Process::shards) {
                all.push((Spot { node: *id, group }, running));
            }
        }
        all
    }

    /// The replica that says it serves a group.
    pub(crate) fn serving(&self, group: u64) -> Option<(u64, Running)> {
        let all = self.all_running().into_iter().filter(|(at, _)| at.group == group);
        let mut serving = all.filter(|(_, running)| running.status().role == Role::Serving);
        serving.next().map(|(at, running)| (at.node, running))
    }

    /// Since when the same replica serves a group, in the reach of clients.
    pub(crate) fn serving_since(&self, group: u64) -> Option<Duration> {
        self.lock().serving.get(&group).map(|(_, since)| *since)
    }

    /// Restarts what has failed, and notes who serves, until the end.
    async fn look_after(self: Arc<Self>) {
        let mut rounds = 0_u64;
        loop {
            SimulatedRuntime::sleep(LOOK).await;
            rounds += 1;
            let mut state = self.lock();
            if state.over {
                return;
            }
            self.end_failed(&mut state);
            self.restart_due(&mut state);
            self.note_serving(&mut state);
            if rounds.is_multiple_of(2) {
                state.nodes.values().filter_map(|node| node.process.as_ref()).for_each(|p| p.probe());
            }
            if rounds.is_multiple_of(25) {
                state.nodes.values().filter_map(|node| node.process.as_ref()).for_each(|p| p.look_at_disk());
            }
            let armed = state.armed.clone();
            for (node, (call, kind)) in armed {
                if state.nodes[&node].disk.calls() >= call {
                    state.armed.remove(&node);
                    *state.fired.entry(kind).or_default() += 1;
                }
            }
        }
    }

    fn end_failed(&self, state: &mut State) {
        let failed: Vec<(u64, String)> = state
            .nodes
            .values()
            .filter_map(|node| {
                let process = node.process.as_ref()?;
                let gone = || node.disk.is_dark().then(|| "the power is gone".to_owned());
                Some((node.id, process.failure().or_else(gone)?))
            })
            .collect();
        for (id, reason) in failed {
            let node = state.nodes.get_mut(&id).expect("it is one of them");
            self.around.watch.note(|| format!("node {id} ends: {reason}"));
            // A panic is a fault of ours, whatever the disk does.
            if !node.tainted || reason.contains("panicked") {
                self.around.watch.see(Spot { node: id, group: 0 }, Seen::Failed { reason });
            }
            let power = if node.disk.is_dark() { Power::Lost } else { Power::Kept };
            node.stop(&self.around, power);
            state.down.insert(id, world::now() + RESTART_AFTER);
        }
    }

    fn restart_due(&self, state: &mut State) {
        let now = world::now();
        let due: Vec<u64> = state.down.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in due {
            state.down.remove(&id);
            self.around.watch.note(|| format!("node {id} starts"));
            let node = state.nodes.get_mut(&id).expect("it is one of them");
            if node.process.is_none() {
                node.start(&self.around);
            }
            for (from, to) in &state.blocked {
                if *from == id || *to == id {
                    self.around.network.block(&name(*from), &name(*to));
                }
            }
        }
    }

    fn note_serving(&self, state: &mut State) {
        let now = world::now();
        for group in 1..=self.around.plan.shards {
            let serving = state.nodes.values().find(|node| {
                node.process.as_ref().is_some_and(|process| {
                    let shards = process.shards();
                    let running = shards.get(&group);
                    !process.life.is_frozen()
                        && running.is_some_and(|running| running.status().role == Role::Serving)
                })
            });
            let serving = serving.map(|node| node.id);
            let before = state.serving.get(&group).map(|(node, _)| *node);
            if serving != before {
                self.around.watch.note(|| format!("group {group} is served by {serving:?}"));
                match serving {
                    Some(node) => state.serving.insert(group, (node, now)),
                    None => state.serving.remove(&group),
                };
            }
        }
    }

    /// Counts a fault.
    pub(crate) fn fired(&self, kind: Kind) {
        *self.lock().fired.entry(kind).or_default() += 1;
    }

    pub(crate) fn all_fired(&self) -> BTreeMap<Kind, u64> {
        self.lock().fired.clone()
    }

    /// Some node; each as likely.
    pub(crate) fn any_node(&self) -> u64 {
        world::between(1, self.around.plan.nodes)
    }

    /// Ends a process; it comes back after a while. Says whether it ran.
    pub(crate) fn crash(&self, id: u64, power: Power, away: Duration) -> bool {
        let mut state = self.lock();
        let node = state.nodes.get_mut(&id).expect("it is one of them");
        let ran = node.process.is_some();
        if ran {
            node.stop(&self.around, power);
            state.down.insert(id, world::now() + away);
        }
        ran
    }

    /// Changes something about a node whose process runs.
    pub(crate) fn with_node<T>(&self, id: u64, change: impl FnOnce(&mut Node) -> T) -> Option<T> {
        let mut state = self.lock();
        let node = state.nodes.get_mut(&id).filter(|node| node.process.is_some())?;
        Some(change(node))
    }

    /// Nothing arrives any more from one node at another.
    pub(crate) fn block(&self, from: u64, to: u64) {
        if self.lock().blocked.insert((from, to)) {
            self.around.network.block(&name(from), &name(to));
        }
    }

    pub(crate) fn unblock(&self, ways: &[(u64, u64)]) {
        for (from, to) in ways {
            if self.lock().blocked.remove(&(*from, *to)) {
                self.around.network.unblock(&name(*from), &name(*to));
            }
        }
    }

    /// Lets a disk fail a few calls from now.
    pub(crate) fn arm(&self, id: u64, kind: Kind, fault: odgm_storage::disk::Fault) {
        let mut state = self.lock();
        let Some(node) = state.nodes.get_mut(&id).filter(|node| node.process.is_some()) else { return };
        node.tainted = true;
        let call = node.disk.calls() + world::between(1, 30);
        node.disk.fail_at(call, fault);
        state.armed.insert(id, (call, kind));
    }

    /// Lets a disk grow again, whether its process runs or not.
    pub(crate) fn make_room(&self, id: u64) {
        self.lock().nodes.get_mut(&id).expect("it is one of them").set_room(None);
    }

    /// Begins a rebuild, of which there is one at a time: the new id of the replicas.
    pub(crate) fn begin_rebuild(&self, id: u64) -> Option<(u64, u64)> {
        let mut state = self.lock();
        let all_run = state.nodes.values().all(|node| node.process.is_some());
        if state.rebuilding || !all_run {
            return None;
        }
        let fresh = state.next_replica;
        let node = state.nodes.get_mut(&id).expect("it is one of them");
        let old = node.replica;
        let new = if planted(Bug::ReuseReplicaId) { old } else { fresh };
        node.stop(&self.around, Power::Lost);
        node.wipe(&self.around, new);
        state.next_replica += 1;
        state.rebuilding = true;
        state.down.insert(id, world::now() + Duration::from_millis(world::between(1, 500)));
        Some((old, new))
    }

    pub(crate) fn end_rebuild(&self) {
        self.lock().rebuilding = false;
    }

    pub(crate) fn is_rebuilding(&self) -> bool {
        self.lock().rebuilding
    }

    /// Ends all that is wrong.
    pub(crate) fn heal(&self) {
        let mut state = self.lock();
        state.blocked.clear();
        state.armed.clear();
        self.around.network.heal();
        self.around.front.heal();
        self.around.network.set_faults(odgm_transport::sim::Faults::default());
        self.around.front.set_faults(odgm_transport::sim::Faults::default());
        let now = world::now();
        state.down.values_mut().for_each(|at| *at = (*at).min(now + Duration::from_millis(100)));
        for node in state.nodes.values_mut() {
            node.set_room(None);
            node.disk.clear_fault();
            if let Some(process) = &node.process {
                process.disk_delay.store(0, std::sync::atomic::Ordering::Relaxed);
                process.life.thaw();
            }
        }
    }

    /// Nobody looks after it any more.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        state.over = true;
        let State { nodes, .. } = &mut *state;
        for node in nodes.values_mut() {
            node.stop(&self.around, Power::Kept);
        }
    }
}
