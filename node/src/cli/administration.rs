//! Commands about collections, nodes and shards. What the grid says is shown as it is with `-o json`;
//! in text, lists become tables.

use bytes::Bytes;
use odgm_shard::client::{ClientError, CollectionMeta, GridClient};
use odgm_shard::object::CollectionName;
use odgm_shard::protocol::{Code, Refusal};
use serde_json::{Map, Value, json};

use super::arguments::{Collection, Node, Shard, ShardArgument};
use super::objects::read;
use crate::output::{self, Failure, Format};

pub(super) async fn meta(client: &GridClient, format: Format, name: &CollectionName) -> Result<(), Failure> {
    let meta = client.meta(name).await?;
    if format == Format::Json {
        return Ok(output::line(json!(*meta).to_string())?);
    }
    let CollectionMeta { collection, partitions, replication, incarnation, .. } = &*meta;
    output::line(format!("{collection}: {partitions} partitions, {replication}, incarnation {incarnation}"))?;
    shards_table(&meta)
}

fn shards_table(meta: &CollectionMeta) -> Result<(), Failure> {
    let row = |shard: &odgm_shard::client::ShardMeta| {
        let serving = shard.serving.clone().unwrap_or_else(|| "nobody".into());
        vec![format!("{}/{}", meta.collection, shard.partition), serving, shard.replicas.join(" ")]
    };
    let rows = meta.shards.iter().map(row).collect();
    Ok(output::table(&["SHARD", "SERVING", "REPLICAS"], rows, "no shards")?)
}

pub(super) async fn collection(
    client: &GridClient,
    format: Format,
    command: Collection,
) -> Result<(), Failure> {
    let done = match command {
        Collection::Create { name, file, partitions, replicas, replication } => {
            let payload = match file {
                Some(path) => read(&path)?,
                None => {
                    let mut spec = Map::from_iter([("name".to_owned(), json!(name.as_str()))]);
                    let given = [
                        ("partitions", partitions.map(|n| json!(n))),
                        ("replicas", replicas.map(|n| json!(n))),
                        ("replication", replication.map(|kind| json!(kind))),
                    ];
                    spec.extend(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
                    Value::Object(spec).to_string().into_bytes()
                }
            };
            let path = format!("collections/{name}");
            client.admin(&path, Some("create"), &[], Some(Bytes::from(payload))).await?
        }
        Collection::Update { name, file } => {
            let payload = Bytes::from(read(&file)?);
            client.admin(&format!("collections/{name}"), Some("update"), &[], Some(payload)).await?
        }
        Collection::Delete { name } => {
            client.admin(&format!("collections/{name}"), Some("delete"), &[], None).await?
        }
        Collection::Describe { name } => {
            client.admin(&format!("collections/{name}"), None, &[], None).await?
        }
        Collection::List => {
            let listed = client.admin("collections", None, &[], None).await?;
            return show_list(
                format,
                &listed,
                &["name", "replication", "partitions", "replicas"],
                "no collections",
            );
        }
    };
    show(format, &done)
}

pub(super) async fn node(client: &GridClient, format: Format, command: Node) -> Result<(), Failure> {
    let (name, op, with) = match command {
        Node::List => {
            let listed = client.admin("nodes", None, &[], None).await?;
            return show_list(format, &listed, &["name", "state", "zone", "replicas", "id"], "no nodes");
        }
        Node::Drain { name } => (name, "drain", None),
        Node::Undrain { name } => (name, "undrain", None),
        Node::Remove { name } => (name, "remove", None),
        Node::Replace { name, with } => (name, "replace", with),
    };
    chunk("node", &name)?;
    let parameters: Vec<_> = with.as_deref().map(|with| ("with", with)).into_iter().collect();
    show(format, &client.admin(&format!("nodes/{name}"), Some(op), &parameters, None).await?)
}

pub(super) async fn shard(client: &GridClient, format: Format, command: Shard) -> Result<(), Failure> {
    let (shard, op, to) = match command {
        Shard::Status { shard } => (shard, "status", None),
        Shard::Transfer { shard, to } => (shard, "transfer", to),
        Shard::Snapshot { shard } => (shard, "snapshot", None),
        Shard::Compact { shard } => (shard, "compact", None),
    };
    existing(client, &shard).await?;
    let ShardArgument { collection, partition } = shard;
    let parameters: Vec<_> = to.as_deref().map(|to| ("to", to)).into_iter().collect();
    show(
        format,
        &client.admin(&format!("shards/{collection}/{partition}"), Some(op), &parameters, None).await?,
    )
}

/// Refuses a shard that does not exist, which would give no answer at all: the records say so.
pub(super) async fn existing(client: &GridClient, shard: &ShardArgument) -> Result<(), Failure> {
    let Ok(collection) = CollectionName::parse(&shard.collection) else { return Ok(()) };
    let meta = client.meta(&collection).await?;
    if shard.partition >= meta.partitions {
        let message = format!("{collection} has partitions 0 to {}", meta.partitions.saturating_sub(1));
        return Err(ClientError::Refused(Refusal::new(Code::NoCollection, message)).into());
    }
    Ok(())
}

pub(super) async fn cluster_status(client: &GridClient, format: Format) -> Result<(), Failure> {
    let nodes = client.admin("nodes", None, &[], None).await?;
    let collections = client.admin("collections", None, &[], None).await?;
    if format == Format::Json {
        return Ok(output::line(json!({"nodes": nodes, "collections": collections}).to_string())?);
    }
    show_list(format, &nodes, &["name", "state", "zone", "replicas", "id"], "no nodes")?;
    output::line("")?;
    let collections: Vec<CollectionMeta> = serde_json::from_value(collections)
        .map_err(|error| odgm_shard::client::ClientError::Malformed(error.to_string()))?;
    let mut rows = Vec::new();
    for meta in &collections {
        for shard in &meta.shards {
            let serving = shard.serving.clone().unwrap_or_else(|| "nobody".into());
            rows.push(vec![
                format!("{}/{}", meta.collection, shard.partition),
                serving,
                shard.replicas.join(" "),
            ]);
        }
    }
    Ok(output::table(&["SHARD", "SERVING", "REPLICAS"], rows, "no collections")?)
}

/// An object line by line, or as it came.
pub(super) fn show(format: Format, value: &Value) -> Result<(), Failure> {
    match (format, value) {
        (Format::Text, Value::Object(fields)) => {
            for (name, value) in fields {
                output::line(format!("{name}: {}", plain(value)))?;
            }
        }
        _ => output::line(value.to_string())?,
    }
    Ok(())
}

pub(super) fn show_list(format: Format, list: &Value, columns: &[&str], none: &str) -> Result<(), Failure> {
    if format == Format::Json {
        return Ok(output::line(list.to_string())?);
    }
    let row = |item: &Value| columns.iter().map(|column| plain(&item[*column])).collect();
    let rows = list.as_array().into_iter().flatten().map(row).collect();
    let header: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
    Ok(output::table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows, none)?)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One chunk of a key, so that a name can't reach another one.
fn chunk(what: &str, name: &str) -> Result<(), Failure> {
    odgm_shard::object::ObjectId::parse(name)
        .map(drop)
        .map_err(|error| Failure::Usage(format!("{what} name: {error}")))
}
