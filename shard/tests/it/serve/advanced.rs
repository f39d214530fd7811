//! zenoh-ext's stock advanced subscriber: history, then what comes, in order.

use std::collections::HashMap;

use odgm_shard::state::Upkeep;
use zenoh::handlers::FifoChannelHandler;
use zenoh::sample::Sample;
use zenoh_ext::{AdvancedSubscriber, AdvancedSubscriberBuilderExt, HistoryConfig};

use super::grid::{Grid, SOON, numbers};
use super::single::{put, upkeep};

type Advanced = AdvancedSubscriber<FifoChannelHandler<Sample>>;

async fn subscribe(grid: &Grid, key: &str, history: HistoryConfig) -> Advanced {
    grid.client.declare_subscriber(key.to_owned()).history(history).await.unwrap()
}

async fn next(subscriber: &Advanced) -> Sample {
    tokio::time::timeout(SOON, subscriber.recv_async()).await.expect("an event").unwrap()
}

fn fill(grid: &Grid, keys: &[&str]) {
    for key in keys {
        grid.replicas[0].state.apply(put(key, b"x"));
    }
    // As after a change of server: nothing of it is published live.
    grid.replicas[0].state.apply(upkeep(Upkeep::Published(keys.len() as u64)));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gets_the_history_and_then_live_events_once_and_in_order() {
    let grid = Grid::serving(1).await;
    fill(&grid, &["alice", "bob", "alice/name", "alice"]);
    grid.one("odgm/@cmd/users/0/bob?op=delete").await;
    let events = subscribe(&grid, "odgm/@ev/users/0/**", HistoryConfig::default()).await;
    for number in 0..200 {
        grid.command(&format!("odgm/@cmd/users/0/o{number}?op=put"), "x").await;
    }
    for revision in 1..=205 {
        assert_eq!(numbers(&next(&events).await).1, revision);
    }
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_given_the_keys_and_the_newest_that_it_asks_for() {
    let grid = Grid::serving(1).await;
    fill(&grid, &["alice", "bob", "alice/name", "alice", "bob", "alice"]);
    for (key, history, expected) in [
        ("odgm/@ev/users/0/alice", HistoryConfig::default(), vec![1, 4, 6]),
        ("odgm/@ev/users/*/alice/**", HistoryConfig::default(), vec![1, 3, 4, 6]),
        ("odgm/@ev/users/**", HistoryConfig::default().max_samples(2), vec![5, 6]),
        ("odgm/@ev/users/0/bob", HistoryConfig::default().max_samples(1), vec![5]),
        ("odgm/@ev/users/0/bob", HistoryConfig::default().max_age(3600.0), vec![2, 5]),
    ] {
        let events = subscribe(&grid, key, history).await;
        for revision in expected {
            assert_eq!(numbers(&next(&events).await).1, revision, "{key}");
        }
        events.undeclare().await.unwrap();
    }
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_partition_is_a_source_of_its_own() {
    let grid = Grid::serving(4).await;
    for number in 0..40 {
        grid.command(&format!("odgm/@cmd/users/*/o{number}?op=put"), "x").await;
    }
    let events = subscribe(&grid, "odgm/@ev/users/**", HistoryConfig::default()).await;
    let mut last: HashMap<String, u64> = HashMap::new();
    for _ in 0..40 {
        let event = next(&events).await;
        let partition = event.key_expr().as_str().split('/').nth(3).unwrap().to_owned();
        let seen = last.entry(partition).or_default();
        assert_eq!(numbers(&event).1, *seen + 1);
        *seen += 1;
    }
    assert_eq!(last.len(), 4);
    grid.close().await;
}
