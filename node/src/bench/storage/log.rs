//! The log: entries a second, the latency of one, reads, and how near it comes to the bare system calls.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use odgm_storage::disk::RealDisk;
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, EntryKind, FjallLog, FjallLogOptions, GroupId, LogEntry, LogOptions,
    LogPosition, RaftLogStorage, wait_durable,
};

use super::corpus::{self, Shuffled};
use super::limits::forget;
use super::{Bench, latency, megabytes_per_second, repeat, times};
use crate::bench::load::Measured;
use crate::bench::report::Row;

/// Payload bytes of an entry, but where a row says another size.
const ENTRY: usize = 256;
/// Appends under way at once where more than one is.
const IN_FLIGHT: usize = 64;
/// Appends between two purges, where a log is to use its segments again.
const PURGED_EVERY: u64 = 64;
/// Runs of each side that are compared.
const TURNS: usize = 9;
const KIB: usize = 1024;
/// Blocks in which the log and the bare loop write.
const BLOCK: usize = 512;

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let dir = bench.place("log");
    let options = LogOptions { segment_bytes: bench.scale.segment_bytes, ..LogOptions::default() };
    let log = AppendLog::open(Arc::new(RealDisk), &dir, options)?;
    appends(bench, &*log, "log")?;
    against_bare(bench, &*log)?;
    log.close()?;
    std::fs::remove_dir_all(&dir)?;
    reads(bench)?;

    let dir = bench.place("fjall-log");
    let log = FjallLog::open(Arc::new(RealDisk), &dir, FjallLogOptions::default())?;
    appends(bench, &*log, "log on fjall")?;
    log.close()?;
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// A group of a log that grows.
pub(super) struct Growing {
    pub(super) group: Arc<dyn RaftLogStorage>,
    next: u64,
    payload: Bytes,
}

impl Growing {
    pub(super) fn new(log: &dyn AppendOnlyLogStorage, group: u64, payload: usize) -> anyhow::Result<Self> {
        Ok(Growing { group: log.group(GroupId(group))?, next: 1, payload: corpus::noise(payload) })
    }

    /// The last entry appended.
    pub(super) fn last(&self) -> LogPosition {
        LogPosition { term: 1, index: self.next - 1 }
    }

    fn entries(&mut self, count: usize) -> Vec<LogEntry> {
        let first = self.next;
        self.next += count as u64;
        (first..self.next)
            .map(|index| LogEntry {
                position: LogPosition { term: 1, index },
                kind: EntryKind::Normal,
                payload: self.payload.clone(),
            })
            .collect()
    }

    /// One append of so many entries, waited for.
    pub(super) fn append(&mut self, count: usize) -> anyhow::Result<()> {
        let entries = self.entries(count);
        Ok(wait_durable(|durable| self.group.append(entries, durable))?)
    }

    /// Now and then purges all that was appended.
    fn purge_at(&self, turn: u64) -> odgm_storage::Result<()> {
        if turn.is_multiple_of(PURGED_EVERY) { self.group.purge(self.last()) } else { Ok(()) }
    }

    /// Appends of so many entries, each waited for by this thread.
    fn waited(&mut self, count: usize, duration: Duration) -> anyhow::Result<Measured> {
        repeat(duration, |turn| {
            self.append(count)?;
            Ok(self.purge_at(turn)?)
        })
    }

    /// Appends of so many entries, each begun by the callback of the one before.
    fn chained(&mut self, count: usize, duration: Duration) -> anyhow::Result<Measured> {
        let (done, ended) = mpsc::sync_channel(1);
        let start = Instant::now();
        let growing =
            Growing { group: Arc::clone(&self.group), next: self.next, payload: self.payload.clone() };
        let measured = Measured::default();
        Box::new(Chain { growing, measured, appends: 0, count, until: start + duration, done }).append();
        let (chain, outcome) = ended.recv().context("the log refused an append of a chain")?;
        outcome?;
        self.next = chain.growing.next;
        let mut measured = chain.measured;
        measured.took(start.elapsed());
        Ok(measured)
    }

