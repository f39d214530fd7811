//! Acknowledged commands.

use bytes::Bytes;
use serde_json::Value;

use super::ask::Question;
use super::{ClientError, GridClient, Result, wire};
use crate::object::{CollectionName, ObjectKey, Partition};
use crate::protocol::Plane;
use crate::protocol::refusal::JSON;

/// A value to be put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Put {
    /// The value.
    pub value: Bytes,
    /// Its zenoh encoding; empty for none.
    pub encoding: String,
    /// Its attachment.
    pub attachment: Option<Bytes>,
    /// When it ends, as INTERFACE writes it: `30s`.
    pub ttl: Option<String>,
    /// What must hold.
    pub condition: PutCondition,
}

impl Put {
    /// A value and nothing else.
    pub fn value(value: impl Into<Bytes>) -> Self {
        Put { value: value.into(), ..Put::default() }
    }
}

/// What must hold for a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PutCondition {
    /// Nothing.
    #[default]
    None,
    /// The object has this revision.
    Revision(u64),
    /// The key has no value.
    Absent,
    /// The key has a value.
    Present,
}

/// An acknowledged change: durable on a quorum and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// The request id it was sent with.
    pub rid: String,
    /// The object's revision after it.
    pub revision: u64,
    /// Of the object's first change.
    pub created_revision: u64,
    /// How many changes the object has seen.
    pub version: u64,
    /// When the key ends, Unix milliseconds; 0 is never.
    pub expires_unix_ms: u64,
    /// The new value of an increment; else empty.
    pub value: Bytes,
}

impl GridClient {
    /// Sets a value. Without `rid` one is generated, the same for all repeats.
    ///
    /// # Errors
    /// What the grid refuses, such as `CONFLICT`; [`ClientError::Unknown`] when nobody could say.
    pub async fn put(
        &self,
        collection: &CollectionName,
        key: &ObjectKey,
        put: Put,
        rid: Option<&str>,
    ) -> Result<Acknowledged> {
        let revision;
        let mut parameters = vec![("op", "put")];
        match put.condition {
            PutCondition::None => {}
            PutCondition::Revision(expected) => {
                revision = expected.to_string();
                parameters.push(("if_revision", &revision));
            }
            PutCondition::Absent => parameters.push(("if_absent", "1")),
            PutCondition::Present => parameters.push(("if_present", "1")),
        }
        parameters.extend(put.ttl.as_deref().map(|ttl| ("ttl", ttl)));
        self.command(collection, key, parameters, Some((put.value, put.encoding, put.attachment)), rid).await
    }

    /// Deletes an object with its entries, or one entry. What is absent is deleted already.
    ///
    /// # Errors
    /// As [`GridClient::put`].
    pub async fn delete(
        &self,
        collection: &CollectionName,
        key: &ObjectKey,
        if_revision: Option<u64>,
        rid: Option<&str>,
    ) -> Result<Acknowledged> {
        let revision = if_revision.map(|revision| revision.to_string());
        let mut parameters = vec![("op", "delete")];
        parameters.extend(revision.as_deref().map(|revision| ("if_revision", revision)));
        self.command(collection, key, parameters, None, rid).await
    }

    /// Adds to a decimal integer kept as text; the new value is in the answer.
    ///
    /// # Errors
    /// As [`GridClient::put`].
    pub async fn increment(
        &self,
        collection: &CollectionName,
        key: &ObjectKey,
        by: i64,
        rid: Option<&str>,
    ) -> Result<Acknowledged> {
        let by = by.to_string();
        self.command(collection, key, vec![("op", "increment"), ("by", &by)], None, rid).await
    }

    /// Sets a new time to live (`30s`), or none (`none`).
    ///
    /// # Errors
    /// As [`GridClient::put`].
    pub async fn touch(
        &self,
        collection: &CollectionName,
        key: &ObjectKey,
        ttl: &str,
        rid: Option<&str>,
    ) -> Result<Acknowledged> {
        self.command(collection, key, vec![("op", "touch"), ("ttl", ttl)], None, rid).await
    }

    /// Runs a transaction over objects of one partition; the JSON of INTERFACE §4 in and out.
    ///
    /// # Errors
    /// As [`GridClient::put`].
    pub async fn txn(
        &self,
        collection: &CollectionName,
        partition: Partition,
        body: &Value,
        rid: Option<&str>,
    ) -> Result<Value> {
        let rid = rid.map_or_else(wire::generated_rid, str::to_owned);
        let key = self.options.keys.partition(Plane::Command, collection, partition);
        let mut call = self.call(key, &[("op", "txn"), ("rid", &rid)]);
        call.payload = Some(body.to_string().into());
        call.encoding = JSON.into();
        let question = Question { call, collection: Some(collection.clone()), rid: Some(rid), changes: true };
        wire::json(&self.ask(&question).await?)
    }

    async fn command(
        &self,
        collection: &CollectionName,
        key: &ObjectKey,
        mut parameters: Vec<(&str, &str)>,
        payload: Option<(Bytes, String, Option<Bytes>)>,
        rid: Option<&str>,
    ) -> Result<Acknowledged> {
        if rid.is_some_and(|rid| rid.is_empty() || rid.len() > 64) {
            return Err(ClientError::Invalid("a rid has 1 to 64 bytes".into()));
        }
        let rid = rid.map_or_else(wire::generated_rid, str::to_owned);
        parameters.push(("rid", &rid));
        let partition = self.partition(collection, &key.object).await?;
        let mut call =
            self.call(self.options.keys.object(Plane::Command, collection, partition, key), &parameters);
        if let Some((value, encoding, attachment)) = payload {
            (call.payload, call.encoding, call.attachment) = (Some(value), encoding, attachment);
        }
        let question =
            Question { call, collection: Some(collection.clone()), rid: Some(rid.clone()), changes: true };
        let sample = self.ask(&question).await?;
        let numbers = wire::attachment(&sample)?;
        Ok(Acknowledged {
            rid,
            revision: numbers.revision,
            created_revision: numbers.created_revision,
            version: numbers.version,
            expires_unix_ms: numbers.expires_unix_ms,
            value: sample.payload.unwrap_or_default(),
        })
    }
}
