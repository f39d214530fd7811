//! The arguments of the program, as clap reads them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use odgm_shard::object::{CollectionName, EntryName, ObjectId, ObjectKey};
use odgm_storage::composite::LogBackend;

use crate::config::{Period, Setting};
use crate::output::Format;
use crate::telemetry::LogFormat;

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

/// A key of the command line: `collection/object[/entry]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyArgument {
    /// The collection.
    pub collection: CollectionName,
    /// The key in it.
    pub key: ObjectKey,
}

impl std::str::FromStr for KeyArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut chunks = text.split('/');
        let (Some(collection), Some(object)) = (chunks.next(), chunks.next()) else {
            return Err("a key is collection/object or collection/object/entry".into());
        };
        let entry = chunks.next();
        if chunks.next().is_some() {
            return Err("a key has at most three parts: collection/object/entry".into());
        }
        let refused = |error: odgm_shard::object::id::NameError| error.to_string();
        Ok(KeyArgument {
            collection: CollectionName::parse(collection).map_err(refused)?,
            key: ObjectKey {
                object: ObjectId::parse(object).map_err(refused)?,
                entry: entry.map(EntryName::parse).transpose().map_err(refused)?,
            },
        })
    }
}

impl std::fmt::Display for KeyArgument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.collection, self.key.object)?;
        self.key.entry.as_ref().map_or(Ok(()), |entry| write!(f, "/{entry}"))
    }
}

/// What of a collection is listed or watched: `collection[/object[/entry]]`, wildcards allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternArgument {
    /// The collection.
    pub collection: CollectionName,
    /// The object and entry chunks as zenoh takes them; `None` is the whole collection.
    pub pattern: Option<String>,
}

impl std::str::FromStr for PatternArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pattern) = match text.split_once('/') {
            Some((name, pattern)) => (name, Some(pattern)),
            None => (text, None),
        };
        let collection = CollectionName::parse(name).map_err(|error| error.to_string())?;
        if let Some(pattern) = pattern
            && pattern.split('/').any(|chunk| chunk.is_empty() || chunk.starts_with('@'))
        {
            return Err("a pattern has no empty parts and none that begin with @".into());
        }
        Ok(PatternArgument { collection, pattern: pattern.map(str::to_owned) })
    }
}

impl PatternArgument {
    /// No wildcards.
    pub fn key(&self) -> Option<KeyArgument> {
        format!("{}/{}", self.collection, self.pattern.as_ref()?).parse().ok()
    }
}

fn collection(text: &str) -> Result<CollectionName, String> {
    CollectionName::parse(text).map_err(|error| error.to_string())
}

/// How fresh a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Consistency {
    /// Sees every write that was acknowledged before it.
    Linearizable,
    /// What the serving replica has applied.
    Local,
}

/// `odgm get`.
#[derive(Debug, Args)]
pub struct Get {
    /// collection/object[/entry]
    #[arg(required = true)]
    pub keys: Vec<KeyArgument>,
    /// How fresh; by default the strongest that the collection offers.
    #[arg(long, value_enum)]
    pub cons: Option<Consistency>,
    /// The bytes alone, without a line end.
    #[arg(long)]
    pub raw: bool,
}

