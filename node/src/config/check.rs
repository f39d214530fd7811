//! Which values of a configuration are possible. Types are serde's; what is here is what a type can't say.

use std::collections::BTreeSet;
use std::time::Duration;

use figment::Figment;
use figment::providers::Serialized;
use odgm_shard::object::ObjectId;

use super::error::Provenance;
use super::{
    Compression, ConfigErrors, DataBackend, LogBackend, NodeConfig, Period, Size, SnapshotBackend, ZenohMode,
};

/// A value that can't be.
pub(super) struct Fault {
    pub(super) path: Vec<String>,
    pub(super) problem: String,
}

struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, key: &str, problem: impl Into<String>) {
        self.0.push(Fault { path: key.split('.').map(str::to_owned).collect(), problem: problem.into() });
    }

    fn size(&mut self, key: &str, value: Size, least: Size, most: Size) {
        if value < least || value > most {
            self.add(key, format!("allowed is {least} to {most}"));
        }
    }

    fn period(&mut self, key: &str, value: Period, least: Period, most: Period) {
        if value < least || value > most {
            self.add(key, format!("allowed is {least} to {most}"));
        }
    }

    fn number(&mut self, key: &str, value: u64, least: u64, most: u64) {
        if value < least || value > most {
            self.add(key, format!("allowed is {least} to {most}"));
        }
    }

    fn name(&mut self, key: &str, value: &str) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if value.is_empty() || value.len() > 63 || !value.bytes().all(plain) {
            self.add(key, "allowed are 1 to 63 letters, digits, dots, underscores and hyphens");
        }
    }

    fn endpoints(&mut self, key: &str, values: &[String]) {
        for (n, value) in values.iter().enumerate() {
            if !is_endpoint(value) {
                self.add(
                    &format!("{key}.{n}"),
                    "allowed is tcp|tls|udp/host:port, such as tcp/127.0.0.1:7447",
                );
            }
        }
        let distinct: BTreeSet<_> = values.iter().collect();
        if distinct.len() < values.len() {
            self.add(key, "names an endpoint twice");
        }
    }
}

const DAY: u64 = 24 * 3600;

