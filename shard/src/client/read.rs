//! Reading one key.

use bytes::Bytes;
use odgm_transport::session::{Sample, Timestamp};

use super::ask::Question;
use super::{ClientError, GridClient, Result, wire};
use crate::object::{CollectionName, ObjectKey};
use crate::protocol::{Code, Plane};

/// How fresh a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The strongest that the collection offers.
    #[default]
    Strongest,
    /// Sees every write that was acknowledged before it.
    Linearizable,
    /// What the serving replica has applied.
    Local,
}

impl Consistency {
    pub(super) fn parameter(self) -> Option<(&'static str, &'static str)> {
        match self {
            Consistency::Strongest => None,
            Consistency::Linearizable => Some(("cons", "linearizable")),
            Consistency::Local => Some(("cons", "local")),
        }
    }
}

/// A value with its numbers; of an entry: its object's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: Bytes,
    /// Its zenoh encoding; empty when none was given.
    pub encoding: String,
    /// Its attachment; empty when none was given.
    pub attachment: Bytes,
    /// The revision of the object's last change.
    pub revision: u64,
    /// Of its first.
    pub created_revision: u64,
    /// How many changes it has seen.
    pub version: u64,
    /// When the key ends, Unix milliseconds; 0 is never.
    pub expires_unix_ms: u64,
    /// The collection's incarnation.
    pub incarnation: [u8; 16],
    /// When it was committed.
    pub timestamp: Option<Timestamp>,
}

impl Found {
    pub(super) fn read(sample: Sample) -> Result<Self> {
        let numbers = wire::attachment(&sample)?;
        Ok(Found {
            value: sample.payload.unwrap_or_default(),
            encoding: sample.encoding,
            attachment: numbers.user,
            revision: numbers.revision,
            created_revision: numbers.created_revision,
            version: numbers.version,
            expires_unix_ms: numbers.expires_unix_ms,
            incarnation: numbers.incarnation,
            timestamp: sample.timestamp,
        })
    }
}

impl GridClient {
    /// The value of a key.
    ///
    /// # Errors
    /// `NOT_FOUND` when the key has no value; [`ClientError::Unknown`] when nobody could say.
    pub async fn get(
        &self,
        collection: &CollectionName,
        key: &ObjectKey,
        consistency: Consistency,
    ) -> Result<Found> {
        let partition = self.partition(collection, &key.object).await?;
        let parameters: Vec<_> = consistency.parameter().into_iter().collect();
        let call = self.call(self.options.keys.object(Plane::Data, collection, partition, key), &parameters);
        let question = Question { call, collection: Some(collection.clone()), rid: None, changes: false };
        Found::read(self.ask(&question).await?)
    }

    /// As [`GridClient::get`], with `None` for a key without value.
    ///
    /// # Errors
    /// As [`GridClient::get`], without `NOT_FOUND`.
    pub async fn find(
        &self,
        collection: &CollectionName,
        key: &ObjectKey,
        consistency: Consistency,
    ) -> Result<Option<Found>> {
        match self.get(collection, key, consistency).await {
            Err(ClientError::Refused(refused)) if refused.code == Code::NotFound => Ok(None),
            found => found.map(Some),
        }
    }
}