/// `odgm put`.
#[derive(Debug, Args)]
pub struct Put {
    /// collection/object[/entry]
    pub key: KeyArgument,
    /// The value; - reads stdin.
    #[arg(required_unless_present = "file", conflicts_with = "file", allow_negative_numbers = true)]
    pub value: Option<String>,
    /// The file that holds the value.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// The value's zenoh encoding, such as application/json.
    #[arg(long, default_value = "")]
    pub encoding: String,
    /// When the value ends, such as 30s.
    #[arg(long)]
    pub ttl: Option<String>,
    /// Only when the object has this revision.
    #[arg(long, group = "condition")]
    pub if_revision: Option<u64>,
    /// Only when the key has no value.
    #[arg(long, group = "condition")]
    pub if_absent: bool,
    /// Only when the key has a value.
    #[arg(long, group = "condition")]
    pub if_present: bool,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

/// `odgm delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// collection/object[/entry], or a pattern of objects with --yes
    #[arg(required = true)]
    pub keys: Vec<PatternArgument>,
    /// Delete everything that a pattern matches.
    #[arg(long)]
    pub yes: bool,
    /// Only when the object has this revision.
    #[arg(long)]
    pub if_revision: Option<u64>,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

/// `odgm increment`.
#[derive(Debug, Args)]
pub struct Increment {
    /// collection/object[/entry]
    pub key: KeyArgument,
    /// What to add.
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    pub by: i64,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

/// `odgm touch`.
#[derive(Debug, Args)]
pub struct Touch {
    /// collection/object[/entry]
    pub key: KeyArgument,
    /// The new time to live, or none.
    #[arg(long)]
    pub ttl: String,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

/// `odgm list`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("bounds").multiple(true)))]
pub struct List {
    /// collection[/object[/entry]], wildcards allowed
    pub pattern: PatternArgument,
    /// Stop after so many.
    #[arg(long)]
    pub limit: Option<usize>,
    /// Print the values too.
    #[arg(long)]
    pub values: bool,
    /// Print only how many there are.
    #[arg(long, conflicts_with_all = ["values", "limit"])]
    pub count: bool,
    /// Only the objects that this index finds, in its order in each partition.
    #[arg(long, requires = "bounds")]
    pub index: Option<String>,
    /// With this value: a JSON scalar, or text as it is.
    #[arg(long, groups = ["bounds"], requires = "index", conflicts_with_all = ["ge", "lt"], allow_hyphen_values = true)]
    pub eq: Option<String>,
    /// With this value or a higher one.
    #[arg(long, groups = ["bounds"], requires = "index", allow_hyphen_values = true)]
    pub ge: Option<String>,
    /// With a lower value.
    #[arg(long, groups = ["bounds"], requires = "index", allow_hyphen_values = true)]
    pub lt: Option<String>,
    /// How fresh; by default the strongest that the collection offers.
    #[arg(long, value_enum)]
    pub cons: Option<Consistency>,
}

/// `odgm watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// collection[/object[/entry]], wildcards allowed
    pub pattern: PatternArgument,
    /// Replay from this revision first.
    #[arg(long, value_name = "REV")]
    pub from: Option<u64>,
    /// End after so many changes.
    #[arg(long)]
    pub count: Option<u64>,
}

/// `odgm txn`.
#[derive(Debug, Args)]
pub struct Txn {
    /// The collection.
    #[arg(value_parser = collection)]
    pub collection: CollectionName,
    /// JSON: {"if": […], "then": […], "else": […]}; - reads stdin.
    #[arg(long)]
    pub file: PathBuf,
    /// The request id; a repeat with the same one gets the first answer.
    #[arg(long)]
    pub rid: Option<String>,
}

/// `odgm collection`.
#[derive(Debug, Subcommand)]
pub enum Collection {
    /// Create a collection.
    Create {
        /// Its name.
        #[arg(value_parser = collection)]
        name: CollectionName,
        /// Its whole description, JSON or YAML; - reads stdin.
        #[arg(long, conflicts_with_all = ["partitions", "replicas", "replication"])]
        file: Option<PathBuf>,
        /// How many partitions; they never change.
        #[arg(long)]
        partitions: Option<u32>,
        /// How many replicas each.
        #[arg(long)]
        replicas: Option<u32>,
        /// raft, mst, eventual or none.
        #[arg(long)]
        replication: Option<String>,
    },
    /// Change a collection.
    Update {
        /// Its name.
        #[arg(value_parser = collection)]
        name: CollectionName,
        /// What to change, JSON or YAML; - reads stdin.
        #[arg(long)]
        file: PathBuf,
    },
    /// List the collections.
    List,
    /// Print one.
    Describe {
        /// Its name.
        #[arg(value_parser = collection)]
        name: CollectionName,
    },
    /// Delete one with everything in it.
    Delete {
        /// Its name.
        #[arg(value_parser = collection)]
        name: CollectionName,
    },
}

/// `odgm cluster`.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Print nodes, collections and who serves which shard.
    Status,
}

/// `odgm node`.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List the nodes.
    List,
    /// Move everything off a node.
    Drain {
        /// The node.
        name: String,
    },
    /// Let a node hold shards again.
    Undrain {
        /// The node.
        name: String,
    },
    /// Forget a node.
    Remove {
        /// The node.
        name: String,
    },
    /// Give the place of a lost node to an empty one of the same or another name.
    Replace {
        /// The lost node.
        name: String,
        /// The node that takes its place; by default an empty one of the same name.
        #[arg(long)]
        with: Option<String>,
    },
}

/// `collection/partition`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardArgument {
    /// The collection.
    pub collection: String,
    /// The partition.
    pub partition: u32,
}

impl std::str::FromStr for ShardArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "a shard is collection/partition, such as users/3".to_owned();
        let (collection, partition) = text.split_once('/').ok_or_else(refused)?;
        if collection != "@system" {
            CollectionName::parse(collection).map_err(|error| error.to_string())?;
        }
        let partition = partition.parse().map_err(|_| refused())?;
        Ok(ShardArgument { collection: collection.to_owned(), partition })
    }
}

