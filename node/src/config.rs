//! The configuration of a node: every key, its default, its unit and its effect.
//!
//! [`NodeConfig::load`] lays the YAML file, the environment and `--set` over the defaults and refuses
//! unknown keys, wrong types and impossible values before anything starts, each with its key, its
//! value, where it came from and what is allowed. What has passed is not checked again behind it.

use odgm_shard::cluster::CollectionSpec;
use odgm_shard::cluster::collection::{DEFAULT_PARTITIONS, EventsSpec, Replication};
pub use odgm_shard::replication::raft::ReadMode;
pub use odgm_storage::composite::{DataBackend, LogBackend, SnapshotBackend};
pub use odgm_storage::log::SyncPolicy;
pub use odgm_storage::snapshot::Compression;
use serde::{Deserialize, Serialize};

mod check;
mod convert;
mod error;
mod layers;

pub use error::{ConfigError, ConfigErrors};
pub use layers::{Loaded, SetError, Setting};
pub use odgm_shard::quantity::{Period, PeriodRange, Size};

/// Everything a node reads at its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// This node.
    pub node: NodeOptions,
    /// The cluster it belongs to.
    pub cluster: ClusterOptions,
    /// The clients' session.
    pub zenoh: ZenohOptions,
    /// Probes, metrics, status.
    pub http: HttpOptions,
    /// The storage layers.
    pub storage: StorageOptions,
    /// Consensus.
    pub raft: RaftOptions,
    /// What a client may use up.
    pub limits: LimitOptions,
    /// Created when missing, at any start; a difference from what exists is reported, never applied.
    pub collections: Vec<CollectionSpec>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            node: NodeOptions::default(),
            cluster: ClusterOptions::default(),
            zenoh: ZenohOptions::default(),
            http: HttpOptions::default(),
            storage: StorageOptions::default(),
            raft: RaftOptions::default(),
            limits: LimitOptions::default(),
            collections: vec![default_collection()],
        }
    }
}

impl NodeConfig {
    /// The effective configuration as YAML.
    pub fn to_yaml(&self) -> String {
        serde_yaml::to_string(self).expect("the tree has only string keys and plain values")
    }
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeOptions {
    /// Its name, unique in the cluster: letters, digits, `.`, `_`, `-`. Default `odgm-0`.
    pub name: String,
    /// Where it keeps its data. Default `./odgm-data`.
    pub data_dir: std::path::PathBuf,
    /// Replicas of a shard are spread over zones; empty is none.
    pub zone: String,
}

impl Default for NodeOptions {
    fn default() -> Self {
        NodeOptions { name: "odgm-0".into(), data_dir: "./odgm-data".into(), zone: String::new() }
    }
}

/// The cluster a node belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterOptions {
    /// Its name; nodes of another name are not talked to. Default `odgm`.
    pub name: String,
    /// What every key begins with. Default `odgm`.
    pub root: String,
    /// Where the other nodes reach this one. Default `tcp/127.0.0.1:7448`.
    pub listen: Vec<String>,
    /// The other nodes' cluster endpoints.
    pub peers: Vec<String>,
    /// How many nodes found the cluster. Default 1.
    pub expected_nodes: u32,
    /// The one node that founds the cluster, once, when all expected nodes answer and none has data.
    /// Default `odgm-0`; a node that is alone and was given none founds its own.
    pub bootstrap: String,
    /// A file with the secret that all nodes share; empty is none.
    pub secret_file: String,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            name: "odgm".into(),
            root: "odgm".into(),
            listen: vec!["tcp/127.0.0.1:7448".into()],
            peers: Vec::new(),
            expected_nodes: 1,
            bootstrap: "odgm-0".into(),
            secret_file: String::new(),
        }
    }
}

/// The clients' session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZenohOptions {
    /// zenoh's mode of the session. Default `peer`.
    pub mode: ZenohMode,
    /// Where clients reach this node. Default `tcp/127.0.0.1:7447`.
    pub listen: Vec<String>,
    /// The other nodes' client endpoints, or routers.
    pub connect: Vec<String>,
    /// zenoh's own keys, laid over the rest.
    pub config: serde_json::Map<String, serde_json::Value>,
}

impl Default for ZenohOptions {
    fn default() -> Self {
        ZenohOptions {
            mode: ZenohMode::Peer,
            listen: vec!["tcp/127.0.0.1:7447".into()],
            connect: Vec::new(),
            config: serde_json::Map::new(),
        }
    }
}

/// zenoh's modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZenohMode {
    /// Talks to every other peer directly.
    Peer,
    /// Talks through one router or peer.
    Client,
    /// Relays for others.
    Router,
}

/// The HTTP port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// `host:port`. Default `127.0.0.1:8090`.
    pub listen: String,
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions { listen: "127.0.0.1:8090".into() }
    }
}

/// The storage layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageOptions {
    /// The consensus log.
    pub log: LogOptions,
    /// Snapshots.
    pub snapshot: SnapshotOptions,
    /// Objects.
    pub data: DataOptions,
    /// How often the layers are asked how they are. Default 10 s.
    pub health_interval: Period,
}

