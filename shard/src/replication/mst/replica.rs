//! What the tasks of a divergent replica share: its table, who else holds the shard, and what it shows of itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::options::{MstOptions, Policy};
use super::router::{MstRouter, Route};
use super::table::MstTable;
use super::traffic::Traffic;
use crate::Error;
use crate::cluster::ReplicaRecord;
use crate::object::{GroupId, ReplicaId};
use crate::replication::{ChangeSink, Role, ShardStatus};
use crate::state::Position;

/// What a divergent replica shows of itself, so that anyone can see replicas equal or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digest {
    /// Equal on replicas that hold the same: 32 hex digits.
    pub root: String,
    /// Keys, and deletions that are remembered.
    pub items: u64,
    /// How many changes this replica applied.
    pub revision: u64,
    /// Deletions that are remembered.
    pub tombstones: u64,
    /// Entries that wait until the clock has reached their stamps.
    pub held: usize,
    /// What the exchanges that this replica led have moved since its start.
    pub traffic: Traffic,
}

/// What the tasks share.
pub(super) struct Core {
    pub(super) group: GroupId,
    pub(super) me: ReplicaId,
    pub(super) options: MstOptions,
    pub(super) policy: Mutex<Policy>,
    pub(super) table: Mutex<MstTable>,
    pub(super) sink: ChangeSink,
    pub(super) router: Arc<MstRouter>,
    pub(super) placement: Mutex<Vec<ReplicaRecord>>,
    pub(super) status: watch::Sender<ShardStatus>,
    /// Exchange now: with those that something could not be sent to, and those that came into sight.
    pub(super) owed: Mutex<BTreeSet<ReplicaId>>,
    /// Entries were sent to others since this was last looked at.
    pub(super) spread: AtomicBool,
    pub(super) wake: Notify,
    /// The placement changed since the table heard of it.
    pub(super) replaced: AtomicBool,
    /// As of the last change of the table: whoever looks need not wait for a batch.
    pub(super) digest: Mutex<Digest>,
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(super) fn others(&self) -> Vec<ReplicaRecord> {
        lock(&self.placement).iter().filter(|record| record.replica != self.me).copied().collect()
    }

    pub(super) fn policy(&self) -> Policy {
        *lock(&self.policy)
    }

    pub(super) fn is_placed(&self) -> bool {
        lock(&self.placement).iter().any(|record| record.replica == self.me)
    }

    pub(super) fn route(&self, target: ReplicaId) -> Route {
        Route { group: self.group, target, sender: self.me }
    }

    /// Who serves, as far as this replica sees: the first of the placement that is in sight. On each side of a
    /// cut there is one.
    pub(super) fn look(&self) {
        let placement = lock(&self.placement).clone();
        let serving = placement.iter().find(|record| self.router.sees(record.node));
        let role = match serving {
            Some(record) if record.replica == self.me => Role::Serving,
            Some(_) => Role::Following,
            None => Role::Leaderless,
        };
        let serving = serving.map(|record| record.node);
        let voters: Vec<_> = placement.iter().map(|record| (record.replica, record.node)).collect();
        self.status.send_if_modified(|status| {
            let changed = status.role != Role::Stopped
                && (status.role, status.serving, &status.voters) != (role, serving, &voters);
            if changed {
                // Nothing written is a state, too.
                let applied = status.applied.or(Some(Position { term: 0, index: 0 }));
                *status = ShardStatus { role, serving, voters, applied, ..status.clone() };
            }
            changed
        });
    }

    /// The data layer failed: nothing is taken any more.
    pub(super) fn fail(&self, error: &Error) {
        tracing::error!(group = %self.group, %error, "the data of a replica failed: it stops");
        self.status.send_modify(|status| {
            (status.role, status.serving) = (Role::Stopped, None);
            status.failure.get_or_insert_with(|| error.to_string());
        });
    }

    pub(super) fn has_failed(&self) -> bool {
        self.status.borrow().role == Role::Stopped
    }

    /// Sends entries to every other replica, once.
    pub(super) fn spread(&self, messages: &[Bytes]) {
        if messages.is_empty() {
            return;
        }
        self.spread.store(true, Ordering::SeqCst);
        for other in self.others() {
            let lost = messages
                .iter()
                .any(|message| self.router.send(other.node, self.route(other.replica), message).is_err());
            if lost {
                lock(&self.owed).insert(other.replica);
            }
        }
    }

    pub(super) fn count(&self, traffic: Traffic) {
        lock(&self.digest).traffic += traffic;
    }

    /// Shows what the table holds.
    pub(super) fn note(&self, table: &MstTable) {
        let root = table.root();
        let mut digest = lock(&self.digest);
        *digest = Digest {
            root: format!("{:032x}", root.sum),
            items: root.count,
            revision: table.revision(),
            tombstones: table.tombstones(),
            held: table.held(),
            traffic: digest.traffic,
        };
    }
}

/// Whether an error leaves the table unfit for use.
pub(super) fn is_fatal(error: &Error) -> bool {
    matches!(error, Error::Storage(_) | Error::Internal(_))
}
