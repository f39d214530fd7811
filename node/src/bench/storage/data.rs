//! The data layer: gets, durable writes, transactions, scans, and how long writes wait for a checkpoint.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use odgm_storage::data::{
    ApplicationDataStorage, DataOptions, Direction, Durability, FjallData, FjallEngine, Keyspace, MemoryData,
    SnapshotCapableStorage, Transaction, WriteBatch,
};

use super::corpus::{self, Shuffled};
use super::limits::forget;
use super::{Bench, latency, megabytes_per_second, repeat, times};
use crate::bench::load::Measured;
use crate::bench::report::Row;

const VALUE: usize = 1024;
/// Different values.
const NOISE: usize = 4 << 20;
/// Rows of a batch of the load.
const BATCH: u64 = 16;
/// Rows that are read again and again, which the block cache holds.
const HOT_ROWS: u64 = 1000;
/// Rows of a scan that are timed together.
const SCANNED: usize = 1000;
/// Reads that wait for the disk before its pages are forgotten again.
const COLD: u64 = 50;
const CHECKPOINTS: usize = 5;
/// Between two batches of the load beside a checkpoint: 32 MiB/s, several times what replicated writes come to. As
/// fast as the store takes them, writes wait for the disk without any checkpoint, too.
const LOAD_EVERY: Duration = Duration::from_micros(500);

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let dir = bench.place("data");
    let rows = Rows { noise: corpus::noise(NOISE), count: bench.scale.rows };
    let store = open(&dir, &DataOptions::default())?;
    bench.progress.step("data: filling");
    rows.fill(&*store)?;
    store.flush()?;

    reads(bench, &*store, &rows)?;
    // First of those that write: the store is still as big as its rows.
    checkpoints(bench, &store, &rows)?;
    writes(bench, &*store, &rows)?;
    store.close()?;
    drop(store);
    from_disk(bench, &dir, &rows)?;
    std::fs::remove_dir_all(&dir)?;
    memory(bench, &rows)
}

fn open(dir: &Path, options: &DataOptions) -> anyhow::Result<Arc<FjallData>> {
    Ok(FjallEngine::new(options)?.open(dir)?)
}

/// What the store holds.
struct Rows {
    noise: Bytes,
    count: u64,
}

impl Rows {
    fn key(row: u64) -> Bytes {
        Bytes::from(format!("object-{row:012}"))
    }

    fn value(&self, row: u64) -> Bytes {
        let at = (row.wrapping_mul(0x9E37_79B9) as usize) % (self.noise.len() - VALUE);
        self.noise.slice(at..at + VALUE)
    }

    fn batch(&self, first: u64) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for row in first..first + BATCH {
            batch.put(Keyspace::Data, Rows::key(row % self.count), self.value(row));
        }
        batch
    }

    fn fill(&self, store: &dyn ApplicationDataStorage) -> anyhow::Result<()> {
        for first in (0..self.count).step_by(BATCH as usize) {
            store.write(self.batch(first), Durability::Later)?;
        }
        Ok(())
    }

    fn get(store: &dyn ApplicationDataStorage, row: u64) -> anyhow::Result<()> {
        let value = store.view().get(Keyspace::Data, &Rows::key(row))?;
        anyhow::ensure!(value.is_some_and(|value| value.len() == VALUE), "row {row} is not there");
        Ok(())
    }
}

fn reads(bench: &mut Bench, store: &dyn ApplicationDataStorage, rows: &Rows) -> anyhow::Result<()> {
    bench.progress.step("data: gets");
    (0..HOT_ROWS).try_for_each(|row| Rows::get(store, row))?;
    let mut hot = Shuffled::below(HOT_ROWS);
    let cached = times(bench.scale.reads, |_| Rows::get(store, hot.next()))?;
    bench.add(latency("data: get, cached, p99", &cached).at_most(1.0));
    let mut any = Shuffled::below(rows.count);
    let points = times(bench.scale.reads, |_| Rows::get(store, any.next()))?;
    let row = Row::new("data: point queries over all rows", points.rate(), "queries/s");
    bench.add(row.latencies(&points).at_least(10_000.0));
    Ok(())
}

fn writes(bench: &mut Bench, store: &dyn ApplicationDataStorage, rows: &Rows) -> anyhow::Result<()> {
    bench.progress.step("data: writes");
    let round = bench.scale.round;
    let mut any = Shuffled::below(rows.count);
    let durable = repeat(round, |_| {
        let mut batch = WriteBatch::default();
        let row = any.next();
        batch.put(Keyspace::Data, Rows::key(row), rows.value(row));
        Ok(store.write(batch, Durability::Now)?)
    })?;
    let sync = bench.limits.sync.clone();
    bench.add(latency("data: durable write, p99", &durable).at_most(5.0).limit(sync.quantile_ms(0.99)));

    for (name, durability) in [("durable", Durability::Now), ("behind a log", Durability::Later)] {
        bench.progress.step(format!("data: transactions, {name}"));
        let measured = repeat(round, |_| {
            let mut writes = Transaction::begin(store);
            let row = any.next();
            writes.get(Keyspace::Data, &Rows::key(row))?;
            writes.put(Keyspace::Data, Rows::key(row), rows.value(row))?;
            writes.increment(Keyspace::Meta, "transactions", 1)?;
            Ok(writes.commit(durability)?)
        })?;
        let row = Row::new(format!("data: transactions, {name}"), measured.rate(), "transactions/s");
        let row = row.latencies(&measured).at_least(1000.0);
        bench.add(if durability == Durability::Now { row.limit(sync.rate()) } else { row });
    }
    Ok(())
}

