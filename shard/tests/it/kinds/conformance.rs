//! What each kind promises, as INTERFACE §11 has it.

use std::time::Instant;

use bytes::Bytes;
use odgm_shard::cluster::Replication;
use odgm_shard::object::ReplicaId;
use odgm_shard::replication::Role;
use odgm_shard::state::{Command, Condition, Operation, Outcome, Selection, Step};

use super::grid::{GROUP, Grid, KINDS, PATIENCE, name, record};
use super::{delete, key, put, put_bytes, read};

/// What every kind does on the replica that serves.
async fn serves(kind: Replication) {
    let count = if kind == Replication::None { 1 } else { 3 };
    let mut grid = Grid::start(kind, count).await;
    let serving = grid.serving().await;
    let state = grid.state(serving);
    let write = async |command| state.write(command).await.unwrap();

    // A read after the acknowledgement sees the write.
    for (path, text) in [("o", "1"), ("o/x", "2"), ("o/y", "3"), ("p", "4")] {
        write(put(path, text)).await;
        state.read_barrier().await.unwrap();
        assert_eq!(read(&*state, path).as_deref(), Some(text), "{kind:?}");
    }
    // Revisions are 1, 2, 3 … without holes; a delete takes one for each key; absence takes none.
    write(delete("o")).await;
    write(delete("nothing")).await;
    assert_eq!(state.view().revision(), 7, "{kind:?}");
    assert_eq!(read(&*state, "o/x"), None);
    // A transaction without conditions is taken whole.
    let step = |path: &str| Step::Put { key: key(path), value: Default::default(), ttl_ms: None };
    let then = vec![step("t"), step("u/e"), Step::Delete { key: key("p") }];
    let txn = Operation::Txn { checks: Vec::new(), then, otherwise: Vec::new() };
    let Outcome::Txn(done) = write(Command { rid: None, operation: txn }).await else { panic!("{kind:?}") };
    assert_eq!((done.then, done.revision), (true, 10), "{kind:?}");
    // A repeated request id gets the first answer, and changes nothing; also after a restart.
    let once = Command { rid: Some(Bytes::from_static(b"r")), ..put("once", "1") };
    let first = write(once.clone()).await;
    assert_eq!(write(once.clone()).await, first, "{kind:?}");
    assert_eq!(state.view().revision(), 11, "{kind:?}");
    let reused = Command { operation: put("once", "2").operation, ..once.clone() };
    assert!(matches!(write(reused).await, Outcome::Refused(_)), "{kind:?}");
    // Changes come in the order of their revisions, with rising times.
    let told: Vec<_> = grid.nodes[&serving].changes.lock().unwrap().clone();
    let revisions: Vec<_> = told.iter().map(|change| change.revision).collect();
    assert_eq!(revisions, (1..=11).collect::<Vec<_>>(), "{kind:?}");
    assert!(told.windows(2).all(|pair| pair[0].time < pair[1].time), "{kind:?}");

    drop(state);
    for node in 1..=count {
        grid.restart(node).await;
    }
    let serving = grid.serving().await;
    let state = grid.state(serving);
    state.read_barrier().await.unwrap();
    let kept: Vec<_> = state.view().list(&Selection::all(), None).map(|row| row.unwrap().0).collect();
    assert_eq!(kept, ["once", "t", "u/e"].map(key), "{kind:?}");
    if serving == 1 {
        assert_eq!(state.write(once).await.unwrap(), first, "{kind:?}");
    }
    state.close().await;
    assert!(state.write(put("late", "1")).await.is_err(), "{kind:?}");
    assert_eq!(state.status().borrow().role, Role::Stopped, "{kind:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_does_what_all_promise() {
    for kind in KINDS {
        tokio::time::timeout(PATIENCE * 2, serves(kind)).await.unwrap_or_else(|_| panic!("{kind:?} hangs"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_with_one_order_of_writes_take_conditions_and_increments() {
    for (kind, count) in [(Replication::Raft, 3), (Replication::None, 1)] {
        let grid = Grid::start(kind, count).await;
        let state = grid.state(grid.serving().await);
        let increments = (0..50).map(|_| {
            let operation = Operation::Increment { key: key("n"), by: 2 };
            state.write(Command { rid: None, operation })
        });
        for outcome in futures_util::future::join_all(increments).await {
            assert!(matches!(outcome.unwrap(), Outcome::Done(_)), "{kind:?}");
        }
        assert_eq!(read(&*state, "n").as_deref(), Some("100"), "{kind:?}");
        let Operation::Put { key, value, .. } = put("n", "x").operation else { unreachable!() };
        let operation = Operation::Put { key, value, ttl_ms: None, condition: Condition::Absent };
        let refused = state.write(Command { rid: None, operation }).await.unwrap();
        assert!(matches!(refused, Outcome::Refused(_)), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_of_a_divergent_shard_gets_what_one_took_and_says_so_once() {
    for kind in [Replication::Mst, Replication::Eventual] {
        let grid = Grid::start(kind, 3).await;
        for (node, path) in [(1, "a"), (2, "b"), (3, "c/x")] {
            grid.state(node).write(put(path, "1")).await.unwrap();
        }
        grid.state(2).write(delete("b")).await.unwrap();
        grid.until("the replicas are equal", |grid| {
            grid.is_equal() && (1..=3).all(|node| read(&*grid.state(node), "c/x").is_some())
        })
        .await;
        for node in 1..=3 {
            let state = grid.state(node);
            assert_eq!(read(&*state, "c/x").as_deref(), Some("1"), "{kind:?}");
            assert_eq!(read(&*state, "b"), None, "{kind:?}");
            let told = grid.nodes[&node].changes.lock().unwrap().clone();
            let revisions: Vec<_> = told.iter().map(|change| change.revision).collect();
            assert_eq!(revisions, (1..=told.len() as u64).collect::<Vec<_>>(), "{kind:?}");
        }
    }
}

/// Two sides write what they like; healed, they are equal, soon, and at little more than the price of what was
/// changed.
async fn cut_and_heal(kind: Replication, keys: usize) {
    let grid = Grid::start(kind, 2).await;
    grid.until("they see each other", |grid| grid.nodes.values().all(|node| !node.links.peers().is_empty()))
        .await;
    grid.network.partition(&[&name(1)], &[&name(2)]);
    grid.until("they have lost each other", |grid| {
        grid.nodes.values().all(|node| node.links.peers().is_empty())
    })
    .await;
    let before = grid.nodes[&1].mst().digest().traffic;
    // Every side serves.
    assert_eq!((grid.serving_among(&[1]).await, grid.serving_among(&[2]).await), (1, 2));
    let mut writing = Vec::new();
    for (node, first) in [(1, 0), (2, keys * 9 / 10)] {
        for at in first..first + keys {
            let payload = vec![node as u8; 1024];
            writing.push(grid.state(node).write(put_bytes(&format!("object-{at:06}"), payload)));
        }
    }
    for written in futures_util::future::join_all(writing).await {
        written.unwrap();
    }
    grid.network.heal();
    let healed = Instant::now();
    grid.until("the replicas are equal", Grid::is_equal).await;
    let took = healed.elapsed();
    grid.until("one serves", |grid| grid.state(2).status().borrow().role == Role::Following).await;
    for at in [0, keys - 1, keys, keys * 19 / 10 - 1] {
        let path = format!("object-{at:06}");
        assert_eq!(read(&*grid.state(1), &path), read(&*grid.state(2), &path));
    }
    grid.until("the exchange is over", |grid| {
        let traffic = grid.nodes[&1].mst().digest().traffic;
        traffic.given >= (keys * 8 / 10) as u64 && traffic.received >= keys as u64 * 8 / 10
    })
    .await;
    let traffic = grid.nodes[&1].mst().digest().traffic;
    let moved = traffic.bytes_sent + traffic.bytes_received - before.bytes_sent - before.bytes_received;
    let changed = (keys * 19 / 10 * 1024) as u64;
    eprintln!(
        "{kind:?}, {keys} keys each: equal after {took:?}, {traffic:?}, {:.3} of the changed data",
        moved as f64 / changed as f64
    );
    assert!(moved * 2 <= changed * 3, "{traffic:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sides_of_a_cut_are_equal_again_after_it_for_the_price_of_what_changed() {
    let keys = if std::env::var_os("ODGM_TEST_FULL").is_some() { 10_000 } else { 1000 };
    cut_and_heal(Replication::Mst, keys).await;
    cut_and_heal(Replication::Eventual, keys).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_forgotten_when_all_replicas_have_seen_it_and_not_before() {
    let grid = Grid::start(Replication::Mst, 3).await;
    grid.state(1).write(put("o", "1")).await.unwrap();
    grid.until("all have it", |grid| (1..=3).all(|node| read(&*grid.state(node), "o").is_some())).await;
    grid.network.partition(&[&name(3)], &[&name(1), &name(2)]);
    grid.until("it is cut off", |grid| grid.nodes[&3].links.peers().is_empty()).await;
    grid.state(1).write(delete("o")).await.unwrap();
    let (first, second) = (grid.nodes[&1].mst().clone(), grid.nodes[&2].mst().clone());
    grid.until("the others agree", |_| first.digest().root == second.digest().root).await;
    let exchanged = first.digest().traffic.requests;
    grid.until("they exchange again and again", |_| first.digest().traffic.requests > exchanged + 4).await;
    assert_eq!((first.digest().tombstones, second.digest().tombstones), (1, 1));
    grid.network.heal();
    grid.until("nobody needs it", |grid| grid.nodes.values().all(|node| node.mst().digest().tombstones == 0))
        .await;
    assert!((1..=3).all(|node| read(&*grid.state(node), "o").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_leaves_hands_over_what_only_it_has_and_a_new_one_fills_from_empty() {
    let grid = Grid::start(Replication::Mst, 3).await;
    grid.network.partition(&[&name(3)], &[&name(1), &name(2)]);
    grid.until("it is cut off", |grid| grid.nodes[&3].links.peers().is_empty()).await;
    grid.state(3).write(put("late", "1")).await.unwrap();
    for node in 1..=3 {
        grid.nodes[&node].mst().place(vec![record(1), record(2)]);
    }
    assert!(grid.nodes[&3].mst().hand_over().await.is_err(), "nobody is in sight");
    grid.network.heal();
    grid.until("they see each other", |grid| grid.nodes[&3].links.peers().len() == 2).await;
    grid.nodes[&3].mst().hand_over().await.unwrap();
    grid.until("the others have it", |grid| (1..=2).all(|node| read(&*grid.state(node), "late").is_some()))
        .await;
    assert_eq!(grid.nodes[&1].mst().replica(), ReplicaId(1));
    assert_eq!(grid.nodes[&1].mst().group(), GROUP);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_replicas_cost_next_to_nothing() {
    let grid = Grid::start(Replication::Mst, 2).await;
    grid.state(1).write(put("o", "1")).await.unwrap();
    grid.until("the replicas are equal", Grid::is_equal).await;
    let count = || {
        let traffic = grid.nodes[&1].mst().digest().traffic;
        (traffic.requests, traffic.bytes_sent + traffic.bytes_received)
    };
    let (first, before) = count();
    grid.until("five exchanges", |_| count().0 >= first + 5).await;
    let (last, after) = count();
    let each = (after - before) / (last - first);
    eprintln!("{each} bytes each second");
    assert!(each <= 50, "{each} bytes, and two headers of 25");
}
