//! Keys that end by themselves in `mst` and `eventual` collections, on real sessions: with whoever serves, on both sides
//! of a cut, while a replica is down; and none comes back.

use std::time::Duration;

use odgm_shard::client::{GridClient, Put};
use odgm_shard::object::{CollectionName, EntryName, ObjectId, ObjectKey};

use crate::cut::{are_equal, serves, start, until};
use crate::divergent::near;
use crate::processes::{DEADLINE, Processes};

fn users() -> CollectionName {
    CollectionName::parse("default").unwrap()
}

fn key(path: &str) -> ObjectKey {
    let (object, entry) = match path.split_once('/') {
        Some((object, entry)) => (object, Some(EntryName::parse(entry).unwrap())),
        None => (path, None),
    };
    ObjectKey { object: ObjectId::parse(object).unwrap(), entry }
}

async fn put(client: &GridClient, path: &str, ttl: Option<&str>) {
    let put = Put { ttl: ttl.map(str::to_owned), ..Put::value("x") };
    client.put(&users(), &key(path), put, None).await.unwrap();
}

/// What the serving replica that a client reaches tells of a key since its beginning: for each change, whether it ended
/// the key. A mark that is written now says when that was all.
async fn told(client: &GridClient, path: &str, mark: &str) -> Vec<bool> {
    put(client, mark, None).await;
    let mut events = client.resume(&users(), "**", None, 1).await.unwrap();
    let (mut told, wanted) = (Vec::new(), key(path));
    loop {
        let (_, event) = tokio::time::timeout(DEADLINE, events.next()).await.unwrap().unwrap().unwrap();
        if event.key == key(mark) {
            return told;
        }
        if event.key == wanted {
            told.push(event.deleted);
        }
    }
}

/// Waits until the replica on a node has a key, or has it no longer.
async fn await_near(processes: &Processes, node: usize, path: &str, there: bool) {
    let shown = async {
        while near(processes, node, path).await.is_some() != there {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let shown = tokio::time::timeout(DEADLINE, shown).await;
    shown.unwrap_or_else(|_| panic!("{path} on node {node}: never there == {there}"));
}

/// The three lives of a key: in peace, over a cut, and while the first of those that do not serve is down.
async fn live_and_end(kind: &str) {
    let (mut processes, wires) = start(kind, 3);
    let first = processes.await_serving("default");
    let [second, third] = [(first + 1) % 3, (first + 2) % 3];
    let client = processes.lone_client(first).await;

    put(&client, "stays", None).await;
    for path in ["gone", "stays/lease", "touched"] {
        put(&client, path, Some("2s")).await;
    }
    client.touch(&users(), &key("touched"), "none", None).await.unwrap();
    for node in 0..3 {
        await_near(&processes, node, "gone", false).await;
        await_near(&processes, node, "stays/lease", false).await;
        await_near(&processes, node, "stays", true).await;
        await_near(&processes, node, "touched", true).await;
    }
    for (path, events) in
        [("gone", vec![false, true]), ("stays/lease", vec![false, true]), ("touched", vec![false, false])]
    {
        assert_eq!(told(&client, path, "mark-1").await, events, "{kind} {path}");
    }

    // Over a cut: one ends on both sides, one is kept alive on the far side.
    for path in ["cut", "kept"] {
        put(&client, path, Some("8s")).await;
        await_near(&processes, third, path, true).await;
    }
    wires.cut(&[third]);
    until("both sides serve", || serves(&processes, first) && serves(&processes, third));
    let far = processes.lone_client(third).await;
    far.touch(&users(), &key("kept"), "none", None).await.unwrap();
    for node in 0..3 {
        await_near(&processes, node, "cut", false).await;
    }
    await_near(&processes, first, "kept", false).await;
    await_near(&processes, third, "kept", true).await;
    assert_eq!(told(&far, "cut", "mark-2").await, [false, true], "{kind}, the far side");
    assert_eq!(told(&far, "gone", "mark-2").await, [false, true], "{kind}, the far side saw it merged");
    wires.heal();
    until("equal replicas", || are_equal(&processes));
    for node in 0..3 {
        await_near(&processes, node, "kept", true).await;
        await_near(&processes, node, "cut", false).await;
    }

    // A replica that is down while it ends brings nothing back.
    put(&client, "late", Some("4s")).await;
    await_near(&processes, second, "late", true).await;
    processes.kill(second);
    await_near(&processes, first, "late", false).await;
    processes.restart(second);
    processes.await_ready(second);
    until("equal replicas", || are_equal(&processes));
    await_near(&processes, second, "late", false).await;
    for path in ["gone", "cut", "late"] {
        assert_eq!(told(&client, path, "mark-3").await, [false, true], "{kind} {path}: it came back");
    }
    assert_eq!(told(&client, "kept", "mark-3").await, [false, true, false], "{kind}: ended here, kept there");
    for client in [client, far] {
        client.session().close().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_end_once_on_every_replica_and_never_return() {
    for kind in ["mst", "eventual"] {
        live_and_end(kind).await;
    }
}
