//! `ROOT/@admin/collections` and `ROOT/@admin/nodes`: declared by the node that serves the system
//! shard, alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use odgm_shard::cluster::collection::CollectionUpdate;
use odgm_shard::cluster::transaction;
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
use crate::once::{self, Changed, Once};
use crate::request::{AdminRequest, respond};
use crate::system::SystemShard;
use crate::{meta, request};

/// Requests that wait; more are refused as busy.
const QUEUE: usize = 64;
/// How long a replacement waits for the new node to answer.
const REPLACEMENT: Duration = Duration::from_secs(3);

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
        (["collections"], None | Some("list")) => {
            Ok(list_collections(core, &ClusterMap::read(&system.raft.view())?))
        }
        (["collections", name], None) => describe(core, system, name),
        (["collections", name], Some("create")) => create(core, system, name, &request).await,
        (["collections", name], Some("delete")) => delete(core, system, name, &request).await,
        (["collections", name], Some("update")) => update(core, system, name, &request).await,
        (["nodes"], None | Some("list")) => {
            Ok(list_nodes(core, &ClusterMap::read(&system.raft.view())?).await)
        }
        (["nodes", name], None) => describe_node(core, system, name).await,
        (["nodes", name], Some("replace")) => replace(core, system, name, &request).await,
        (["nodes", _], Some(op @ ("drain" | "undrain" | "remove"))) => {
            Err(Refusal::new(Code::Unsupported, format!("op={op} is not supported yet")))
        }
        (["collections", _], Some(op)) => Err(request::unknown_op(op, "create, update or delete")),
        (["nodes", _], op) => {
            Err(request::unknown_op(op.unwrap_or_default(), "drain, undrain, remove or replace"))
        }
        (["collections" | "nodes"], Some(op)) => Err(request::unknown_op(op, "list")),
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
    let incarnation = Uuid::new_v4();
    let per_node = core.config.limits.replicas_per_node as usize;
    let once = Once::of(request, core.config.limits.rid_window.duration())?;
    let created = once::change(system, once.as_ref(), |map| {
        let operation = transaction::create_collection(map, &spec, *incarnation.as_bytes(), per_node)?;
        Ok((operation, described(&spec, &incarnation.simple().to_string())))
    });
    let created = created.await?;
    await_served(core, system, name).await;
    present(core, system, name, created)
}

/// What is remembered of a collection's creation or change, to be answered when it is gone.
fn described(spec: &CollectionSpec, incarnation: &str) -> Value {
    let mut described = json!(spec);
    described["collection"] = json!(spec.name);
    described["hash"] = json!("crc32");
    described["incarnation"] = json!(incarnation);
    described
}

/// A collection with its shards as they are now; what was answered first when it lives no more.
fn present(core: &Core, system: &SystemShard, name: &str, changed: Changed) -> Result<Value, Refusal> {
    match (describe(core, system, name), changed) {
        (Ok(now), Changed::Now(_)) => Ok(now),
        (Ok(now), Changed::Before(first)) if now["incarnation"] == first["incarnation"] => Ok(now),
        (_, Changed::Before(first)) => Ok(first),
        (Err(refused), Changed::Now(_)) => Err(refused),
    }
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
    let parsed = collection_name(name)?;
    let update: CollectionUpdate = request.body_named(name)?;
    let once = Once::of(request, core.config.limits.rid_window.duration())?;
    let changed = once::change(system, once.as_ref(), |map| {
        let operation = transaction::update_collection(map, &parsed, update.clone())?;
        let first = map.collections.get(&parsed).and_then(|collection| {
            let after = update.clone().apply(&collection.record.spec).ok()?;
            Some(described(&after, &collection.record.incarnation))
        });
        Ok((operation, first.unwrap_or_default()))
    });
    let changed = changed.await?;
    present(core, system, name, changed)
}

async fn delete(
    core: &Core,
    system: &SystemShard,
    name: &str,
    request: &AdminRequest,
) -> Result<Value, Refusal> {
    let parsed = collection_name(name)?;
    let once = Once::of(request, core.config.limits.rid_window.duration())?;
    let deleted = once::change(system, once.as_ref(), |map| {
        Ok((transaction::delete_collection(map, &parsed)?, json!({"deleted": name})))
    });
    match deleted.await? {
        Changed::Now(answer) | Changed::Before(answer) => Ok(answer),
    }
}

fn collection_name(name: &str) -> Result<CollectionName, Refusal> {
    CollectionName::parse(name).map_err(|error| Refusal::new(Code::InvalidParameter, error.to_string()))
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

async fn describe_node(core: &Core, system: &SystemShard, name: &str) -> Result<Value, Refusal> {
    let nodes = list_nodes(core, &ClusterMap::read(&system.raft.view())?).await;
    let found = nodes.as_array().into_iter().flatten().find(|node| node["name"] == name);
    found.cloned().ok_or_else(|| no_node(name))
}

fn no_node(name: &str) -> Refusal {
    Refusal::new(Code::NotFound, format!("node {name:?} not found"))
}

async fn replace(
    core: &Arc<Core>,
    system: &SystemShard,
    old: &str,
    request: &AdminRequest,
) -> Result<Value, Refusal> {
    let once = Once::of(request, core.config.limits.rid_window.duration())?;
    let map = ClusterMap::read(&system.raft.view())?;
    if let Some(first) = once.as_ref().and_then(|once| once.first(&map)) {
        return first;
    }
    if map.node_named(old).is_none() {
        return Err(no_node(old));
    }
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
    let replaced = once::change(system, once.as_ref(), |map| {
        let (operation, _) = transaction::replace_node(map, old, new, &name, &zone)?;
        Ok((operation, json!({"replaced": old, "with": name, "id": new})))
    });
    match replaced.await? {
        Changed::Now(answer) | Changed::Before(answer) => Ok(answer),
    }
}