/// `odgm shard`.
#[derive(Debug, Subcommand)]
pub enum Shard {
    /// Print the state of a shard's serving replica.
    Status {
        /// collection/partition
        shard: ShardArgument,
    },
    /// Have another replica serve.
    Transfer {
        /// collection/partition
        shard: ShardArgument,
        /// The node that shall serve; by default the best.
        #[arg(long)]
        to: Option<String>,
    },
    /// Take a snapshot now.
    Snapshot {
        /// collection/partition
        shard: ShardArgument,
    },
    /// Compact the data now.
    Compact {
        /// collection/partition
        shard: ShardArgument,
    },
}

/// `odgm snapshot`.
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// List the snapshot files of a shard's serving replica.
    List {
        /// collection/partition
        shard: ShardArgument,
    },
    /// Write a shard's data, as of now, to a file.
    Export {
        /// collection/partition
        shard: ShardArgument,
        /// The file; it must not exist.
        file: PathBuf,
    },
    /// Write the objects of a file into a collection; those that exist stay as they are.
    Import {
        /// A file that was exported, or one of a node's directory.
        file: PathBuf,
        /// The collection, which must exist.
        #[arg(value_parser = collection)]
        collection: CollectionName,
        /// Overwrite objects that exist.
        #[arg(long)]
        overwrite: bool,
    },
    /// Read all of a file and compare every checksum; asks nobody.
    Verify {
        /// The file.
        file: PathBuf,
    },
}

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

/// `odgm config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print the effective configuration as YAML.
    Show(Layers),
    /// Check a configuration.
    Check(Layers),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_form_is_understood() {
        for line in [
            "start",
            "start --config f.yaml --set node.name=a --set zenoh.listen=tcp/[::]:7447",
            "get users/alice",
            "get users/alice/name --connect tcp/10.0.0.1:7447 -o json",
            "--connect tcp/10.0.0.1:7447,tcp/10.0.0.2:7447 get users/alice",
            "put users/alice VALUE",
            "put users/alice -",
            "put users/n -5",
            "put users/alice --file f",
            "put users/alice v --if-revision 7 --encoding text/plain",
            "delete users/alice",
            "delete users/* --yes",
            "increment n/a --by -2",
            "touch users/alice --ttl 30s",
            "list users",
            "list users/alice/** --limit 10",
            "watch users --from 7",
            "watch users/a$*",
            "txn users --file -",
            "meta users",
            "collection create users --partitions 8 --replicas 3",
            "collection update users --file f",
            "collection list",
            "collection describe users",
            "collection delete users",
            "cluster status",
            "node list",
            "node drain a",
            "node undrain a",
            "node remove a",
            "node replace a",
            "shard status users/3",
            "shard transfer users/3 --to b",
            "shard snapshot users/3",
            "shard compact users/3",
            "snapshot list users/3",
            "snapshot export users/3 f",
            "snapshot import f users --overwrite",
            "snapshot verify f",
            "bench kv --json",
            "bench kv --clients 1,64 --size 1024",
            "bench events --json",
            "bench events --parts behind,fanout --sessions 20 --subscribers 50 --changes 100000 --kill",
            "bench storage",
            "bench storage --quick --json --dir d",
            "bench snapshot",
            "config show",
            "config check --config f.yaml",
            "doctor --data d",
            "doctor --data d --json --repair",
            "doctor --data d --migrate log=fjall",
        ] {
            let arguments = std::iter::once("odgm").chain(line.split(' '));
            if let Err(error) = Cli::try_parse_from(arguments) {
                panic!("odgm {line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "",
            "gte users/alice",
            "get",
            "get users",
            "get users/a/b/c",
            "get users/*",
            "get Users/a",
            "put users/alice",
            "put users/alice v --file f",
            "put users/alice v --if-absent --if-present",
            "put users/@a v",
            "increment n/a --by x",
            "list users//a",
            "shard status users",
            "shard status users/x",
            "start --set a",
            "get users/a --timeout 3",
            "get users/a -o xml",
            "bench storage --fast",
            "bench events --parts all",
            "bench storage 3",
            "bench storage --dir",
            "doctor --data d --migrate data=memory",
            "doctor --data d --migrate log=memory_log",
            "doctor --data d --migrate log=fjall --repair",
        ] {
            let arguments = std::iter::once("odgm").chain(line.split(' ').filter(|part| !part.is_empty()));
            assert!(Cli::try_parse_from(arguments).is_err(), "odgm {line}");
        }
    }

    #[test]
    fn a_pattern_without_wildcards_is_a_key() {
        let pattern: PatternArgument = "users/alice/name".parse().unwrap();
        assert_eq!(pattern.key().unwrap().to_string(), "users/alice/name");
        assert_eq!("users/*".parse::<PatternArgument>().unwrap().key(), None);
        assert_eq!("users".parse::<PatternArgument>().unwrap().key(), None);
    }
}
