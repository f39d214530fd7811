//! `odgm bench kv`: puts and linearizable gets, beside what they are made of. `odgm bench storage`, which
//! needs no node, is in [`storage`], `odgm bench events` in [`events`].
//!
//! In the same run and in turn: the disk's fdatasync, a bare zenoh query that comes back from as many
//! processes over as many sessions, puts, gets. Three nodes of its own, unless told which to measure.

mod cluster;
mod disk;
pub(crate) mod echo;
pub(crate) mod events;
mod load;
mod report;
pub(crate) mod storage;
mod target;

use std::time::Duration;

use crate::cli::{BenchKv, Common};
use crate::output::{self, Failure, Format};
use disk::SyncedFile;
use load::{Load, Measured};
use report::Report;
use target::{Shape, Target};

/// One of the nodes or echo servers that are started.
const NODES: usize = 3;
/// How long the disk is measured in each round.
const DISK: Duration = Duration::from_secs(1);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A query that comes back with its payload.
    Echo,
    /// An acknowledged put.
    Put,
    /// A linearizable get.
    Get,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Echo => "echo",
            Operation::Put => "put",
            Operation::Get => "get",
        }
    }
}

/// Runs the benchmark and prints it.
pub(crate) async fn kv(common: &Common, options: BenchKv) -> Result<(), Failure> {
    if options.clients.iter().any(|clients| !(1..=10_000).contains(clients)) || options.clients.is_empty() {
        return Err(Failure::Usage("--clients: allowed are 1 to 10000".into()));
    }
    if options.objects == 0 || options.sessions == 0 || options.rounds == 0 || options.duration.is_zero() {
        return Err(Failure::Usage("--objects, --sessions, --rounds and --duration must not be 0".into()));
    }
    let dir = own_dir(&options.dir)?;
    let echo_servers = cluster::Cluster::echo(NODES, dir.path()).await?;
    let nodes = match options.nodes.as_slice() {
        [] => {
            let bench = format!("{{name: bench, partitions: {}, replicas: {NODES}}}", options.partitions);
            Some(cluster::Cluster::nodes(NODES, dir.path(), &bench)?)
        }
        _ => None,
    };
    let (endpoints, collection) = match &nodes {
        Some(nodes) => (nodes.endpoints(), "bench"),
        None => (options.nodes.clone(), options.collection.as_str()),
    };
    let shape = Shape {
        sessions: options.sessions.min(options.clients.iter().copied().max().unwrap_or(1)),
        objects: options.objects,
        size: options.size,
    };
    let target = Target::connect(common, shape, &endpoints, &echo_servers.endpoints(), collection).await?;
    let measured = async {
        if let Some(nodes) = &nodes {
            target.await_served(nodes).await?;
        }
        target.fill(64).await?;
        measure(&target, &options, dir.path()).await
    };
    let report = measured.await;
    target.close().await;
    let report = report?;
    show(&report, options.json || common.output == Format::Json)
}

/// A directory of this run alone, removed at its end.
fn own_dir(dir: &std::path::Path) -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("odgm-bench-")
        .tempdir_in(dir)
        .map_err(|error| Failure::Refused(format!("{}: {error}", dir.display())))
}

fn show(report: &Report, json: bool) -> Result<(), Failure> {
    if json { Ok(output::line(report.to_json().to_string())?) } else { report.print() }
}

async fn measure(target: &Target, options: &BenchKv, dir: &std::path::Path) -> Result<Report, Failure> {
    let mut report = Report::new();
    let operations = [Operation::Echo, Operation::Put, Operation::Get];
    let mut closed: Vec<Vec<Measured>> =
        vec![vec![Measured::default(); operations.len()]; options.clients.len()];
    let mut disk = Measured::default();
    let rounds = options.rounds + options.open.iter().filter(|percent| **percent > 0).count();
    let progress = Progress::new(options.clients.len() * 3 * rounds);
    for _ in 0..options.rounds {
        disk.add(&sync_disk(dir).await?);
        for (row, clients) in options.clients.iter().enumerate() {
            for (column, operation) in operations.iter().enumerate() {
                progress.step(format!("{} {clients} clients, closed loop", operation.name()));
                let load =
                    Load { operation: *operation, clients: *clients, rate: None, duration: options.duration };
                closed[row][column].add(&load.run(target).await);
            }
        }
    }
    report.disk(&disk);
    for (clients, measured) in options.clients.iter().zip(&closed) {
        for (operation, measured) in operations.iter().zip(measured) {
            report.closed(*operation, *clients, measured);
        }
    }
    for (clients, measured) in options.clients.iter().zip(&closed) {
        for percent in options.open.iter().filter(|percent| **percent > 0) {
            for (operation, measured) in operations.iter().zip(measured) {
                progress.step(format!("{} {clients} clients, open loop", operation.name()));
                let rate = Some((measured.rate() * f64::from(*percent) / 100.0).max(1.0));
                let load =
                    Load { operation: *operation, clients: *clients, rate, duration: options.duration };
                report.open(*operation, *clients, *percent, &load.run(target).await);
            }
        }
    }
    for (clients, measured) in options.clients.iter().zip(&closed) {
        let [echo, put, get] = measured.as_slice() else { continue };
        report.compare(*clients, echo, put, get, &disk);
    }
    progress.finish();
    Ok(report)
}

async fn sync_disk(dir: &std::path::Path) -> Result<Measured, Failure> {
    let path = dir.join("fdatasync");
    let measured = tokio::task::spawn_blocking(move || SyncedFile::create(&path)?.measure(DISK)).await;
    measured
        .map_err(|error| Failure::Refused(error.to_string()))?
        .map_err(|error| Failure::Refused(format!("fdatasync: {error}")))
}

/// A bar on a terminal, nothing elsewhere.
struct Progress(indicatif::ProgressBar);

impl Progress {
    fn new(steps: usize) -> Self {
        let bar = indicatif::ProgressBar::new(steps as u64);
        if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}") {
            bar.set_style(style);
        }
        Progress(bar)
    }

    fn step(&self, message: impl Into<std::borrow::Cow<'static, str>>) {
        self.0.inc(1);
        self.0.set_message(message);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}
