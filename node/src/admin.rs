//! `ROOT/@admin/collections` and `ROOT/@admin/nodes`: declared by the node that serves the system
//! shard, alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use odgm_shard::cluster::collection::CollectionUpdate;
use odgm_shard::cluster::transaction::{self, Refused};
use odgm_shard::cluster::{ClusterMap, CollectionSpec};
use odgm_shard::object::{CollectionName, NodeId};
use odgm_shard::protocol::{Code, Refusal};
use odgm_shard::replication::{Role, ShardState};
use odgm_transport::KeyExpr;
use odgm_transport::link::PeerId;
use odgm_transport::session::{Declaration, Query, QueryHandler};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::founding::introductions;
use crate::node::Core;
use crate::request::{AdminRequest, respond};
use crate::system::{ChangeError, SystemShard};
use crate::{meta, request};

/// Requests that wait; more are refused as busy.
const QUEUE: usize = 64;
/// How long a replacement waits for the new node to answer.
const REPLACEMENT: Duration = Duration::from_secs(5);

/// Declares the keys while this node serves the system shard, and answers; until the node stops.
pub(crate) async fn serve(core: Arc<Core>) {
    let Some(system) = core.system() else { return };
    let (sender, mut queries) = mpsc::channel::<Query>(QUEUE);
    let mut status = system.raft.status();
    let mut declared: Vec<Box<dyn Declaration>> = Vec::new();
    loop {
        let serves = status.borrow_and_update().role == Role::Serving;
        if serves && declared.is_empty() {
            declared = declare(&core, &sender);
        } else if !serves {
            declared.clear();
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
            query = queries.recv() => if let Some(query) = query {
                let (core, system) = (core.clone(), system.clone());
                tokio::spawn(async move {
                    let outcome = answer(&core, &system, &query).await;
                    respond(query, outcome);
                });
            },
        }
    }
}

fn declare(core: &Core, sender: &mpsc::Sender<Query>) -> Vec<Box<dyn Declaration>> {
    let mut declared = Vec::new();
    for part in ["collections", "nodes"] {
        let handler = request::queueing(sender.clone());
        let key = KeyExpr::try_from(format!("{}/@admin/{part}/**", core.config.cluster.root));
        match key.map_err(|error| error.to_string()).and_then(|key| serve_key(core, &key, handler)) {
            Ok(declaration) => declared.push(declaration),
            Err(error) => tracing::error!(error, "@admin can't be served"),
        }
    }
    declared
}

fn serve_key(
    core: &Core,
    key: &KeyExpr<'static>,
    handler: QueryHandler,
) -> Result<Box<dyn Declaration>, String> {
    core.client.serve(key, false, handler).map_err(|error| error.to_string())
}

async fn answer(core: &Arc<Core>, system: &SystemShard, query: &Query) -> Result<Value, Refusal> {
    let request = AdminRequest::parse(&core.config.cluster.root, query)?;
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    system.raft.read_barrier().await?;
    match (path.as_slice(), request.op.as_deref()) {
        (["collections"], None) => Ok(list_collections(core, &ClusterMap::read(&system.raft.view())?)),
        (["collections", name], None) => describe(core, system, name),
        (["collections", name], Some("create")) => create(core, system, name, &request).await,
        (["collections", name], Some("delete")) => delete(system, name).await,
        (["collections", name], Some("update")) => update(core, system, name, &request).await,
        (["nodes"], None) => Ok(list_nodes(core, &ClusterMap::read(&system.raft.view())?).await),
        (["nodes", name], Some("replace")) => replace(core, system, name, &request).await,
        (["nodes", _], Some(op @ ("drain" | "undrain" | "remove"))) => {
            Err(Refusal::new(Code::Unsupported, format!("op={op} is not supported yet")))
        }
        (["collections", _], Some(op)) => Err(request::unknown_op(op, "create, update or delete")),
        (["nodes", _], op) => {
            Err(request::unknown_op(op.unwrap_or_default(), "drain, undrain, remove or replace"))
        }
        (["collections" | "nodes"], Some(op)) => Err(request::unknown_op(op, "none: it lists")),
        _ => {
            Err(Refusal::new(Code::InvalidKey, "allowed are @admin/collections[/NAME], @admin/nodes[/NAME]"))
        }
    }
}

fn list_collections(core: &Core, map: &ClusterMap) -> Value {
    map.collections.iter().map(|(name, collection)| summary(core, map, name, &collection.record)).collect()
}

fn summary(
    core: &Core,
    map: &ClusterMap,
    name: &CollectionName,
    collection: &odgm_shard::cluster::CollectionRecord,
) -> Value {
    let mut described = meta::describe(core, map, name, collection);
    described["name"] = json!(name.as_str());
    described["replicas"] = json!(collection.spec.replicas);
    described["events"] = json!(collection.spec.events);
    described["indexes"] = json!(collection.spec.indexes);
    if let Some(tombstones) = collection.spec.tombstones() {
        described["tombstones"] = json!(tombstones);
    }
    described
}

fn describe(core: &Core, system: &SystemShard, name: &str) -> Result<Value, Refusal> {
    let map = ClusterMap::read(&system.raft.view())?;
    let found = map.collections.iter().find(|(known, _)| known.as_str() == name);
    let (name, collection) =
        found.ok_or_else(|| Refusal::new(Code::NoCollection, format!("no collection {name:?}")))?;
    Ok(summary(core, &map, name, &collection.record))
}