impl Default for StorageOptions {
    fn default() -> Self {
        StorageOptions {
            log: LogOptions::default(),
            snapshot: SnapshotOptions::default(),
            data: DataOptions::default(),
            health_interval: Period::from_secs(10),
        }
    }
}

/// The consensus log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// Which log. Default `append_log`. With `memory_log` the node begins as a new one at each start.
    pub backend: LogBackend,
    /// When an append is durable. Default `batch`.
    pub sync: SyncPolicy,
    /// Size of a segment file. 1 MiB to 1 GiB; default 64 MiB.
    pub segment_bytes: Size,
    /// Entries that `memory_log` keeps of each shard at most, at least 1000. Default 100000.
    pub max_entries: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            backend: LogBackend::AppendLog,
            sync: SyncPolicy::Batch,
            segment_bytes: Size::mib(64),
            max_entries: 100_000,
        }
    }
}

/// Snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotOptions {
    /// Where they are kept. Default `compressed_file`.
    pub backend: SnapshotBackend,
    /// How frames are compressed. Default `zstd`.
    pub compression: Compression,
    /// The compression's level, 1 to 19 for zstd, 1 to 9 for gzip. Default 1.
    pub level: i32,
    /// Which are kept.
    pub retain: RetainOptions,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        SnapshotOptions {
            backend: SnapshotBackend::CompressedFile,
            compression: Compression::Zstd,
            level: 1,
            retain: RetainOptions::default(),
        }
    }
}

/// Which snapshots are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetainOptions {
    /// What bounds them. Default `latest`.
    pub strategy: RetainStrategy,
    /// How many, at least 1. Default 3.
    pub count: u32,
    /// How old. Default 7 days.
    pub age: Period,
    /// How many bytes together. Default 10 GiB.
    pub bytes: Size,
}

impl Default for RetainOptions {
    fn default() -> Self {
        RetainOptions {
            strategy: RetainStrategy::Latest,
            count: 3,
            age: Period::from_secs(7 * 24 * 3600),
            bytes: Size::mib(10 * 1024),
        }
    }
}

/// What bounds the snapshots that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetainStrategy {
    /// The newest `count`.
    Latest,
    /// Those younger than `age`.
    Age,
    /// Those within both.
    Both,
    /// The newest within `bytes`.
    Size,
}

/// The data layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataOptions {
    /// Which store. Default `fjall`.
    pub backend: DataBackend,
    /// When a write is durable, for collections without a log. Default `always`.
    pub sync: DataSync,
    /// Block cache shared by all shards of the node, at least 1 MiB. Default 64 MiB.
    pub cache_bytes: Size,
    /// What all shards of the node may hold in memtables, at least 8 MiB, and 1 MiB for each replica that it
    /// runs: one that finds no room does not start. Default 256 MiB.
    pub write_buffer_bytes: Size,
    /// What one shard may hold in `memory`, at least 1 MiB. Default 512 MiB.
    pub max_bytes: Size,
}

impl Default for DataOptions {
    fn default() -> Self {
        DataOptions {
            backend: DataBackend::Fjall,
            sync: DataSync::Always,
            cache_bytes: Size::mib(64),
            write_buffer_bytes: Size::mib(256),
            max_bytes: Size::mib(512),
        }
    }
}

/// When a write of a collection without a log is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSync {
    /// When it is acknowledged.
    Always,
    /// When the operating system writes it.
    None,
}

/// Consensus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftOptions {
    /// A leader's heartbeat. Default 100 ms.
    pub heartbeat: Period,
    /// A follower that hears nothing for a time out of this range stands for election. Default
    /// `400ms..600ms`.
    pub election: PeriodRange,
    /// How a leader confirms linearizable reads. Default `lease`.
    pub reads: ReadMode,
}

impl Default for RaftOptions {
    fn default() -> Self {
        RaftOptions {
            heartbeat: Period::from_millis(100),
            election: PeriodRange::from_millis(400, 600),
            reads: ReadMode::default(),
        }
    }
}

/// What a client may use up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitOptions {
    /// The largest value, at most 8 MiB. Default 8 MiB.
    pub value_bytes: Size,
    /// What a node takes in at once, at least `value_bytes`. Default 64 MiB.
    pub inflight_bytes: Size,
    /// How long answers are remembered by request id. Default 60 s.
    pub rid_window: Period,
    /// Replicas that a node holds at most. Default 256.
    pub replicas_per_node: u32,
}

impl Default for LimitOptions {
    fn default() -> Self {
        LimitOptions {
            value_bytes: Size::mib(8),
            inflight_bytes: Size::mib(64),
            rid_window: Period::from_secs(60),
            replicas_per_node: 256,
        }
    }
}

/// What a node without any configuration serves.
fn default_collection() -> CollectionSpec {
    CollectionSpec {
        name: "default".into(),
        partitions: DEFAULT_PARTITIONS,
        replicas: Some(1),
        replication: Replication::Raft,
        events: EventsSpec::default(),
        indexes: Vec::new(),
        tombstones: None,
        limits: serde_json::Map::new(),
    }
}
