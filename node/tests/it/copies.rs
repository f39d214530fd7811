//! One process for one node: second processes on a data directory, and on copies of it, are refused with the
//! reason; and founding, which makes one cluster whatever happens to the nodes meanwhile.
//!
//! `ODGM_FOUNDINGS` says how often a cluster is founded (default 1).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use crate::answer::{Client, sized};
use crate::processes::{DEADLINE, Processes, Setup};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_second_process_on_a_data_directory_is_refused_with_the_reason() {
    let mut processes = Processes::start(&Setup { nodes: 1, ..Setup::default() });
    let second = processes.add(0, &processes.data_dir(0));
    processes.restart(second);
    assert_eq!(processes.await_end(second, DEADLINE), Some(1));
    let log = processes.log(second);
    assert!(log.contains("in use by another process"), "{log}");
    processes.await_ready(0);
}

#[test]
fn a_process_on_a_copy_of_a_running_nodes_data_is_refused_with_the_reason() {
    let mut processes = Processes::start(&Setup::default());
    // The copy is connected to all the others; the original does not know that there is one.
    processes.terminate(1);
    let copied = processes.dir().join("copy");
    copy(&processes.data_dir(1), &copied);
    let second = processes.add(1, &copied);
    processes.restart(1);
    processes.await_ready(1);
    processes.restart(second);
    assert_eq!(processes.await_end(second, DEADLINE), Some(1), "{}", processes.log(second));
    let log = processes.log(second);
    assert!(log.contains("another process runs as this node"), "{log}");
    assert!(log.contains("is a copy"), "{log}");
    processes.await_ready(1);
}

#[test]
fn of_two_processes_on_copies_that_start_at_once_one_runs() {
    let mut processes = Processes::start(&Setup::default());
    processes.terminate(1);
    let copied = processes.dir().join("copy");
    copy(&processes.data_dir(1), &copied);
    let second = processes.add(1, &copied);
    processes.restart(1);
    processes.restart(second);
    let (refused, runs) = loop {
        let ended = |n: usize, processes: &mut Processes| processes.await_end(n, Duration::from_millis(50));
        if let Some(code) = ended(second, &mut processes) {
            break ((second, code), 1);
        }
        if let Some(code) = ended(1, &mut processes) {
            break ((1, code), second);
        }
    };
    assert_eq!(refused.1, 1, "{}", processes.log(refused.0));
    assert!(processes.log(refused.0).contains("is a copy"), "{}", processes.log(refused.0));
    processes.await_ready(runs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_makes_one_cluster_though_the_bootstrap_node_is_killed_at_random_moments() {
    for _ in 0..sized("ODGM_FOUNDINGS", 1) {
        let random = Uuid::new_v4().into_bytes();
        let moment = |n: usize| Duration::from_millis(u64::from(random[n]) * 8);
        let mut processes = Processes::prepare(&Setup { partitions: 1, ..Setup::default() });
        let first = usize::from(random[0]) % 3;
        for n in 0..3 {
            processes.restart((first + n) % 3);
            tokio::time::sleep(moment(n + 1) / 4).await;
        }
        for n in 0..usize::from(random[4] % 3) + 1 {
            tokio::time::sleep(moment(5 + n)).await;
            processes.kill(0);
            processes.restart(0);
        }
        (0..3).for_each(|n| processes.await_ready(n));
        let clusters: BTreeSet<String> =
            (0..3).map(|n| processes.status(n).unwrap()["cluster"]["id"].to_string()).collect();
        assert_eq!(clusters.len(), 1, "{clusters:?}");
        let client = Client::connect(processes.endpoint(first)).await;
        client.put("a", "a", "1").await;
        for n in 0..3 {
            let voters = processes.shard(n, "@system").unwrap()["voters"].as_array().unwrap().len();
            assert_eq!(voters, 3);
        }
    }
}