async fn create(
    core: &Core,
    system: &SystemShard,
    name: &str,
    request: &AdminRequest,
) -> Result<Value, Refusal> {
    let spec: CollectionSpec = request.body_named(name)?;
    let incarnation = request.rid_uuid().unwrap_or_else(Uuid::new_v4);
    let per_node = core.config.limits.replicas_per_node as usize;
    let created = system
        .change(|map| {
            let operation = transaction::create_collection(map, &spec, *incarnation.as_bytes(), per_node)?;
            Ok((operation, ()))
        })
        .await;
    match created {
        Ok(()) => {}
        // The same request again: a repeat of a rid gets the first answer.
        Err(ChangeError::Refused(Refused::Exists(_))) if made_by(system, name, incarnation)? => {}
        Err(error) => return Err(refusal(error)),
    }
    await_served(core, system, name).await;
    describe(core, system, name)
}

fn made_by(system: &SystemShard, name: &str, incarnation: Uuid) -> Result<bool, Refusal> {
    let map = ClusterMap::read(&system.raft.view())?;
    let made = map.collections.iter().find(|(known, _)| known.as_str() == name);
    Ok(made.is_some_and(|(_, collection)| collection.record.incarnation_bytes() == *incarnation.as_bytes()))
}

/// Gives the new shards a moment to elect: a client that creates and writes should not have to retry.
async fn await_served(core: &Core, system: &SystemShard, name: &str) {
    let served = || {
        let map = system.map().borrow().clone();
        map.shards().filter(|(collection, ..)| collection.as_str() == name).all(|(_, _, _, shard)| {
            let here = core
                .shards
                .get(shard.group)
                .and_then(|running| running.replica.state.status().borrow().serving);
            here.or_else(|| core.serving.of(shard.group, core.now())).is_some()
        })
    };
    let deadline = core.now() + Duration::from_secs(3);
    while !served() && core.now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn update(
    core: &Core,
    system: &SystemShard,
    name: &str,
    request: &AdminRequest,
) -> Result<Value, Refusal> {
    let parsed = CollectionName::parse(name)
        .map_err(|error| Refusal::new(Code::InvalidParameter, error.to_string()))?;
    let update: CollectionUpdate = request.body_named(name)?;
    let change = |map: &ClusterMap| Ok((transaction::update_collection(map, &parsed, update.clone())?, ()));
    system.change(change).await.map_err(refusal)?;
    describe(core, system, name)
}

async fn delete(system: &SystemShard, name: &str) -> Result<Value, Refusal> {
    let parsed = CollectionName::parse(name)
        .map_err(|error| Refusal::new(Code::InvalidParameter, error.to_string()))?;
    system.change(|map| Ok((transaction::delete_collection(map, &parsed)?, ()))).await.map_err(refusal)?;
    Ok(json!({"deleted": name}))
}

async fn list_nodes(core: &Core, map: &ClusterMap) -> Value {
    let present = core.links.peers();
    let mut nodes: Vec<Value> = map
        .nodes
        .values()
        .map(|node| {
            let node = &node.record;
            let here = node.id == core.node || present.contains_key(&PeerId(node.id.0));
            json!({
                "name": node.name, "id": node.id, "zone": node.zone,
                "state": if here { "present" } else { "absent" },
                "replicas": map.replicas_on(node.id),
            })
        })
        .collect();
    for hello in introductions(&core.links).await {
        if hello.cluster.is_none() {
            let (name, id, zone) = (hello.name, hello.node, hello.zone);
            nodes.push(json!({"name": name, "id": id, "zone": zone, "state": "waiting", "replicas": 0}));
        }
    }
    Value::Array(nodes)
}

async fn replace(
    core: &Arc<Core>,
    system: &SystemShard,
    old: &str,
    request: &AdminRequest,
) -> Result<Value, Refusal> {
    let with = request.parameter("with").unwrap_or(old);
    let chosen = |waiting: &BTreeMap<NodeId, (String, String)>| {
        let named = waiting.iter().find(|(_, (name, _))| name == with);
        let found = named.or_else(|| {
            let only = waiting.len() == 1 && request.parameter("with").is_none();
            only.then(|| waiting.iter().next()).flatten()
        });
        found.map(|(new, (name, zone))| (*new, name.clone(), zone.clone()))
    };
    // A node that was just started, or is busy, may not answer the first time.
    let deadline = core.now() + REPLACEMENT;
    let (waiting, found) = loop {
        let hellos = introductions(&core.links).await.into_iter().filter(|hello| hello.cluster.is_none());
        let waiting = hellos.map(|hello| (hello.node, (hello.name, hello.zone))).collect();
        let found = chosen(&waiting);
        if found.is_some() || core.now() >= deadline {
            break (waiting, found);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let Some((new, name, zone)) = found else {
        let names: Vec<&str> = waiting.values().map(|(name, _)| name.as_str()).collect();
        let message = format!(
            "no new node waits under the name {with:?}: start one with an empty data directory first (waiting: [{}])",
            names.join(", ")
        );
        return Err(Refusal::new(Code::NotFound, message));
    };
    // The records come first; whoever serves the system shard then tells the new node, until it knows.
    system
        .change(|map| Ok((transaction::replace_node(map, old, new, &name, &zone)?.0, ())))
        .await
        .map_err(refusal)?;
    Ok(json!({"replaced": old, "with": name, "id": new}))
}

fn refusal(error: ChangeError) -> Refusal {
    match error {
        ChangeError::Refused(refused) => {
            let code = match refused {
                Refused::Invalid(_) => Code::InvalidParameter,
                Refused::Unsupported(_) => Code::Unsupported,
                Refused::NoCollection(_) => Code::NoCollection,
                Refused::NotFound(_) => Code::NotFound,
                Refused::Exists(_) => Code::Exists,
                Refused::Quota(_) => Code::Quota,
                Refused::NotFounded => Code::Unavailable,
            };
            Refusal::new(code, refused.to_string())
        }
        ChangeError::Shard(error) => error.into(),
    }
}