/// The longest write while checkpoints are taken, beside the longest of the same load without one. A write counts from
/// when it is due.
fn checkpoints(bench: &mut Bench, store: &Arc<FjallData>, rows: &Rows) -> anyhow::Result<()> {
    bench.progress.step("data: checkpoints under load");
    let mut without = Measured::default();
    let (mut during, mut taken) = (Measured::default(), Measured::default());
    let (mut next, mut due) = (0, Instant::now());
    let mut write = |measured: &mut Measured| -> anyhow::Result<()> {
        let batch = rows.batch(next);
        next += BATCH;
        due += LOAD_EVERY;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        store.write(batch, Durability::Later)?;
        measured.record(due.elapsed());
        Ok(())
    };
    for checkpoint in 0..CHECKPOINTS {
        let start = Instant::now();
        while start.elapsed() < bench.scale.round / 5 {
            write(&mut without)?;
        }
        let target = bench.place(&format!("checkpoint-{checkpoint}"));
        let took = std::thread::scope(|scope| -> anyhow::Result<Duration> {
            let taking = scope.spawn(|| {
                let begun = Instant::now();
                store.checkpoint(&target).map(|_| begun.elapsed())
            });
            while !taking.is_finished() {
                write(&mut during)?;
            }
            Ok(taking.join().map_err(|_| anyhow::anyhow!("the checkpoint panicked"))??)
        })?;
        taken.record(took);
        std::fs::remove_dir_all(&target)?;
    }
    let mebibytes = store.size_bytes() >> 20;
    let name = format!("data: longest write during a checkpoint of {mebibytes} MiB");
    let row = Row::new(name, during.longest_ms(), "ms").latencies(&during);
    bench.add(row.at_most(100.0).limit(without.longest_ms()));
    let name = format!("data: checkpoint of {mebibytes} MiB under load");
    bench.add(Row::new(name, taken.longest_ms(), "ms").latencies(&taken));
    Ok(())
}

fn from_disk(bench: &mut Bench, dir: &Path, rows: &Rows) -> anyhow::Result<()> {
    // The smallest block cache: what is read is read from the files.
    let store = open(dir, &DataOptions { cache_bytes: 1 << 20, ..DataOptions::default() })?;
    bench.progress.step("data: gets from disk");
    let mut any = Shuffled::below(rows.count);
    let mut cold = Measured::default();
    for _ in 0..bench.scale.cold_reads / COLD {
        forget(dir)?;
        cold.add(&times(COLD, |_| Rows::get(&*store, any.next()))?);
    }
    bench.add(latency("data: get, from disk, p99", &cold).at_most(10.0));

    bench.progress.step("data: range scan");
    forget(dir)?;
    let view = store.view();
    let start = Instant::now();
    let mut scan =
        view.scan(Keyspace::Data, Bound::Unbounded, Bound::Unbounded, Direction::Forward).peekable();
    let (mut bytes, mut found, mut scanned) = (0, 0, Measured::default());
    while scan.peek().is_some() {
        let begun = Instant::now();
        for row in scan.by_ref().take(SCANNED) {
            let (key, value) = row?;
            bytes += (key.len() + value.len()) as u64;
            found += 1;
        }
        scanned.record(begun.elapsed());
    }
    let rate = megabytes_per_second(bytes, start.elapsed());
    anyhow::ensure!(found == rows.count, "a scan found {found} of {} rows", rows.count);
    let row = Row::new("data: range scan from disk, 1,000 rows a time", rate, "MB/s");
    bench.add(row.latencies(&scanned).at_least(10.0).limit(bench.limits.read));
    drop(scan);
    drop(view);
    Ok(store.close()?)
}

fn memory(bench: &mut Bench, rows: &Rows) -> anyhow::Result<()> {
    bench.progress.step("data: in memory");
    let rows = Rows { noise: rows.noise.clone(), count: rows.count.min(1 << 16) };
    let store = MemoryData::new(DataOptions::default().max_bytes);
    rows.fill(&store)?;
    let mut any = Shuffled::below(rows.count);
    let points = times(bench.scale.reads, |_| Rows::get(&store, any.next()))?;
    bench.add(Row::new("memory data: point queries", points.rate(), "queries/s").latencies(&points));
    let written = times(bench.scale.reads, |turn| Ok(store.write(rows.batch(turn), Durability::Later)?))?;
    let name = format!("memory data: batches of {BATCH} rows");
    bench.add(Row::new(name, written.rate(), "batches/s").latencies(&written));
    Ok(())
}
