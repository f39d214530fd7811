//! Memory of many shards under load, with few workers; and how long a checkpoint lets writes wait.
//! `ODGM_BUDGET_BYTES=5000000000` and `ODGM_CHECKPOINT_BYTES=1073741824` for the long forms.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use odgm_storage::Error;
use odgm_storage::data::fjall::{FjallData, FjallEngine};
use odgm_storage::data::{
    ApplicationDataStorage, DataOptions, Durability, Keyspace, SnapshotCapableStorage, WriteBatch,
};

use crate::child;
use crate::data_fjall::wait_until;

const WORKERS: &str = "ODGM_BUDGET_WORKERS";
const SHARDS: u64 = 64;
const ROW_BYTES: usize = 8 << 10;

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value = Vec::with_capacity(bytes);
    while value.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(bytes);
    value
}

/// A line of /proc/self/status in bytes: resident now, or at most.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    found.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

#[test]
fn one_worker_is_refused_with_the_reason() {
    for worker_threads in [0, 1, 65] {
        let refused = FjallEngine::new(&DataOptions { worker_threads, ..DataOptions::default() });
        let Err(Error::Options { option, reason }) = refused else { panic!("{refused:?}") };
        assert_eq!(option, "worker_threads");
        assert!(worker_threads > 2 || reason.contains("stops for ever"), "{reason}");
    }
}

/// In a process of its own: 64 shards, all written to by two threads.
#[test]
fn child() {
    let Ok(workers) = std::env::var(WORKERS) else { return };
    let total = child::number("ODGM_BUDGET_BYTES", 48 << 20);
    let budget: u64 = if total > 1 << 30 { 256 << 20 } else { 12 << 20 };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = DataOptions {
        cache_bytes: 16 << 20,
        write_buffer_bytes: budget,
        worker_threads: workers.parse().unwrap(),
        ..DataOptions::default()
    };
    let engine = FjallEngine::new(&options).unwrap();
    let shards: Vec<Arc<FjallData>> =
        (0..SHARDS).map(|n| engine.open(&dir.path().join(n.to_string())).unwrap()).collect();
    let (idle, begun) = (memory("VmRSS:"), Instant::now());
    let rows = total / ROW_BYTES as u64;
    let (next, most) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= rows {
                        return;
                    }
                    let mut batch = WriteBatch::default();
                    let keyspace = Keyspace::ALL[(n / SHARDS) as usize % 4];
                    batch.put(keyspace, n.to_be_bytes().to_vec(), noise(n, ROW_BYTES));
                    shards[(n % SHARDS) as usize].write(batch, Durability::Later).unwrap();
                    most.fetch_max(engine.memtable_bytes(), Ordering::Relaxed);
                }
            });
        }
    });
    let took = begun.elapsed();
    let deadline = Instant::now() + Duration::from_secs(60);
    while engine.memtable_bytes() > budget {
        assert!(Instant::now() < deadline, "{} of {budget} bytes in memtables", engine.memtable_bytes());
        std::thread::yield_now();
    }
    let (most, peak) = (most.into_inner(), memory("VmHWM:"));
    println!(
        "{workers} workers, {SHARDS} shards: {} MiB in {:.1} s; budget {} MiB, memtables at most {} MiB, \
         resident idle {} MiB, at most {} MiB",
        total >> 20,
        took.as_secs_f64(),
        budget >> 20,
        most >> 20,
        idle >> 20,
        peak >> 20
    );
    // With so small a budget most of it is what is written until a thread of a busy machine comes to look.
    assert!(most <= 3 * budget + (16 << 20), "memtables of {most} bytes");
    // Memtables keep some bytes beside their rows; flushes and compactions work in buffers of their own.
    assert!(peak <= idle + 3 * budget + options.cache_bytes + (256 << 20), "{peak} resident, {idle} idle");
    let found: u64 = shards.iter().map(|shard| shard.statistics().rows.iter().sum::<u64>()).sum();
    assert!(found >= rows, "{found} of {rows} rows");
    let journals = |shard: &FjallData| shard.statistics().unflushed_bytes;
    assert!(shards.iter().map(|shard| journals(shard)).sum::<u64>() <= 2 * budget);
}

#[test]
fn many_shards_stay_within_the_budget_with_two_and_with_four_workers() {
    for workers in ["2", "4"] {
        let output = child::command("data_budget::child", WORKERS, workers)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
        print!("{}", out.lines().filter(|line| line.contains("shards:")).collect::<String>() + "\n");
    }
}

#[test]
fn a_checkpoint_lets_writes_wait_shortly() {
    let total = child::number("ODGM_CHECKPOINT_BYTES", 8 << 20);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let engine = FjallEngine::new(&DataOptions::default()).unwrap();
    let store = engine.open(&dir.path().join("store")).unwrap();
    let write = |n: u64| {
        let mut batch = WriteBatch::default();
        for (at, keyspace) in Keyspace::ALL.into_iter().enumerate() {
            batch.put(keyspace, slot(n, at).to_be_bytes().to_vec(), noise(n, 1 << 10));
        }
        store.write(batch, Durability::Later).unwrap();
    };
    for n in 0..total >> 12 {
        write(n);
    }
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(total >> 12));
    let rounds = if total > 1 << 28 { 8 } else { 3 };
    let longest = AtomicU64::new(0);
    let mut pauses = Vec::new();
    std::thread::scope(|threads| {
        let (write, done, written, longest) = (&write, &done, &written, &longest);
        // A steady load: at full speed writes also wait for the disk, with or without a checkpoint.
        threads.spawn(move || {
            let (begun, first) = (Instant::now(), written.load(Ordering::Acquire));
            while !done.load(Ordering::Acquire) {
                let n = written.fetch_add(1, Ordering::AcqRel);
                let due = begun + Duration::from_micros(500) * (n - first) as u32;
                while Instant::now() < due {
                    std::thread::park_timeout(due - Instant::now());
                }
                let begun = Instant::now();
                write(n);
                longest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::AcqRel);
            }
        });
        for round in 0..rounds {
            let from = written.load(Ordering::Acquire);
            wait_until("the writer goes on", || written.load(Ordering::Acquire) > from + 500);
            let without = Duration::from_micros(longest.load(Ordering::Acquire));
            longest.store(0, Ordering::Release);
            let target = dir.path().join(round.to_string());
            let begun = Instant::now();
            let manifest = store.checkpoint(&target).unwrap();
            let took = begun.elapsed();
            let from = written.load(Ordering::Acquire);
            wait_until("the writer goes on", || written.load(Ordering::Acquire) > from + 1);
            let pause = Duration::from_micros(longest.load(Ordering::Acquire));
            println!(
                "{} MiB checkpoint in {took:?}, writes waited {pause:?}, {without:?} without",
                manifest.total_bytes >> 20
            );
            pauses.push(pause);
            store.verify_checkpoint(&target).unwrap();
            std::fs::remove_dir_all(target).unwrap();
        }
        done.store(true, Ordering::Release);
    });
    pauses.sort();
    let (median, longest) = (pauses[rounds / 2], pauses[rounds - 1]);
    println!("pauses: median {median:?}, longest {longest:?}");
    // The machine may be busy with anything: it is 100 ms when it is not.
    assert!(median < Duration::from_secs(1), "{pauses:?}");
}

/// Where batch n goes in a keyspace, spread over all keys.
fn slot(n: u64, keyspace: usize) -> u64 {
    (n + keyspace as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
