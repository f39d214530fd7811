//! A leader that is frozen, or told to stop, while clients of every node read and write.
//!
//! `ODGM_FREEZE_MS` says for how long (default 4,000), `ODGM_SERVE_MS` within which time the others must serve
//! (default 10,000, for machines that do something else; the promise is 3,000), `ODGM_GAP_MS` how long nobody
//! may be acknowledged while a leader stops in good order (default 3,000; the aim is 300).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::answer::{Answer, Client, sized};
use crate::processes::{DEADLINE, Processes, Setup};

/// When a client of the frozen node opens its session anew. Now and then zenoh leaves a session that outlived the
/// freeze without answers: the node's end knows nothing of the key prefixes that the client's end declared before
/// ("unknown scope" in the node's log).
const REOPEN: Duration = Duration::from_secs(10);

/// One read of the counter.
#[derive(Debug)]
struct Read {
    asked: Instant,
    answered: Instant,
    /// What was acknowledged before it was asked.
    acknowledged: u64,
    answer: Answer,
}

/// A counter that one client writes, and what was acknowledged of it.
#[derive(Debug, Default)]
struct Counter {
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

impl Counter {
    fn write(self: &Arc<Self>, client: Client) -> JoinHandle<Vec<Instant>> {
        let counter = self.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            let writer = Uuid::new_v4();
            for n in 1.. {
                client.put("counter", &format!("{writer}-{n}"), n.to_string()).await;
                counter.acknowledged.store(n, Ordering::SeqCst);
                acknowledged.push(Instant::now());
                if counter.stop.load(Ordering::SeqCst) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            acknowledged
        })
    }

    fn read(self: &Arc<Self>, client: Client) -> JoinHandle<Vec<Read>> {
        let counter = self.clone();
        tokio::spawn(async move {
            let mut reads = Vec::new();
            while !counter.stop.load(Ordering::SeqCst) {
                let acknowledged = counter.acknowledged.load(Ordering::SeqCst);
                let asked = Instant::now();
                let answer = client.get("counter").await;
                reads.push(Read { asked, answered: Instant::now(), acknowledged, answer });
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            reads
        })
    }
}

/// No answer is older than what was acknowledged before its question, and none says "absent".
fn assert_linearizable(who: usize, reads: &[Read]) {
    assert!(!reads.is_empty());
    for read in reads {
        assert_ne!(read.answer, Answer::Refused("NOT_FOUND".into()), "odgm-{who}: {read:?}");
        if read.answer.is_value() {
            assert!(read.answer.number() >= Some(read.acknowledged), "odgm-{who} is stale: {read:?}");
        }
    }
}

async fn freeze_the_leader(frozen_for: Duration, serve_within: Duration) {
    let processes = Processes::start(&Setup { partitions: 1, ..Setup::default() });
    let leader = processes.await_serving("default");
    let others: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    let mut clients = Vec::new();
    for n in 0..3 {
        clients.push(Client::connect(processes.endpoint(n)).await);
    }
    clients[leader].put("counter", "counter-0", "0").await;
    let counter = Arc::new(Counter::default());
    let writer = counter.write(clients[others[0]].clone());
    let readers: Vec<_> = clients.iter().map(|client| counter.read(client.clone())).collect();
    let until = |n: u64| {
        let counter = counter.clone();
        async move {
            while counter.acknowledged.load(Ordering::SeqCst) < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::time::timeout(DEADLINE, until(10)).await.unwrap();

    let frozen = Instant::now();
    processes.freeze(leader);
    tokio::time::sleep(frozen_for).await;
    let woken = Instant::now();
    processes.thaw(leader);
    let (mut client, mut asked_since) = (clients[leader].clone(), Instant::now());
    let mut again = Answer::Silence;
    while !again.is_value() {
        if asked_since.elapsed() > REOPEN {
            eprintln!("the client of odgm-{leader} opens its session anew: {again:?}");
            (client, asked_since) = (Client::connect(processes.endpoint(leader)).await, Instant::now());
        }
        assert!(
            woken.elapsed() < DEADLINE,
            "odgm-{leader} answers no more: {again:?}\n{}",
            processes.log(leader)
        );
        again = client.get("counter").await;
    }
    let present = counter.acknowledged.load(Ordering::SeqCst);
    tokio::time::timeout(DEADLINE, until(present + 10)).await.unwrap();
    counter.stop.store(true, Ordering::SeqCst);

    let written = writer.await.unwrap();
    let first = written.iter().find(|at| **at > frozen + Duration::from_millis(100)).unwrap();
    eprintln!("frozen for {frozen_for:?}: written again after {:?}", *first - frozen);
    assert!(*first - frozen < serve_within, "written again after {:?}", *first - frozen);
    for (n, reads) in readers.into_iter().enumerate() {
        let reads = reads.await.unwrap();
        assert_linearizable(n, &reads);
        if n == leader {
            continue;
        }
        let silent = reads.iter().filter(|read| !read.answer.is_value()).count();
        let back = reads.iter().filter(|read| read.asked > frozen && read.answer.is_value());
        let back = back.map(|read| read.answered - frozen).min().unwrap();
        eprintln!("odgm-{n}: read again after {back:?}, {silent} of {} without a value", reads.len());
        assert!(back < serve_within, "odgm-{n}: read again after {back:?}");
        // A refusal tells of an election; silence would be a key that nobody answers for.
        let late = |read: &&Read| {
            read.asked > frozen + serve_within && read.asked < woken && read.answer == Answer::Silence
        };
        assert!(reads.iter().find(late).is_none(), "odgm-{n}: {:?}", reads.iter().find(late));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_gives_no_stale_read_and_the_others_serve_meanwhile() {
    let serve_within = Duration::from_millis(sized("ODGM_SERVE_MS", 10_000));
    freeze_the_leader(Duration::from_millis(sized("ODGM_FREEZE_MS", 4_000)), serve_within).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_wakes_before_its_session_is_given_up_gives_no_stale_read() {
    freeze_the_leader(Duration::from_millis(1_300), Duration::from_millis(sized("ODGM_SERVE_MS", 10_000)))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing_and_a_leader_hands_over_before_it_stops() {
    let limit = Duration::from_millis(sized("ODGM_GAP_MS", 3_000));
    let mut processes = Processes::start(&Setup { partitions: 1, ..Setup::default() });
    for turn in 0..3 {
        let node = (processes.await_serving("default") + turn.min(1)) % 3;
        let leads = turn == 0;
        let client = Client::connect(processes.endpoint((node + 1) % 3)).await;
        client.put("counter", &format!("turn-{turn}"), "0").await;
        let counter = Arc::new(Counter::default());
        let (writer, reader) = (counter.write(client.clone()), counter.read(client.clone()));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let told = Instant::now();
        assert_eq!(processes.terminate(node), Some(0), "{}", processes.log(node));
        let stopped = Instant::now();
        processes.restart(node);
        processes.await_ready(node);
        counter.stop.store(true, Ordering::SeqCst);
        let written = writer.await.unwrap();
        let around = |pair: &&[Instant]| pair[0] <= stopped && pair[1] >= told;
        let gap = written.windows(2).filter(around).map(|pair| pair[1] - pair[0]).max().unwrap();
        eprintln!("odgm-{node} (leads: {leads}) stopped in {:?}, longest gap {gap:?}", stopped - told);
        assert!(gap < limit, "nothing was acknowledged for {gap:?}");
        assert_linearizable(node, &reader.await.unwrap());
        let last = counter.acknowledged.load(Ordering::SeqCst);
        assert_eq!(client.get("counter").await.number(), Some(last));
    }
}
