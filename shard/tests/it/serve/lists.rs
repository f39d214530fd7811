//! Wildcard reads: one view of each partition, in key order, in pages, closed by END.

use std::time::Duration;

use odgm_shard::shard::Limits;

use super::grid::{Answer, Grid, INCARNATION_HEX, Setup};
use super::single::{Mood, put};

fn keys(answers: &[Answer]) -> Vec<&str> {
    answers.iter().filter(|answer| answer.is_ok()).map(Answer::key).collect()
}

async fn filled() -> Grid {
    let grid = Grid::serving(1).await;
    for key in ["b", "a", "a/y", "a/x", "c/z", "aa"] {
        grid.replicas[0].state.apply(put(key, b"v"));
    }
    grid
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcards_select_objects_and_entries_in_key_order() {
    let grid = filled().await;
    for (asked, found) in [
        ("odgm/users/0/*", vec!["a", "aa", "b"]),
        ("odgm/users/*/*", vec!["a", "aa", "b"]),
        ("odgm/users/0/a/*", vec!["a/x", "a/y"]),
        ("odgm/users/0/a/**", vec!["a", "a/x", "a/y"]),
        ("odgm/users/0/a$*", vec!["a", "aa"]),
        ("odgm/users/0/*/z", vec!["c/z"]),
        ("odgm/users/0/**", vec!["a", "a/x", "a/y", "aa", "b", "c/z"]),
        ("odgm/**", vec!["a", "a/x", "a/y", "aa", "b", "c/z"]),
        ("odgm/users/0/nobody/*", vec![]),
    ] {
        let answers = grid.get(asked).await;
        let found: Vec<String> = found.iter().map(|key| format!("odgm/users/0/{key}")).collect();
        assert_eq!(keys(&answers), found, "{asked}");
        assert_eq!(answers.len(), found.len(), "{asked}");
    }
    let near = grid.get("odgm/@near/users/0/*").await;
    assert_eq!(keys(&near), ["odgm/@near/users/0/a", "odgm/@near/users/0/aa", "odgm/@near/users/0/b"]);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn end_closes_each_partition_with_what_was_seen() {
    let grid = Grid::serving(4).await;
    for object in ["alice", "bob", "carol"] {
        grid.command(&format!("odgm/@cmd/users/*/{object}?op=put"), "x").await;
    }
    let answers = grid.get("odgm/users/*/*?end=1").await;
    assert_eq!(keys(&answers).len(), 3);
    let ends: Vec<_> = answers.iter().filter(|answer| !answer.is_ok()).map(Answer::refusal).collect();
    let mut partitions: Vec<_> = ends.iter().map(|end| end["partition"].as_u64().unwrap()).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2, 3]);
    let counted: u64 = ends.iter().map(|end| end["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 3);
    for end in &ends {
        assert_eq!((&end["code"], &end["collection"]), (&"END".into(), &"users".into()));
        assert_eq!((&end["partitions"], &end["incarnation"]), (&4.into(), &INCARNATION_HEX.into()));
        assert_eq!(end["revision"], end["count"]);
        assert!(end.get("next").is_none());
    }
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn end_is_the_last_reply_of_its_partition() {
    let grid = filled().await;
    let answers = grid.get("odgm/users/0/**?end=1").await;
    assert_eq!(answers.len(), 7);
    assert_eq!(answers[6].code(), "END");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_by_cursor() {
    let grid = filled().await;
    let (mut selector, mut pages) = ("odgm/users/0/**?end=1;limit=4".to_owned(), Vec::new());
    loop {
        let answers = grid.get(&selector).await;
        pages.push(keys(&answers).iter().map(|key| key.replace("odgm/users/0/", "")).collect::<Vec<_>>());
        let end = answers.last().unwrap().refusal();
        assert_eq!(end["count"].as_u64().unwrap() as usize, answers.len() - 1);
        match end.get("next") {
            Some(next) => {
                selector = format!("odgm/users/0/**?end=1;limit=4;cursor={}", next.as_str().unwrap());
            }
            None => break,
        }
    }
    assert_eq!(pages, [vec!["a", "a/x", "a/y", "aa"], vec!["b", "c/z"]]);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_ends_with_the_last_key_has_no_next() {
    let grid = filled().await;
    let end = grid.get("odgm/users/0/**?end=1;limit=6").await.pop().unwrap().refusal();
    assert_eq!(end["count"], 6);
    assert!(end.get("next").is_none());
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_needs_a_concrete_partition() {
    let grid = filled().await;
    let next = grid.get("odgm/users/0/**?end=1;limit=1").await.pop().unwrap().refusal()["next"].clone();
    let selector = format!("odgm/users/*/**?cursor={}", next.as_str().unwrap());
    assert_eq!(grid.one(&selector).await.code(), "INVALID_PARAMETER");
    assert_eq!(grid.one("odgm/users/0/**?cursor=%00").await.code(), "INVALID_PARAMETER");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_brings_no_payloads_and_count_only_the_end() {
    let grid = filled().await;
    let answers = grid.get("odgm/users/0/a/**?keys=1").await;
    assert_eq!(keys(&answers).len(), 3);
    for answer in &answers {
        assert_eq!(answer.text(), "");
        assert_eq!(answer.numbers().1, 4, "the object's revision comes along");
    }
    let end = grid.one("odgm/users/0/**?count=1").await.refusal();
    assert_eq!((&end["code"], &end["count"], &end["revision"]), (&"END".into(), &6.into(), &6.into()));
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_matches_nothing_is_silent() {
    let grid = Grid::serving(2).await;
    assert_eq!(grid.get("odgm/users/*/*").await.len(), 0);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_one_view_and_goes_through_a_barrier() {
    let grid = filled().await;
    let before = grid.replicas[0].state.barriers();
    grid.get("odgm/users/0/**").await;
    assert_eq!(grid.replicas[0].state.barriers(), before + 1);
    grid.replicas[0].state.set_mood(Mood::Hangs);
    assert_eq!(grid.one("odgm/users/0/**?timeout=50ms").await.code(), "TIMEOUT");
    assert_eq!(grid.get("odgm/users/0/**?cons=local").await.len(), 6);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_arrives_whole_and_in_order() {
    let grid = Grid::serving(1).await;
    for number in 0..20_000 {
        grid.replicas[0].state.apply(put(&format!("object-{number:05}"), b"some payload"));
    }
    let answers = grid.get("odgm/users/0/*?end=1").await;
    assert_eq!(answers.len(), 20_001);
    assert!(keys(&answers).is_sorted());
    assert_eq!(answers[20_000].refusal()["count"], 20_000);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_a_quorum_is_refused_as_soon_as_any_read() {
    let limits = Limits { timeout: Duration::from_millis(100), ..Limits::default() };
    let grid = Grid::start(Setup { limits, ..Setup::default() }).await;
    grid.replicas[0].state.set_mood(Mood::Hangs);
    assert_eq!(grid.one("odgm/users/0/**?end=1").await.code(), "TIMEOUT");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_another_incarnation_is_compacted() {
    let grid = filled().await;
    let ours = grid.get(&format!("odgm/users/0/*?incarnation={INCARNATION_HEX}")).await;
    assert_eq!(ours.len(), 3);
    let other = format!("odgm/users/0/*?incarnation={}", "0".repeat(32));
    assert_eq!(grid.one(&other).await.code(), "COMPACTED");
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concrete_key_may_be_closed_by_end_too() {
    let grid = filled().await;
    let answers = grid.get("odgm/users/0/b?end=1").await;
    assert_eq!((keys(&answers), answers[1].code().as_str()), (vec!["odgm/users/0/b"], "END"));
    let missing = grid.get("odgm/users/0/c?end=1").await;
    assert_eq!(missing[0].refusal()["entries"], 1);
    assert_eq!((missing[0].code().as_str(), missing[1].code().as_str()), ("NOT_FOUND", "END"));
    grid.close().await;
}
