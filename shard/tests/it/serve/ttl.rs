//! Time to live, as a stock zenoh client sees it.

use std::time::Duration;

use odgm_shard::replication::Role;
use odgm_shard::runtime::{Runtime, TokioRuntime, unix_ms};
use zenoh::sample::SampleKind;

use super::events::{next, subscribe};
use super::grid::{Grid, Setup, numbers};

fn now_ms() -> u64 {
    unix_ms(TokioRuntime::wall_clock())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_soon_after_its_ttl_by_a_delete_event_and_others_stay() {
    let grid = Grid::serving(1).await;
    let events = subscribe(&grid, "odgm/@ev/users/0/**").await;
    grid.command("odgm/@cmd/users/0/alice?op=put", "x").await;
    let before = now_ms();
    let reply = grid.command("odgm/@cmd/users/0/alice/lease?op=put;ttl=300ms", "x").await;
    let expires = reply.numbers().4;
    assert!((before + 300..=now_ms() + 300).contains(&expires), "{expires}");
    assert_eq!(grid.one("odgm/users/0/alice/lease").await.numbers().4, expires);
    grid.command("odgm/@cmd/users/0/session?op=put;ttl=300ms", "x").await;
    let kinds = [SampleKind::Put, SampleKind::Put, SampleKind::Put, SampleKind::Delete, SampleKind::Delete];
    let mut seen = Vec::new();
    for kind in kinds {
        let event = next(&events).await;
        assert_eq!(event.kind(), kind);
        seen.push((event.key_expr().as_str().to_owned(), numbers(&event)));
    }
    assert_eq!((seen[1].1.4, seen[1].0.as_str()), (expires, "odgm/@ev/users/0/alice/lease"));
    let gone: Vec<_> = seen[3..].iter().map(|(key, numbers)| (key.as_str(), numbers.1)).collect();
    assert_eq!(gone, [("odgm/@ev/users/0/alice/lease", 4), ("odgm/@ev/users/0/session", 5)]);
    assert_eq!(grid.one("odgm/users/0/session").await.code(), "NOT_FOUND");
    assert_eq!(grid.one("odgm/users/0/alice/lease").await.code(), "NOT_FOUND");
    assert!(grid.one("odgm/users/0/alice").await.is_ok());
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_touch_moves_the_end_and_a_transaction_can_set_it() {
    let grid = Grid::serving(1).await;
    let txn = r#"{"then":[{"put":{"object":"a","value":"x","ttl":"200ms"}},{"put":{"object":"b","value":"x","ttl":"200ms"}}]}"#;
    grid.command("odgm/@cmd/users/0?op=txn", txn).await;
    let touched = grid.one("odgm/@cmd/users/0/a?op=touch;ttl=none").await;
    assert_eq!((touched.numbers().3, touched.numbers().4), (2, 0));
    grid.eventually("odgm/users/0/b", |answers| !answers[0].is_ok()).await;
    assert_eq!(grid.one("odgm/users/0/a").await.text(), "x");
    assert_eq!(grid.one("odgm/@cmd/users/0/b?op=touch;ttl=1s").await.code(), "NOT_FOUND");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_serving_replica_has_keys_deleted_and_a_new_one_finds_what_is_due() {
    let grid = Grid::start(Setup { role: Role::Following, ..Setup::default() }).await;
    let state = grid.replicas[0].state.clone();
    let mut command = super::single::put("alice", b"x");
    if let odgm_shard::state::Operation::Put { ttl_ms, .. } = &mut command.operation {
        *ttl_ms = Some(1);
    }
    state.apply(command);
    let until = now_ms() + 600;
    while now_ms() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(grid.one("odgm/@near/users/0/alice").await.is_ok());
    }
    state.become_(Role::Serving, None);
    grid.eventually("odgm/@near/users/0/alice", |answers| !answers[0].is_ok()).await;
    grid.close().await;
}
