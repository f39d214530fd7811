//! `odgm bench storage`: every figure that is asked of the storage layers, beside its target and beside
//! what the machine allows in the same run.
//!
//! The layers are used as they are, without a node. Throughputs are 10^6 bytes of content a second. A row
//! that says "from disk" is read after the operating system was told to forget the files. Where a latency
//! has a target, it is the 99th percentile that must meet it.

mod corpus;
mod counted;
mod data;
mod limits;
mod log;
mod overhead;
mod snapshot;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use odgm_storage::disk::{Disk, RealDisk};

use self::limits::Limits;
use super::load::Measured;
use super::report::{Report, Row};
use super::{Progress, own_dir, show};
use crate::cli::{BenchStorage, Common};
use crate::output::{Failure, Format};

/// How much is measured.
struct Scale {
    /// How long a timed measurement runs.
    round: Duration,
    /// How long each of the runs is that are compared in turn.
    turn: Duration,
    /// Bytes that the disk writes and reads in sequence.
    sequential_bytes: u64,
    /// Bytes of a segment of the log.
    segment_bytes: u64,
    /// Bytes of entries that a follower catches up on.
    catch_up_bytes: u64,
    /// Bytes of a snapshot's content.
    snapshot_bytes: u64,
    /// The same for the codec that is asked for a gigabyte.
    long_snapshot_bytes: u64,
    /// Rows of a kibibyte in the data layer.
    rows: u64,
    /// Reads of one row or entry.
    reads: u64,
    /// The same when each waits for the disk.
    cold_reads: u64,
    /// Free bytes that it takes, with room for what compactions hold twice.
    needed_bytes: u64,
}

const FULL: Scale = Scale {
    round: Duration::from_secs(3),
    turn: Duration::from_millis(400),
    sequential_bytes: 1 << 30,
    segment_bytes: 64 << 20,
    catch_up_bytes: 256 << 20,
    snapshot_bytes: 256 << 20,
    long_snapshot_bytes: 1 << 30,
    rows: 1 << 20,
    reads: 200_000,
    cold_reads: 2_000,
    needed_bytes: 8 << 30,
};

const QUICK: Scale = Scale {
    round: Duration::from_millis(50),
    turn: Duration::from_millis(10),
    sequential_bytes: 4 << 20,
    segment_bytes: 1 << 20,
    catch_up_bytes: 2 << 20,
    snapshot_bytes: 1 << 20,
    long_snapshot_bytes: 2 << 20,
    rows: 1 << 10,
    reads: 500,
    cold_reads: 50,
    needed_bytes: 256 << 20,
};

/// What every part of it needs.
struct Bench {
    dir: PathBuf,
    scale: &'static Scale,
    limits: Limits,
    report: Report,
    progress: Progress,
}

/// How often a part says what it does now.
const STEPS: usize = 28;

/// Runs the benchmark and prints it.
pub(crate) async fn run(common: &Common, options: BenchStorage) -> Result<(), Failure> {
    let json = options.json || common.output == Format::Json;
    let dir = own_dir(&options.dir)?;
    let scale = if options.quick { &QUICK } else { &FULL };
    let place = dir.path().to_owned();
    let measured = tokio::task::spawn_blocking(move || measure(place, scale)).await;
    let report = measured
        .map_err(|error| Failure::Refused(error.to_string()))?
        .map_err(|error| Failure::Refused(format!("{error:#}")))?;
    show(&report, json)
}

fn measure(dir: PathBuf, scale: &'static Scale) -> anyhow::Result<Report> {
    let free = RealDisk.free_bytes(&dir)?;
    let needed = scale.needed_bytes;
    anyhow::ensure!(free >= needed, "{}: {free} bytes are free, {needed} are needed", dir.display());
    let progress = Progress::new(STEPS);
    progress.step("disk");
    let limits = Limits::measure(&dir, scale)?;
    let mut bench = Bench { dir, scale, limits, report: Report::new(), progress };
    bench.limits.report(&mut bench.report);
    log::measure(&mut bench)?;
    overhead::measure(&mut bench)?;
    snapshot::measure(&mut bench)?;
    data::measure(&mut bench)?;
    bench.progress.finish();
    Ok(bench.report)
}

impl Bench {
    fn add(&mut self, row: Row) {
        self.report.push(row);
    }

    /// A directory of one part, not made yet.
    fn place(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Calls again and again, for so long.
fn repeat(duration: Duration, mut call: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<Measured> {
    let start = Instant::now();
    measured_while(|_| start.elapsed() < duration, &mut call)
}

/// Calls so often.
fn times(count: u64, mut call: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<Measured> {
    measured_while(|turn| turn < count, &mut call)
}

fn measured_while(
    go_on: impl Fn(u64) -> bool,
    call: &mut dyn FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    let mut measured = Measured::default();
    let start = Instant::now();
    let mut turn = 0;
    while go_on(turn) {
        let begun = Instant::now();
        call(turn)?;
        measured.record(begun.elapsed());
        turn += 1;
    }
    measured.took(start.elapsed());
    Ok(measured)
}

/// 10^6 bytes a second.
fn megabytes_per_second(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 / 1e6 / elapsed.as_secs_f64().max(1e-9)
}

/// A latency that must be met by all but one in a hundred.
fn latency(name: impl Into<String>, measured: &Measured) -> Row {
    Row::new(name, measured.quantile_ms(0.99), "ms").latencies(measured)
}
