//! An `mst` collection on three processes: one dies with what only it has, the others go on, and in the end all
//! hold the same.

use std::time::{Duration, Instant};

use odgm_shard::client::{ClientOptions, GridClient, Put};
use odgm_shard::object::{CollectionName, ObjectId, ObjectKey};
use odgm_transport::KeyExpr;
use odgm_transport::options::SessionOptions;
use odgm_transport::session::Call;
use odgm_transport::zenoh::ZenohSession;

use crate::processes::{DEADLINE, Processes, Setup};

fn setup(replication: &str) -> Setup {
    let collection = format!("{{name: default, partitions: 1, replicas: 3, replication: {replication}}}");
    Setup { settings: vec![format!("collections=[{collection}]")], ..Setup::default() }
}

fn key(object: &str) -> ObjectKey {
    ObjectKey { object: ObjectId::parse(object).unwrap(), entry: None }
}

fn users() -> CollectionName {
    CollectionName::parse("default").unwrap()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Asks the replica on a node for what is under a key.
async fn near(processes: &Processes, node: usize, object: &str) -> Option<String> {
    let options = SessionOptions::client(vec![processes.endpoint(node)]);
    let session = ZenohSession::open(&options, "near").await.unwrap();
    let grid = GridClient::new(session, ClientOptions::default());
    let found = near_of(&grid, object).await;
    grid.session().close().unwrap();
    found
}

/// The same of the replica on the node that a client is connected to.
pub(crate) async fn near_of(grid: &GridClient, object: &str) -> Option<String> {
    let key = KeyExpr::try_from(format!("odgm/@near/default/0/{object}")).unwrap();
    let mut replies = grid.session().call(Call::new(key, DEADLINE)).unwrap();
    let mut found = None;
    while let Some(reply) = replies.next().await {
        if let Ok(sample) = reply {
            found = sample.payload.map(|payload| String::from_utf8(payload.to_vec()).unwrap());
        }
    }
    found
}

fn digests(processes: &Processes) -> Vec<Option<String>> {
    let root = |node| Some(processes.shard(node, "default")?["digest"]["root"].as_str()?.to_owned());
    (0..3).map(root).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_died_and_wrote_alone_are_equal_again_and_forget_what_was_deleted() {
    for kind in ["mst", "eventual"] {
        let mut processes = Processes::start(&setup(kind));
        let first = processes.await_serving("default");
        let client = processes.client(first, DEADLINE).await;
        for n in 0..100 {
            client.put(&users(), &key(&format!("early-{n}")), Put::value("1"), None).await.unwrap();
        }
        processes.kill(first);
        let second = processes.await_serving("default");
        assert_ne!(first, second);
        for n in 0..100 {
            client.put(&users(), &key(&format!("late-{n}")), Put::value("2"), None).await.unwrap();
        }
        for n in 0..50 {
            client.delete(&users(), &key(&format!("early-{n}")), None, None).await.unwrap();
        }
        processes.restart(first);
        processes.await_ready(first);
        until("equal replicas", || {
            let digests = digests(&processes);
            digests[0].is_some() && digests.iter().all(|digest| *digest == digests[0])
        });
        for node in 0..3 {
            assert_eq!(near(&processes, node, "late-99").await.as_deref(), Some("2"), "{kind} {node}");
            assert_eq!(near(&processes, node, "early-99").await.as_deref(), Some("1"), "{kind} {node}");
            assert_eq!(near(&processes, node, "early-0").await, None, "{kind} {node}");
        }
        if kind == "mst" {
            until("nobody remembers the deletions", || {
                let kept =
                    |node| processes.shard(node, "default").map(|shard| shard["digest"]["tombstones"] == 0);
                (0..3).all(|node| kept(node) == Some(true))
            });
            assert_eq!(near(&processes, first, "early-0").await, None);
        }
        client.session().close().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_of_a_raft_collection_answers_near_reads() {
    let processes = Processes::start(&setup("raft"));
    let serving = processes.await_serving("default");
    let client = processes.client(serving, DEADLINE).await;
    client.put(&users(), &key("o"), Put::value("1"), None).await.unwrap();
    for node in 0..3 {
        let start = Instant::now();
        while near(&processes, node, "o").await.as_deref() != Some("1") {
            assert!(start.elapsed() < DEADLINE, "node {node} never shows it");
        }
    }
    client.session().close().unwrap();
}
