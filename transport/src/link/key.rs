//! The key expressions of the links.

use super::{Class, LinkOptions, PeerId};
use crate::{Error, KeyExpr, Result};

impl Class {
    pub(super) const ALL: [Class; 3] = [Class::Control, Class::Log, Class::Bulk];

    pub(super) fn chunk(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Log => "log",
            Class::Bulk => "bulk",
        }
    }
}

fn key(text: String) -> Result<KeyExpr<'static>> {
    KeyExpr::try_from(text.clone())
        .map_err(|error| Error::InvalidKey { key: text, reason: error.to_string() })
}

/// Where a node takes messages of a class.
pub(super) fn inbox(cluster: &str, to: PeerId, class: Class) -> Result<KeyExpr<'static>> {
    key(format!("@odgm/{cluster}/link/{to}/{}", class.chunk()))
}

/// The presence of this start of this node.
pub(super) fn presence(options: &LinkOptions) -> Result<KeyExpr<'static>> {
    key(format!("@odgm/{}/node/{}/{}/{:x}", options.cluster, options.me, options.name, options.epoch))
}

/// The presence of every node.
pub(super) fn presences(cluster: &str) -> Result<KeyExpr<'static>> {
    key(format!("@odgm/{cluster}/node/*/*/*"))
}

/// Reads a presence: the node, its name, its epoch.
pub(super) fn parse_presence(key: &str) -> Option<(PeerId, &str, u64)> {
    let mut chunks = key.rsplit('/');
    let epoch = u64::from_str_radix(chunks.next()?, 16).ok()?;
    let name = chunks.next()?;
    let id = u64::from_str_radix(chunks.next()?, 16).ok()?;
    (chunks.next()? == "node").then_some((PeerId(id), name, epoch))
}
