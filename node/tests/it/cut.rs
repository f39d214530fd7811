//! `mst` and `eventual` collections on processes whose connections are cut: each side goes on, and after it all hold the
//! same.
//!
//! `ODGM_CUT_SECONDS` and `ODGM_CUT_KEYS` make the cut as long and what is written in it as much as one likes.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use odgm_shard::client::{GridClient, Put};
use odgm_shard::object::{CollectionName, ObjectId, ObjectKey};

use crate::processes::{DEADLINE, Processes, Setup};
use crate::wires::{Plane, Wires};

/// Writes under way at a time, on each side.
const WRITERS: usize = 64;
const VALUE_BYTES: usize = 1024;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap())
}

fn users() -> CollectionName {
    CollectionName::parse("default").unwrap()
}

fn key(object: &str) -> ObjectKey {
    ObjectKey { object: ObjectId::parse(object).unwrap(), entry: None }
}

/// Nodes with one partition on all of them.
pub(crate) fn start(kind: &str, nodes: usize) -> (Processes, Arc<Wires>) {
    let wires = Wires::new();
    let collection = format!("{{name: default, partitions: 1, replicas: {nodes}, replication: {kind}}}");
    let settings = vec![format!("collections=[{collection}]")];
    let mut processes = Processes::prepare(&Setup { nodes, settings, ..Setup::default() });
    wires.string(&mut processes);
    (0..nodes).for_each(|node| processes.restart(node));
    (0..nodes).for_each(|node| processes.await_ready(node));
    until("all see one server", || {
        let serves = |node| processes.shard(node, "default").map(|shard| shard["role"] == "serving");
        (0..nodes).filter(|node| serves(*node) == Some(true)).count() == 1 && roots(&processes).is_some()
    });
    (processes, wires)
}

pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn passes(time: Duration) {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        std::thread::park_timeout(left);
    }
}

/// The fingerprints of all replicas, once each tells its own.
fn roots(processes: &Processes) -> Option<Vec<String>> {
    let root = |node| Some(processes.shard(node, "default")?["digest"]["root"].as_str()?.to_owned());
    (0..processes.count()).map(root).collect()
}

pub(crate) fn are_equal(processes: &Processes) -> bool {
    roots(processes).is_some_and(|roots| roots.windows(2).all(|pair| pair[0] == pair[1]))
}

pub(crate) fn serves(processes: &Processes, node: usize) -> bool {
    processes.shard(node, "default").is_some_and(|shard| shard["role"] == "serving")
}

async fn write(client: &GridClient, side: u8, objects: std::ops::Range<u64>) {
    let puts = objects.map(|at| async move {
        let put = Put::value(vec![side; VALUE_BYTES]);
        client.put(&users(), &key(&format!("object-{at:06}")), put, None).await.unwrap();
    });
    futures_util::stream::iter(puts).buffer_unordered(WRITERS).for_each(|()| async {}).await;
}

/// Cuts two replicas from each other, writes on both sides, heals, and waits until they are equal.
async fn cut_and_heal(kind: &str) {
    let keys = number("ODGM_CUT_KEYS").unwrap_or(200);
    let lasts = Duration::from_secs(number("ODGM_CUT_SECONDS").unwrap_or(0));
    let (processes, wires) = start(kind, 2);
    wires.cut(&[1]);
    let began = Instant::now();
    until("both sides serve", || serves(&processes, 0) && serves(&processes, 1));
    let clients = [processes.lone_client(0).await, processes.lone_client(1).await];
    // A tenth of the keys is written on both sides.
    let second = keys * 9 / 10;
    tokio::join!(write(&clients[0], 1, 0..keys), write(&clients[1], 2, second..second + keys));
    assert!(!are_equal(&processes));
    passes(lasts.saturating_sub(began.elapsed()));
    let before = wires.bytes(Plane::Cluster);
    wires.heal();
    let healed = Instant::now();
    until("equal replicas", || are_equal(&processes));
    let took = healed.elapsed();
    until("one server", || serves(&processes, 0) != serves(&processes, 1));
    let moved = wires.bytes(Plane::Cluster) - before;
    let changed = keys * 19 / 10 * VALUE_BYTES as u64;
    eprintln!(
        "{kind}: {keys} keys on each side in {:?}; equal {took:?} after it; {moved} bytes passed, {:.3} of what changed",
        healed - began,
        moved as f64 / changed as f64
    );
    // What a link costs by itself counts for little where much is written.
    assert!(moved * 2 <= changed * 3 + (1 << 20), "{moved} bytes for {changed}");
    for at in [0, second, keys - 1, second + keys - 1] {
        let mut values = Vec::new();
        for client in &clients {
            values.push(
                client.get(&users(), &key(&format!("object-{at:06}")), Default::default()).await.unwrap(),
            );
        }
        assert_eq!(values[0].value, values[1].value);
    }
    if kind == "mst" && !lasts.is_zero() {
        idle(&processes, &wires);
    }
    for client in clients {
        client.session().close().unwrap();
    }
}

/// What replicas that are equal cost: measured without and with many more of them.
fn idle(processes: &Processes, wires: &Wires) {
    const SHARDS: u64 = 64;
    const SECONDS: u64 = 20;
    let rate = || {
        let before = wires.bytes(Plane::Cluster);
        passes(Duration::from_secs(SECONDS));
        (wires.bytes(Plane::Cluster) - before) / SECONDS
    };
    let few = rate();
    let (endpoint, shards) = (processes.endpoint(0), SHARDS.to_string());
    let mut create = Command::new(env!("CARGO_BIN_EXE_odgm"));
    create.args([
        "--connect",
        &endpoint,
        "--timeout",
        "60s",
        "collection",
        "create",
        "many",
        "--replication",
        "mst",
    ]);
    let created = create.args(["--partitions", &shards, "--replicas", "2"]).output().unwrap();
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    until("all of them run", || {
        let digests = |node| {
            let status = processes.status(node)?;
            let shards = status["shards"].as_array()?.clone();
            Some(shards.iter().filter(|shard| shard["digest"]["root"].is_string()).count() as u64)
        };
        (0..2).all(|node| digests(node) == Some(SHARDS + 1))
    });
    passes(Duration::from_secs(3));
    let many = rate();
    let each = many.saturating_sub(few) / SHARDS;
    eprintln!("idle: {few} bytes/s with one shard, {many} with {} of them: {each} each", SHARDS + 1);
    assert!(each <= 200, "{each} bytes/s for each shard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sides_of_a_cut_of_real_sessions_are_equal_after_it_for_the_price_of_what_changed() {
    for kind in ["mst", "eventual"] {
        cut_and_heal(kind).await;
    }
}
