//! The configuration in the shapes of those who read it.

use odgm_shard::cluster::CollectionSpec;
use odgm_shard::replication::WriteOptions;
use odgm_shard::replication::raft::RaftOptions;
use odgm_shard::shard::Limits;
use odgm_storage::composite::{CompositeOptions, DataLayer, LogLayer, SnapshotLayer};
use odgm_storage::data::{DataOptions, Durability};
use odgm_storage::log::{FjallLogOptions, LogOptions};
use odgm_storage::snapshot::{RetainPolicy, SnapshotOptions};
use odgm_transport::options::{Mode, SessionOptions};

use super::{DataSync, LogBackend, NodeConfig, RetainOptions, RetainStrategy, ZenohMode};

impl NodeConfig {
    /// How the clients' session is opened.
    pub fn client_session(&self) -> SessionOptions {
        let mode = match self.zenoh.mode {
            ZenohMode::Peer => Mode::Peer,
            ZenohMode::Client => Mode::Client,
            ZenohMode::Router => Mode::Router,
        };
        SessionOptions {
            mode,
            listen: self.zenoh.listen.clone(),
            connect: self.others(&self.zenoh.connect),
            config: self.zenoh.config.clone(),
            connect_timeout: None,
        }
    }

    /// How the session between the nodes is opened.
    pub fn cluster_session(&self) -> SessionOptions {
        SessionOptions::cluster(self.cluster.listen.clone(), self.others(&self.cluster.peers))
    }

    /// Whether this node is meant to be the only one of its cluster.
    pub(crate) fn is_alone(&self) -> bool {
        self.cluster.expected_nodes == 1 && self.cluster.peers.is_empty()
    }

    /// All nodes may be given one list of all nodes: the entry whose host is this node's name, or a
    /// domain name that begins with it, is this node's own.
    fn others(&self, endpoints: &[String]) -> Vec<String> {
        let own = |endpoint: &&String| {
            let host = endpoint.split_once('/').map_or(endpoint.as_str(), |(_, address)| address);
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            host == self.node.name || host.split('.').next() == Some(self.node.name.as_str())
        };
        endpoints.iter().filter(|endpoint| !own(endpoint)).cloned().collect()
    }

    /// All layers of the node.
    pub fn storage_options(&self) -> CompositeOptions {
        let (log, snapshot, data) = (&self.storage.log, &self.storage.snapshot, &self.storage.data);
        CompositeOptions {
            log: LogLayer {
                backend: log.backend,
                options: LogOptions {
                    sync: log.sync,
                    segment_bytes: log.segment_bytes.bytes(),
                    ..LogOptions::default()
                },
                fjall: FjallLogOptions { sync: log.sync, ..FjallLogOptions::default() },
                max_entries: log.max_entries,
            },
            snapshot: SnapshotLayer {
                backend: snapshot.backend,
                options: SnapshotOptions { compression: snapshot.compression, level: snapshot.level },
                retain: snapshot.retain.policy(),
            },
            data: DataLayer {
                backend: data.backend,
                options: DataOptions {
                    cache_bytes: data.cache_bytes.bytes(),
                    write_buffer_bytes: data.write_buffer_bytes.bytes(),
                    max_bytes: data.max_bytes.bytes(),
                    ..DataOptions::default()
                },
            },
        }
    }

    /// What a request of a client may take.
    pub fn shard_limits(&self) -> Limits {
        Limits { value_bytes: self.limits.value_bytes.bytes(), ..Limits::default() }
    }

    /// How each Raft shard behaves.
    pub fn raft_options(&self) -> RaftOptions {
        RaftOptions {
            heartbeat: self.raft.heartbeat.duration(),
            election_min: self.raft.election.min.duration(),
            election_max: self.raft.election.max.duration(),
            reads: self.raft.reads,
            inflight_bytes: self.limits.inflight_bytes.bytes(),
            rid_window: self.limits.rid_window.duration(),
            ..self.log_growth()
        }
    }

    /// When a shard takes a snapshot. What `memory_log` holds is bounded in entries: a quarter of it begins
    /// one, and the rest is for what is written meanwhile and for followers that lag.
    fn log_growth(&self) -> RaftOptions {
        let defaults = RaftOptions::default();
        if self.storage.log.backend != LogBackend::MemoryLog {
            return defaults;
        }
        let most = self.storage.log.max_entries;
        RaftOptions {
            snapshot_entries: defaults.snapshot_entries.min(most / 4),
            keep_entries: defaults.keep_entries.min(most / 8),
            ..defaults
        }
    }

    /// How each shard without a log writes.
    pub fn write_options(&self) -> WriteOptions {
        let durability = match self.storage.data.sync {
            DataSync::Always => Durability::Now,
            DataSync::None => Durability::Later,
        };
        WriteOptions {
            durability,
            inflight_bytes: self.limits.inflight_bytes.bytes(),
            rid_window: self.limits.rid_window.duration(),
            ..WriteOptions::default()
        }
    }

    /// The collections that exist once the node is ready.
    pub fn collection_specs(&self) -> Vec<CollectionSpec> {
        self.collections.clone()
    }
}

impl RetainOptions {
    fn policy(&self) -> RetainPolicy {
        let (count, age) = (self.count as usize, self.age.duration());
        match self.strategy {
            RetainStrategy::Latest => RetainPolicy::Latest { count },
            RetainStrategy::Age => RetainPolicy::Age { age },
            RetainStrategy::Both => RetainPolicy::Both { count, age },
            RetainStrategy::Size => RetainPolicy::Size { bytes: self.bytes.bytes() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_does_not_connect_to_itself() {
        let mut config = NodeConfig::default();
        config.node.name = "odgm-1".into();
        config.cluster.peers =
            ["tcp/odgm-0.odgm.ns.svc:7448", "tcp/odgm-1.odgm.ns.svc:7448", "tcp/odgm-10:7448"]
                .map(String::from)
                .to_vec();
        let expected = ["tcp/odgm-0.odgm.ns.svc:7448", "tcp/odgm-10:7448"];
        assert_eq!(config.cluster_session().connect, expected);
        config.zenoh.connect = vec!["tcp/odgm-1:7447".into(), "tcp/10.0.0.1:7447".into()];
        assert_eq!(config.client_session().connect, ["tcp/10.0.0.1:7447"]);
    }
}
