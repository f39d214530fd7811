//! A simulated node: what outlives its process, and the process that runs, if one does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use odgm_storage::disk::{Disk, SimDisk};
use odgm_storage::log::{AppendLog, AppendOnlyLogStorage, LogOptions, LogSpace};
use odgm_transport::Session;
use odgm_transport::link::{Incoming, LinkOptions, Links, PeerId};
use odgm_transport::sim::SimNetwork;
use openraft_rt::AsyncRuntime;
use tokio::sync::Notify;

use super::data::{CrashingData, Remains};
use super::disk::ForgivingDisk;
use super::life::{self, Life};
use super::plan::Plan;
use super::replica::{Factory, Running, Starting, write_options};
use super::runtime::{LifeTimer, SimulatedRuntime};
use super::watch::{Seen, Spot, Watch};
use super::world;
use crate::Result;
use crate::cluster::Replication;
use crate::object::{CollectionName, NodeId};
use crate::planted::{Bug, planted};
use crate::replication::Role;
use crate::replication::mst::{MST_MESSAGE, MstRouter};
use crate::replication::raft::RaftRouter;
use crate::shard::Budget;

/// How long the committer rests when nothing is queued.
const IDLE: Duration = Duration::from_millis(100);

/// A process.
pub(crate) struct Process {
    pub(crate) life: Arc<Life>,
    pub(crate) log: Option<Arc<AppendLog>>,
    links: Option<Arc<Links>>,
    factory: Option<Arc<Factory>>,
    budget: Arc<Budget>,
    /// By group; filled as they start.
    shards: Arc<Mutex<BTreeMap<u64, Running>>>,
    /// The data layers, which are there before their shards.
    data: Arc<Mutex<BTreeMap<u64, Arc<CrashingData>>>>,
    failure: Arc<Mutex<Option<String>>>,
    /// How much longer an fsync takes, microseconds.
    pub(crate) disk_delay: Arc<AtomicU64>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Process {
    pub(crate) fn shards(&self) -> BTreeMap<u64, Running> {
        lock(&self.shards).clone()
    }

    /// Why the process must end, if it must.
    pub(crate) fn failure(&self) -> Option<String> {
        if let Some(panic) = self.life.take_panics().pop() {
            return Some(format!("a task panicked: {panic}"));
        }
        if let Some(failure) = lock(&self.failure).clone() {
            return Some(failure);
        }
        if let Some(poison) = self.log.as_ref().and_then(|log| log.poisoned()) {
            return Some(format!("the log failed: {poison}"));
        }
        let shards = lock(&self.shards);
        let stopped = shards.iter().find(|(_, running)| running.status().role == Role::Stopped);
        stopped.map(|(group, running)| format!("group {group} stopped: {:?}", running.status().failure))
    }

    /// Lets every replica that believes it serves read: whoever is cut off has no client that would.
    pub(crate) fn probe(&self) {
        if !self.life.is_frozen() {
            let shards = self.shards();
            self.life.enter(|| shards.values().for_each(Running::probe));
        }
    }

    /// What a node does about its disk every second.
    pub(crate) fn look_at_disk(&self) {
        let full = self.log.as_ref().is_some_and(|log| log.space() != LogSpace::Ample);
        self.budget.set_disk_full(full);
    }
}

/// A node.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) disk: SimDisk,
    /// The id of its replicas.
    pub(crate) replica: u64,
    remains: BTreeMap<u64, Remains>,
    pub(crate) process: Option<Process>,
    pub(crate) wall_offset: i64,
    /// Something was done to the disk that may end the process.
    pub(crate) tainted: bool,
    /// Its disk cannot grow.
    pub(crate) full: bool,
}

/// Where the nodes are.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) plan: Arc<Plan>,
    pub(crate) watch: Arc<Watch>,
    /// Node to node.
    pub(crate) network: Arc<SimNetwork>,
    /// Clients to nodes.
    pub(crate) front: Arc<SimNetwork>,
    pub(crate) collection: CollectionName,
}

/// A node's name on both networks.
pub(crate) fn name(node: u64) -> String {
    format!("n{node}")
}

impl Node {
    pub(crate) fn new(id: u64, plan: &Plan) -> Self {
        let disk = SimDisk::new(plan.seed.wrapping_mul(31).wrapping_add(id));
        Node {
            id,
            disk,
            replica: id,
            remains: BTreeMap::new(),
            process: None,
            wall_offset: 0,
            tainted: false,
            full: false,
        }
    }

    /// Starts a process on what the last one left.
    pub(crate) fn start(&mut self, around: &Surroundings) {
        assert!(self.process.is_none(), "a node runs one process");
        // A clock is at most a twentieth off: leases allow for a tenth between two.
        let drifts = around.plan.faults.contains(&super::faults::Kind::ClockDrift);
        let rate = if drifts { world::between(950_000, 1_050_000) } else { 1_000_000 };
        let life = Life::new(rate, self.wall_offset);
        let mut process = Process {
            life: life.clone(),
            log: None,
            links: None,
            factory: None,
            budget: Budget::new(8 << 20),
            shards: Arc::default(),
            data: Arc::default(),
            failure: Arc::default(),
            disk_delay: Arc::default(),
        };
        self.tainted = self.full;
        let started = life.enter(|| self.open(&mut process, around));
        if let Err(error) = started {
            *lock(&process.failure) = Some(format!("the process did not start: {error}"));
        }
        self.process = Some(process);
    }

