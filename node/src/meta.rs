//! `ROOT/@meta/{collection}`: what a client must know of a collection; answered by every node, the
//! nearest alone. Beside it stands the node's liveliness token, `ROOT/@live/node/{name}`.

use std::sync::Arc;

use bytes::Bytes;
use odgm_shard::cluster::{ClusterMap, CollectionRecord};
use odgm_shard::object::CollectionName;
use odgm_shard::protocol::{Code, Refusal};
use odgm_transport::KeyExpr;
use odgm_transport::session::{Declaration, Query, QueryHandler, Sample};
use serde_json::{Value, json};

use crate::node::Core;
use crate::request::refuse;

/// Serves until the node stops.
pub(crate) async fn serve(core: Arc<Core>) {
    let prefix = format!("{}/@meta/", core.config.cluster.root);
    let served = KeyExpr::try_from(format!("{prefix}*")).map_err(|error| error.to_string());
    let answering = core.clone();
    // The records are in memory: an answer costs microseconds, on the receiving thread or elsewhere.
    let handler: QueryHandler = Arc::new(move |query| answer(&answering, &prefix, query));
    let declared =
        served.and_then(|key| core.client.serve(&key, true, handler).map_err(|error| error.to_string()));
    let lives = announce(&core);
    for failed in [declared.as_ref().err(), lives.as_ref().err()].into_iter().flatten() {
        tracing::error!(error = failed, "@meta can't be served");
    }
    core.stop.cancelled().await;
}

/// Tells clients that this node lives, until dropped.
fn announce(core: &Core) -> Result<Box<dyn Declaration>, String> {
    let key = format!("{}/@live/node/{}", core.config.cluster.root, core.config.node.name);
    let key = KeyExpr::try_from(key).map_err(|error| error.to_string())?;
    core.client.announce(&key).map_err(|error| error.to_string())
}

fn answer(core: &Core, prefix: &str, query: Query) {
    let asked = query.key.as_str().strip_prefix(prefix).unwrap_or_default().to_owned();
    if let Some(parameter) = query.parameters.split(';').find(|parameter| !parameter.is_empty()) {
        let message = format!("@meta takes no parameters, got {parameter:?}");
        return refuse(query, Refusal::new(Code::InvalidParameter, message));
    }
    let Some(map) = core.system().map(|system| system.map().borrow().clone()) else {
        return refuse(query, Refusal::new(Code::Unavailable, "the node belongs to no cluster yet"));
    };
    if map.counters.is_none() {
        return refuse(query, Refusal::new(Code::Unavailable, "the cluster is not founded yet"));
    }
    if asked.contains('*') {
        let root = query.key.clone();
        let matching: Vec<Sample> = map
            .collections
            .iter()
            .filter_map(|(name, collection)| sample(core, &map, prefix, name, &collection.record))
            .filter(|sample| sample.key.intersects(&root))
            .collect();
        let stream = query.stream();
        for sample in matching {
            if stream.send(Ok(sample)).is_err() {
                return;
            }
        }
        return;
    }
    let known = map.collections.iter().find(|(name, _)| name.as_str() == asked);
    let found = known.and_then(|(name, collection)| sample(core, &map, prefix, name, &collection.record));
    match found {
        Some(sample) => query.respond(Ok(sample)),
        None => {
            let message = format!("no collection {asked:?}");
            refuse(query, Refusal::new(Code::NoCollection, message));
        }
    }
}

fn sample(
    core: &Core,
    map: &ClusterMap,
    prefix: &str,
    name: &CollectionName,
    collection: &CollectionRecord,
) -> Option<Sample> {
    let payload = serde_json::to_vec(&describe(core, map, name, collection)).ok()?;
    Some(Sample {
        key: KeyExpr::try_from(format!("{prefix}{name}")).ok()?,
        payload: Some(Bytes::from(payload)),
        encoding: "application/json".into(),
        attachment: None,
        timestamp: None,
    })
}

/// What `@meta` says about a collection.
pub(crate) fn describe(
    core: &Core,
    map: &ClusterMap,
    name: &CollectionName,
    collection: &CollectionRecord,
) -> Value {
    let shards: Vec<Value> = collection
        .shards
        .iter()
        .enumerate()
        .map(|(partition, shard)| {
            // A replica here knows better than what was heard.
            let here = core
                .shards
                .get(shard.group)
                .and_then(|running| running.replica.state.status().borrow().serving);
            let serving =
                here.or_else(|| core.serving.of(shard.group, core.now())).map(|node| map.name_of(node));
            let replicas: Vec<String> =
                shard.replicas.iter().map(|replica| map.name_of(replica.node)).collect();
            json!({"partition": partition, "serving": serving, "replicas": replicas})
        })
        .collect();
    json!({
        "collection": name.as_str(),
        "partitions": collection.spec.partitions,
        "hash": "crc32",
        "replication": collection.spec.replication,
        "incarnation": collection.incarnation,
        "shards": shards,
    })
}