impl NodeConfig {
    /// Checks a configuration that was put together by a program. [`NodeConfig::load`] has done it.
    ///
    /// # Errors
    /// All values that can't be, each with what is allowed.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let figment = Figment::from(Serialized::defaults(self));
        let provenance = Provenance::new(&figment);
        let wrong: Vec<_> = self
            .check()
            .into_iter()
            .map(|fault| super::ConfigError { source: None, ..provenance.error(&fault.path, fault.problem) })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(ConfigErrors(wrong)) }
    }

    pub(super) fn check(&self) -> Vec<Fault> {
        let mut faults = Faults(Vec::new());
        self.check_identity(&mut faults);
        self.check_network(&mut faults);
        self.check_storage(&mut faults);
        self.check_limits(&mut faults);
        self.check_collections(&mut faults);
        faults.0
    }

    fn check_identity(&self, faults: &mut Faults) {
        faults.name("node.name", &self.node.name);
        if self.node.data_dir.as_os_str().is_empty() {
            faults.add("node.data_dir", "allowed is the path of a directory");
        }
        if self.node.zone.len() > 255 || self.node.zone.chars().any(char::is_control) {
            faults.add("node.zone", "allowed are up to 255 bytes without control characters");
        }
        faults.name("cluster.name", &self.cluster.name);
        if self.cluster.root.split('/').any(|chunk| ObjectId::parse(chunk).is_err()) {
            faults.add(
                "cluster.root",
                "allowed is a key without * $ ? # and without chunks that are empty or begin with @",
            );
        }
        faults.number("cluster.expected_nodes", self.cluster.expected_nodes.into(), 1, 1000);
        faults.name("cluster.bootstrap", &self.cluster.bootstrap);
        let alone = self.cluster.expected_nodes == 1 && self.cluster.peers.is_empty();
        if alone && self.cluster.bootstrap != self.node.name {
            faults.add(
                "cluster.bootstrap",
                format!(
                    "a node without peers founds its own cluster, allowed is its name {:?}",
                    self.node.name
                ),
            );
        }
    }

    fn check_network(&self, faults: &mut Faults) {
        faults.endpoints("cluster.listen", &self.cluster.listen);
        faults.endpoints("cluster.peers", &self.cluster.peers);
        faults.endpoints("zenoh.listen", &self.zenoh.listen);
        faults.endpoints("zenoh.connect", &self.zenoh.connect);
        if self.cluster.listen.is_empty() {
            faults.add("cluster.listen", "allowed is at least one endpoint");
        }
        match self.zenoh.mode {
            ZenohMode::Client if !self.zenoh.listen.is_empty() => {
                faults.add("zenoh.listen", "with mode client, allowed is [] alone");
            }
            ZenohMode::Client if self.zenoh.connect.is_empty() => {
                faults.add("zenoh.connect", "with mode client, allowed is at least one endpoint");
            }
            _ => {}
        }
        if let Err(error) = self.client_session().validate()
            && !faults.0.iter().any(|fault| fault.path.first().is_some_and(|section| section == "zenoh"))
        {
            faults.add("zenoh.config", error.to_string());
        }
        let port = self.http.listen.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            faults.add("http.listen", "allowed is host:port, such as 127.0.0.1:8090");
        }
    }

    fn check_storage(&self, faults: &mut Faults) {
        let storage = &self.storage;
        let segment = storage.log.segment_bytes;
        faults.size("storage.log.segment_bytes", segment, Size::mib(1), Size::mib(1024));
        if !segment.bytes().is_multiple_of(4096) {
            faults.add("storage.log.segment_bytes", "allowed are multiples of 4096");
        }
        faults.number("storage.log.max_entries", storage.log.max_entries, 1000, u64::MAX);

        let snapshot = &storage.snapshot;
        match snapshot.compression {
            Compression::Zstd if !(1..=19).contains(&snapshot.level) => {
                faults.add("storage.snapshot.level", "allowed is 1 to 19");
            }
            Compression::Gzip if !(1..=9).contains(&snapshot.level) => {
                faults.add("storage.snapshot.level", "allowed is 1 to 9 for gzip");
            }
            Compression::Zstd | Compression::Gzip | Compression::Lz4 | Compression::None => {}
        }
        faults.number("storage.snapshot.retain.count", snapshot.retain.count.into(), 1, 1000);
        let age = (Period::from_secs(1), Period::from_secs(36_500 * DAY));
        faults.period("storage.snapshot.retain.age", snapshot.retain.age, age.0, age.1);
        let bytes = (Size::mib(1), Size::mib(1 << 30));
        faults.size("storage.snapshot.retain.bytes", snapshot.retain.bytes, bytes.0, bytes.1);

        let data = &storage.data;
        // Data in memory come back from the stored snapshot and the log behind it.
        if data.backend == DataBackend::Memory
            && snapshot.backend == SnapshotBackend::MemorySnapshot
            && storage.log.backend != LogBackend::MemoryLog
        {
            let problem =
                "with data in memory and a log on disk, allowed is compressed_file: a restart needs it";
            faults.add("storage.snapshot.backend", problem);
        }
        faults.size("storage.data.cache_bytes", data.cache_bytes, Size::mib(1), bytes.1);
        faults.size("storage.data.write_buffer_bytes", data.write_buffer_bytes, Size::mib(8), bytes.1);
        faults.size("storage.data.max_bytes", data.max_bytes, Size::mib(1), bytes.1);
        let health = (Period::from_millis(100), Period::from_secs(DAY));
        faults.period("storage.health_interval", storage.health_interval, health.0, health.1);
    }

    fn check_limits(&self, faults: &mut Faults) {
        let raft = &self.raft;
        faults.period("raft.heartbeat", raft.heartbeat, Period::from_millis(10), Period::from_secs(10));
        let least = Duration::saturating_mul(raft.heartbeat.duration(), 2);
        if raft.election.min.duration() < least || raft.election.max <= raft.election.min {
            faults.add(
                "raft.election",
                format!("allowed is a rising range from two heartbeats ({})", Period(least)),
            );
        } else if raft.election.max > Period::from_secs(60) {
            faults.add("raft.election", "allowed is up to 60s");
        }
        let limits = &self.limits;
        faults.size("limits.value_bytes", limits.value_bytes, Size(1), Size::mib(8));
        faults.size("limits.inflight_bytes", limits.inflight_bytes, limits.value_bytes, Size::mib(1 << 20));
        faults.period("limits.rid_window", limits.rid_window, Period::from_secs(1), Period::from_secs(DAY));
        faults.number("limits.replicas_per_node", limits.replicas_per_node.into(), 1, 65_536);
    }

    fn check_collections(&self, faults: &mut Faults) {
        let mut names = BTreeSet::new();
        for (n, collection) in self.collections.iter().enumerate() {
            if let Err(error) = collection.validate() {
                faults.add(&format!("collections.{n}"), error.to_string());
            }
            if !names.insert(&collection.name) {
                faults.add(&format!("collections.{n}.name"), "is given twice");
            }
            let nodes = self.cluster.expected_nodes.max(1);
            if collection.replicas.is_some_and(|replicas| replicas > nodes) {
                let problem = format!("allowed are as many as cluster.expected_nodes, {nodes}");
                faults.add(&format!("collections.{n}.replicas"), problem);
            }
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    let Some((protocol, rest)) = text.split_once('/') else { return false };
    let address = rest.split(['?', '#']).next().unwrap_or_default();
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    matches!(protocol, "tcp" | "tls" | "udp")
        && !host.is_empty()
        && !host.contains(|c: char| c.is_whitespace() || c == '/')
        && port.parse::<u16>().is_ok()
}
