//! Events: every committed change, in order, while this replica serves.

use std::time::Duration;

use odgm_shard::replication::Role;
use odgm_shard::state::Upkeep;
use zenoh::sample::{Sample, SampleKind};

use super::grid::{Grid, INCARNATION, SOON, Setup, numbers};
use super::single::{put, upkeep};

pub(crate) type Subscriber = zenoh::pubsub::Subscriber<zenoh::handlers::FifoChannelHandler<Sample>>;

pub(crate) async fn subscribe(grid: &Grid, key: &'static str) -> Subscriber {
    let subscriber = grid.client.declare_subscriber(key).await.unwrap();
    // A round trip behind the declaration on the same link.
    grid.get("odgm/@near/users/0/nobody").await;
    subscriber
}

pub(crate) async fn next(subscriber: &Subscriber) -> Sample {
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
async fn only_a_serving_replica_publishes_and_begins_with_what_nobody_may_have() {
    let grid = Grid::start(Setup { role: Role::Following, ..Setup::default() }).await;
    let events = subscribe(&grid, "odgm/@ev/users/0/**").await;
    let state = grid.replicas[0].state.clone();
    for key in ["one", "two", "three"] {
        state.apply(put(key, b"x"));
    }
    // An earlier server said that it had come so far.
    state.apply(upkeep(Upkeep::Published(1)));
    state.become_(Role::Serving, None);
    grid.alive(0, true).await;
    state.apply(put("while", b"x"));
    for (key, revision) in [("two", 2), ("three", 3), ("while", 4)] {
        let event = next(&events).await;
        assert_eq!(event.key_expr().as_str(), format!("odgm/@ev/users/0/{key}"));
        assert_eq!(numbers(&event).1, revision);
    }
    state.become_(Role::Following, None);
    grid.alive(0, false).await;
    state.apply(put("after", b"x"));
    state.apply(upkeep(Upkeep::Published(4)));
    grid.get("odgm/@near/users/0/nobody").await;
    state.become_(Role::Serving, None);
    grid.alive(0, true).await;
    let event = next(&events).await;
    assert_eq!((event.key_expr().as_str(), numbers(&event).1), ("odgm/@ev/users/0/after", 5));
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_notes_how_far_it_published() {
    let grid = Grid::serving(1).await;
    for number in 0..20 {
        grid.command(&format!("odgm/@cmd/users/0/o{number}?op=put"), "x").await;
    }
    let state = grid.replicas[0].state.clone();
    let noted = async {
        while state.history().published < 20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, noted).await.expect("it is noted");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_queue_had_no_room_for_is_published_from_the_history() {
    let setup = Setup { queue_bytes: Some(2000), ..Setup::default() };
    let grid = Grid::start(setup).await;
    let events = subscribe(&grid, "odgm/@ev/users/0/**").await;
    let state = grid.replicas[0].state.clone();
    tokio::task::spawn_blocking(move || {
        for _ in 0..3000 {
            state.apply(put("alice", b"x"));
        }
    })
    .await
    .unwrap();
    let mut last = 0;
    while last < 3000 {
        let revision = numbers(&next(&events).await).1;
        assert_eq!(revision, last + 1);
        last = revision;
    }
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
