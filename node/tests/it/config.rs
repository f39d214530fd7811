//! The configuration: layers, forms, and every key wrong once.

use std::time::Duration;

use odgm_node::config::{ConfigErrors, Loaded, NodeConfig, Period, PeriodRange, Setting, Size};

fn settings(given: &[&str]) -> Vec<Setting> {
    given.iter().map(|text| text.parse().unwrap()).collect()
}

fn load(yaml: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Loaded, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odgm.yaml");
    std::fs::write(&path, yaml).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    NodeConfig::load(Some(&path), environment, &settings(set))
}

#[test]
fn without_any_layer_the_documented_defaults_hold() {
    let config = NodeConfig::load(None, [], &[]).unwrap().config;
    let documented = r"
        node:      { name: odgm-0, data_dir: ./odgm-data, zone: '' }
        cluster:   { name: odgm, root: odgm, listen: [tcp/127.0.0.1:7448], peers: [], expected_nodes: 1, bootstrap: odgm-0, secret_file: '' }
        zenoh:     { mode: peer, listen: [tcp/127.0.0.1:7447], connect: [], config: {} }
        http:      { listen: 127.0.0.1:8090 }
        storage:
          log:      { backend: append_log, sync: batch, segment_bytes: 64MiB, max_entries: 100000 }
          snapshot: { backend: compressed_file, compression: zstd, level: 1, retain: { strategy: latest, count: 3, age: 7d, bytes: 10GiB } }
          data:     { backend: fjall, sync: always, cache_bytes: 64MiB, write_buffer_bytes: 256MiB, max_bytes: 512MiB }
          health_interval: 10s
        raft:      { heartbeat: 100ms, election: 400ms..600ms }
        limits:    { value_bytes: 8MiB, inflight_bytes: 64MiB, rid_window: 60s, replicas_per_node: 256 }
        collections: [ { name: default, partitions: 4, replicas: 1, replication: raft } ]";
    assert_eq!(load(documented, &[], &[]).unwrap().config, config);
    assert_eq!(config, NodeConfig::default());
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let config = load("{}", &[], &["limits.value_bytes=1000000", "raft.heartbeat=150ms"]).unwrap().config;
    assert_eq!(load(&config.to_yaml(), &[], &[]).unwrap().config, config);
}

#[test]
fn later_layers_win_and_leave_the_rest() {
    let yaml = "cluster: {name: file, root: file}\nnode: {zone: file}";
    let config =
        load(yaml, &[("ODGM_CLUSTER__NAME", "env"), ("ODGM_NODE__ZONE", "env")], &["node.zone=flag"])
            .unwrap()
            .config;
    assert_eq!(config.cluster.root, "file");
    assert_eq!(config.cluster.name, "env");
    assert_eq!(config.node.zone, "flag");
    assert_eq!(config.cluster.expected_nodes, 1);
}

#[test]
fn text_of_a_variable_becomes_what_the_key_holds() {
    let config = load(
        "",
        &[
            ("ODGM_NODE__NAME", "7"),
            ("ODGM_ZENOH__LISTEN", "tcp/0.0.0.0:1, tcp/[::1]:2"),
            ("ODGM_ZENOH__CONFIG__TRANSPORT__LINK__TX__LEASE", "777"),
            ("ODGM_LIMITS__VALUE_BYTES", "4096"),
            ("ODGM_STORAGE__SNAPSHOT__LEVEL", "3"),
        ],
        &[
            "cluster.expected_nodes=3",
            "cluster.peers=[tcp/a:1, tcp/b:2]",
            "collections=[{name: a, replicas: 3}, {name: b}]",
        ],
    )
    .unwrap()
    .config;
    assert_eq!(config.node.name, "7");
    assert_eq!(config.zenoh.listen, ["tcp/0.0.0.0:1", "tcp/[::1]:2"]);
    assert_eq!(config.zenoh.config["transport"]["link"]["tx"]["lease"], 777);
    assert_eq!(config.limits.value_bytes, Size(4096));
    assert_eq!(config.storage.snapshot.level, 3);
    assert_eq!(config.cluster.peers, ["tcp/a:1", "tcp/b:2"]);
    assert_eq!(config.collections[0].replicas, Some(3));
    assert_eq!(config.collections[1].name, "b");
}

#[test]
fn sizes_and_durations_take_every_documented_form() {
    for (form, bytes) in [("2MiB", 2 << 20), ("2Mi", 2 << 20), ("2MB", 2_000_000), ("2048", 2048)] {
        let config = load(&format!("limits: {{value_bytes: {form}}}"), &[], &[]).unwrap().config;
        assert_eq!(config.limits.value_bytes, Size(bytes), "{form}");
    }
    for (form, milliseconds) in [("1500ms", 1500), ("30s", 30_000), ("1d", 86_400_000)] {
        let config = load(&format!("limits: {{rid_window: {form}}}"), &[], &[]).unwrap().config;
        assert_eq!(config.limits.rid_window, Period(Duration::from_millis(milliseconds)), "{form}");
    }
    let config = load("raft: {election: 1s..1500ms}", &[], &[]).unwrap().config;
    assert_eq!(config.raft.election, PeriodRange::from_millis(1000, 1500));
}