    /// Appends of so many entries, [`IN_FLIGHT`] at once, while `go_on` says so of the appends begun. A
    /// latency is that of one append.
    fn stream(&mut self, count: usize, go_on: impl Fn(u64) -> bool) -> anyhow::Result<Measured> {
        let (done, durable) = mpsc::channel();
        let mut measured = Measured::default();
        let (mut begun, mut ended) = (0_u64, 0_u64);
        let start = Instant::now();
        loop {
            let more = go_on(begun);
            if more && begun - ended < IN_FLIGHT as u64 {
                let entries = self.entries(count);
                let (done, queued) = (done.clone(), Instant::now());
                let callback = move |outcome| {
                    // Nobody waits any more after another append failed.
                    let _ = done.send((queued.elapsed(), outcome));
                };
                self.group.append(entries, Box::new(callback))?;
                begun += 1;
            } else if begun > ended {
                let (latency, outcome) = durable.recv()?;
                outcome?;
                measured.record(latency);
                ended += 1;
            } else if !more {
                break;
            }
        }
        measured.took(start.elapsed());
        Ok(measured)
    }
}

/// Appends of which each begins the next.
struct Chain {
    growing: Growing,
    measured: Measured,
    appends: u64,
    count: usize,
    until: Instant,
    /// Gets all of it back at the end.
    done: mpsc::SyncSender<(Box<Chain>, odgm_storage::Result<()>)>,
}

impl Chain {
    fn append(mut self: Box<Self>) {
        let (begun, group) = (Instant::now(), Arc::clone(&self.growing.group));
        let entries = self.growing.entries(self.count);
        let durable = move |outcome: odgm_storage::Result<()>| {
            self.measured.record(begun.elapsed());
            self.appends += 1;
            let outcome = outcome.and_then(|()| self.growing.purge_at(self.appends));
            if outcome.is_ok() && Instant::now() < self.until {
                self.append();
            } else {
                let done = self.done.clone();
                // The receiver waits until then.
                let _ = done.send((self, outcome));
            }
        };
        // A refusal drops the chain, which its receiver sees.
        let _ = group.append(entries, Box::new(durable));
    }
}

fn appends(bench: &mut Bench, log: &dyn AppendOnlyLogStorage, name: &str) -> anyhow::Result<()> {
    let round = bench.scale.round;
    bench.progress.step(format!("{name}: appends"));
    let start = Instant::now();
    let streamed = Growing::new(log, 1, ENTRY)?.stream(1, |_| start.elapsed() < round)?;
    let mut alone = Growing::new(log, 2, ENTRY)?;
    let local = repeat(round, |_| alone.append(1))?;
    let limit = bench.limits.sync.rate() * IN_FLIGHT as f64;
    bench.add(
        Row::new(format!("{name}: entries of 256 B, {IN_FLIGHT} in flight"), streamed.rate(), "entries/s")
            .latencies(&streamed)
            .at_least(10_000.0)
            .limit(limit),
    );
    let limit = bench.limits.sync.quantile_ms(0.99);
    bench.add(latency(format!("{name}: append local, one at a time, p99"), &local).at_most(1.0).limit(limit));
    // What they hold would be moved out of old segments beside what is measured next.
    for group in [1, 2] {
        wait_durable(|durable| {
            log.remove_group(GroupId(group), durable);
            Ok(())
        })?;
    }
    Ok(())
}

