//! How the layers are: what is known to be wrong, and the state that follows from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::Error;
use crate::log::GroupId;

/// How a layer is, the better first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Status {
    /// It does what it promises.
    #[default]
    Healthy,
    /// It serves, but not all of it, or not for long.
    Degraded {
        /// What is wrong, where, and what it means.
        reason: String,
    },
    /// It takes no writes any more: the process has to restart.
    Unhealthy {
        /// The error that it ended with.
        error: String,
    },
}

impl Status {
    fn severity(&self) -> u8 {
        match self {
            Status::Healthy => 0,
            Status::Degraded { .. } => 1,
            Status::Unhealthy { .. } => 2,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Healthy => f.write_str("healthy"),
            Status::Degraded { reason } => write!(f, "degraded: {reason}"),
            Status::Unhealthy { error } => write!(f, "unhealthy: {error}"),
        }
    }
}

/// The layers and what is known of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Rises whenever the status of a layer changes: who polls compares it.
    pub version: u64,
    /// When the last check ran, by the clock of the caller; `None` before the first.
    pub checked: Option<Duration>,
    /// The log.
    pub log: Status,
    /// The snapshots of all open shards.
    pub snapshot: Status,
    /// The data of all open shards.
    pub data: Status,
}

impl Health {
    /// The worst of the layers.
    #[must_use]
    pub fn overall(&self) -> &Status {
        (&self.log).max(&self.snapshot).max(&self.data)
    }
}

/// A layer, as an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    Log,
    Snapshot,
    Data,
}

impl Layer {
    pub(super) const ALL: [Layer; 3] = [Layer::Log, Layer::Snapshot, Layer::Data];
}

/// What was tried when an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
}

/// What a fault is about: a new one replaces an older one about the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Matter {
    /// There is no room; until there is.
    Space,
    /// A call failed; in the snapshot layer until the next one succeeds, elsewhere for good.
    Failure,
    /// Bytes were not what was written; until they are removed.
    Damage,
}

/// Faults that are known now, by layer, matter, and the group they are in when not in all.
#[derive(Debug, Default)]
pub(super) struct Board {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    faults: BTreeMap<(Layer, Matter, Option<GroupId>), Status>,
    health: Health,
}

impl Board {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder of this lock panics")
    }

    pub(super) fn health(&self) -> Health {
        self.known().health.clone()
    }

    pub(super) fn checked(&self, now: Duration) -> Health {
        let mut known = self.known();
        known.health.checked = Some(now);
        known.health.clone()
    }

    /// Notes what an error says of its layer; one that is the caller's says nothing.
    pub(super) fn note(&self, layer: Layer, group: Option<GroupId>, call: Call, error: &Error) {
        let reason = match group {
            Some(group) => format!("group {}: {error}", group.0),
            None => error.to_string(),
        };
        let (matter, status) = match error {
            // A store that could not take a write takes none any more, also when there is room again.
            Error::Full { .. } if (layer, call) == (Layer::Data, Call::Write) => {
                (Matter::Failure, Status::Unhealthy { error: reason })
            }
            Error::Full { .. } => (Matter::Space, Status::Degraded { reason }),
            Error::Corrupt { .. } | Error::Format { .. } => (Matter::Damage, Status::Degraded { reason }),
            Error::Poisoned { .. } => (Matter::Failure, Status::Unhealthy { error: reason }),
            Error::Io { .. } | Error::Engine(_) => match (layer, call) {
                (Layer::Log | Layer::Data, Call::Write) => {
                    (Matter::Failure, Status::Unhealthy { error: reason })
                }
                // Nothing of it stays: the next one may succeed.
                _ => (Matter::Failure, Status::Degraded { reason }),
            },
            _ => return,
        };
        self.set(layer, matter, group, status);
    }

    pub(super) fn set(&self, layer: Layer, matter: Matter, group: Option<GroupId>, status: Status) {
        self.change(|faults| {
            let place = faults.entry((layer, matter, group)).or_default();
            // The first failure of a kind is the cause of those that follow.
            if matter != Matter::Failure || status.severity() > place.severity() {
                *place = status;
            }
        });
    }

    pub(super) fn clear(&self, layer: Layer, matter: Matter, group: Option<GroupId>) {
        self.change(|faults| {
            faults.remove(&(layer, matter, group));
        });
    }

    /// Forgets what was known of a group that is gone.
    pub(super) fn forget(&self, group: GroupId) {
        self.change(|faults| faults.retain(|(_, _, of), _| *of != Some(group)));
    }

    pub(super) fn clear_everywhere(&self, matter: Matter) {
        self.change(|faults| faults.retain(|(_, of, _), _| *of != matter));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<(Layer, Matter, Option<GroupId>), Status>)) {
        let mut known = self.known();
        let Known { faults, health } = &mut *known;
        change(faults);
        let before = health.clone();
        for layer in Layer::ALL {
            let of_layer = faults.iter().filter(|((of, _, _), _)| *of == layer).map(|(_, status)| status);
            let status = of_layer.max().cloned().unwrap_or_default();
            match layer {
                Layer::Log => health.log = status,
                Layer::Snapshot => health.snapshot = status,
                Layer::Data => health.data = status,
            }
        }
        if *health != before {
            health.version += 1;
            tracing::info!(log = %health.log, snapshot = %health.snapshot, data = %health.data, "storage health");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_found_no_room_ends_the_data_layer_and_degrades_the_others() {
        let board = Board::default();
        let full = Error::Full { path: "here".into() };
        board.note(Layer::Log, None, Call::Write, &full);
        board.note(Layer::Snapshot, Some(GroupId(3)), Call::Write, &full);
        board.note(Layer::Data, Some(GroupId(3)), Call::Read, &full);
        assert!(matches!(board.health().overall(), Status::Degraded { .. }), "{:?}", board.health());
        board.note(Layer::Data, Some(GroupId(3)), Call::Write, &full);
        board.clear_everywhere(Matter::Space);
        let health = board.health();
        let ended = Status::Unhealthy { error: "group 3: no space left for here".into() };
        assert_eq!((health.log, health.snapshot, health.data), (Status::Healthy, Status::Healthy, ended));
    }
}
