//! Deterministic simulation: a whole cluster in one thread, from one seed.
//!
//! The code that runs is the node's own: openraft and its adapter, the log, the snapshots, the links, the
//! object shard and its protocol. Simulated are time and scheduling ([`runtime`]), processes ([`life`]), disks
//! (`odgm_storage::disk::SimDisk`), networks (`odgm_transport::sim`), and the data layer, which is the store in
//! memory with a model of what a crash leaves ([`data`]). [`run`] lets clients work while things go wrong
//! ([`faults`]), then heals everything, and everything must serve again. The [`watch`] asks every
//! [`invariant`] at every step. The same seed gives the same run: its hash says so.

mod client;
mod cluster;
mod data;
mod disk;
mod faults;
pub mod history;
mod invariant;
mod life;
pub mod linearize;
mod log;
mod node;
mod plan;
mod replica;
mod report;
mod runtime;
mod state;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use odgm_transport::sim::SimNetwork;
use openraft_rt::AsyncRuntime;

pub use faults::Kind;
pub use plan::Plan;
pub use report::{Report, Totals};
pub use runtime::SimulatedRuntime;
pub use watch::Violation;

use self::client::Client;
use self::cluster::Cluster;
use self::node::Surroundings;
use self::replica::Standing;
use self::runtime::LifeTimer;
use self::watch::{Seen, Watch};
use crate::cluster::Replication;
use crate::object::CollectionName;
use crate::planted;

/// How long a healed cluster may take until all its groups serve and all replicas are equal.
const HEALING: Duration = Duration::from_secs(40);
/// The same where what was stamped by a clock that is ahead waits until the others' have come as far: clocks
/// jump by two minutes at most.
const HEALING_OF_STAMPS: Duration = Duration::from_secs(300);
/// How long clients go on after the faults have ended.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Runs a plan to its end, or to its first violation. `verbose` keeps a trace, which changes nothing else.
pub fn run(plan: &Plan, verbose: bool) -> Report {
    planted::plant(plan.bug);
    let mut runtime = SimulatedRuntime::with_seed(plan.seed);
    let copies = usize::try_from(plan.nodes).unwrap_or(usize::MAX);
    let watch = Arc::new(Watch::new(copies, verbose));
    let (seen, wanted) = (watch.clone(), plan.clone());
    let fired = runtime.block_on(async move { simulate(wanted, seen).await });
    let (trace_hash, steps) = world::trace();
    drop(runtime);
    planted::plant(None);
    Report {
        seed: plan.seed,
        violation: watch.violation(),
        virtual_time: fired.virtual_time,
        trace_hash,
        steps,
        fired: fired.faults,
        commits: watch.with_facts(|facts| facts.changes),
        trace: watch.take_trace(),
    }
}

struct Outcome {
    faults: BTreeMap<Kind, u64>,
    virtual_time: Duration,
}

async fn simulate(plan: Plan, watch: Arc<Watch>) -> Outcome {
    let timer = Arc::new(LifeTimer(None));
    let around = Surroundings {
        network: SimNetwork::new(plan.seed ^ 1, timer.clone()),
        front: SimNetwork::new(plan.seed ^ 2, timer),
        collection: CollectionName::parse("sim").expect("lower-case letters"),
        watch: watch.clone(),
        plan: Arc::new(plan),
    };
    let cluster = Cluster::new(around);
    cluster.found().await;

    let until = world::now() + cluster.around.plan.unsafe_for;
    let (mut clients, mut subscriptions) = (Vec::new(), Vec::new());
    for group in 1..=cluster.around.plan.shards {
        for number in 1..=cluster.around.plan.clients {
            let client = Client::new(cluster.clone(), group, group * 100 + number);
            if number == 1 {
                subscriptions.extend(client.watch_events());
            }
            clients.push(SimulatedRuntime::spawn(client.run(until + AFTERWARDS)));
        }
    }
    faults::run(cluster.clone(), until).await;
    SimulatedRuntime::sleep(until.saturating_sub(world::now())).await;
    watch.note(|| "everything is healed".to_owned());
    cluster.heal();
    let mut back = Vec::new();
    for client in clients {
        if watch.violation().is_some() {
            break;
        }
        if let Ok(client) = client.await {
            back.push(client);
        }
    }
    if watch.violation().is_none() {
        settle(&cluster).await;
        for client in &mut back {
            client.read_all().await;
        }
        // The upkeep may have written meanwhile.
        settle(&cluster).await;
        tell_states(&cluster);
        watch.end();
    }
    let faults = cluster.all_fired();
    let virtual_time = world::now();
    drop(subscriptions);
    cluster.finish();
    Outcome { faults, virtual_time }
}

/// Waits until every group serves and its replicas are equal; what is not then, convergence tells.
async fn settle(cluster: &Arc<Cluster>) {
    let plan = &cluster.around.plan;
    let patience = match plan.kind {
        Replication::Mst | Replication::Eventual => HEALING_OF_STAMPS,
        Replication::Raft | Replication::None => HEALING,
    };
    let deadline = world::now() + patience;
    while world::now() < deadline && cluster.around.watch.violation().is_none() {
        SimulatedRuntime::sleep(Duration::from_millis(100)).await;
        if cluster.is_rebuilding() {
            continue;
        }
        let mut states: BTreeMap<u64, Vec<Option<Standing>>> = BTreeMap::new();
        for (at, running) in cluster.all_running() {
            states.entry(at.group).or_default().push(running.standing());
        }
        let equal = |states: &Vec<Option<Standing>>| {
            states.len() as u64 == plan.nodes && states.iter().all(|state| *state == states[0])
        };
        let serve = (1..=plan.shards).all(|group| cluster.serving(group).is_some());
        if serve && states.len() as u64 == plan.shards && states.values().all(equal) {
            return;
        }
    }
}

fn tell_states(cluster: &Arc<Cluster>) {
    for (at, running) in cluster.all_running() {
        if let Some((applied, state)) = running.standing() {
            cluster.around.watch.see(at, Seen::Settled { applied, state });
        }
    }
}
