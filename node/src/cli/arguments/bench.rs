//! `odgm bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::period;

/// Arguments of what is not there yet: taken, so that the answer is "not supported" and not "usage".
#[derive(Debug, Args)]
pub struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// `odgm bench`.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Puts and linearizable gets, beside the disk's fdatasync and a bare zenoh query.
    Kv(BenchKv),
    /// Events: subscribers through a change of leader, catching up, and what the history costs.
    Events(BenchEvents),
    /// The storage layers, beside the disk's fdatasync, sequential write and read.
    Storage(BenchStorage),
    /// Snapshots.
    Snapshot(Later),
    /// Answers queries: the other side of the bare echo.
    #[command(hide = true)]
    EchoServer {
        /// Where to listen.
        #[arg(long)]
        listen: String,
        /// The other servers.
        #[arg(long, value_delimiter = ',')]
        peers: Vec<String>,
        /// The key it answers on.
        #[arg(long)]
        key: String,
    },
}

/// `odgm bench kv`.
#[derive(Debug, Clone, Args)]
pub struct BenchKv {
    /// How many clients, one row each.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    pub clients: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    pub size: usize,
    /// How long each measurement runs.
    #[arg(long, default_value = "3s", value_parser = period)]
    pub duration: Duration,
    /// How often the measurements are repeated, in turn.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Objects that are written and read.
    #[arg(long, default_value_t = 10_000)]
    pub objects: usize,
    /// zenoh sessions that the clients share.
    #[arg(long, default_value_t = 8)]
    pub sessions: usize,
    /// Partitions of the collection that is made: each is a Raft group of its own. One is what etcd has; more are for
    /// more cores, since fewer commands then share a log entry.
    #[arg(long, default_value_t = 1)]
    pub partitions: u32,
    /// Rates of the open loop as parts of the closed loop's, in percent; 0 leaves it out.
    #[arg(long, value_delimiter = ',', default_value = "50")]
    pub open: Vec<u32>,
    /// Measure these nodes instead of three own ones.
    #[arg(long, value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// The collection to use with --nodes.
    #[arg(long, default_value = "default")]
    pub collection: String,
    /// Where the own nodes keep their data for the time being.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A part of `odgm bench events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EventsPart {
    /// Puts into a collection with history beside puts into one without.
    History,
    /// A watcher that is behind catches up.
    Behind,
    /// Every subscriber gets every change, once and in order, while the leader changes.
    Fanout,
}

/// `odgm bench events`.
#[derive(Debug, Clone, Args)]
pub struct BenchEvents {
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "history,behind,fanout")]
    pub parts: Vec<EventsPart>,
    /// Client sessions that subscribe.
    #[arg(long, default_value_t = 4)]
    pub sessions: usize,
    /// Subscribers of each session.
    #[arg(long, default_value_t = 5)]
    pub subscribers: usize,
    /// Changes that all of them must see.
    #[arg(long, default_value_t = 20_000)]
    pub changes: u64,
    /// Kill the leader in the middle instead of moving its leadership.
    #[arg(long)]
    pub kill: bool,
    /// How many changes the watcher that catches up is behind.
    #[arg(long, default_value_t = 100_000)]
    pub behind: u64,
    /// Clients that put meanwhile.
    #[arg(long, default_value_t = 64)]
    pub clients: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    pub size: usize,
    /// How long puts are measured alone.
    #[arg(long, default_value = "3s", value_parser = period)]
    pub duration: Duration,
    /// How often catching up and the cost of the history are measured, in turn with what they are compared to.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Where the nodes keep their data for the time being.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `odgm bench storage`.
#[derive(Debug, Clone, Args)]
pub struct BenchStorage {
    /// Where the measured files are kept for the time being: the disk that is measured.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// A few seconds and megabytes instead of minutes and gigabytes: shows that it runs, and roughly how.
    #[arg(long)]
    pub quick: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
