//! Who is present, by liveliness tokens.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::PeerId;

/// The present starts of each peer, the newest last: a restarted node may be seen before its
/// predecessor is given up.
type Present = BTreeMap<PeerId, Vec<(u64, String)>>;

#[derive(Debug)]
pub(super) struct Peers {
    present: Mutex<Present>,
    names: watch::Sender<BTreeMap<PeerId, String>>,
}

impl Default for Peers {
    fn default() -> Self {
        Peers { present: Mutex::default(), names: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest start of a peer; `None` when it is not present.
    pub(super) fn epoch(&self, peer: PeerId) -> Option<u64> {
        self.lock().get(&peer).and_then(|starts| starts.last()).map(|(epoch, _)| *epoch)
    }

    pub(super) fn has(&self, peer: PeerId, epoch: u64) -> bool {
        self.lock().get(&peer).is_some_and(|starts| starts.iter().any(|start| start.0 == epoch))
    }

    pub(super) fn names(&self) -> watch::Receiver<BTreeMap<PeerId, String>> {
        self.names.subscribe()
    }

    pub(super) fn appeared(&self, peer: PeerId, epoch: u64, name: &str) {
        let mut present = self.lock();
        let starts = present.entry(peer).or_default();
        if !starts.iter().any(|start| start.0 == epoch) {
            starts.push((epoch, name.to_owned()));
        }
        self.publish(&present);
    }

    /// Whether no start of the peer is left.
    pub(super) fn vanished(&self, peer: PeerId, epoch: u64) -> bool {
        let mut present = self.lock();
        let Some(starts) = present.get_mut(&peer) else { return true };
        starts.retain(|start| start.0 != epoch);
        let gone = starts.is_empty();
        if gone {
            present.remove(&peer);
        }
        self.publish(&present);
        gone
    }

    pub(super) fn clear(&self) {
        let mut present = self.lock();
        present.clear();
        self.publish(&present);
    }

    /// Under the lock, so that observers see the changes in order.
    fn publish(&self, present: &Present) {
        let names: BTreeMap<PeerId, String> = present
            .iter()
            .filter_map(|(peer, starts)| starts.last().map(|(_, name)| (*peer, name.clone())))
            .collect();
        self.names.send_if_modified(|shown| {
            let changed = *shown != names;
            *shown = names;
            changed
        });
    }
}
