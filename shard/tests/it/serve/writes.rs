//! Acknowledged commands, transactions, and plain puts and deletes.

use odgm_shard::shard::Limits;
use serde_json::{Value, json};

use super::grid::{Grid, OTHER_NODE, Setup};
use super::single::{Mood, put};
use odgm_shard::replication::Role;

#[tokio::test(flavor = "multi_thread")]
async fn a_put_is_acknowledged_on_the_commands_key_with_its_numbers() {
    let grid = Grid::serving(4).await;
    let done = grid.command("odgm/@cmd/users/*/alice?op=put", "x").await;
    assert_eq!((done.key(), done.text().as_str()), ("odgm/@cmd/users/3/alice", ""));
    let (format, revision, created, version, expires, ..) = done.numbers();
    assert_eq!((format, revision, created, version, expires), (1, 1, 1, 1, 0));
    let done = grid.command("odgm/@cmd/users/3/alice?op=put", "y").await;
    assert_eq!((done.numbers().1, done.numbers().2, done.numbers().3), (2, 1, 2));
    assert_eq!(grid.one("odgm/users/3/alice").await.text(), "y");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_or_refuse() {
    let grid = Grid::serving(1).await;
    let key = "odgm/@cmd/users/0/alice";
    assert_eq!(grid.command(&format!("{key}?op=put;if_present=1"), "x").await.code(), "NOT_FOUND");
    assert!(grid.command(&format!("{key}?op=put;if_absent=1"), "x").await.is_ok());
    assert_eq!(grid.command(&format!("{key}?op=put;if_absent=1"), "x").await.code(), "EXISTS");
    assert!(grid.command(&format!("{key}?op=put;if_revision=1"), "y").await.is_ok());
    let refusal = grid.command(&format!("{key}?op=put;if_revision=1"), "z").await.refusal();
    assert_eq!((&refusal["code"], &refusal["revision"]), (&"CONFLICT".into(), &2.into()));
    assert_eq!((&refusal["applied"], &refusal["retry"]), (&"no".into(), &false.into()));
    assert_eq!(grid.one("odgm/users/0/alice").await.text(), "y");
    assert_eq!(grid.one(&format!("{key}?op=delete;if_revision=1")).await.code(), "CONFLICT");
    assert!(grid.one(&format!("{key}?op=delete;if_revision=2")).await.is_ok());
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_an_object_deletes_its_entries_and_absent_is_fine() {
    let grid = Grid::serving(1).await;
    for key in ["alice", "alice/a", "alice/b"] {
        grid.replicas[0].state.apply(put(key, b"x"));
    }
    let done = grid.one("odgm/@cmd/users/0/alice?op=delete").await;
    assert_eq!(done.numbers().1, 6);
    assert_eq!(grid.get("odgm/users/0/**").await.len(), 0);
    let again = grid.one("odgm/@cmd/users/0/alice?op=delete").await;
    assert_eq!(again.numbers().1, 6, "no revision is taken");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_increment_replies_with_the_new_value() {
    let grid = Grid::serving(1).await;
    assert_eq!(grid.one("odgm/@cmd/users/0/n?op=increment").await.text(), "1");
    assert_eq!(grid.one("odgm/@cmd/users/0/n?op=increment;by=-5").await.text(), "-4");
    assert_eq!(grid.one("odgm/users/0/n").await.text(), "-4");
    grid.replicas[0].state.apply(put("word", b"word"));
    assert_eq!(grid.one("odgm/@cmd/users/0/word?op=increment").await.code(), "INVALID_PARAMETER");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_rid_gets_the_first_answer() {
    let grid = Grid::serving(1).await;
    for _ in 0..3 {
        assert_eq!(grid.one("odgm/@cmd/users/0/n?op=increment;rid=r1").await.text(), "1");
    }
    assert_eq!(grid.one("odgm/@cmd/users/0/n?op=increment;rid=r1;by=2").await.code(), "INVALID_PARAMETER");
    assert_eq!(grid.one("odgm/users/0/n").await.text(), "1");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_takes_one_branch_whole() {
    let grid = Grid::serving(1).await;
    let transaction = json!({
        "if": [{"object": "a", "absent": true}],
        "then": [{"put": {"object": "a", "value": "1", "encoding": "text/plain"}}, {"increment": {"object": "n", "by": 2}}],
        "else": [{"delete": {"object": "a"}}],
    })
    .to_string();
    let done = grid.command("odgm/@cmd/users/0?op=txn", transaction.clone()).await;
    assert_eq!(done.key(), "odgm/@cmd/users/0");
    let answer: Value = serde_json::from_str(&done.text()).unwrap();
    assert_eq!((&answer["branch"], &answer["revision"]), (&"then".into(), &2.into()));
    assert_eq!(answer["results"].as_array().unwrap().len(), 2);
    assert_eq!(grid.one("odgm/users/0/a").await.sample().encoding().to_string(), "text/plain");
    let done = grid.command("odgm/@cmd/users/0?op=txn", transaction).await;
    let answer: Value = serde_json::from_str(&done.text()).unwrap();
    assert_eq!(answer["branch"], "else");
    assert_eq!(grid.one("odgm/users/0/a").await.code(), "NOT_FOUND");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_wrong_is_refused_whole() {
    let grid = Grid::serving(4).await;
    for (payload, code) in [
        ("{", "INVALID_PARAMETER"),
        (
            r#"{"then":[{"put":{"object":"alice","value":"1"}},{"delete":{"object":"alice"}}]}"#,
            "INVALID_PARAMETER",
        ),
        (r#"{"then":[{"put":{"object":"bob","value":"1"}}]}"#, "WRONG_PARTITION"),
        (r#"{"then":[{"put":{"object":"alice","value":"1","ttl":"soon"}}]}"#, "INVALID_PARAMETER"),
    ] {
        assert_eq!(grid.command("odgm/@cmd/users/3?op=txn", payload).await.code(), code, "{payload}");
    }
    assert_eq!(grid.get("odgm/users/*/**").await.len(), 0);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_commands_are_refused_and_write_nothing() {
    let grid = Grid::serving(1).await;
    for (command, code) in [
        ("odgm/@cmd/users/0/*?op=put", "INVALID_KEY"),
        ("odgm/@cmd/users/0/alice/**?op=delete", "INVALID_KEY"),
        ("odgm/@cmd/users/0/a/b/c?op=put", "INVALID_KEY"),
        ("odgm/@cmd/users/0/alice", "INVALID_PARAMETER"),
        ("odgm/@cmd/users/0/alice?op=paint", "INVALID_PARAMETER"),
        ("odgm/@cmd/users/0/alice?op=put;colour=red", "INVALID_PARAMETER"),
        ("odgm/@cmd/users/0/alice?op=put;if_revision=x", "INVALID_PARAMETER"),
        ("odgm/@cmd/users/0/alice?op=put;rid=", "INVALID_PARAMETER"),
        ("odgm/@cmd/users/0/alice?op=put;ttl=0s", "INVALID_PARAMETER"),
        ("odgm/@cmd/users/0/alice?op=touch", "INVALID_PARAMETER"),
        ("odgm/@cmd/users/0/alice?op=touch;ttl=never", "INVALID_PARAMETER"),
        ("odgm/@cmd/users/0/alice?op=upkeep", "INVALID_PARAMETER"),
    ] {
        let refusal = grid.command(command, "x").await.refusal();
        assert_eq!(refusal["code"], code, "{command}");
        assert_eq!((&refusal["applied"], &refusal["retry"]), (&"no".into(), &false.into()), "{command}");
    }
    assert_eq!(grid.one("odgm/users/0/**?count=1").await.refusal()["revision"], 0);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_over_the_limit_is_too_large() {
    let limits = Limits { value_bytes: 1000, ..Limits::default() };
    let grid = Grid::start(Setup { limits, ..Setup::default() }).await;
    let command = "odgm/@cmd/users/0/alice?op=put";
    assert_eq!(grid.command(command, vec![0; 1001]).await.code(), "TOO_LARGE");
    let inside = json!({"then": [{"put": {"object": "alice", "value": "x".repeat(1001)}}]}).to_string();
    assert_eq!(grid.command("odgm/@cmd/users/0?op=txn", inside).await.code(), "TOO_LARGE");
    assert!(grid.command(command, vec![0; 1000]).await.is_ok());
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_a_quorum_is_unknown_and_may_be_repeated_with_its_rid() {
    let grid = Grid::serving(1).await;
    grid.replicas[0].state.set_mood(Mood::Hangs);
    let command = "odgm/@cmd/users/0/n?op=increment;rid=7";
    let refusal = grid.one(&format!("{command};timeout=50ms")).await.refusal();
    assert_eq!((&refusal["code"], &refusal["applied"]), (&"TIMEOUT".into(), &"unknown".into()));
    assert_eq!(refusal["retry"], true);
    grid.replicas[0].state.set_mood(Mood::Answers);
    assert_eq!(grid.one(command).await.text(), "1");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_reaches_a_replica_as_it_steps_down_is_not_applied() {
    let grid = Grid::serving(1).await;
    let state = grid.replicas[0].state.clone();
    state.set_mood(Mood::Hangs);
    let client = grid.client.clone();
    let command = tokio::spawn(async move {
        let replies = client.get("odgm/@cmd/users/0/n?op=increment").await.unwrap();
        let error = replies.recv_async().await.unwrap().into_result().unwrap_err();
        serde_json::from_slice::<Value>(&error.payload().to_bytes()).unwrap()
    });
    // The local read comes behind the command on the same link, and both in one queue.
    grid.get("odgm/users/0/n?cons=local").await;
    state.become_(Role::Following, Some(OTHER_NODE));
    state.set_mood(Mood::Answers);
    let refusal = command.await.unwrap();
    if refusal["code"] == "NOT_LEADER" {
        assert_eq!((&refusal["applied"], &refusal["retry"]), (&"no".into(), &true.into()));
        assert_eq!(refusal["serving"], OTHER_NODE.0);
    } else {
        panic!("{refusal}");
    }
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_puts_and_deletes_are_written_without_an_answer() {
    let grid = Grid::serving(4).await;
    grid.client.put("odgm/users/3/alice", "x").encoding("text/plain").attachment("mine").await.unwrap();
    let read = grid.eventually("odgm/users/3/alice", |answers| answers[0].is_ok()).await;
    assert_eq!((read[0].text().as_str(), read[0].numbers().6), ("x", b"mine".to_vec()));
    assert_eq!(read[0].sample().encoding().to_string(), "text/plain");
    grid.client.put("odgm/users/3/alice/mail", "y").await.unwrap();
    grid.eventually("odgm/users/3/alice/mail", |answers| answers[0].is_ok()).await;
    grid.client.delete("odgm/users/3/alice").await.unwrap();
    grid.eventually("odgm/users/3/alice", |answers| answers[0].code() == "NOT_FOUND").await;
    assert_eq!(grid.get("odgm/users/*/**").await.len(), 0);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_puts_that_are_wrong_write_nothing() {
    let limits = Limits { value_bytes: 1000, ..Limits::default() };
    let grid = Grid::start(Setup { partitions: 4, limits, ..Setup::default() }).await;
    grid.replicas[3].state.apply(put("alice", b"kept"));
    grid.client.put("odgm/users/3/alice", vec![0; 1001]).await.unwrap();
    grid.client.put("odgm/users/0/alice", "wrong partition").await.unwrap();
    grid.client.put("odgm/users/3/alice/a/b", "too deep").await.unwrap();
    grid.client.put("odgm/users/3/*", "wildcard").await.unwrap();
    grid.client.delete("odgm/users/**").await.unwrap();
    grid.client.delete("odgm/**").await.unwrap();
    // A good one, behind them on the same link.
    grid.client.put("odgm/users/3/alice/mark", "x").await.unwrap();
    grid.eventually("odgm/users/3/alice/mark", |answers| answers[0].is_ok()).await;
    assert_eq!(grid.one("odgm/users/3/alice").await.text(), "kept");
    let all = grid.get("odgm/users/*/**").await;
    assert_eq!(all.len(), 2, "{all:?}");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_put_with_a_star_as_partition_is_taken_by_the_owner() {
    let grid = Grid::serving(4).await;
    grid.client.put("odgm/users/*/alice", "x").await.unwrap();
    grid.eventually("odgm/users/3/alice", |answers| answers[0].is_ok()).await;
    assert_eq!(grid.get("odgm/users/*/**").await.len(), 1);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_only_deletes_are_taken_until_there_is_room() {
    let grid = Grid::serving(1).await;
    let key = "odgm/@cmd/users/0/alice";
    for object in ["alice", "bob"] {
        grid.replicas[0].state.apply(put(object, b"x"));
    }
    grid.budget.set_disk_full(true);
    assert_eq!(grid.command(&format!("{key}?op=put"), "y").await.code(), "READ_ONLY");
    assert_eq!(grid.one("odgm/@cmd/users/0/n?op=increment").await.code(), "READ_ONLY");
    let adds =
        json!({"then": [{"delete": {"object": "bob"}}], "else": [{"put": {"object": "bob", "value": "1"}}]});
    assert_eq!(grid.command("odgm/@cmd/users/0?op=txn", adds.to_string()).await.code(), "READ_ONLY");
    let deletes = json!({"then": [{"delete": {"object": "bob"}}]}).to_string();
    assert!(grid.command("odgm/@cmd/users/0?op=txn", deletes).await.is_ok());
    grid.client.put("odgm/users/0/carol", "x").await.unwrap();
    assert_eq!(grid.one("odgm/users/0/alice").await.text(), "x");
    assert!(grid.one(&format!("{key}?op=delete")).await.is_ok());
    grid.budget.set_disk_full(false);
    assert!(grid.command(&format!("{key}?op=put"), "y").await.is_ok());
    assert_eq!(grid.one("odgm/users/0/carol").await.code(), "NOT_FOUND");
    grid.close().await;
}
