//! A run: clients and watchers at work, faults, healing, and what is checked then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use odgm_shard::object::CollectionName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::Options;
use crate::audit;
use crate::disk::Disk;
use crate::fault::Kind;
use crate::grid::{Grid, NODES};
use crate::nemesis::Nemesis;
use crate::record::Record;
use crate::report::{Events, Gaps, Report};
use crate::stage::Stage;
use crate::watcher::{self, Sight};
use crate::worker::{Surroundings, Worker};

const PARTITIONS: u32 = 4;
/// Watchers of each partition.
const WATCHERS: u64 = 2;
/// Until everything that clients wait for is answered, once all is healed.
const ENDING: Duration = Duration::from_secs(300);
/// Between the operations of a client, at most: under faults, and when availability is measured.
const UNDER_FAULTS: Duration = Duration::from_millis(40);
const QUIET: Duration = Duration::from_millis(20);
/// A beat of this program.
const BEAT: Duration = Duration::from_millis(100);
/// Later than this it stood still.
const STILL: Duration = Duration::from_secs(1);

/// Runs, reports; whether nothing was violated.
///
/// # Errors
/// When there is nothing to run, or no cluster comes up.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let workers = NODES + 3;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let good = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            good = torture(options) => good,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    good
}

#[expect(clippy::print_stdout, reason = "the results of a program")]
async fn torture(options: &Options) -> anyhow::Result<bool> {
    ensure!(options.clients > 0, "--clients: without a client nothing is tortured");
    std::fs::create_dir_all(&options.dir).with_context(|| options.dir.display().to_string())?;
    let dir = options.dir.canonicalize()?;
    ensure!(dir.read_dir()?.next().is_none(), "--dir: {} is not empty", dir.display());
    let beat = Arc::new(Beat::default());
    let beating = tokio::spawn(beat.clone().run());
    let collection = CollectionName::parse("default").context("the name of the collection")?;
    let mut kinds = options.faults.clone();
    if kinds.is_empty() {
        kinds = Kind::value_variants().to_vec();
    }
    let wants_disks = options.availability.is_none() && kinds.iter().any(|kind| kind.needs_disk());
    let (disks, denied) = if wants_disks { disks(&dir) } else { (Vec::new(), None) };
    if let Some(denied) = &denied {
        kinds.retain(|kind| !kind.needs_disk());
        ensure!(!kinds.is_empty(), "--faults: no disks of the nodes' own: {denied}");
    }
    let grid = Grid::start(&dir, &program(options)?, collection.clone(), &options.set, disks).await?;
    let around = Arc::new(Surroundings {
        stage: Stage::new(collection, PARTITIONS, options.clients),
        record: Record::create(&dir, PARTITIONS)?,
        stop: AtomicBool::new(false),
        gone: AtomicBool::new(false),
    });
    eprintln!("three nodes serve, in {}", dir.display());
    let began = Instant::now();
    let crowd = Crowd::start(options, &grid, &around);
    let mut nemesis = Nemesis::new(grid, around.clone(), options.seed, kinds);
    denied.into_iter().for_each(|denied| nemesis.note(format!("no disks of the nodes' own: {denied}")));
    match options.availability {
        Some(kills) => measure(&mut nemesis, kills).await,
        None => nemesis.run(Instant::now() + options.time.duration()).await,
    }
    eprintln!("everything is healed");
    nemesis.await_recovery(Kind::KillAll).await;
    let mut report = crowd.finish(&nemesis.grid, &around).await;
    nemesis.grid.stop().await;
    beating.abort();
    (report.seed, report.seconds) = (options.seed, began.elapsed().as_secs_f64());
    report.stood_still = *beat.stood_still.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    (report.faults, report.notes) = (nemesis.fired.clone(), nemesis.notes.clone());
    report.gaps = nemesis.gaps.iter().map(|(kind, gaps)| (*kind, Gaps::of(gaps))).collect();
    (report.violations, report.violated) = around.record.violations();
    std::fs::write(dir.join("report.json"), serde_json::to_string_pretty(&report)?)?;
    print!("{report}");
    Ok(report.violations == 0)
}

/// A disk for each node, or why there are none.
fn disks(dir: &Path) -> (Vec<Disk>, Option<String>) {
    match (0..NODES).map(|number| Disk::create(dir, number)).collect() {
        Ok(disks) => (disks, None),
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    }
}

fn program(options: &Options) -> anyhow::Result<PathBuf> {
    let program = match &options.odgm {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("odgm"),
    };
    if !program.is_file() {
        bail!("--odgm: there is no program {}", program.display());
    }
    Ok(program.canonicalize()?)
}

