//! Keys that end by themselves in `mst` and `eventual` collections, on real sessions: with whoever serves, on both sides
//! of a cut, while a replica is down; and none comes back.

use std::time::Duration;

use odgm_shard::client::{GridClient, Put};
use odgm_shard::object::{CollectionName, EntryName, ObjectId, ObjectKey};

use crate::cut::{are_equal, serves, start, until};
use crate::divergent::near_of;
use crate::processes::DEADLINE;

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

/// Waits until the replica that a client is next to has a key, or has it no longer.
async fn await_near(client: &GridClient, path: &str, there: bool) {
    let shown = async {
        while near_of(client, path).await.is_some() != there {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let shown = tokio::time::timeout(DEADLINE, shown).await;
    shown.unwrap_or_else(|_| panic!("{path}: never there == {there}"));
}

/// Waits until a replica has a key; or until it is over, on a machine that does something else.
async fn await_seen(client: &GridClient, server: &GridClient, path: &str) {
    let seen =
        async { while near_of(client, path).await.is_none() && near_of(server, path).await.is_some() {} };
    tokio::time::timeout(DEADLINE, seen).await.unwrap_or_else(|_| panic!("{path}: never seen"));
}

/// The three lives of a key: in peace, over a cut, and while a replica is down.
async fn live_and_end(kind: &str) {
    let (mut processes, wires) = start(kind, 3);
    let first = processes.await_serving("default");
    let [second, third] = [(first + 1) % 3, (first + 2) % 3];
    let (client, far) = (processes.lone_client(first).await, processes.lone_client(third).await);
    let mut other = processes.lone_client(second).await;

    put(&client, "stays", None).await;
    for (path, ttl) in [("gone", "1s"), ("stays/lease", "1s"), ("touched", "1h")] {
        put(&client, path, Some(ttl)).await;
    }
    client.touch(&users(), &key("touched"), "1s", None).await.unwrap();
    for replica in [&client, &other, &far] {
        for path in ["gone", "stays/lease", "touched"] {
            await_near(replica, path, false).await;
        }
        await_near(replica, "stays", true).await;
    }
    let ended = vec![false, true];
    for (path, events) in
        [("gone", ended.clone()), ("stays/lease", ended.clone()), ("touched", vec![false, false, true])]
    {
        assert_eq!(told(&client, path, "mark-1").await, events, "{kind} {path}");
    }

    // Over a cut: one ends on both sides, one is written anew on the far side.
    for path in ["cut", "kept"] {
        put(&client, path, Some("5s")).await;
        await_seen(&far, &client, path).await;
    }
    wires.cut(&[third]);
    until("both sides serve", || serves(&processes, first) && serves(&processes, third));
    put(&far, "kept", None).await;
    for replica in [&client, &other, &far] {
        await_near(replica, "cut", false).await;
    }
    await_near(&client, "kept", false).await;
    await_near(&far, "kept", true).await;
    assert_eq!(told(&far, "cut", "mark-2").await, ended, "{kind}, the far side");
    assert_eq!(told(&far, "gone", "mark-2").await, ended, "{kind}, the far side saw it merged");
    wires.heal();
    until("equal replicas", || are_equal(&processes));
    for replica in [&client, &other, &far] {
        await_near(replica, "kept", true).await;
        await_near(replica, "cut", false).await;
    }

    // A replica that is down while it ends brings nothing back.
    put(&client, "late", Some("5s")).await;
    await_seen(&other, &client, "late").await;
    other.session().close().unwrap();
    processes.kill(second);
    await_near(&client, "late", false).await;
    processes.restart(second);
    processes.await_ready(second);
    until("equal replicas", || are_equal(&processes));
    other = processes.lone_client(second).await;
    await_near(&other, "late", false).await;
    for path in ["gone", "cut", "late"] {
        assert_eq!(told(&client, path, "mark-3").await, ended, "{kind} {path}: it came back");
    }
    assert_eq!(told(&client, "kept", "mark-3").await, [false, true, false], "{kind}: ended here, kept there");
    for client in [client, other, far] {
        client.session().close().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_end_once_on_every_replica_and_never_return() {
    for kind in ["mst", "eventual"] {
        live_and_end(kind).await;
    }
}
