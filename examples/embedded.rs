//! A node inside a program, and a client of it: `cargo run -p odgm-examples --example embedded`.
//!
//! Other processes reach the node like any other, on its zenoh port.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use odgm_node::config::NodeConfig;
use odgm_node::node::Node;
use odgm_shard::client::{ClientOptions, Consistency, GridClient, Put, PutCondition};
use odgm_shard::object::{CollectionName, ObjectId, ObjectKey};
use odgm_transport::options::SessionOptions;
use odgm_transport::zenoh::{ZenohSession, prepare_runtime};

/// Runs a node with its data in `data`, its clients' port and its cluster port, twice.
pub(crate) async fn run(data: &Path, [clients, cluster]: [u16; 2], out: &mut dyn Write) -> Result<()> {
    let mut config = NodeConfig::default();
    config.node.data_dir = data.to_owned();
    config.zenoh.listen = vec![format!("tcp/127.0.0.1:{clients}")];
    config.cluster.listen = vec![format!("tcp/127.0.0.1:{cluster}")];
    let users = CollectionName::parse("default")?;
    let alice = ObjectKey { object: ObjectId::parse("alice")?, entry: None };
    let visits = ObjectKey { object: ObjectId::parse("visits")?, entry: None };

    let node = Node::start(config.clone()).await?;
    node.ready().await?;
    let session = ZenohSession::open(&SessionOptions::client(config.zenoh.listen.clone()), "example").await?;
    let grid = GridClient::new(session, ClientOptions::default());
    let first = grid.put(&users, &alice, Put::value("hello"), None).await?;
    let condition = PutCondition::Revision(first.revision);
    let second = grid.put(&users, &alice, Put { condition, ..Put::value("hello again") }, None).await?;
    writeln!(out, "put alice, version {}", second.version)?;
    let refused = grid.put(&users, &alice, Put { condition, ..Put::value("too late") }, None).await;
    let code = refused.err().and_then(|error| error.code());
    writeln!(out, "put alice on an old revision: {}", code.map_or("?", |code| code.name()))?;
    // A repeat with the same request id gets the first answer.
    for _ in 0..2 {
        let counted = grid.increment(&users, &visits, 5, Some("one-visit")).await?;
        writeln!(out, "visits: {}", String::from_utf8_lossy(&counted.value))?;
    }
    grid.session().close()?;
    node.stop().await;

    let node = Node::start(config.clone()).await?;
    node.ready().await?;
    let session = ZenohSession::open(&SessionOptions::client(config.zenoh.listen), "example").await?;
    let grid = GridClient::new(session, ClientOptions::default());
    let found = grid.get(&users, &alice, Consistency::Linearizable).await?;
    writeln!(out, "after a restart, alice: {}", String::from_utf8_lossy(&found.value))?;
    grid.session().close()?;
    node.stop().await;
    Ok(())
}

#[allow(dead_code, reason = "a test runs the function above")]
fn main() -> Result<()> {
    prepare_runtime()?; // before any other thread: zenoh reads its settings once
    let data = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(data.path(), [7447, 7448], &mut std::io::stdout()))
}
