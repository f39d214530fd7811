//! What stands between a layer and its user: counts every call and notes what its errors mean.

mod data;
mod log;
mod snapshot;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(super) use data::WatchedData;
pub(super) use log::WatchedLog;
pub(super) use snapshot::WatchedSnapshots;

use super::Clock;
use super::health::{Board, Call, Layer, Matter};
use super::metrics::{Meter, Meters};
use crate::log::{Durable, GroupId};
use crate::{Error, Result};

/// Watches one layer, of one group or of all.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) layer: Layer,
    pub(super) group: Option<GroupId>,
    pub(super) meters: Arc<Meters>,
    pub(super) board: Arc<Board>,
    pub(super) clock: Clock,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("layer", &self.layer)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn of(&self, group: GroupId) -> Watch {
        Watch { group: Some(group), ..self.clone() }
    }

    fn meter(&self) -> &Meter {
        match self.layer {
            Layer::Log => &self.meters.log,
            Layer::Snapshot => &self.meters.snapshot,
            Layer::Data => &self.meters.data,
        }
    }

    /// Runs an operation that may write.
    fn run<T>(&self, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = (self.clock)();
        let outcome = operation();
        self.ended(start, Call::Write, outcome.as_ref().err());
        outcome
    }

    /// Runs an operation that only reads.
    fn run_read<T>(&self, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = (self.clock)();
        let outcome = operation();
        self.ended(start, Call::Read, outcome.as_ref().err());
        outcome
    }

    /// Runs an operation whose stream belongs to another layer or node: an error may come from there, so
    /// it is counted, and says nothing of this layer.
    fn run_foreign<T>(&self, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = (self.clock)();
        let outcome = operation();
        self.meter().operation((self.clock)().saturating_sub(start), outcome.is_err());
        outcome
    }

    fn ended(&self, start: Duration, call: Call, error: Option<&Error>) {
        self.meter().operation((self.clock)().saturating_sub(start), error.is_some());
        if let Some(error) = error {
            self.note(call, error);
        }
    }

    /// Notes an error; of the log, what fails for one group fails for all, but damage.
    fn note(&self, call: Call, error: &Error) {
        let of_all =
            self.layer == Layer::Log && !matches!(error, Error::Corrupt { .. } | Error::Format { .. });
        self.board.note(self.layer, if of_all { None } else { self.group }, call, error);
    }

    fn clear(&self, matter: Matter) {
        self.board.clear(self.layer, matter, self.group);
    }

    /// A callback that ends the operation when it fires. Dropped uncalled, the call itself has failed.
    fn durable(&self, bytes: u64, then: Durable) -> Durable {
        let (watch, start) = (self.clone(), (self.clock)());
        Box::new(move |outcome| {
            if outcome.is_ok() {
                watch.meter().wrote(bytes);
            }
            watch.ended(start, Call::Write, outcome.as_ref().err());
            then(outcome);
        })
    }

    /// Counts a call that is refused before its callback could ever fire.
    fn refused<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            self.meter().operation(Duration::ZERO, true);
            self.note(Call::Write, error);
        }
        outcome
    }
}
