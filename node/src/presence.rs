//! One process for one node id: two processes on copies of one data directory would vote twice.
//!
//! Each start of a node announces itself with a random epoch (see the transport's links). A process
//! that meets another epoch of its own id, which does not go away as that of a process just killed
//! does, was started on a copy and must not take part.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use odgm_shard::object::NodeId;
use odgm_transport::session::{Declaration, LivenessHandler};
use odgm_transport::{KeyExpr, Session};
use tokio::sync::watch;

/// A killed process is forgotten by its peers after the lease of its session, two seconds.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// Watches for other starts of this node.
#[derive(Debug)]
pub(crate) struct Presence {
    others: watch::Receiver<BTreeSet<String>>,
    _watching: Box<dyn Declaration>,
}

impl Presence {
    /// Starts to watch, before this start announces itself.
    pub(crate) fn watch(
        session: &Arc<dyn Session>,
        cluster: &str,
        node: NodeId,
        epoch: u64,
    ) -> anyhow::Result<Self> {
        let (sender, others) = watch::channel(BTreeSet::new());
        let own = format!("/{epoch:x}");
        let handler: LivenessHandler = Arc::new(move |key, alive| {
            if key.as_str().ends_with(&own) {
                return;
            }
            sender.send_modify(|others| {
                if alive {
                    others.insert(key.to_string());
                } else {
                    others.remove(key.as_str());
                }
            });
        });
        let key = KeyExpr::try_from(format!("@odgm/{cluster}/node/{:x}/*/*", node.0))
            .map_err(|error| anyhow::anyhow!("cluster name {cluster:?}: {error}"))?;
        Ok(Presence { others, _watching: session.watch(&key, handler)? })
    }

    /// Waits for peers to tell who is present, then until no other start of this node is.
    ///
    /// # Errors
    /// When another process of this node stays.
    pub(crate) async fn alone(&mut self, listen: Duration) -> anyhow::Result<()> {
        let seen =
            tokio::time::timeout(listen, self.others.wait_for(|others| !others.is_empty())).await.is_ok();
        if seen {
            let gone = self.others.wait_for(BTreeSet::is_empty);
            if tokio::time::timeout(FORGOTTEN, gone).await.is_err() {
                anyhow::bail!(
                    "another process runs as this node ({}): this data directory is a copy; start it empty, \
                     and use `odgm node replace`",
                    self.others.borrow().iter().next().map_or("", String::as_str)
                );
            }
        }
        Ok(())
    }

    /// Completes when another process of this node appears and stays.
    pub(crate) async fn doubled(&mut self) {
        loop {
            if self.others.wait_for(|others| !others.is_empty()).await.is_err() {
                std::future::pending::<()>().await;
            }
            // A newcomer refuses itself within its own wait; only one that stays is a danger.
            let gone = self.others.wait_for(BTreeSet::is_empty);
            if tokio::time::timeout(FORGOTTEN * 3, gone).await.is_err() {
                return;
            }
        }
    }
}
