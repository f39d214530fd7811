//! `odgm-sim`: runs simulated clusters from seeds, and says what did not hold.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use odgm_shard::cluster::Replication;
use odgm_shard::planted::Bug;
use odgm_shard::sim::history::{self, Operation};
use odgm_shard::sim::linearize::{Verdict, check};
use odgm_shard::sim::{Plan, Report, Totals, run};

/// Runs simulated clusters from seeds.
#[derive(Debug, Parser)]
#[command(name = "odgm-sim")]
struct Arguments {
    /// Run this seed only, and print its trace when something does not hold.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Threads; each runs clusters of its own.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// The kind of the shards: raft, mst, eventual or none.
    #[arg(long, default_value = "raft", value_parser = kind)]
    kind: Replication,
    /// Plant a bug, by its name, and stop at the first seed that finds it.
    #[arg(long)]
    bug: Option<String>,
    /// Print the trace of a seed that holds, too.
    #[arg(long)]
    trace: bool,
    /// Check histories of clients in files of JSON lines, and run nothing.
    #[arg(long, num_args = 1..)]
    check: Vec<PathBuf>,
}

fn kind(text: &str) -> Result<Replication, String> {
    serde_json::from_value(text.into()).map_err(|_| "allowed are raft, mst, eventual, none".to_owned())
}

fn plan(kind: Replication, seed: u64, bug: Option<Bug>) -> Plan {
    Plan { bug, ..Plan::of_kind(kind, seed) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.check.is_empty() {
        return check_files(&arguments.check);
    }
    let bug = match arguments.bug.as_deref().map(|name| (name, Bug::parse(name))) {
        None => None,
        Some((_, Some(bug))) => Some(bug),
        Some((name, None)) => {
            let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
            eprintln!("odgm-sim: no bug {name:?}; there are {}", names.join(", "));
            return ExitCode::from(2);
        }
    };
    match arguments.seed {
        Some(seed) => one(&plan(arguments.kind, seed, bug), arguments.trace),
        None => many(&arguments, bug),
    }
}

#[expect(clippy::print_stdout, reason = "the results of a program")]
fn check_files(files: &[PathBuf]) -> ExitCode {
    let mut worst = ExitCode::SUCCESS;
    for file in files {
        let opened = std::fs::File::open(file).map(BufReader::new);
        let history = match opened.and_then(|mut reader| history::read(&mut reader)) {
            Ok(history) => history,
            Err(error) => {
                eprintln!("odgm-sim: {}: {error}", file.display());
                return ExitCode::from(2);
            }
        };
        let mut objects: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
        for operation in &history {
            objects.entry(&operation.object).or_default().push(operation.clone());
        }
        for (object, operations) in objects {
            let verdict = check(&operations);
            println!("{}: {object}: {} operations: {verdict:?}", file.display(), operations.len());
            if verdict != Verdict::Linearizable {
                worst = ExitCode::from(1);
            }
        }
    }
    worst
}

#[expect(clippy::print_stdout, reason = "the results of a program")]
fn one(plan: &Plan, trace: bool) -> ExitCode {
    let (seed, report) = (plan.seed, run(plan, true));
    if trace || report.violation.is_some() {
        report.trace.iter().for_each(|line| println!("{line}"));
    }
    let Report { virtual_time, trace_hash, steps, commits, .. } = &report;
    println!("seed {seed}: {virtual_time:?}, {steps} steps, {commits} changes, trace {trace_hash:016x}");
    match &report.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("VIOLATED {violation}");
            ExitCode::from(1)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the results of a program")]
fn many(arguments: &Arguments, bug: Option<Bug>) -> ExitCode {
    let (next, found) = (AtomicU64::new(arguments.first), AtomicU64::new(0));
    let totals = Mutex::new(Totals::default());
    let last = arguments.first.saturating_add(arguments.seeds);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last || (bug.is_some() && found.load(Ordering::Relaxed) > 0) {
                        return;
                    }
                    let report = run(&plan(arguments.kind, seed, bug), false);
                    if let Some(violation) = &report.violation {
                        found.fetch_add(1, Ordering::Relaxed);
                        let planted = bug.map(|bug| format!(" --bug {}", bug.name())).unwrap_or_default();
                        let kind = format!("{:?}", arguments.kind).to_lowercase();
                        println!(
                            "seed {seed}: {violation}\n  again: odgm-sim --kind {kind} --seed {seed}{planted}"
                        );
                    }
                    totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner).add(&report);
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    print!("{totals}");
    let silent = totals.silent_kinds();
    if bug.is_none() && arguments.kind == Replication::Raft && totals.seeds >= 200 && !silent.is_empty() {
        println!("never struck: {silent:?}");
        return ExitCode::from(1);
    }
    // With a bug the run is good when it was found.
    let good = totals.failures.is_empty() == bug.is_none();
    if good { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