#[test]
fn a_variable_without_levels_is_ignored_with_a_warning() {
    let loaded = load("", &[("ODGM_PORT", "tcp://10.0.0.1:7447"), ("OTHER__X", "1")], &[]).unwrap();
    assert_eq!(loaded.config, NodeConfig::default());
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].contains("ODGM_PORT"), "{:?}", loaded.warnings);
}

#[test]
fn a_section_without_content_keeps_its_defaults() {
    assert_eq!(load("node:\nzenoh:\n  connect:\n", &[], &[]).unwrap().config, NodeConfig::default());
}

#[test]
fn a_node_alone_founds_its_own_cluster_under_its_own_name() {
    assert_eq!(load("node: {name: a}", &[], &[]).unwrap().config.cluster.bootstrap, "a");
    let error = load("node: {name: a}\ncluster: {bootstrap: b}", &[], &[]).unwrap_err().to_string();
    assert!(error.starts_with("cluster.bootstrap = \"b\": "), "{error}");
}

/// Every key, a value of the wrong type, and a value that can't be where the type allows one.
const WRONG: &[(&str, &str, Option<&str>)] = &[
    ("node.name", "[1]", Some("a/b")),
    ("node.data_dir", "{}", Some("''")),
    ("node.zone", "[1]", Some(r#""\u0007""#)),
    ("cluster.name", "3", Some("''")),
    ("cluster.root", "true", Some("a//b")),
    ("cluster.listen", "tcp/127.0.0.1:1", Some("[]")),
    ("cluster.peers", "7", Some("[nonsense]")),
    ("cluster.expected_nodes", "three", Some("0")),
    ("cluster.bootstrap", "[]", Some("else")),
    ("cluster.secret_file", "{}", None),
    ("zenoh.mode", "7", Some("mesh")),
    ("zenoh.listen", "7", Some("[tcp/127.0.0.1]")),
    ("zenoh.connect", "{}", Some("[http/a:1]")),
    ("zenoh.config", "[1]", Some("{transprot: 1}")),
    ("http.listen", "8090", Some("localhost")),
    ("storage.log.backend", "1", Some("rocksdb")),
    ("storage.log.sync", "true", Some("never")),
    ("storage.log.segment_bytes", "[]", Some("1KiB")),
    ("storage.log.segment_bytes", "[]", Some("1048577")),
    ("storage.log.max_entries", "many", Some("0")),
    ("storage.snapshot.backend", "1", Some("s3")),
    ("storage.snapshot.compression", "9", Some("brotli")),
    ("storage.snapshot.level", "best", Some("99")),
    ("storage.snapshot.retain.strategy", "1", Some("oldest")),
    ("storage.snapshot.retain.count", "few", Some("0")),
    ("storage.snapshot.retain.age", "7", Some("0s")),
    ("storage.snapshot.retain.bytes", "lots", Some("1")),
    ("storage.data.backend", "1", Some("redb")),
    ("storage.data.sync", "1", Some("batch")),
    ("storage.data.cache_bytes", "-5", Some("1KiB")),
    ("storage.data.write_buffer_bytes", "64 bananas", Some("1KiB")),
    ("storage.data.max_bytes", "[]", Some("1KiB")),
    ("storage.health_interval", "10", Some("0s")),
    ("raft.heartbeat", "100", Some("0s")),
    ("raft.reads", "1", Some("follower")),
    ("raft.election", "500ms", Some("600ms..400ms")),
    ("raft.election", "500ms", Some("100ms..150ms")),
    ("limits.value_bytes", "big", Some("1GiB")),
    ("limits.inflight_bytes", "big", Some("1KiB")),
    ("limits.rid_window", "60", Some("1ms")),
    ("limits.replicas_per_node", "all", Some("0")),
];

/// `a.b.c` and a value as nested YAML.
fn nested(key: &str, value: &str) -> String {
    let steps: Vec<_> = key.split('.').collect();
    let open: String = steps.iter().map(|step| format!("{{{step}: ")).collect();
    format!("{open}{value}{}", "}".repeat(steps.len()))
}

#[test]
fn every_key_given_wrong_is_refused_by_name_with_value_source_and_what_is_allowed() {
    for (key, mistyped, impossible) in WRONG {
        for value in [Some(*mistyped), *impossible].into_iter().flatten() {
            let yaml = nested(key, value);
            let error = load(&yaml, &[], &[]).map(|_| ()).expect_err(&yaml).to_string();
            assert!(error.starts_with(key), "{yaml}: {error}");
            assert!(error.contains("odgm.yaml"), "{yaml}: {error}");
            assert!(error.lines().all(|line| line.contains(" = ")), "{yaml}: {error}");
            let line = error.lines().next().unwrap();
            let stated = ["allowed", " is no ", "refused", "unknown", "must", "twice"];
            assert!(stated.iter().any(|word| line.contains(word)), "{yaml}: {error}");
        }
    }
}

#[test]
fn the_table_of_wrong_values_covers_every_key() {
    fn leaves(prefix: &str, value: &serde_yaml::Value, into: &mut Vec<String>) {
        match value.as_mapping() {
            Some(map) if !map.is_empty() => {
                for (key, value) in map {
                    leaves(&format!("{prefix}.{}", key.as_str().unwrap()), value, into);
                }
            }
            _ => into.push(prefix.trim_start_matches('.').to_owned()),
        }
    }
    let mut keys = Vec::new();
    leaves("", &serde_yaml::from_str(&NodeConfig::default().to_yaml()).unwrap(), &mut keys);
    keys.retain(|key| key != "collections");
    for key in keys {
        assert!(WRONG.iter().any(|(tried, ..)| *tried == key), "{key} is not tried");
    }
}

#[test]
fn collections_given_wrong_are_refused_by_name() {
    for (yaml, expected) in [
        ("collections: 7", "collections = 7"),
        ("collections: [{partitions: 4}]", "collections[0].name"),
        ("collections: [{name: a, size: 7}]", "collections[0].size = 7"),
        ("collections: [{name: a, partitions: x}]", "collections[0].partitions = \"x\""),
        ("collections: [{name: a}, {name: B}]", "collections[1]"),
        ("collections: [{name: a, partitions: 0}]", "partitions is 0"),
        ("collections: [{name: a, replicas: 3}]", "collections[0].replicas = 3"),
        ("collections: [{name: a, replication: paxos}]", "collections[0].replication = \"paxos\""),
        ("collections: [{name: a, replication: none, replicas: 2}]", "replication none has 1"),
        ("collections: [{name: a}, {name: a}]", "collections[1].name = \"a\": is given twice"),
    ] {
        let error = load(yaml, &[], &[]).map(|_| ()).expect_err(yaml).to_string();
        assert!(error.contains(expected), "{yaml}: {error}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_known_ones() {
    for (yaml, key) in [("nod: 1", "nod"), ("storage: {log: {snyc: batch}}", "storage.log.snyc")] {
        let error = load(yaml, &[], &[]).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{key} = ")) && error.contains("unknown key, allowed are"),
            "{error}"
        );
    }
    let error = load("", &[("ODGM_STORAGE__LOGS__SYNC", "none")], &[]).unwrap_err().to_string();
    assert!(error.starts_with("storage.logs") && error.contains("ODGM_STORAGE__LOGS__SYNC"), "{error}");
    let error = load("", &[], &["raft.hartbeat=1s"]).unwrap_err().to_string();
    assert!(error.contains("raft.hartbeat = \"1s\"") || error.contains("--set raft.hartbeat=1s"), "{error}");
}

#[test]
fn the_source_of_a_wrong_value_is_the_layer_that_gave_it() {
    let error = load("limits: {rid_window: 30s}", &[("ODGM_LIMITS__RID_WINDOW", "0s")], &[]).unwrap_err();
    assert_eq!(error.0[0].source.as_deref(), Some("environment variable ODGM_LIMITS__RID_WINDOW"));
    assert_eq!(error.0[0].value.as_deref(), Some("\"0s\""));
    let error = load("", &[], &["raft.heartbeat=soon"]).unwrap_err();
    assert_eq!(error.0[0].source.as_deref(), Some("--set raft.heartbeat=soon"));
    let error = load("cluster: {listen: [tcp/a:1, nonsense]}", &[], &[]).unwrap_err();
    assert_eq!(error.0[0].key, "cluster.listen[1]");
}

#[test]
fn a_file_that_is_no_configuration_is_refused_in_one_line() {
    for yaml in ["node: [", "node: {name: a}\nnode: {name: b}", "- a\n- b", "just text"] {
        let error = load(yaml, &[], &[]).map(|_| ()).expect_err(yaml).to_string();
        assert!(error.contains("odgm.yaml") && error.lines().count() == 1, "{yaml}: {error}");
    }
    let missing = NodeConfig::load(Some("/nowhere/odgm.yaml".as_ref()), [], &[]).unwrap_err().to_string();
    assert!(missing.contains("/nowhere/odgm.yaml"), "{missing}");
}

#[test]
fn a_setting_without_key_or_value_is_no_setting() {
    for text in ["", "a", "=1", "a..b=1", ".a=1"] {
        assert!(text.parse::<Setting>().is_err(), "{text}");
    }
}

#[test]
fn a_program_that_builds_a_configuration_gets_the_same_checks() {
    let mut config = NodeConfig::default();
    assert_eq!(config.validate(), Ok(()));
    config.limits.value_bytes = Size::mib(9);
    let error = config.validate().unwrap_err().to_string();
    assert_eq!(error, "limits.value_bytes = \"9MiB\": allowed is 1B to 8MiB");
}
