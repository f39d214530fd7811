//! A follower that missed a purged log, and an empty node in the place of a lost one: both are filled by a
//! streamed snapshot while writes go on.
//!
//! `ODGM_WRITES` says how many writes the follower misses (default 1,500), `ODGM_BULK_MIB` how large the shard is
//! besides (default 4), `ODGM_GROWTH_MIB` by how much a process may grow meanwhile (default 256).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use crate::answer::{Client, sized};
use crate::cli::{odgm, stdout};
use crate::processes::{Processes, Setup};

/// Larger than those of other tests: so much is streamed here.
const PATIENCE: Duration = Duration::from_secs(600);
const CLIENTS: u64 = 32;

/// What is written before `n` of each kind, so that values do not compress away.
fn value(n: u64, bytes: usize) -> Bytes {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(bytes.div_ceil(8)).flatten().take(bytes).collect::<Vec<u8>>().into()
}

/// `count` objects of `bytes` each.
async fn fill(client: &Client, prefix: &'static str, count: u64, bytes: usize) {
    let next = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, next) = (client.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    client.put(&format!("{prefix}{n}"), &format!("{prefix}{n}"), value(n, bytes)).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

fn command(processes: &Processes, node: usize, arguments: &[&str]) -> String {
    let endpoint = processes.endpoint(node);
    let mut all = vec!["--connect", &endpoint, "--timeout", "60s"];
    all.extend_from_slice(arguments);
    let output = odgm(&all);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    stdout(&output)
}

/// Waits until `node` has caught up with `leader` as of now; the most memory that each process took, in MiB above
/// the present.
async fn await_caught_up(
    processes: &Processes,
    node: usize,
    leader: usize,
    done: impl Fn(&Value) -> bool,
) -> u64 {
    let start = Instant::now();
    let revision =
        |n: usize| processes.shard(n, "default").map_or(0, |shard| shard["revision"].as_u64().unwrap());
    let wanted = revision(leader);
    let before: Vec<u64> = [node, leader].iter().map(|n| processes.resident_kib(*n)).collect();
    let mut growth = 0;
    loop {
        for (n, before) in [node, leader].iter().zip(&before) {
            growth = growth.max(processes.resident_kib(*n).saturating_sub(*before) / 1024);
        }
        if revision(node) >= wanted && processes.shard(leader, "default").is_some_and(|shard| done(&shard)) {
            eprintln!("odgm-{node} caught up in {:?}, grew by at most {growth} MiB", start.elapsed());
            return growth;
        }
        assert!(start.elapsed() < PATIENCE, "odgm-{node} does not catch up:\n{}", processes.log(node));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_behind_a_purged_log_and_an_empty_node_catch_up_by_a_snapshot_while_writes_go_on() {
    let (writes, bulk) = (sized("ODGM_WRITES", 1_500), sized("ODGM_BULK_MIB", 4));
    let most_growth = sized("ODGM_GROWTH_MIB", 256);
    let mut processes = Processes::start(&Setup { partitions: 1, ..Setup::default() });
    let leader = processes.await_serving("default");
    let (behind, lost) = ((leader + 1) % 3, (leader + 2) % 3);
    let client = Client::connect(processes.endpoint(leader)).await;
    processes.kill(behind);
    fill(&client, "bulk", bulk, 1 << 20).await;
    fill(&client, "small", writes, 256).await;
    command(&processes, leader, &["shard", "snapshot", "default/0"]);
    let log = processes.shard(leader, "default").unwrap()["log"].clone();
    eprintln!("log of odgm-{leader}: {log}");

    let stop = Arc::new(AtomicBool::new(false));
    let (going_on, stopped) = (client.clone(), stop.clone());
    let writer = tokio::spawn(async move {
        let begun = Instant::now();
        let mut gap = Duration::ZERO;
        let mut written = 0;
        while !stopped.load(Ordering::SeqCst) {
            let start = Instant::now();
            going_on.put("on", &format!("on{written}"), written.to_string()).await;
            written += 1;
            if start.elapsed() > Duration::from_secs(1) {
                eprintln!("write {written} took {:?} of {:?}", start.elapsed(), begun.elapsed());
            }
            gap = gap.max(start.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (written, gap)
    });
    processes.restart(behind);
    processes.await_ready(behind);
    let grown = await_caught_up(&processes, behind, leader, |_| true).await;
    assert!(grown <= most_growth, "a process grew by {grown} MiB");
    let log = processes.shard(behind, "default").unwrap()["log"].clone();
    assert!(!log["snapshot"].is_null(), "no snapshot was installed: {log}");

    // The lost node's place is taken by an empty one of its name.
    processes.kill(lost);
    let name = format!("odgm-{lost}");
    let new = processes.add(lost, &processes.dir().join("new"));
    processes.restart(new);
    let start = Instant::now();
    while !command(&processes, leader, &["node", "list"]).contains("waiting") {
        assert!(start.elapsed() < PATIENCE, "{}", processes.log(new));
    }
    command(&processes, leader, &["node", "replace", &name]);
    let members = |shard: &Value| {
        shard["voters"].as_array().unwrap().len() == 3 && shard["learners"].as_array().unwrap().is_empty()
    };
    processes.await_ready(new);
    // Ready is who votes: the loss of another node is no loss of the majority.
    for collection in ["@system", "default"] {
        let shard = processes.shard(new, collection).unwrap();
        let votes = |voter: &Value| voter["replica"] == shard["replica"];
        assert!(shard["voters"].as_array().unwrap().iter().any(votes), "{shard}");
    }
    let old = processes.shard(leader, "default").unwrap();
    let grown = await_caught_up(&processes, new, leader, |shard| {
        members(shard) && shard["voters"] != old["voters"]
            || members(shard) && processes.shard(new, "default").is_some_and(|new| !new["applied"].is_null())
    })
    .await;
    assert!(grown <= most_growth, "a process grew by {grown} MiB");
    stop.store(true, Ordering::SeqCst);
    let (written, gap) = writer.await.unwrap();
    eprintln!("{written} writes meanwhile, the longest took {gap:?}");
    let most_gap = Duration::from_millis(sized("ODGM_GAP_MS", 5_000));
    assert!(written > 0 && gap < most_gap, "a write took {gap:?}");

    // Every replica has the same, and the old node's replicas are members no more.
    let replica = processes.shard(new, "default").unwrap()["replica"].clone();
    let voters = processes.shard(leader, "default").unwrap()["voters"].clone();
    assert!(voters.as_array().unwrap().iter().any(|voter| voter["replica"] == replica), "{voters}");
    let system = processes.shard(leader, "@system").unwrap();
    assert_eq!(system["voters"].as_array().unwrap().len(), 3, "{system}");
    for node in [leader, behind, new] {
        let near = Client::connect(processes.endpoint(node)).await;
        for n in (0..writes).step_by(usize::try_from(writes / 100).unwrap().max(1)) {
            let key = format!("odgm/@near/default/0/small{n}");
            let answer = near.ask(&key, "", None, Duration::from_secs(5)).await;
            assert_eq!(answer, crate::answer::Answer::Value(value(n, 256)), "odgm-{node} {key}");
        }
    }

    // The old one comes back with its data, and is told.
    processes.restart(lost);
    assert_eq!(processes.await_end(lost, PATIENCE), Some(1), "{}", processes.log(lost));
    let log = processes.log(lost);
    assert!(log.contains("this node was replaced"), "{log}");
}
