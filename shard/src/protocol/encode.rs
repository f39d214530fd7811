//! Requests as a client sends them: the other way of [`request`](super::request).

use std::ops::Bound;
use std::time::Duration;

use super::refusal::JSON;
use super::request::{Body, Consistency, ReadParameters};
use super::{cursor, parameters, txn};
use crate::state::{Command, Condition, IndexQuery, Operation};

/// A command as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// The parameters.
    pub parameters: String,
    /// What goes along.
    pub body: Body,
}

/// A command as parameters and body, for the key of its target.
pub fn encode_command(command: &Command, timeout: Option<Duration>) -> Encoded {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let mut body = Body::default();
    match &command.operation {
        Operation::Put { value, ttl_ms, condition, .. } => {
            pairs.push(("op", "put".to_owned()));
            pairs.extend(ttl_ms.map(|ttl| ("ttl", format!("{ttl}ms"))));
            match condition {
                Condition::None => {}
                Condition::Revision(revision) => pairs.push(("if_revision", revision.to_string())),
                Condition::Absent => pairs.push(("if_absent", "1".to_owned())),
                Condition::Present => pairs.push(("if_present", "1".to_owned())),
            }
            body = Body {
                payload: Some(value.payload.clone()),
                encoding: value.encoding.clone(),
                attachment: value.attachment.clone(),
            };
        }
        Operation::Delete { if_revision, .. } => {
            pairs.push(("op", "delete".to_owned()));
            pairs.extend(if_revision.map(|revision| ("if_revision", revision.to_string())));
        }
        Operation::Increment { by, .. } => {
            pairs.extend([("op", "increment".to_owned()), ("by", by.to_string())]);
        }
        Operation::Touch { ttl_ms, .. } => {
            let ttl = ttl_ms.map_or_else(|| "none".to_owned(), |ttl| format!("{ttl}ms"));
            pairs.extend([("op", "touch".to_owned()), ("ttl", ttl)]);
        }
        // None of a client's: a server refuses the name.
        Operation::Upkeep(_) => pairs.push(("op", "upkeep".to_owned())),
        Operation::Txn { checks, then, otherwise } => {
            pairs.push(("op", "txn".to_owned()));
            body.payload = Some(txn::encode(checks, then, otherwise));
            body.encoding = JSON.to_owned();
        }
    }
    if let Some(rid) = command.rid.as_ref().and_then(|rid| std::str::from_utf8(rid).ok()) {
        pairs.push(("rid", rid.to_owned()));
    }
    pairs.extend(timeout.map(|timeout| ("timeout", parameters::duration_text(timeout))));
    Encoded { parameters: parameters::join(pairs), body }
}

impl ReadParameters {
    /// As parameters.
    pub fn encode(&self) -> String {
        let flag = |name, given: bool| given.then(|| (name, "1".to_owned()));
        let consistency = self.consistency.map(|consistency| match consistency {
            Consistency::Linearizable => "linearizable",
            Consistency::Local => "local",
        });
        let incarnation = self.incarnation.map(u128::from_be_bytes);
        let find = self.find.iter().flat_map(|find| {
            let IndexQuery { name, from, to } = &find.query;
            let bounds = match (from, to) {
                (Bound::Included(eq), Bound::Included(to)) if eq == to => vec![("eq", eq)],
                (from, to) => {
                    let bound = |name, bound| match bound {
                        Bound::Included(value) | Bound::Excluded(value) => Some((name, value)),
                        Bound::Unbounded => None,
                    };
                    bound("ge", from.as_ref()).into_iter().chain(bound("lt", to.as_ref())).collect()
                }
            };
            let bounds = bounds.into_iter().map(|(name, value)| (name, value.to_json().to_string()));
            let after = find.after.as_ref().map(|(value, key)| ("cursor", cursor::encode_hit(value, key)));
            std::iter::once(("index", name.clone())).chain(bounds).chain(after)
        });
        let pairs = [
            consistency.map(|consistency| ("cons", consistency.to_owned())),
            self.limit.map(|limit| ("limit", limit.to_string())),
            self.after.as_ref().map(|after| ("cursor", cursor::encode(after))),
            flag("keys", self.keys_only),
            flag("count", self.count_only),
            flag("end", self.end),
            self.missing_empty.then(|| ("missing", "empty".to_owned())),
            self.timeout.map(|timeout| ("timeout", parameters::duration_text(timeout))),
            incarnation.map(|incarnation| ("incarnation", format!("{incarnation:032x}"))),
        ];
        parameters::join(pairs.into_iter().flatten().chain(find))
    }
}
