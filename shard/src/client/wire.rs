//! What of a reply a client takes for granted, checked.

use odgm_transport::session::Sample;
use serde::de::DeserializeOwned;

use super::{ClientError, Result};
use crate::object::{ObjectKey, Partition};
use crate::protocol::{Attachment, Keys, Plane};

/// A request id that nobody else uses.
pub(crate) fn generated_rid() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

pub(crate) fn json<T: DeserializeOwned>(sample: &Sample) -> Result<T> {
    let payload = sample.payload.as_deref().unwrap_or_default();
    serde_json::from_slice(payload).map_err(|error| ClientError::Malformed(error.to_string()))
}

/// The attachment of a reply or event.
pub(crate) fn attachment(sample: &Sample) -> Result<Attachment> {
    let malformed = || ClientError::Malformed(format!("the attachment on {}", sample.key));
    sample.attachment.as_ref().and_then(Attachment::decode).ok_or_else(malformed)
}

/// The partition and key that a reply or event is about.
pub(crate) fn key(keys: &Keys, plane: Plane, sample: &Sample) -> Result<(Partition, ObjectKey)> {
    let (_, partition, key) = keys
        .parse(plane, sample.key.as_str())
        .ok_or_else(|| ClientError::Malformed(format!("key {}", sample.key)))?;
    Ok((partition, key))
}
