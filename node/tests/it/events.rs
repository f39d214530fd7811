//! Subscribers on several sessions while the leader is killed: each has every change, once and in order. What is
//! right is known from the acknowledgements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use odgm_shard::client::{GridClient, Put};
use odgm_shard::object::{CollectionName, ObjectId, ObjectKey, Partition};
use tokio::task::JoinSet;

use crate::processes::{DEADLINE, Processes, Setup};

const SESSIONS: usize = 6;
const SUBSCRIBERS: usize = 3;
const WRITERS: u64 = 8;
/// Changes of each writer.
const CHANGES: u64 = 250;

/// A change: its revision, its key and what was put.
type Change = (u64, String, Vec<u8>);

#[test]
fn every_subscriber_has_all_changes_once_and_in_order_through_the_kill_of_the_leader() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut nodes = Processes::start(&Setup { partitions: 1, ..Setup::default() });
    nodes.await_serving("default");
    runtime.block_on(async {
        let mut audience = JoinSet::new();
        for n in 0..SESSIONS {
            let client = Arc::new(nodes.client(n, DEADLINE).await);
            for _ in 0..SUBSCRIBERS {
                let client = client.clone();
                audience.spawn(async move { (n, follow(&client, WRITERS * CHANGES).await) });
            }
        }
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for n in 0..WRITERS {
            let client = nodes.client(n as usize, DEADLINE).await;
            writers.spawn(write(client, n, acknowledged.clone()));
        }
        let start = Instant::now();
        while acknowledged.load(Ordering::Relaxed) < WRITERS * CHANGES / 2 {
            assert!(start.elapsed() < DEADLINE, "{acknowledged:?} acknowledged");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        nodes.kill(nodes.await_serving("default"));
        let mut written: Vec<Change> = writers.join_all().await.into_iter().flatten().collect();
        written.sort();
        let revisions: Vec<u64> = written.iter().map(|change| change.0).collect();
        assert_eq!(revisions, (1..=WRITERS * CHANGES).collect::<Vec<_>>(), "revisions have no holes");
        while let Some(followed) = audience.join_next().await {
            let (session, followed) = followed.unwrap();
            let wrong = followed.iter().zip(&written).find(|(seen, right)| seen != right);
            assert_eq!(wrong, None, "a subscriber of session {session}");
            assert_eq!(followed.len(), written.len());
        }
    });
}

fn collection() -> CollectionName {
    CollectionName::parse("default").unwrap()
}

/// Takes so many changes as a client that resumes does.
async fn follow(client: &GridClient, count: u64) -> Vec<Change> {
    let mut watch = client.resume(&collection(), "**", Some(Partition(0)), 1).await.unwrap();
    let mut changes = Vec::new();
    let start = Instant::now();
    while (changes.len() as u64) < count {
        let left = (4 * DEADLINE).saturating_sub(start.elapsed());
        match tokio::time::timeout(left, watch.next()).await {
            Ok(Ok(Some((_, event)))) => {
                let value = event.found.value.to_vec();
                changes.push((event.found.revision, event.key.object.as_str().to_owned(), value));
            }
            // It has waited for its deadline and can be asked again.
            Ok(Err(error)) => assert!(!left.is_zero(), "{} changes, then {error}", changes.len()),
            Ok(Ok(None)) => panic!("the session is closed after {} changes", changes.len()),
            Err(_) => panic!("only {} changes came", changes.len()),
        }
    }
    changes
}

async fn write(client: GridClient, writer: u64, acknowledged: Arc<AtomicU64>) -> Vec<Change> {
    let mut changes = Vec::new();
    for n in 0..CHANGES {
        let name = format!("object-{writer}-{}", n % 10);
        let key = ObjectKey { object: ObjectId::parse(&name).unwrap(), entry: None };
        let value = format!("{writer}/{n}").into_bytes();
        let done = client.put(&collection(), &key, Put::value(value.clone()), None).await.unwrap();
        changes.push((done.revision, name, value));
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    changes
}
