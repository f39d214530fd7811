//! An administration request as it arrives, and how it is answered.

use bytes::Bytes;
use odgm_shard::protocol::{Code, Refusal};
use odgm_transport::session::{Query, QueryHandler, Sample};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use uuid::Uuid;

/// A parsed request.
#[derive(Debug)]
pub(crate) struct AdminRequest {
    /// The chunks behind `@admin`.
    pub(crate) path: Vec<String>,
    /// `op`.
    pub(crate) op: Option<String>,
    parameters: BTreeMap<String, String>,
    payload: Option<Bytes>,
}

/// Parameters that administration knows, besides `op` and `rid`.
const KNOWN: [&str; 5] = ["with", "to", "timeout", "id", "offset"];

impl AdminRequest {
    /// Parses a query under `{root}/@admin/`.
    ///
    /// # Errors
    /// Says what is wrong and what is allowed.
    pub(crate) fn parse(root: &str, query: &Query) -> Result<Self, Refusal> {
        let behind = query.key.as_str().strip_prefix(&format!("{root}/@admin/")).unwrap_or_default();
        if behind.contains('*') {
            return Err(Refusal::new(Code::InvalidKey, "administration takes no wildcards"));
        }
        let mut parameters = odgm_shard::protocol::parameters::pairs(&query.parameters)?;
        let op = parameters.remove("op");
        for name in parameters.keys() {
            if name != "rid" && !KNOWN.contains(&name.as_str()) {
                let message =
                    format!("unknown parameter {name:?}, allowed are op, rid, {}", KNOWN.join(", "));
                return Err(Refusal::new(Code::InvalidParameter, message));
            }
        }
        let path = behind.split('/').map(str::to_owned).collect();
        Ok(AdminRequest { path, op, parameters, payload: query.payload.clone() })
    }

    /// A parameter's value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// What is asked for, however often: all but the request id and the time to wait.
    pub(crate) fn fingerprint(&self) -> String {
        let parameters = self.parameters.iter().filter(|(name, _)| *name != "rid" && *name != "timeout");
        let parameters: Vec<_> = parameters.collect();
        let asked = (&self.path, &self.op, parameters, self.payload.as_deref().unwrap_or_default());
        let text = serde_json::to_vec(&asked).unwrap_or_default();
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &text).simple().to_string()
    }

    /// The payload as JSON or YAML, with the name of the key when it gives none.
    pub(crate) fn body_named<T: DeserializeOwned>(&self, name: &str) -> Result<T, Refusal> {
        let refuse = |message: String| Refusal::new(Code::InvalidParameter, message);
        let text = std::str::from_utf8(self.payload.as_deref().unwrap_or_default())
            .map_err(|_| refuse("the payload is not UTF-8".into()))?;
        let mut value: Value = if text.trim().is_empty() {
            Value::Object(serde_json::Map::new())
        } else {
            // First as YAML's own value: that refuses a key given twice.
            serde_yaml::from_str::<serde_yaml::Value>(text)
                .map_err(|error| error.to_string())
                .and_then(|yaml| serde_json::to_value(yaml).map_err(|error| error.to_string()))
                .map_err(|error| refuse(format!("the payload is no JSON or YAML: {error}")))?
        };
        let Some(fields) = value.as_object_mut() else {
            return Err(refuse("the payload must be an object of JSON or YAML".into()));
        };
        let given = fields.entry("name").or_insert_with(|| Value::String(name.to_owned()));
        if given.as_str() != Some(name) {
            return Err(refuse(format!("the payload names {given}, the key {name:?}")));
        }
        serde_json::from_value(value).map_err(|error| refuse(error.to_string()))
    }
}

/// A refusal of an unknown `op`.
pub(crate) fn unknown_op(op: &str, allowed: &str) -> Refusal {
    Refusal::new(Code::InvalidParameter, format!("op={op} is unknown here, allowed is {allowed}"))
}

/// A handler that queues queries and refuses what finds the queue full.
pub(crate) fn queueing(sender: mpsc::Sender<Query>) -> QueryHandler {
    Arc::new(move |query| {
        if let Err(error) = sender.try_send(query) {
            let (mpsc::error::TrySendError::Full(query) | mpsc::error::TrySendError::Closed(query)) = error;
            refuse(query, Refusal::new(Code::Busy, "too many administration requests"));
        }
    })
}

/// Refuses.
pub(crate) fn refuse(query: Query, refusal: Refusal) {
    let reply = refusal.reply_to(&query.parameters, Uuid::new_v4);
    query.respond(reply);
}

/// Answers with JSON, on the key that was asked.
pub(crate) fn respond(query: Query, outcome: Result<Value, Refusal>) {
    let reply = outcome.map(|value| Sample {
        key: query.key.clone(),
        payload: Some(value.to_string().into()),
        encoding: "application/json".into(),
        attachment: None,
        timestamp: None,
    });
    match reply {
        Ok(sample) => query.respond(Ok(sample)),
        Err(refusal) => refuse(query, refusal),
    }
}
