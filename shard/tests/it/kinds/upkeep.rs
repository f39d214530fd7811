//! What time brings to divergent replicas: each sees to its own history and indexes, whoever serves, and the one that
//! serves a side ends the keys whose time is over.

use std::ops::Bound;

use odgm_shard::cluster::Replication;
use odgm_shard::replication::Role;
use odgm_shard::state::index::scalar;
use odgm_shard::state::{
    ChangeKind, Command, IndexQuery, IndexSource, IndexSpec, Operation, Outcome, Retain, Selection, Settings,
};
use tokio::sync::watch;

use super::grid::{Grid, name};
use super::{key, put, read};

const DIVERGENT: [Replication; 2] = [Replication::Mst, Replication::Eventual];

fn lasting(path: &str, ms: u64) -> Command {
    let mut command = put(path, "1");
    if let Operation::Put { ttl_ms, .. } = &mut command.operation {
        *ttl_ms = Some(ms);
    }
    command
}

fn is_there(grid: &Grid, node: u64, path: &str) -> bool {
    read(&*grid.state(node), path).is_some()
}

async fn cut(grid: &Grid, node: u64, others: &[u64]) {
    let names: Vec<String> = others.iter().map(|other| name(*other)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    grid.network.partition(&[&name(node)], &names);
    grid.until("it is cut off", |grid| grid.nodes[&node].links.peers().is_empty()).await;
    grid.until("both sides serve", |grid| grid.state(node).status().borrow().role == Role::Serving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_keeps_its_own_history_and_indexes_also_of_what_was_merged() {
    for kind in DIVERGENT {
        let grid = Grid::start(kind, 3).await;
        let index = IndexSpec { name: "age".into(), source: IndexSource::Path("/age".into()) };
        let settings = Settings { indexes: vec![index], ..Settings::default() };
        let told = watch::Sender::new(settings.clone());
        let shards: Vec<_> = (1..=3).map(|node| grid.answer(node, told.subscribe())).collect();
        for at in 0..100 {
            let age = format!("{{\"age\":{at}}}");
            grid.state(1 + at % 3).write(put(&format!("object-{at}"), &age)).await.unwrap();
        }
        grid.until("each has all, and its index", |grid| {
            (1..=3).all(|node| {
                let view = grid.state(node).view();
                let has_all = view.revision() == 100;
                has_all && view.settings().unwrap() == settings && view.indexes_settled().unwrap()
            })
        })
        .await;
        for node in 1..=3 {
            let view = grid.state(node).view();
            let (from, to) = (Bound::Included(scalar("40")), Bound::Excluded(scalar("60")));
            let (query, all) = (IndexQuery { name: "age".into(), from, to }, Selection::all());
            let found = view.find(&query, &all, None).unwrap().map(|found| found.unwrap().1);
            let wanted: Vec<_> = (40..60).map(|at| key(&format!("object-{at}"))).collect();
            assert_eq!(found.collect::<Vec<_>>(), wanted, "{kind:?} {node}");
        }
        // Less is to be kept, and nobody writes any more.
        let retain = Retain { count: 10, ..Retain::default() };
        told.send_replace(Settings { history: Some(retain), ..settings.clone() });
        grid.until("each keeps the last ten of its own changes", |grid| {
            (1..=3).all(|node| grid.state(node).view().history().unwrap().oldest == 91)
        })
        .await;
        let retain = Retain { age_ms: 1, ..Retain::default() };
        told.send_replace(Settings { history: Some(retain), ..settings });
        grid.until("none keeps what is too old", |grid| {
            (1..=3).all(|node| grid.state(node).view().history().unwrap().oldest == 101)
        })
        .await;
        for shard in shards {
            shard.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_end_on_each_side_of_a_cut_once_and_never_return() {
    for kind in DIVERGENT {
        let grid = Grid::start(kind, 3).await;
        let told = watch::Sender::new(Settings::default());
        let shards: Vec<_> = (1..=3).map(|node| grid.answer(node, told.subscribe())).collect();
        let state = grid.state(1);
        state.write(put("stays", "1")).await.unwrap();
        for path in ["o", "o/e", "touched"] {
            state.write(lasting(path, 4000)).await.unwrap();
        }
        grid.until("all have it", |grid| (1..=3).all(|node| is_there(grid, node, "touched"))).await;
        cut(&grid, 3, &[1, 2]).await;
        let touch = Operation::Touch { key: key("touched"), ttl_ms: None };
        let touched = grid.state(3).write(Command { rid: None, operation: touch }).await.unwrap();
        assert!(matches!(touched, Outcome::Done(_)), "{touched:?}");
        grid.until("it ends on both sides", |grid| {
            (1..=3).all(|node| !is_there(grid, node, "o") && !is_there(grid, node, "o/e"))
                && (1..=2).all(|node| !is_there(grid, node, "touched"))
        })
        .await;
        assert!(is_there(&grid, 3, "touched"), "{kind:?}");
        grid.network.heal();
        grid.until("the replicas are equal", |grid| {
            grid.is_equal() && (1..=3).all(|node| is_there(grid, node, "touched"))
        })
        .await;
        for node in 1..=3 {
            let changes = grid.nodes[&node].changes.lock().unwrap().clone();
            for path in ["o", "o/e"] {
                let kinds: Vec<_> = changes
                    .iter()
                    .filter(|change| change.key == key(path))
                    .map(|change| change.kind == ChangeKind::Delete)
                    .collect();
                assert_eq!(kinds, [false, true], "{kind:?} {node} {path}: one put, one delete");
            }
            assert!(is_there(&grid, node, "stays"));
        }
        for shard in shards {
            shard.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_over_before_it_was_merged_ends_too() {
    let grid = Grid::start(Replication::Mst, 2).await;
    let told = watch::Sender::new(Settings::default());
    cut(&grid, 2, &[1]).await;
    // The second replica has nobody who does its upkeep.
    grid.state(2).write(lasting("late", 1)).await.unwrap();
    let shard = grid.answer(1, told.subscribe());
    grid.state(1).write(lasting("own", 1)).await.unwrap();
    grid.until("the first has ended one", |grid| !is_there(grid, 1, "own")).await;
    grid.network.heal();
    grid.until("they are equal and it has ended on both", |grid| {
        let changes = grid.nodes[&1].changes.lock().unwrap().len();
        grid.is_equal() && changes == 4 && !is_there(grid, 1, "late") && !is_there(grid, 2, "late")
    })
    .await;
    shard.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_begins_to_serve_does_not_publish_all_that_it_ever_merged() {
    let grid = Grid::start(Replication::Mst, 2).await;
    let told = watch::Sender::new(Settings::default());
    let shards = [grid.answer(1, told.subscribe()), grid.answer(2, told.subscribe())];
    for at in 0..50 {
        grid.state(1).write(put(&format!("o-{at}"), "1")).await.unwrap();
    }
    grid.until("the second notes that they were published", |grid| {
        grid.state(2).view().history().unwrap().published == 50
    })
    .await;
    for shard in shards {
        shard.close().await;
    }
}
