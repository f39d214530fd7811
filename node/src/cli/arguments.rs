//! The arguments of the program, as clap reads them.

mod administration;
mod bench;
mod keys;
mod objects;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use odgm_shard::object::CollectionName;
use odgm_storage::composite::LogBackend;

use crate::config::{Period, Setting};
use crate::output::Format;
use crate::telemetry::LogFormat;

pub(super) use administration::{Cluster, Collection, Node, Shard, Snapshot};
pub(super) use bench::Bench;
pub use bench::{BenchEvents, BenchKv, BenchStorage, EventsPart};
use keys::collection;
pub(super) use keys::{KeyArgument, PatternArgument, ShardArgument};
pub(super) use objects::{Consistency, Delete, Get, Increment, List, Put, Touch, Txn, Watch};

/// A Zenoh-native object data grid: run a node, or talk to one.
#[derive(Debug, Parser)]
#[command(name = "odgm", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// How to reach the grid and how to print.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or not found, 2 usage, 3 unreachable or timed out, \
                          74 the storage of a running node failed.";

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Endpoint of a node; several, separated by commas, are tried in order.
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        default_value = "tcp/127.0.0.1:7447",
        value_name = "ENDPOINT"
    )]
    pub connect: Vec<String>,
    /// What the keys of the grid begin with.
    #[arg(long, global = true, default_value = "odgm")]
    pub root: String,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// When to give up.
    #[arg(long, global = true, default_value = "10s", value_parser = period, value_name = "DURATION")]
    pub timeout: Duration,
}

fn period(text: &str) -> Result<Duration, String> {
    text.parse().map(Period::duration).map_err(|forms: &str| format!("allowed is {forms}"))
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node. Without a configuration: one node, data in ./odgm-data, collection "default".
    Start(Start),
    /// Print the value of a key.
    Get(Get),
    /// Set a value.
    Put(Put),
    /// Delete an object with its entries, or one entry.
    Delete(Delete),
    /// Add to a decimal integer, absent counting as 0, and print the new value.
    Increment(Increment),
    /// Set a new time to live.
    Touch(Touch),
    /// List objects: a collection, an object (its value and entries), or a pattern such as 'users/a$*'.
    List(List),
    /// Print committed changes as they come.
    Watch(Watch),
    /// Run a transaction over objects of one partition.
    Txn(Txn),
    /// Print how a collection is split and who serves it.
    Meta {
        /// The collection.
        #[arg(value_parser = collection)]
        collection: CollectionName,
    },
    /// Collections: create, update, list, describe, delete.
    #[command(subcommand)]
    Collection(Collection),
    /// The cluster.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Nodes: list, drain, undrain, remove, replace.
    #[command(subcommand)]
    Node(Node),
    /// Shards: status, transfer, snapshot, compact.
    #[command(subcommand)]
    Shard(Shard),
    /// Snapshots: list, export, import, verify.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Measure.
    #[command(subcommand)]
    Bench(Bench),
    /// The configuration of a node.
    #[command(subcommand)]
    Config(Config),
    /// Look at the data of a node that does not run: what is damaged, and what helps. Changes nothing unless told.
    Doctor(Doctor),
}

/// `odgm doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The node's data directory.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Do what can be done: cut a torn tail, remove what a crash left, set aside under DIR/damaged what is damaged.
    #[arg(long, conflicts_with = "migrate")]
    pub repair: bool,
    /// Move a layer to another backend: log=append_log or log=fjall.
    #[arg(long, value_name = "LAYER=BACKEND")]
    pub migrate: Option<LayerMove>,
    /// Where copies of journals are kept for the time being; by default the system's directory for such.
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// A layer and the backend that it is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerMove {
    /// The log.
    Log(LogBackend),
}

impl std::str::FromStr for LayerMove {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "log=append_log" => Ok(LayerMove::Log(LogBackend::AppendLog)),
            "log=fjall" => Ok(LayerMove::Log(LogBackend::Fjall)),
            _ => Err("what can be moved is the log, to log=append_log or log=fjall; for other layers start \
                      the node empty and use `odgm node replace`"
                .into()),
        }
    }
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Args)]
pub struct Layers {
    /// YAML file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One key, over everything else.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<Setting>,
}

/// `odgm start`.
#[derive(Debug, Args)]
pub struct Start {
    /// The configuration.
    #[command(flatten)]
    pub layers: Layers,
    /// How logs are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// `odgm config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print the effective configuration as YAML.
    Show(Layers),
    /// Check a configuration.
    Check(Layers),
}
