//! One collection of each kind of replication on three nodes: the same keys, other promises:
//! `cargo run -p odgm-examples --example replication_kinds`.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use odgm_node::config::NodeConfig;
use odgm_node::node::Node;
use odgm_shard::client::{ClientOptions, Consistency, GridClient, Put, PutCondition};
use odgm_shard::cluster::{CollectionSpec, Replication};
use odgm_shard::object::{CollectionName, ObjectId, ObjectKey};
use odgm_transport::options::SessionOptions;
use odgm_transport::zenoh::{ZenohSession, prepare_runtime};

const KINDS: [(&str, Replication); 4] = [
    ("raft", Replication::Raft),
    ("mst", Replication::Mst),
    ("eventual", Replication::Eventual),
    ("none", Replication::None),
];

/// Runs three nodes, each with a clients' port and a cluster port.
pub(crate) async fn run(data: &Path, ports: [[u16; 2]; 3], out: &mut dyn Write) -> Result<()> {
    let endpoint = |port: u16| format!("tcp/127.0.0.1:{port}");
    let collection = |(name, replication): (&str, Replication)| CollectionSpec {
        replication,
        replicas: Some(if replication == Replication::None { 1 } else { 3 }),
        name: name.to_owned(),
        partitions: 1,
        events: Default::default(),
        indexes: Vec::new(),
        tombstones: None,
        limits: Default::default(),
    };
    let mut nodes = Vec::new();
    for (number, [clients, cluster]) in ports.into_iter().enumerate() {
        let mut config = NodeConfig::default();
        config.node.name = format!("odgm-{number}");
        config.node.data_dir = data.join(&config.node.name);
        config.zenoh.listen = vec![endpoint(clients)];
        config.cluster.listen = vec![endpoint(cluster)];
        config.zenoh.connect = ports.iter().map(|port| endpoint(port[0])).collect();
        config.cluster.peers = ports.iter().map(|port| endpoint(port[1])).collect();
        config.cluster.expected_nodes = 3;
        config.collections = KINDS.into_iter().map(collection).collect();
        nodes.push(Node::start(config).await?);
    }
    for node in &nodes {
        node.ready().await?;
    }
    let options = SessionOptions::client(vec![endpoint(ports[0][0])]);
    let grid = GridClient::new(ZenohSession::open(&options, "example").await?, ClientOptions::default());
    let alice = ObjectKey { object: ObjectId::parse("alice")?, entry: None };
    let visits = ObjectKey { object: ObjectId::parse("visits")?, entry: None };
    for (name, _) in KINDS {
        let collection = CollectionName::parse(name)?;
        let put = grid.put(&collection, &alice, Put::value("hello"), None).await?;
        let read = grid.get(&collection, &alice, Consistency::Local).await?;
        writeln!(
            out,
            "{name}: alice is {:?}, version {}",
            String::from_utf8_lossy(&read.value),
            put.version
        )?;

        // What needs one order of all writes is refused where every replica writes for itself.
        let condition = PutCondition::Absent;
        let again = grid.put(&collection, &alice, Put { condition, ..Put::value("again") }, None).await;
        let again = again.err().and_then(|error| error.code()).map_or("done", |code| code.name());
        let counted = grid.increment(&collection, &visits, 1, None).await;
        let counted = counted.err().and_then(|error| error.code()).map_or("done", |code| code.name());
        writeln!(out, "{name}: put if absent: {again}, increment: {counted}")?;
    }
    grid.session().close()?;
    for node in nodes {
        node.stop().await;
    }
    Ok(())
}

#[allow(dead_code, reason = "a test runs the function above")]
fn main() -> Result<()> {
    prepare_runtime()?; // before any other thread: zenoh reads its settings once
    let data = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ports = [[7447, 7448], [7457, 7458], [7467, 7468]];
    runtime.block_on(run(data.path(), ports, &mut std::io::stdout()))
}
