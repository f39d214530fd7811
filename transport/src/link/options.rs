//! The options of the links.

use bytes::Bytes;

use super::PeerId;
use crate::{Error, Result, keyexpr};

/// How the links of one node are opened.
#[derive(Clone)]
pub struct LinkOptions {
    /// The name of the cluster: one chunk of a key expression.
    pub cluster: String,
    /// This node.
    pub me: PeerId,
    /// The name of this node, shown to its peers: one chunk of a key expression.
    pub name: String,
    /// Tells this start of the node from every other one: a random number.
    pub epoch: u64,
    /// The bytes of `cluster.secret_file`; frames without a MAC made with it are refused.
    pub secret: Option<Bytes>,
    /// How many bytes may wait per peer and class; one message always fits an empty queue.
    pub queue_bytes: usize,
    /// How many bytes of waiting messages go into one frame; a larger message travels alone.
    pub frame_bytes: usize,
    /// The largest message.
    pub max_message_bytes: usize,
    /// How many requests may be under way.
    pub max_pending: usize,
}

impl LinkOptions {
    /// The defaults: 64 MiB queues, 256 KiB frames, messages to 48 MiB, 65,536 requests, no secret.
    pub fn new(cluster: impl Into<String>, me: PeerId, name: impl Into<String>, epoch: u64) -> Self {
        LinkOptions {
            cluster: cluster.into(),
            me,
            name: name.into(),
            epoch,
            secret: None,
            queue_bytes: 64 << 20,
            frame_bytes: 256 << 10,
            max_message_bytes: 48 << 20,
            max_pending: 65_536,
        }
    }

    /// Refuses names that are no chunk, an empty secret and sizes of zero.
    pub fn validate(&self) -> Result<()> {
        for (what, chunk) in [("cluster", &self.cluster), ("name", &self.name)] {
            let one = !chunk.contains('/') && !chunk.contains('*') && !chunk.starts_with('@');
            if !one || keyexpr::new(chunk.as_str()).is_err() {
                let reason = format!("the {what} of a link is one chunk without wildcards");
                return Err(Error::InvalidKey { key: chunk.clone(), reason });
            }
        }
        if self.secret.as_ref().is_some_and(Bytes::is_empty) {
            return Err(Error::Configuration("the secret of the cluster is empty".into()));
        }
        for (what, size) in [
            ("queue_bytes", self.queue_bytes),
            ("frame_bytes", self.frame_bytes),
            ("max_message_bytes", self.max_message_bytes),
            ("max_pending", self.max_pending),
        ] {
            if size == 0 {
                return Err(Error::Configuration(format!("{what} of the links is 0")));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for LinkOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the secret.
        f.debug_struct("LinkOptions")
            .field("cluster", &self.cluster)
            .field("me", &self.me)
            .field("name", &self.name)
            .field("authenticated", &self.secret.is_some())
            .finish_non_exhaustive()
    }
}
