//! Replays of the history, as a stock zenoh client sees them.

use odgm_shard::state::{Retain, Settings};
use tokio::sync::watch;
use zenoh::sample::SampleKind;

use super::grid::{Answer, Grid, INCARNATION_HEX, Setup};
use super::single::put;

fn revisions(answers: &[Answer]) -> Vec<u64> {
    answers.iter().filter(|answer| answer.is_ok()).map(|answer| answer.numbers().1).collect()
}

async fn filled() -> Grid {
    let grid = Grid::serving(1).await;
    let state = &grid.replicas[0].state;
    for key in ["alice", "alice/name", "bob", "alice", "bob/name"] {
        state.apply(put(key, b"x"));
    }
    grid.one("odgm/@cmd/users/0/alice?op=delete").await;
    grid
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_gives_every_change_once_in_order_and_where_to_go_on() {
    let grid = filled().await;
    let answers = grid.get("odgm/@ev/users/0/**?from=1;end=1").await;
    assert_eq!(revisions(&answers), [1, 2, 3, 4, 5, 6, 7]);
    let kinds: Vec<_> = answers[..7].iter().map(|answer| answer.sample().kind()).collect();
    assert_eq!(kinds[5..], [SampleKind::Delete, SampleKind::Delete]);
    assert_eq!(answers[5].key(), "odgm/@ev/users/0/alice/name");
    assert!(answers.iter().take(7).all(|answer| answer.sample().timestamp().is_some()));
    let end = answers[7].refusal();
    assert_eq!((&end["code"], &end["revision"], &end["count"]), (&"END".into(), &7.into(), &7.into()));
    assert_eq!((&end["next"], &end["incarnation"]), (&"8".into(), &INCARNATION_HEX.into()));
    let page = grid.get("odgm/@ev/users/0/**?from=3;limit=2;end=1").await;
    assert_eq!((revisions(&page), &page[2].refusal()["next"]), (vec![3, 4], &"5".into()));
    let none = grid.get("odgm/@ev/users/0/**?from=8;end=1").await;
    assert_eq!((none.len(), &none[0].refusal()["next"]), (1, &"8".into()));
    assert_eq!(revisions(&grid.get("odgm/@ev/users/*/**").await), [1, 2, 3, 4, 5, 6, 7]);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_of_the_keys_that_are_asked_for() {
    let grid = filled().await;
    for (key, expected) in [
        ("alice", vec![1, 4, 7]),
        ("alice/**", vec![1, 2, 4, 6, 7]),
        ("*", vec![1, 3, 4, 7]),
        ("*/name", vec![2, 5, 6]),
        ("nobody", vec![]),
    ] {
        let answers = grid.get(&format!("odgm/@ev/users/0/{key}?from=1")).await;
        assert_eq!(revisions(&answers), expected, "{key}");
    }
    let page = grid.get("odgm/@ev/users/0/bob/**?from=1;limit=1;end=1").await;
    assert_eq!((revisions(&page), &page[1].refusal()["next"]), (vec![3], &"5".into()));
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_retained_or_of_another_incarnation_is_compacted() {
    let retain = Retain { count: 3, ..Retain::default() };
    let settings = watch::Sender::new(Settings { history: Some(retain), ..Settings::default() });
    let grid = Grid::start(Setup { settings: settings.subscribe(), ..Setup::default() }).await;
    grid.eventually("odgm/@cmd/users/0/alice?op=increment", |_| grid.replicas[0].state.history().oldest > 1)
        .await;
    let oldest = grid.replicas[0].state.history().oldest;
    let refused = grid.one(&format!("odgm/@ev/users/0/**?from={}", oldest - 1)).await.refusal();
    assert_eq!((&refused["code"], &refused["oldest"]), (&"COMPACTED".into(), &oldest.into()));
    let kept = grid.get(&format!("odgm/@ev/users/0/**?from={oldest}")).await;
    assert_eq!(revisions(&kept), [oldest, oldest + 1, oldest + 2]);
    let other = format!("odgm/@ev/users/0/**?from={oldest};incarnation={}", "0".repeat(32));
    let refused = grid.one(&other).await.refusal();
    assert_eq!((&refused["code"], &refused["oldest"]), (&"COMPACTED".into(), &oldest.into()));
    let same = format!("odgm/@ev/users/0/**?from={oldest};incarnation={INCARNATION_HEX}");
    assert_eq!(grid.get(&same).await.len(), 3);
    settings.send_replace(Settings { history: None, ..Settings::default() });
    grid.eventually("odgm/@ev/users/0/**?from=1", |answers| {
        !answers[0].is_ok() && answers[0].code() == "UNSUPPORTED"
    })
    .await;
    grid.close().await;
}
