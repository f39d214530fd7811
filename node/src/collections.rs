//! The collections of the configuration: created when missing, at any start; a difference from what
//! exists is reported, never applied.

use std::sync::Arc;
use std::time::Duration;

use odgm_shard::cluster::transaction::{self, Refused};
use odgm_shard::cluster::{ClusterMap, CollectionSpec};
use odgm_shard::replication::ShardState;
use odgm_transport::link::PeerId;
use uuid::Uuid;

use crate::founding::ask;
use crate::messages::{NodeReply, NodeRequest};
use crate::node::Core;
use crate::system::{ChangeError, SystemShard};

const AGAIN: Duration = Duration::from_millis(250);

/// Creates what is missing. For the node that serves the system shard.
pub(crate) async fn create_missing(
    core: &Core,
    system: &SystemShard,
    specs: &[CollectionSpec],
) -> Result<(), ChangeError> {
    for spec in specs {
        let incarnation = *Uuid::new_v4().as_bytes();
        let per_node = core.config.limits.replicas_per_node as usize;
        let created = system
            .change(|map| Ok((transaction::create_collection(map, spec, incarnation, per_node)?, ())))
            .await;
        match created {
            Ok(()) => tracing::info!(collection = spec.name, "created"),
            Err(ChangeError::Refused(Refused::Exists(_))) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn missing(map: &ClusterMap, specs: &[CollectionSpec]) -> Vec<CollectionSpec> {
    let exists = |spec: &&CollectionSpec| map.collections.keys().any(|name| name.as_str() == spec.name);
    specs.iter().filter(|spec| !exists(spec)).cloned().collect()
}

/// What differs between the configuration and what exists, in words.
fn differences(map: &ClusterMap, specs: &[CollectionSpec]) -> Vec<String> {
    let mut found = Vec::new();
    for spec in specs {
        let Some(present) = map.collections.values().find(|present| present.record.spec.name == spec.name)
        else {
            continue;
        };
        let present = &present.record.spec;
        let mut differ = |what: &str, configured: String, exists: String| {
            if configured != exists {
                found.push(format!(
                    "collection {}: {what} is {exists}, configured is {configured}",
                    spec.name
                ));
            }
        };
        differ("partitions", spec.partitions.to_string(), present.partitions.to_string());
        if let Some(replicas) = spec.replicas {
            differ("replicas", replicas.to_string(), present.replicas.unwrap_or_default().to_string());
        }
        differ("replication", format!("{:?}", spec.replication), format!("{:?}", present.replication));
        differ("events.enabled", spec.events.enabled.to_string(), present.events.enabled.to_string());
        let retain = |spec: &CollectionSpec| serde_json::to_string(&spec.events.retain).unwrap_or_default();
        differ("events.retain", retain(spec), retain(present));
        let kept = |spec: &CollectionSpec| spec.tombstones().unwrap_or_default().retain.to_string();
        differ("tombstones.retain", kept(spec), kept(present));
    }
    found
}

/// Has the configured collections created, by whoever serves the system shard; ends when all exist.
pub(crate) async fn ensure(core: Arc<Core>) {
    let Some(system) = core.system() else { return };
    let specs = core.config.collection_specs();
    let mut told = String::new();
    loop {
        let map = system.map().borrow().clone();
        if map.counters.is_some() {
            let missing = missing(&map, &specs);
            if missing.is_empty() {
                for difference in differences(&map, &specs) {
                    tracing::warn!(
                        "{difference}: the configuration does not change a collection that exists"
                    );
                }
                return;
            }
            if let Err(reason) = request(&core, &system, missing).await
                && reason != told
            {
                tracing::warn!(reason, "a configured collection is not created yet");
                told = reason;
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn request(core: &Core, system: &SystemShard, missing: Vec<CollectionSpec>) -> Result<(), String> {
    if system.serves() {
        return create_missing(core, system, &missing).await.map_err(|error| error.to_string());
    }
    let serving = system.raft.status().borrow().serving.ok_or("nobody serves the system shard")?;
    match ask(&core.links, PeerId(serving.0), &NodeRequest::Ensure { collections: missing }).await? {
        NodeReply::Done => Ok(()),
        NodeReply::Refused(reason) => Err(reason),
        NodeReply::Hello(_) => Err("an answer to another question".into()),
    }
}
