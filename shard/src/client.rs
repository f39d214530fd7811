//! A client of the grid: what any zenoh client can do by hand, with the rules for retries written once.
//!
//! Every change is an acknowledged command with a request id. What has no answer, or one that says
//! "not now" or "unknown", is repeated with the same id until the deadline; then it is
//! [`ClientError::Unknown`], never "absent" and never "failed". Knows nothing of the nodes but what
//! `@meta` says; needs a runtime of tokio with time.

mod ask;
mod error;
mod list;
mod read;
mod resume;
#[cfg(test)]
mod tests;
mod watch;
mod wire;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use odgm_transport::session::Call;
use odgm_transport::{KeyExpr, Session};
use serde::{Deserialize, Serialize};

use crate::object::{CollectionName, ObjectId, Partition, partition_of};
use crate::protocol::{Keys, Refusal, parameters};

pub use error::ClientError;
pub use list::{Find, Listed, Lister, Page, Selected};
pub use read::{Consistency, Found};
pub use resume::{Place, Resumed, Seen};
pub use watch::{Event, Watch};
pub use write::{Acknowledged, Put, PutCondition};

/// Result of a call of the client.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// How a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// The keys of the grid. Default: those under `odgm`.
    pub keys: Keys,
    /// When an operation gives up, with all its repeats. Default 10 s.
    pub deadline: Duration,
    /// When one attempt of it gives up. Default 3 s.
    pub attempt: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            keys: Keys::new("odgm").expect("one concrete chunk is a root"),
            deadline: Duration::from_secs(10),
            attempt: Duration::from_secs(3),
        }
    }
}

impl ClientOptions {
    /// The defaults, under another root.
    ///
    /// # Errors
    /// When the root is no key.
    pub fn under(root: &str) -> Result<Self> {
        Ok(ClientOptions { keys: Keys::new(root).map_err(invalid)?, ..ClientOptions::default() })
    }
}

/// What `@meta` says of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectionMeta {
    /// Its name.
    pub collection: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// How an object's partition is found.
    pub hash: String,
    /// How replicas agree.
    pub replication: String,
    /// Another one after it was deleted and created again.
    pub incarnation: String,
    /// Who holds and who serves each partition.
    pub shards: Vec<ShardMeta>,
}

/// What `@meta` says of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMeta {
    /// Its number.
    pub partition: u32,
    /// The node that serves it, as the answering node knows it.
    pub serving: Option<String>,
    /// The nodes that hold it.
    pub replicas: Vec<String>,
}

/// A client over one session. Cheap to share; calls run beside each other.
#[derive(Debug)]
pub struct GridClient {
    session: Arc<dyn Session>,
    options: ClientOptions,
    known: Mutex<HashMap<CollectionName, Arc<CollectionMeta>>>,
}

impl GridClient {
    /// A client that asks over `session`.
    pub fn new(session: Arc<dyn Session>, options: ClientOptions) -> Self {
        GridClient { session, options, known: Mutex::default() }
    }

    /// The session.
    pub fn session(&self) -> &Arc<dyn Session> {
        &self.session
    }

    /// How it asks.
    pub fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// What the nodes say of a collection, asked anew.
    ///
    /// # Errors
    /// `NO_COLLECTION` when there is none.
    pub async fn meta(&self, collection: &CollectionName) -> Result<Arc<CollectionMeta>> {
        let meta = Arc::new(self.ask_meta(collection).await?);
        self.lock().insert(collection.clone(), meta.clone());
        Ok(meta)
    }

    /// The partition of an object; asks `@meta` once a collection.
    ///
    /// # Errors
    /// As [`GridClient::meta`].
    pub async fn partition(&self, collection: &CollectionName, object: &ObjectId) -> Result<Partition> {
        let known = self.lock().get(collection).cloned();
        let meta = match known {
            Some(meta) => meta,
            None => self.meta(collection).await?,
        };
        Ok(partition_of(object, meta.partitions))
    }

    /// Asks the administration: `path` such as `nodes/a`, with `op`, further parameters and a payload.
    ///
    /// # Errors
    /// What the grid refuses, or no answer within the deadline.
    pub async fn admin(
        &self,
        path: &str,
        op: Option<&str>,
        parameters: &[(&str, &str)],
        payload: Option<bytes::Bytes>,
    ) -> Result<serde_json::Value> {
        let rid = op.filter(|op| *op != "status").map(|_| wire::generated_rid());
        let mut given = Vec::new();
        given.extend(op.map(|op| ("op", op)));
        given.extend_from_slice(parameters);
        given.extend(rid.as_deref().map(|rid| ("rid", rid)));
        let key = self.options.keys.admin(&path.split('/').collect::<Vec<_>>()).map_err(invalid)?;
        let mut call = self.call(key, &given);
        call.payload = payload;
        let sample = self.ask(&ask::Question { call, collection: None, rid, changes: op.is_some() }).await?;
        wire::json(&sample)
    }

    pub(crate) fn forget(&self, collection: &CollectionName) {
        self.lock().remove(collection);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CollectionName, Arc<CollectionMeta>>> {
        // The map is whole between any two of its calls.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, key: KeyExpr<'static>, given: &[(&str, &str)]) -> Call {
        let mut call = Call::new(key, self.options.attempt);
        call.parameters = parameters::join(given.iter().map(|(name, value)| (*name, (*value).to_owned())));
        call
    }
}

fn invalid(refusal: Refusal) -> ClientError {
    ClientError::Invalid(refusal.message)
}
