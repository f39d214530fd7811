//! `odgm-torture`: three real nodes under load and under faults, and every answer checked.
//!
//! A tool of the developers, no part of `odgm`: see `docs/torture.md`.

mod audit;
mod damage;
mod disk;
mod door;
mod fault;
mod grid;
mod nemesis;
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests, which do more with nodes")]
mod processes;
mod proxy;
mod record;
mod report;
mod run;
mod stage;
mod watcher;
mod worker;

use std::collections::BTreeMap;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use odgm_node::config::Period;
use odgm_shard::sim::history::{self, Operation};
use odgm_shard::sim::linearize::{Verdict, check};

use crate::fault::Kind;

/// Tortures three real nodes, and checks every answer.
#[derive(Debug, Parser)]
#[command(name = "odgm-torture", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks histories again that a run wrote.
    Check {
        /// Files of JSON lines.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// A run.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// The program under torture. Default: `odgm` beside this one.
    #[arg(long)]
    odgm: Option<PathBuf>,
    /// For how long faults strike.
    #[arg(long = "for", default_value = "60s")]
    time: Period,
    /// What the faults and the clients are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where data, logs, the history and the report go; must be new or empty.
    #[arg(long)]
    dir: PathBuf,
    /// How many clients.
    #[arg(long, default_value_t = 9)]
    clients: usize,
    /// Only these faults. Default: all that this machine allows.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Instead of torture, measure so many kills of the leader, a fifth as many transfers and a twentieth as many
    /// rolling restarts, each on a cluster that is well.
    #[arg(long)]
    availability: Option<u64>,
    /// Further settings of the nodes, as `odgm start` takes them.
    #[arg(long)]
    set: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Check { files }) => check_files(&files),
        None => run::run(&arguments.run),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("odgm-torture: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every object of the histories has an order that explains it.
#[expect(clippy::print_stdout, reason = "the results of a program")]
fn check_files(files: &[PathBuf]) -> anyhow::Result<bool> {
    let mut good = true;
    for file in files {
        let opened = std::fs::File::open(file).with_context(|| file.display().to_string())?;
        let history =
            history::read(&mut BufReader::new(opened)).with_context(|| file.display().to_string())?;
        let operations = history.len();
        let mut objects: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
        for operation in history {
            objects.entry(operation.object.clone()).or_default().push(operation);
        }
        let mut wrong = 0;
        for (object, operations) in &objects {
            let verdict = check(operations);
            if verdict != Verdict::Linearizable {
                println!("{}: {object}: {} operations: {verdict:?}", file.display(), operations.len());
                wrong += 1;
            }
        }
        println!("{}: {} objects, {operations} operations, {wrong} wrong", file.display(), objects.len());
        good &= wrong == 0;
    }
    Ok(good)
}
