//! `ROOT/@admin/shards/{collection}/{partition}`: declared by the replica that serves the shard.

use std::sync::Arc;

use base64::Engine;
use odgm_shard::object::ReplicaId;
use odgm_shard::protocol::{Code, Refusal};
use odgm_shard::replication::raft::RaftShard;
use odgm_shard::replication::{Role, ShardState};
use odgm_shard::runtime::TokioRuntime;
use odgm_transport::KeyExpr;
use odgm_transport::session::{Declaration, Query};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cli::snapshot;
use crate::node::Core;
use crate::request::{self, AdminRequest, respond};
use crate::shards::Running;
use crate::status;

const QUEUE: usize = 16;
/// Bytes of a snapshot in one answer.
const RANGE_BYTES: usize = 1 << 20;

/// Declares the key while this replica serves, and answers; until told to stop.
pub(crate) async fn serve(core: Arc<Core>, running: Arc<Running>, stop: CancellationToken) {
    let (sender, mut queries) = mpsc::channel::<Query>(QUEUE);
    let mut status = running.replica.state.status();
    let mut declared: Option<Box<dyn Declaration>> = None;
    loop {
        let serves = status.borrow_and_update().role == Role::Serving;
        if serves && declared.is_none() {
            declared = declare(&core, &running, &sender);
        } else if !serves {
            declared = None;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = status.changed() => if changed.is_err() { return },
            query = queries.recv() => if let Some(query) = query {
                let (core, running) = (core.clone(), running.clone());
                tokio::spawn(async move {
                    let outcome = answer(&core, &running, &query).await;
                    respond(query, outcome);
                });
            },
        }
    }
}

fn declare(core: &Core, running: &Running, sender: &mpsc::Sender<Query>) -> Option<Box<dyn Declaration>> {
    let root = &core.config.cluster.root;
    let key = format!("{root}/@admin/shards/{}/{}", running.collection, running.partition);
    let key = KeyExpr::try_from(key).map_err(|error| error.to_string());
    let handler = request::queueing(sender.clone());
    match key.and_then(|key| core.client.serve(&key, false, handler).map_err(|error| error.to_string())) {
        Ok(declaration) => Some(declaration),
        Err(error) => {
            tracing::error!(error, "a shard's administration can't be served");
            None
        }
    }
}

async fn answer(core: &Arc<Core>, running: &Running, query: &Query) -> Result<Value, Refusal> {
    let request = AdminRequest::parse(&core.config.cluster.root, query)?;
    match request.op.as_deref() {
        None | Some("status") => Ok(describe(core, running)),
        Some("transfer") => transfer(core, running, request.parameter("to")).await,
        Some("snapshot") => {
            raft(running, "op=snapshot")?.snapshot().await?;
            Ok(describe(core, running))
        }
        Some("snapshots") => {
            let listed = raft(running, "op=snapshots")?.snapshots().await?;
            Ok(listed.iter().map(snapshot::describe).collect())
        }
        Some("export") => Ok(snapshot::describe(&raft(running, "op=export")?.export().await?)),
        Some("read") => read(running, &request).await,
        Some("compact") => Err(Refusal::new(Code::Unsupported, "op=compact is not supported yet")),
        Some(op) => {
            Err(request::unknown_op(op, "status, transfer, snapshot, snapshots, export, read or compact"))
        }
    }
}

/// A range of a snapshot that was exported.
async fn read(running: &Running, request: &AdminRequest) -> Result<Value, Refusal> {
    let wrong = |what: &str| Refusal::new(Code::InvalidParameter, format!("op=read needs {what}"));
    let id = request.parameter("id").and_then(|id| id.parse::<Uuid>().ok());
    let id = id.ok_or_else(|| wrong("id, as op=export answers it"))?;
    let offset = request.parameter("offset").and_then(|offset| offset.parse().ok());
    let offset = offset.ok_or_else(|| wrong("offset, a number of bytes"))?;
    let range = raft(running, "op=read")?.read_snapshot(id, offset, RANGE_BYTES).await?;
    let range = range.ok_or_else(|| {
        Refusal::new(Code::NotFound, format!("snapshot {id} is not on this replica: export again"))
    })?;
    Ok(json!({"base64": base64::engine::general_purpose::STANDARD.encode(range)}))
}

fn describe(core: &Core, running: &Running) -> Value {
    status::shard(core, running.group, running)
}

/// The replica of a shard that has a leader and a log.
fn raft<'a>(running: &'a Running, op: &str) -> Result<&'a RaftShard<TokioRuntime>, Refusal> {
    running.replica.raft.as_deref().ok_or_else(|| {
        let message = format!("{op} is for raft collections: in this one every replica stands for itself");
        Refusal::new(Code::Unsupported, message)
    })
}

async fn transfer(core: &Core, running: &Running, to: Option<&str>) -> Result<Value, Refusal> {
    let map = core.system().map(|system| system.map().borrow().clone()).unwrap_or_default();
    let raft = raft(running, "op=transfer")?;
    let voters = raft.status().borrow().voters.clone();
    let others: Vec<(ReplicaId, String)> = voters
        .into_iter()
        .filter(|(replica, _)| *replica != raft.replica())
        .map(|(replica, node)| (replica, map.name_of(node)))
        .collect();
    if let Some(to) = to.filter(|to| *to == core.config.node.name) {
        return Ok(json!({"serving": to}));
    }
    let target = others.iter().find(|(_, name)| to.is_none_or(|to| to == name));
    let Some((replica, name)) = target else {
        let names: Vec<&str> = others.iter().map(|(_, name)| name.as_str()).collect();
        let message = match to {
            None => "no other replica can serve".to_owned(),
            Some(to) => format!("{to:?} is no other voter, allowed are [{}]", names.join(", ")),
        };
        return Err(Refusal::new(Code::InvalidParameter, message));
    };
    raft.transfer_leader(*replica).await?;
    Ok(json!({"serving": name}))
}
