//! Three nodes in one process; one stops, the others serve on: `cargo run -p odgm-examples --example three_nodes`.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use odgm_node::config::NodeConfig;
use odgm_node::node::Node;
use odgm_shard::client::{ClientOptions, Consistency, GridClient, Put};
use odgm_shard::object::{CollectionName, ObjectId, ObjectKey};
use odgm_transport::options::SessionOptions;
use odgm_transport::zenoh::{ZenohSession, prepare_runtime};

/// Runs three nodes, each with a clients' port and a cluster port.
pub(crate) async fn run(data: &Path, ports: [[u16; 2]; 3], out: &mut dyn Write) -> Result<()> {
    let endpoint = |port: u16| format!("tcp/127.0.0.1:{port}");
    let mut nodes = Vec::new();
    for (number, [clients, cluster]) in ports.into_iter().enumerate() {
        let mut config = NodeConfig::default();
        config.node.name = format!("odgm-{number}");
        config.node.data_dir = data.join(&config.node.name);
        config.zenoh.listen = vec![endpoint(clients)];
        config.cluster.listen = vec![endpoint(cluster)];
        // A node leaves its own endpoint out, so all have the same lists.
        config.zenoh.connect = ports.iter().map(|port| endpoint(port[0])).collect();
        config.cluster.peers = ports.iter().map(|port| endpoint(port[1])).collect();
        config.cluster.expected_nodes = 3;
        for collection in &mut config.collections {
            collection.replicas = Some(3);
        }
        nodes.push(Node::start(config).await?);
    }
    for node in &nodes {
        node.ready().await?;
    }
    writeln!(out, "three nodes serve")?;

    let users = CollectionName::parse("default")?;
    let alice = ObjectKey { object: ObjectId::parse("alice")?, entry: None };
    let client = async |number: usize| -> Result<GridClient> {
        let options = SessionOptions::client(vec![endpoint(ports[number][0])]);
        Ok(GridClient::new(ZenohSession::open(&options, "example").await?, ClientOptions::default()))
    };
    let (first, last) = (client(0).await?, client(2).await?);
    let mut watch = last.watch(&users, "**")?;
    first.put(&users, &alice, Put::value("through odgm-0"), None).await?;
    let read = last.get(&users, &alice, Consistency::Linearizable).await?;
    writeln!(out, "odgm-2 reads: {}", String::from_utf8_lossy(&read.value))?;
    first.session().close()?;

    nodes.remove(0).stop().await;
    last.put(&users, &alice, Put::value("without odgm-0"), None).await?;
    let read = last.get(&users, &alice, Consistency::Linearizable).await?;
    writeln!(out, "odgm-2 reads: {}", String::from_utf8_lossy(&read.value))?;
    loop {
        let event = watch.next().await?.context("the session closed")?;
        if event.found.value == read.value {
            writeln!(
                out,
                "odgm-2 saw {} change to: {}",
                event.key.object,
                String::from_utf8_lossy(&event.found.value)
            )?;
            break;
        }
    }
    last.session().close()?;
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