/// Kills, transfers and rolling restarts, each on a cluster that is well.
async fn measure(nemesis: &mut Nemesis, kills: u64) {
    for (kind, count) in [
        (Kind::KillLeader, kills),
        (Kind::Transfer, kills.div_ceil(5)),
        (Kind::RollingRestart, kills.div_ceil(20)),
    ] {
        for number in 1..=count {
            nemesis.await_recovery(kind).await;
            nemesis.pass(2_000..4_000).await;
            eprintln!("{} {number} of {count}", kind.name());
            nemesis.strike(kind).await;
        }
    }
}

/// Who works and watches.
struct Crowd {
    workers: JoinSet<()>,
    closing: JoinHandle<()>,
    watchers: JoinSet<()>,
    sights: Vec<(u32, Arc<Sight>)>,
    end: watch::Sender<bool>,
}

impl Crowd {
    fn start(options: &Options, grid: &Grid, around: &Arc<Surroundings>) -> Self {
        let (mut workers, mut watchers, mut sights) = (JoinSet::new(), JoinSet::new(), Vec::new());
        let pause = if options.availability.is_some() { QUIET } else { UNDER_FAULTS };
        for number in 0..options.clients {
            let worker = Worker::new(number, grid.door(number), around.clone(), options.seed, pause);
            workers.spawn(worker.run());
        }
        let end = watch::Sender::new(false);
        for number in 0..WATCHERS * u64::from(PARTITIONS) {
            let partition = u32::try_from(number / WATCHERS).unwrap_or(u32::MAX);
            let (sight, node) = (Arc::new(Sight::default()), (number % NODES as u64) as usize);
            let drawn = (partition, options.seed.wrapping_add(1 + number));
            let (around, seen) = (around.clone(), sight.clone());
            watchers.spawn(watcher::run(drawn, grid.door(node), around, seen, end.subscribe()));
            sights.push((partition, sight));
        }
        let closing = tokio::spawn(audit::close_acts(around.clone(), grid.door(0)));
        Crowd { workers, closing, watchers, sights, end }
    }

    /// Lets everybody come to an end, and checks what there is.
    async fn finish(mut self, grid: &Grid, around: &Surroundings) -> Report {
        let record = &around.record;
        around.stop.store(true, Ordering::SeqCst);
        let ending = async {
            while let Some(worker) = self.workers.join_next().await {
                if let Err(error) = worker {
                    record.violated(format!("a client failed: {error}"));
                }
            }
            around.gone.store(true, Ordering::SeqCst);
            (&mut self.closing).await
        };
        match tokio::time::timeout(ENDING, ending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => record.violated(format!("the check of the histories failed: {error}")),
            Err(_) => record.violated(format!("clients are not answered {ENDING:?} after the end")),
        }
        let mut report = Report::default();
        match audit::read_all(around, &mut grid.door(0), ENDING).await {
            Ok((revisions, objects)) => (report.revisions, report.objects) = (revisions, objects),
            Err(error) => record.violated(format!("what there is can't be read: {error:#}")),
        }
        self.compare(around, &mut report).await;
        self.end.send_replace(true);
        while self.watchers.join_next().await.is_some() {}
        report.checked = record.checked();
        for ((kind, outcome), count) in record.outcomes() {
            report.operations.entry(kind.to_owned()).or_insert_with(BTreeMap::new).insert(outcome, count);
        }
        if let Err(error) = record.flush() {
            record.violated(format!("the history can't be written: {error}"));
        }
        report
    }

    async fn compare(&self, around: &Surroundings, report: &mut Report) {
        let record = &around.record;
        report.revisions.resize(PARTITIONS as usize, 0);
        // What is short of the revision is told by the comparison.
        audit::await_sights(&self.sights, &report.revisions, ENDING).await;
        let (acknowledged, possible) = record.changes();
        report.events = Events { watchers: self.sights.len(), ..Events::default() };
        for (partition, sight) in &self.sights {
            let at = *partition as usize;
            let wrong = audit::compare(&acknowledged[at], &possible, &sight.told(), report.revisions[at]);
            for wrong in wrong {
                record.violated(format!("a watcher of partition {partition}: {wrong}"));
            }
            let counted = sight.counted();
            report.events.live += counted.live;
            report.events.replayed += counted.replayed;
            report.events.resumed += counted.resumed;
        }
    }
}

/// Whether this program itself gets on.
#[derive(Debug, Default)]
struct Beat {
    /// How often it did not, and for how long at most, in milliseconds.
    stood_still: std::sync::Mutex<(u64, u64)>,
}

impl Beat {
    async fn run(self: Arc<Self>) {
        loop {
            let at = Instant::now();
            tokio::time::sleep(BEAT).await;
            if at.elapsed() > STILL {
                let millis = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                let mut still = self.stood_still.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *still = (still.0 + 1, still.1.max(millis));
            }
        }
    }
}
