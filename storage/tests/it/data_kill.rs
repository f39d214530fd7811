//! A process that is killed while it writes, flushes and takes checkpoints: nothing that was acknowledged
//! is lost, nothing is half there. `ODGM_KILL_ROUNDS=200` for the long form.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use odgm_storage::data::index::{self, IndexSelect, build};
use odgm_storage::data::suite::rows;
use odgm_storage::data::{
    ApplicationDataStorage, DataView, Durability, Keyspace, SnapshotCapableStorage, Transaction,
};

use crate::child;
use crate::data::engine;

const DIR: &str = "ODGM_KILL_DIR";
const SLOTS: u64 = 400;

fn slot(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33
}

fn key(n: u64) -> String {
    format!("{:05}", slot(n) % SLOTS)
}

/// Batch number n, the same in every keyspace.
fn write(store: &dyn ApplicationDataStorage, n: u64, durability: Durability) {
    let mut writes = Transaction::begin(store);
    for keyspace in [Keyspace::Data, Keyspace::History, Keyspace::Meta] {
        writes.put(keyspace, "n", n.to_string()).unwrap();
        let noise = "x".repeat((n % 700) as usize);
        writes.put_until(keyspace, key(n), format!(r#"{{"n":{n},"x":"{noise}"}}"#), n).unwrap();
    }
    writes.commit(durability).unwrap();
}

fn last(view: &dyn DataView) -> u64 {
    let n = view.get(Keyspace::Data, b"n").unwrap();
    n.map_or(0, |n| std::str::from_utf8(&n).unwrap().parse().unwrap())
}

/// Every row, deadline and index entry is what batches 1 to n left.
fn check(view: &dyn DataView) -> u64 {
    let n = last(view);
    let mut expected = BTreeMap::new();
    for m in 1..=n {
        expected.insert(key(m), m);
    }
    for keyspace in [Keyspace::Data, Keyspace::History, Keyspace::Meta] {
        let found: BTreeMap<_, _> = rows(view, keyspace)
            .into_iter()
            .filter(|(key, _)| key != "n")
            .map(|(key, value)| {
                let value: serde_json::Value = serde_json::from_slice(&value).unwrap();
                (String::from_utf8(key.to_vec()).unwrap(), value["n"].as_u64().unwrap())
            })
            .collect();
        assert_eq!(found, expected, "{keyspace:?} at {n}");
    }
    let queue = odgm_storage::data::expiry::expired(view, u64::MAX, usize::MAX).unwrap();
    assert_eq!(queue.len(), 3 * expected.len());
    let select = IndexSelect::range(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded).limit(5000);
    let hits = index::query(view, "n", &select).unwrap().hits;
    // The row "n" is JSON too, a number without a field.
    assert_eq!(hits.len(), expected.len());
    assert!(
        hits.iter()
            .zip({
                let mut numbers: Vec<_> = expected.values().copied().collect();
                numbers.sort_unstable();
                numbers
            })
            .all(|(hit, n)| hit.value == n.into())
    );
    n
}

/// In the child: write until killed.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    let store = engine().open(&dir.join("store")).unwrap();
    build::create(&*store, "n", Keyspace::Data, "/n").unwrap();
    let from = last(&*store.view());
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for round in 0.. {
                store.checkpoint(&dir.join(format!("checkpoint-{from}-{round}"))).unwrap();
                store.flush().unwrap();
            }
        });
        let mut out = std::io::stdout();
        for n in from + 1.. {
            let durability = if n % 8 == 0 { Durability::Now } else { Durability::Later };
            write(&*store, n, durability);
            writeln!(out, "acknowledged {n}").unwrap();
        }
    });
}

#[test]
fn killed_at_any_moment_nothing_is_lost_or_half_there() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("store");
    let rounds = child::number("ODGM_KILL_ROUNDS", 5);
    let (mut n, mut checkpoints) = (0, 0);
    for round in 0..rounds {
        let mut child = child::command("data_kill::child", DIR, dir.path().to_str().unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let acknowledged = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        let mut acknowledged = acknowledged.peekable();
        let wanted = 20 + slot(round) % 300;
        let mut known = n;
        for _ in 0..wanted {
            known = acknowledged.next().expect("the child writes until it is killed");
        }
        child.kill().unwrap();
        known = acknowledged.last().unwrap_or(known);
        child.wait().unwrap();
        let store = engine().open(&path).unwrap();
        n = check(&*store.view());
        assert!(n >= known, "round {round}: {known} was acknowledged, {n} is there");
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let checkpoint = entry.unwrap().path();
            let complete = checkpoint.extension().is_none() && !checkpoint.ends_with("store");
            if complete {
                store.verify_checkpoint(&checkpoint).unwrap();
                assert!(check_or_empty(&*store.open_checkpoint(&checkpoint).unwrap()) <= n);
                checkpoints += 1;
            }
            if !checkpoint.ends_with("store") {
                std::fs::remove_dir_all(checkpoint).unwrap();
            }
        }
        if round % 7 == 6 {
            store.compact().unwrap();
            assert_eq!(check(&*store.view()), n);
        }
    }
    println!("{rounds} kills, {n} batches, {checkpoints} checkpoints checked");
    assert!(checkpoints > 0);
}

/// One that was taken before the first batch has nothing.
fn check_or_empty(view: &dyn DataView) -> u64 {
    if last(view) == 0 { 0 } else { check(view) }
}
