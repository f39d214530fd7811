//! Secondary indexes, as a stock zenoh client sees them.

use odgm_shard::state::{IndexSource, IndexSpec, Settings};
use tokio::sync::watch;

use super::grid::{Answer, Grid, Setup};

fn keys(answers: &[Answer]) -> Vec<&str> {
    let keys = answers.iter().filter(|answer| answer.is_ok());
    keys.map(|answer| answer.key().rsplit('/').next().unwrap()).collect()
}

fn settings(indexes: &[(&str, &str)]) -> Settings {
    let spec = |(name, path): &(&str, &str)| IndexSpec {
        name: (*name).into(),
        source: IndexSource::Path((*path).into()),
    };
    Settings { indexes: indexes.iter().map(spec).collect(), ..Settings::default() }
}

async fn people(partitions: u32) -> (Grid, watch::Sender<Settings>) {
    let told = watch::Sender::new(settings(&[("age", "/age")]));
    let grid = Grid::start(Setup { partitions, settings: told.subscribe(), ..Setup::default() }).await;
    for (name, age) in [("alice", "30"), ("bob", "7"), ("carol", "30"), ("dave", "\"old\""), ("eve", "7.5")] {
        let value = format!("{{\"age\": {age}}}");
        grid.command(&format!("odgm/@cmd/users/*/{name}?op=put"), value).await;
    }
    (grid, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_found_in_order_on_one_partition_and_on_all() {
    let (grid, _told) = people(1).await;
    assert_eq!(keys(&grid.get("odgm/users/0/*?index=age;eq=30").await), ["alice", "carol"]);
    assert_eq!(keys(&grid.get("odgm/users/0/*?index=age;ge=7;lt=30").await), ["bob", "eve"]);
    let all = grid.get("odgm/users/0/*?index=age;ge=0;end=1").await;
    assert_eq!(keys(&all), ["bob", "eve", "alice", "carol", "dave"]);
    assert_eq!(all[5].refusal()["count"], 5);
    assert_eq!(grid.one("odgm/users/0/*?index=age;eq=old;count=1").await.refusal()["count"], 1);
    assert_eq!(grid.get("odgm/@near/users/0/*?index=age;eq=7").await.len(), 1);
    grid.close().await;
    let (grid, _told) = people(4).await;
    let mut found = grid.get("odgm/users/*/*?index=age;eq=30").await;
    found.sort_by(|one, other| one.key().cmp(other.key()));
    assert_eq!(found.len(), 2);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_in_the_order_of_the_index() {
    let (grid, _told) = people(1).await;
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = grid.get(&format!("odgm/users/0/*?index=age;ge=0;limit=2;end=1{cursor}")).await;
        seen.extend(keys(&page).iter().map(|key| (*key).to_owned()));
        match page.last().unwrap().refusal()["next"].as_str() {
            Some(next) => cursor = format!(";cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["bob", "eve", "alice", "carol", "dave"]);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_made_and_dropped_while_it_runs() {
    let (grid, told) = people(1).await;
    assert_eq!(grid.one("odgm/users/0/*?index=years;eq=30").await.code(), "INVALID_PARAMETER");
    told.send_replace(settings(&[("years", "/age")]));
    // Asked at once: the answer waits for it.
    assert_eq!(keys(&grid.get("odgm/users/0/*?index=years;eq=30").await), ["alice", "carol"]);
    assert_eq!(grid.one("odgm/users/0/*?index=age;eq=30").await.code(), "INVALID_PARAMETER");
    grid.close().await;
}
