//! What a replica declares as its role changes.

use odgm_shard::replication::Role;

use super::grid::{Grid, SOON, Setup};
use super::single::{Mood, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_step_down_undeclares_and_a_step_up_declares_again() {
    let grid = Grid::serving(1).await;
    let state = grid.replicas[0].state.clone();
    state.apply(put("alice", b"x"));
    for _ in 0..3 {
        state.become_(Role::Following, None);
        grid.alive(0, false).await;
        assert_eq!(grid.eventually("odgm/users/0/alice", |answers| answers.is_empty()).await.len(), 0);
        assert_eq!(grid.get("odgm/@cmd/users/0/alice?op=delete").await.len(), 0);
        state.become_(Role::Serving, None);
        grid.alive(0, true).await;
        // No reply at all would mean "ask again": the client's session may not know the keys yet.
        let answers = grid.eventually("odgm/users/0/alice", |answers| !answers.is_empty()).await;
        assert_eq!((answers.len(), answers[0].text().as_str()), (1, "x"));
    }
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_a_replica_says_so_until_somebody_serves() {
    let grid = Grid::start(Setup { role: Role::Leaderless, partitions: 4, ..Setup::default() }).await;
    let answers = grid.eventually("odgm/users/3/alice", |answers| !answers.is_empty()).await;
    let refusal = answers[0].refusal();
    assert_eq!((&refusal["code"], &refusal["applied"]), (&"UNAVAILABLE".into(), &"unknown".into()));
    assert_eq!(refusal["retry"], true);
    assert_eq!(grid.one("odgm/users/3/alice?cons=local").await.code(), "UNAVAILABLE");
    assert_eq!(grid.one("odgm/@cmd/users/3/alice?op=delete").await.code(), "UNAVAILABLE");
    assert_eq!(grid.one("odgm/@ev/users/3/alice?from=1").await.code(), "UNAVAILABLE");
    grid.eventually("odgm/users/*/**", |answers| {
        answers.len() == 4 && answers.iter().all(|answer| answer.code() == "UNAVAILABLE")
    })
    .await;
    assert_eq!(grid.one("odgm/users/*/alice").await.code(), "UNAVAILABLE", "the owner's replica alone");
    grid.replicas[3].state.become_(Role::Following, None);
    grid.eventually("odgm/users/3/alice", |answers| answers.is_empty()).await;
    grid.replicas[3].state.become_(Role::Serving, None);
    grid.alive(3, true).await;
    assert_eq!(grid.one("odgm/users/3/alice").await.code(), "NOT_FOUND");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_without_a_leader_begins_to_serve_without_a_gap() {
    let grid = Grid::start(Setup { role: Role::Leaderless, ..Setup::default() }).await;
    grid.eventually("odgm/users/0/alice", |answers| !answers.is_empty()).await;
    grid.replicas[0].state.become_(Role::Serving, None);
    let mut code = String::new();
    while code != "NOT_FOUND" {
        code = grid.one("odgm/users/0/alice").await.code();
        assert!(["UNAVAILABLE", "NOT_FOUND"].contains(&code.as_str()), "{code}");
    }
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_answers_what_was_taken_and_undeclares() {
    let grid = Grid::serving(1).await;
    let replica = &grid.replicas[0];
    replica.state.set_mood(Mood::Hangs);
    let client = grid.client.clone();
    let command = tokio::spawn(async move {
        let replies = client.get("odgm/@cmd/users/0/n?op=increment").await.unwrap();
        replies.recv_async().await.unwrap().into_result().is_ok()
    });
    let taken = async {
        while replica.state.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, taken).await.expect("the command arrives");
    let shard = replica.shard.clone();
    let closing = tokio::spawn(async move { shard.close().await });
    grid.alive(0, false).await;
    replica.state.set_mood(Mood::Answers);
    closing.await.unwrap();
    assert!(command.await.unwrap());
    assert_eq!(grid.get("odgm/@near/users/0/n").await.len(), 0);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stopped_declares_nothing() {
    let grid = Grid::serving(1).await;
    grid.replicas[0].state.become_(Role::Stopped, None);
    grid.alive(0, false).await;
    grid.eventually("odgm/@near/users/0/alice", |answers| answers.is_empty()).await;
    assert_eq!(grid.get("odgm/users/0/alice").await.len(), 0);
    grid.close().await;
}
