//! Reads of concrete keys, by the data key and by `@near`.

use serde_json::Value;
use zenoh::bytes::Encoding;

use super::grid::{Grid, INCARNATION, SOON, Setup};
use super::single::{Mood, put};
use odgm_shard::replication::Role;

#[tokio::test(flavor = "multi_thread")]
async fn a_get_brings_the_payload_encoding_timestamp_and_attachment() {
    let grid = Grid::serving(1).await;
    let value = ("{}".into(), Encoding::APPLICATION_JSON, Some(&b"mine"[..]));
    let written = grid.send("odgm/@cmd/users/0/alice?op=put", Some(value)).await;
    assert_eq!(written[0].numbers(), (1, 1, 1, 1, 0, INCARNATION.to_vec(), vec![]));
    let read = grid.one("odgm/users/0/alice").await;
    assert_eq!(read.key(), "odgm/users/0/alice");
    assert_eq!(read.text(), "{}");
    assert_eq!(*read.sample().encoding(), Encoding::APPLICATION_JSON);
    assert_eq!(read.numbers(), (1, 1, 1, 1, 0, INCARNATION.to_vec(), b"mine".to_vec()));
    let times = [written[0].sample().timestamp(), read.sample().timestamp()];
    assert!(times[0].is_some() && times[0] == times[1], "{times:?}");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_carries_its_objects_numbers() {
    let grid = Grid::serving(1).await;
    for (key, revision) in [("alice", 1), ("alice/mail", 2), ("alice/phone", 3)] {
        let written = grid.command(&format!("odgm/@cmd/users/0/{key}?op=put"), "x").await;
        assert_eq!(written.numbers().1, revision);
    }
    let read = grid.one("odgm/users/0/alice/mail").await;
    let (_, revision, created, version, ..) = read.numbers();
    assert_eq!((revision, created, version), (3, 1, 3));
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_as_partition_is_answered_by_the_owner_alone_on_its_concrete_key() {
    let grid = Grid::serving(4).await;
    grid.command("odgm/@cmd/users/*/alice?op=put", "a").await;
    let read = grid.one("odgm/users/*/alice").await;
    assert_eq!((read.key(), read.text().as_str()), ("odgm/users/3/alice", "a"));
    let missing = grid.one("odgm/users/*/bob").await;
    assert_eq!(missing.code(), "NOT_FOUND");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_is_not_found_and_says_how_many_entries_there_are() {
    let grid = Grid::serving(1).await;
    let refusal = grid.one("odgm/users/0/alice").await.refusal();
    assert_eq!(refusal["code"], "NOT_FOUND");
    assert_eq!((&refusal["entries"], &refusal["applied"]), (&0.into(), &"no".into()));
    assert_eq!(refusal["retry"], false);
    for entry in ["a", "b"] {
        grid.command(&format!("odgm/@cmd/users/0/alice/{entry}?op=put"), "x").await;
    }
    assert_eq!(grid.one("odgm/users/0/alice").await.refusal()["entries"], 2);
    assert_eq!(grid.get("odgm/users/0/alice?missing=empty").await.len(), 0);
    assert_eq!(grid.one("odgm/users/0/alice/a?missing=empty").await.text(), "x");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_concrete_partition_is_named() {
    let grid = Grid::serving(4).await;
    let refusal = grid.one("odgm/users/0/alice").await.refusal();
    assert_eq!((&refusal["code"], &refusal["partition"]), (&"WRONG_PARTITION".into(), &3.into()));
    let refusal = grid.command("odgm/@cmd/users/1/alice?op=put", "x").await.refusal();
    assert_eq!((&refusal["code"], &refusal["partition"]), (&"WRONG_PARTITION".into(), &3.into()));
    assert_eq!(grid.one("odgm/users/3/alice").await.code(), "NOT_FOUND");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_or_not_built_is_refused() {
    let grid = Grid::serving(1).await;
    grid.command("odgm/@cmd/users/0/alice?op=put", "x").await;
    for (parameters, code) in [
        ("colour=red", "INVALID_PARAMETER"),
        ("cons=strong", "INVALID_PARAMETER"),
        ("limit=many", "INVALID_PARAMETER"),
        ("timeout=soon", "INVALID_PARAMETER"),
        ("index=age;eq=3", "INVALID_PARAMETER"),
    ] {
        assert_eq!(grid.one(&format!("odgm/users/0/alice?{parameters}")).await.code(), code, "{parameters}");
    }
    assert_eq!(grid.one("odgm/@ev/users/*/**?from=1").await.code(), "INVALID_PARAMETER");
    assert_eq!(grid.one("odgm/users/0/alice").await.text(), "x");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linearizable_read_waits_for_a_barrier_and_a_local_one_does_not() {
    let grid = Grid::serving(1).await;
    let state = &grid.replicas[0].state;
    state.apply(put("alice", b"x"));
    assert_eq!(grid.one("odgm/users/0/alice?cons=local").await.text(), "x");
    assert_eq!(state.barriers(), 0);
    assert_eq!(grid.one("odgm/users/0/alice").await.text(), "x");
    assert_eq!(grid.one("odgm/users/0/alice?cons=linearizable").await.text(), "x");
    assert_eq!(state.barriers(), 2);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_come_while_barriers_are_under_way_share_the_next() {
    let grid = Grid::serving(1).await;
    let state = grid.replicas[0].state.clone();
    state.apply(put("alice", b"x"));
    state.set_mood(Mood::Hangs);
    let gets: Vec<_> = (0..200)
        .map(|_| {
            let client = grid.client.clone();
            tokio::spawn(async move {
                let replies = client.get("odgm/users/0/alice").timeout(SOON).await.unwrap();
                replies.recv_async().await.unwrap().result().is_ok()
            })
        })
        .collect();
    grid.eventually("odgm/users/0/alice?cons=local", |_| state.barriers() > 0).await;
    state.set_mood(Mood::Answers);
    for get in gets {
        assert!(get.await.unwrap());
    }
    assert!(state.barriers() < 100, "{} barriers for 200 reads", state.barriers());
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_without_a_quorum_ends_at_its_deadline_as_unknown() {
    let grid = Grid::serving(1).await;
    grid.replicas[0].state.set_mood(Mood::Hangs);
    let refusal = grid.one("odgm/users/0/alice?timeout=100ms").await.refusal();
    assert_eq!((&refusal["code"], &refusal["applied"]), (&"TIMEOUT".into(), &"unknown".into()));
    assert_eq!(refusal["retry"], true);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_replica_answers_without_serving() {
    let grid = Grid::start(Setup { role: Role::Following, ..Setup::default() }).await;
    grid.replicas[0].state.apply(put("alice", b"x"));
    let read = grid.eventually("odgm/@near/users/0/alice", |answers| !answers.is_empty()).await;
    assert_eq!((read[0].key(), read[0].text().as_str()), ("odgm/@near/users/0/alice", "x"));
    assert_eq!(grid.one("odgm/@near/users/0/bob").await.code(), "NOT_FOUND");
    assert_eq!(grid.get("odgm/users/0/alice").await.len(), 0, "nobody serves");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_budget_is_refused_as_busy_and_nothing_of_it_is_kept() {
    let grid = Grid::start(Setup { inflight_bytes: 8 << 10, ..Setup::default() }).await;
    let state = grid.replicas[0].state.clone();
    state.set_mood(Mood::Hangs);
    let (refusals, mut refused) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..100 {
        let (client, refusals) = (grid.client.clone(), refusals.clone());
        tokio::spawn(async move {
            let replies = client.get("odgm/users/0/alice").timeout(SOON).await.unwrap();
            let error = replies.recv_async().await.unwrap().into_result().unwrap_err();
            refusals.send(serde_json::from_slice::<Value>(&error.payload().to_bytes()).unwrap()).unwrap();
        });
    }
    drop(refusals);
    let busy = refused.recv().await.unwrap();
    assert_eq!(
        (&busy["code"], &busy["applied"], &busy["retry"]),
        (&"BUSY".into(), &"no".into(), &true.into())
    );
    state.set_mood(Mood::Answers);
    while let Some(refusal) = refused.recv().await {
        assert!(refusal["code"] == "BUSY" || refusal["code"] == "NOT_FOUND", "{refusal}");
    }
    grid.eventually("odgm/users/0/alice", |answers| answers[0].code() == "NOT_FOUND").await;
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_changes_nothing() {
    let grid = Grid::serving(1).await;
    let answers = grid.send("odgm/users/0/alice", Some(("x".into(), Encoding::default(), None))).await;
    assert_eq!(answers[0].code(), "NOT_FOUND");
    assert_eq!(grid.one("odgm/users/0/**?count=1").await.refusal()["revision"], 0);
    grid.close().await;
}
