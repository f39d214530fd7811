//! Events: every committed change, in order, while this replica serves.

use std::time::Duration;

use odgm_shard::replication::Role;
use zenoh::sample::{Sample, SampleKind};

use super::grid::{Grid, INCARNATION, SOON, Setup, numbers};
use super::single::put;

type Subscriber = zenoh::pubsub::Subscriber<zenoh::handlers::FifoChannelHandler<Sample>>;

async fn subscribe(grid: &Grid, key: &'static str) -> Subscriber {
    let subscriber = grid.client.declare_subscriber(key).await.unwrap();
    // A round trip behind the declaration on the same link.
    grid.get("odgm/@near/users/0/nobody").await;
    subscriber
}

async fn next(subscriber: &Subscriber) -> Sample {
    tokio::time::timeout(SOON, subscriber.recv_async()).await.expect("an event").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_published_with_value_timestamp_and_numbers() {
    let grid = Grid::serving(4).await;
    let events = subscribe(&grid, "odgm/@ev/users/**").await;
    grid.client.put("odgm/users/3/alice", "x").encoding("text/plain").attachment("mine").await.unwrap();
    let event = next(&events).await;
    assert_eq!((event.key_expr().as_str(), event.kind()), ("odgm/@ev/users/3/alice", SampleKind::Put));
    assert_eq!(event.payload().try_to_string().unwrap(), "x");
    assert_eq!(event.encoding().to_string(), "text/plain");
    assert_eq!(numbers(&event), (1, 1, 1, 1, 0, INCARNATION.to_vec(), b"mine".to_vec()));
    let read = grid.one("odgm/users/3/alice").await;
    assert_eq!(event.timestamp(), read.sample().timestamp());
    assert!(event.timestamp().is_some());
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_revision_order_with_rising_timestamps_of_one_clock() {
    let grid = Grid::serving(1).await;
    let events = subscribe(&grid, "odgm/@ev/users/0/**").await;
    for number in 0..200 {
        grid.command(&format!("odgm/@cmd/users/0/o{}?op=put", number % 7), format!("{number}")).await;
    }
    let mut last = None;
    for number in 0..200_u64 {
        let event = next(&events).await;
        assert_eq!(numbers(&event).1, number + 1);
        assert_eq!(event.payload().try_to_string().unwrap(), number.to_string());
        let time = *event.timestamp().unwrap();
        if let Some(last) = last.replace(time) {
            assert!(time > last);
            assert_eq!(time.get_id(), last.get_id());
        }
    }
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_objects_delete_is_an_event_of_each_of_its_keys() {
    let grid = Grid::serving(1).await;
    let events = subscribe(&grid, "odgm/@ev/users/0/**").await;
    for key in ["alice", "alice/b", "alice/a"] {
        grid.replicas[0].state.apply(put(key, b"x"));
        assert_eq!(next(&events).await.kind(), SampleKind::Put);
    }
    grid.one("odgm/@cmd/users/0/alice?op=delete").await;
    grid.one("odgm/@cmd/users/0/alice?op=delete").await;
    grid.command("odgm/@cmd/users/0/mark?op=put", "x").await;
    for (key, revision) in [("alice/a", 4), ("alice/b", 5), ("alice", 6)] {
        let event = next(&events).await;
        assert_eq!(event.kind(), SampleKind::Delete);
        assert_eq!(event.key_expr().as_str(), format!("odgm/@ev/users/0/{key}"));
        assert_eq!(numbers(&event).1, revision);
    }
    assert_eq!(next(&events).await.key_expr().as_str(), "odgm/@ev/users/0/mark");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_serving_replica_publishes() {
    let grid = Grid::start(Setup { role: Role::Following, ..Setup::default() }).await;
    let events = subscribe(&grid, "odgm/@ev/users/0/**").await;
    let state = grid.replicas[0].state.clone();
    state.apply(put("before", b"x"));
    state.become_(Role::Serving, None);
    grid.alive(0, true).await;
    state.apply(put("while", b"x"));
    let event = next(&events).await;
    assert_eq!((event.key_expr().as_str(), numbers(&event).1), ("odgm/@ev/users/0/while", 2));
    state.become_(Role::Following, None);
    grid.alive(0, false).await;
    state.apply(put("after", b"x"));
    state.become_(Role::Serving, None);
    grid.alive(0, true).await;
    state.apply(put("again", b"x"));
    let event = next(&events).await;
    assert_eq!((event.key_expr().as_str(), numbers(&event).1), ("odgm/@ev/users/0/again", 4));
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_takes_nothing_slows_no_write() {
    let grid = Grid::serving(1).await;
    let (stuck, release) = std::sync::mpsc::channel::<()>();
    let other = super::grid::connect(&grid.node).await;
    let release = std::sync::Mutex::new(release);
    let slow = other
        .declare_subscriber("odgm/@ev/users/0/**")
        .callback(move |_| release.lock().unwrap().recv().unwrap_or_default())
        .await
        .unwrap();
    other.get("odgm/@near/users/0/nobody").await.unwrap().recv_async().await.unwrap();
    let payload = vec![7_u8; 100_000];
    let written = async {
        for number in 0..400 {
            grid.command(&format!("odgm/@cmd/users/0/o{number}?op=put"), payload.clone()).await.numbers();
        }
    };
    // 40 MB: far more than the queues on the way hold.
    tokio::time::timeout(Duration::from_secs(60), written).await.expect("writes go on");
    drop(stuck);
    slow.undeclare().await.unwrap();
    other.close().await.unwrap();
    grid.close().await;
}