    fn open(&mut self, process: &mut Process, around: &Surroundings) -> Result<()> {
        let disk: Arc<dyn Disk> = if planted(Bug::IgnoreFailedFsync) {
            Arc::new(ForgivingDisk(self.disk.clone()))
        } else {
            Arc::new(self.disk.clone())
        };
        let options = LogOptions {
            segment_bytes: 64 << 10,
            reserve_segments: 2,
            spare_segments: 2,
            cache_bytes: 32 << 10,
            ..LogOptions::default()
        };
        let log = AppendLog::open_stepped(disk.clone(), Path::new("/log"), options)?;
        process.log = Some(log.clone());
        let wake = Arc::new(Notify::new());
        life::spawn(Life::current(), Box::pin(commit(log.clone(), wake.clone(), process.disk_delay.clone())));

        let timer = Arc::new(LifeTimer(Life::current()));
        let cluster = around.network.session(&name(self.id));
        let front: Arc<dyn Session> = around.front.session(&name(self.id));
        let options = LinkOptions::new("sim", PeerId(self.id), name(self.id), world::random() >> 1);
        let links = Links::open(cluster, timer, options)?;
        let factory = Arc::new(Factory {
            node: NodeId(self.id),
            raft_router: RaftRouter::new(links.clone()),
            mst_router: MstRouter::new(links.clone()),
            raft: around.plan.raft.clone(),
            writes: write_options(),
        });
        let (raft, mst) = (Arc::downgrade(&factory.raft_router), Arc::downgrade(&factory.mst_router));
        links.serve(Arc::new(move |incoming: Incoming| {
            let Some((raft, mst)) = raft.upgrade().zip(mst.upgrade()) else { return };
            match incoming.payload.first() {
                Some(&MST_MESSAGE) => mst.receive(incoming),
                _ => raft.receive(incoming),
            }
        }));
        process.links = Some(links);
        process.factory = Some(factory.clone());

        for group in 1..=around.plan.shards {
            let starting = Starting {
                at: Spot { node: self.id, group },
                replica: self.replica,
                disk: disk.clone(),
                log: log.clone(),
                wake: wake.clone(),
                factory: factory.clone(),
                front: front.clone(),
                budget: process.budget.clone(),
                around: around.clone(),
            };
            let remains = self.remains.get(&group);
            let (watch, kind) = (around.watch.clone(), around.plan.kind);
            let at = starting.at;
            let sink = Arc::new(move |state, counters: crate::state::layout::Counters| {
                if let (Replication::Raft, Some(position)) = (kind, counters.applied) {
                    watch.see(at, Seen::Applied { position, state, revision: counters.revision });
                }
            });
            let data = CrashingData::open(remains, sink)?;
            lock(&process.data).insert(group, data.clone());
            let (shards, failure) = (process.shards.clone(), process.failure.clone());
            let task = async move {
                match starting.run(data).await {
                    Ok(running) => {
                        lock(&shards).insert(group, running);
                    }
                    Err(error) => *lock(&failure) = Some(format!("group {group} did not start: {error}")),
                }
            };
            life::spawn(Life::current(), Box::pin(task));
        }
        Ok(())
    }

    /// Lets the disk grow by this much from now on, or by anything.
    pub(crate) fn set_room(&mut self, bytes: Option<u64>) {
        self.full = bytes.is_some();
        self.tainted |= self.full;
        self.disk.set_capacity(bytes.map_or(u64::MAX, |bytes| self.disk.used_bytes() + bytes));
    }

    /// Ends the process; what it had not synced is lost when the power goes, and is not when it is killed.
    pub(crate) fn stop(&mut self, around: &Surroundings, power: Power) {
        let Some(process) = self.process.take() else { return };
        around.network.crash(&name(self.id));
        around.front.crash(&name(self.id));
        let data = lock(&process.data).clone();
        for (group, data) in data {
            let remains = match (around.plan.data_outlives, power) {
                (false, _) => None,
                (true, Power::Lost) => data.after_power_loss().ok(),
                (true, Power::Kept) => data.after_death().ok(),
            };
            match remains {
                Some(remains) => self.remains.insert(group, remains),
                None => self.remains.remove(&group),
            };
        }
        match power {
            Power::Lost => self.disk.crash(),
            // Another disk with the same pages: open files and locks of the dead process are not on it.
            Power::Kept => self.disk = self.disk.fork(),
        }
        let life = process.life.clone();
        life.kill();
        life.enter(|| drop(process));
    }

    /// Empties the disk; the replicas that come back are others.
    pub(crate) fn wipe(&mut self, around: &Surroundings, replica: u64) {
        self.disk = SimDisk::new(world::random());
        self.full = false;
        self.remains.clear();
        self.replica = replica;
        for group in 1..=around.plan.shards {
            around.watch.see(Spot { node: self.id, group }, Seen::Wiped);
        }
    }
}

/// Whether the power goes with the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    Lost,
    Kept,
}

/// The committer of a log: each fsync takes its time, and what is queued meanwhile shares the next.
async fn commit(log: Arc<AppendLog>, wake: Arc<Notify>, delay: Arc<AtomicU64>) {
    while log.poisoned().is_none() {
        // Either is a reason to look.
        let _ = SimulatedRuntime::timeout(IDLE, wake.notified()).await;
        loop {
            let micros = world::between(100, 900) + delay.load(Ordering::Relaxed);
            SimulatedRuntime::sleep(Duration::from_micros(micros)).await;
            if !log.step() {
                break;
            }
        }
    }
}