/// One entry out of the files, and all of them as a follower that was away gets them.
fn reads(bench: &mut Bench) -> anyhow::Result<()> {
    let dir = bench.place("read-log");
    // Hardly anything stays in memory: what is measured is the way through the files.
    let options = LogOptions {
        segment_bytes: bench.scale.segment_bytes,
        cache_bytes: 64 << 10,
        ..LogOptions::default()
    };
    let log = AppendLog::open(Arc::new(RealDisk), &dir, options)?;
    bench.progress.step("log: filling");
    let mut filled = Growing::new(&*log, 1, KIB)?;
    let appends = bench.scale.catch_up_bytes / (16 * KIB) as u64;
    filled.stream(16, |begun| begun < appends)?;
    let last = filled.last().index;
    let from_files = filled.group.cached_from().saturating_sub(1);
    anyhow::ensure!(from_files > 0, "the log holds everything in memory");

    bench.progress.step("log: catch-up");
    forget(&dir)?;
    let (mut next, mut bytes) = (1, 0);
    let start = Instant::now();
    let mut caught_up = Measured::default();
    while next <= last {
        let begun = Instant::now();
        let entries = filled.group.read(next, last + 1, 1 << 20)?;
        caught_up.record(begun.elapsed());
        anyhow::ensure!(!entries.is_empty(), "entry {next} is not there");
        bytes += entries.iter().map(|entry| entry.payload.len() as u64).sum::<u64>();
        next += entries.len() as u64;
    }
    bench.add(
        Row::new(
            "log: catch-up from disk, 1 MiB a read",
            megabytes_per_second(bytes, start.elapsed()),
            "MB/s",
        )
        .latencies(&caught_up)
        .at_least(50.0)
        .limit(bench.limits.read),
    );
    bench.progress.step("log: single reads");
    let mut index = Shuffled::below(from_files);
    let mut read_one = |_| {
        let entry = filled.group.get(1 + index.next())?;
        anyhow::ensure!(entry.is_some_and(|entry| entry.payload.len() == KIB), "an entry is not there");
        Ok(())
    };
    let cached = times(bench.scale.reads, &mut read_one)?;
    let name = "log: read one entry of 1 KiB out of the files, which the system has in memory, p99";
    bench.add(latency(name, &cached).at_most(0.1));
    forget(&dir)?;
    let cold = times(bench.scale.cold_reads, &mut read_one)?;
    bench.add(latency("log: read one entry of 1 KiB from disk, p99", &cold));
    log.close()?;
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// The log and a loop of nothing but pwrite and fdatasync, in turn. The bare loop syncs in the thread that goes on;
/// the log is measured so, too, and with a thread that waits for each append.
fn against_bare(bench: &mut Bench, log: &dyn AppendOnlyLogStorage) -> anyhow::Result<()> {
    let path = bench.place("bare");
    let bare = Bare::create(&path, bench.scale.segment_bytes)?;
    let duration = bench.scale.turn;
    for (group, batch) in [1, 16, 256].into_iter().enumerate() {
        bench.progress.step(format!("log: against the bare system calls, batches of {batch}"));
        let mut appended = Growing::new(log, 10 + group as u64, ENTRY)?;
        // The bare loop writes one file again and again; so does a log that is purged, once it has its segments.
        appended.waited(batch, duration)?;
        let mut runs: [Vec<Measured>; 3] = Default::default();
        for turn in 0..TURNS {
            for n in 0..runs.len() {
                let n = (n + turn) % runs.len();
                runs[n].push(match n {
                    0 => bare.measure(batch * ENTRY, duration)?,
                    1 => appended.chained(batch, duration)?,
                    _ => appended.waited(batch, duration)?,
                });
            }
        }
        let [bare, chained, waited] = &runs;
        let entries = |runs: &[Measured]| {
            let all = runs.iter().fold(Measured::default(), |mut all, run| {
                all.add(run);
                all
            });
            (all.rate() * batch as f64, all)
        };
        let (limit, all) = entries(bare);
        let name = format!("bare pwrite+fdatasync, batches of {batch}");
        bench.add(Row::new(name, limit, "entries/s").latencies(&all));
        for (how, runs) in [("the next from the callback", chained), ("a thread waits for each", waited)] {
            let (rate, all) = entries(runs);
            let name = format!("log: appends of {batch}, {how}");
            bench.add(Row::new(name, rate, "entries/s").latencies(&all).limit(limit));
            let mut ratios: Vec<f64> = runs
                .iter()
                .zip(bare)
                .map(|(ours, bare)| ours.rate() / bare.rate().max(f64::MIN_POSITIVE))
                .collect();
            ratios.sort_by(f64::total_cmp);
            let name = format!("log / bare, batches of {batch}, {how}, median of {TURNS}");
            bench.add(Row::new(name, ratios[TURNS / 2], "ratio").at_least(0.9).limit(1.0));
        }
    }
    Ok(std::fs::remove_file(&path)?)
}

/// A file of zeroes that is written over in blocks, as the log writes its segments.
struct Bare {
    file: File,
    bytes: u64,
    noise: Bytes,
}

impl Bare {
    fn create(path: &Path, bytes: u64) -> anyhow::Result<Self> {
        let file = File::create(path)?;
        let zeroes = vec![0; 1 << 20];
        for at in 0..bytes.div_ceil(zeroes.len() as u64) {
            file.write_all_at(&zeroes, at * zeroes.len() as u64)?;
        }
        file.sync_all()?;
        Ok(Bare { file, bytes, noise: corpus::noise(1 << 20) })
    }

    fn measure(&self, payload: usize, duration: Duration) -> anyhow::Result<Measured> {
        let write = &self.noise[..payload.next_multiple_of(BLOCK)];
        let places = self.bytes / write.len() as u64;
        repeat(duration, |turn| {
            self.file.write_all_at(write, (turn % places) * write.len() as u64)?;
            Ok(self.file.sync_data()?)
        })
    }
}
