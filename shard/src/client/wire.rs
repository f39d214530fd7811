//! Keys, parameters and replies as they travel, from the asking side.

use bytes::Bytes;
use odgm_transport::KeyExpr;
use odgm_transport::session::{ErrorReply, Sample};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ClientError, Refused, Result};
use crate::object::{EntryName, ObjectId, ObjectKey, Partition};

/// The numbers that come with a reply or an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Numbers {
    pub(crate) revision: u64,
    pub(crate) created_revision: u64,
    pub(crate) version: u64,
    pub(crate) expires_unix_ms: u64,
    pub(crate) incarnation: Vec<u8>,
    pub(crate) attachment: Bytes,
}

/// A request id that nobody else uses.
pub(crate) fn generated_rid() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

pub(crate) fn key(text: String) -> Result<KeyExpr<'static>> {
    KeyExpr::try_from(text).map_err(|error| ClientError::Invalid(error.to_string()))
}

/// `a=1;b=2`, percent-encoded.
pub(crate) fn parameters(given: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in given {
        if !text.is_empty() {
            text.push(';');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text
}

pub(crate) fn json<T: DeserializeOwned>(sample: &Sample) -> Result<T> {
    let payload = sample.payload.as_deref().unwrap_or_default();
    serde_json::from_slice(payload).map_err(|error| ClientError::Malformed(error.to_string()))
}

/// The JSON of an error reply; `None` for what no node of the grid has sent.
pub(crate) fn refusal(reply: &ErrorReply) -> Option<Refused> {
    let Ok(Value::Object(facts)) = serde_json::from_slice(&reply.payload) else { return None };
    let text = |name: &str| facts.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (code, message) = (text("code"), text("message"));
    let may_be_applied = text("applied") == "unknown";
    let retry = facts.get("retry").and_then(Value::as_bool).unwrap_or_default();
    (!code.is_empty()).then_some(Refused { code, message, may_be_applied, retry, facts })
}

/// The attachment of a reply or event.
pub(crate) fn numbers(sample: &Sample) -> Result<Numbers> {
    let bytes = sample.attachment.clone().unwrap_or_default();
    let read: Result<(u8, u64, u64, u64, u64, Vec<u8>, Vec<u8>), _> =
        zenoh_ext::z_deserialize(&zenoh::bytes::ZBytes::from(bytes.to_vec()));
    match read {
        Ok((1, revision, created_revision, version, expires_unix_ms, incarnation, attachment)) => Ok(Numbers {
            revision,
            created_revision,
            version,
            expires_unix_ms,
            incarnation,
            attachment: attachment.into(),
        }),
        Ok((format, ..)) => Err(ClientError::Malformed(format!("attachment of format {format}"))),
        Err(error) => Err(ClientError::Malformed(format!("attachment: {error}"))),
    }
}

/// Partition and key of `{root}{plane}/{collection}/{partition}/{object}[/{entry}]`.
pub(crate) fn parse_key(prefix: &str, key: &str) -> Result<(Partition, ObjectKey)> {
    let malformed = || ClientError::Malformed(format!("key {key:?}"));
    let mut chunks = key.strip_prefix(prefix).ok_or_else(malformed)?.trim_start_matches('/').split('/');
    let partition = chunks.next().and_then(|chunk| chunk.parse().ok()).ok_or_else(malformed)?;
    let object = chunks.next().and_then(|chunk| ObjectId::parse(chunk).ok()).ok_or_else(malformed)?;
    let entry = chunks.next().map(EntryName::parse).transpose().map_err(|_| malformed())?;
    if chunks.next().is_some() {
        return Err(malformed());
    }
    Ok((Partition(partition), ObjectKey { object, entry }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_values_are_percent_encoded() {
        assert_eq!(parameters(&[("op", "put"), ("rid", "a;b=c d/é")]), "op=put;rid=a%3Bb%3Dc%20d%2F%C3%A9");
    }

    #[test]
    fn keys_of_replies_are_read_back() {
        let (partition, key) = parse_key("odgm/users", "odgm/users/3/alice/name").unwrap();
        assert_eq!((partition.0, key.object.as_str()), (3, "alice"));
        assert_eq!(key.entry.unwrap().as_str(), "name");
        for wrong in ["odgm/users/x/alice", "odgm/else/3/alice", "odgm/users/3", "odgm/users/3/a/b/c"] {
            assert!(parse_key("odgm/users", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_reply_that_is_no_refusal_is_none() {
        let reply = |text: &str| ErrorReply { payload: Bytes::from(text.to_owned()), encoding: String::new() };
        assert_eq!(refusal(&reply("Timeout")), None);
        assert_eq!(refusal(&reply("{}")), None);
        let busy = r#"{"code":"BUSY","message":"m","applied":"no","retry":true}"#;
        let busy = refusal(&reply(busy)).unwrap();
        assert_eq!((busy.code.as_str(), busy.may_be_applied, busy.retry), ("BUSY", false, true));
    }
}
