//! The object table: applies commands to the data layer.
//!
//! Deterministic: the same inputs at the same positions give the same rows, outcomes and changes,
//! however they are split over calls. One data-layer batch a call holds the rows, the remembered
//! answers, the counters and the applied position, so a crash keeps all of a call or nothing.

use std::sync::Arc;

use bytes::Bytes;
use odgm_storage::data::{ApplicationDataStorage, DataView, Durability, Keyspace};

use super::history::{self, History};
use super::index::Held;
use super::layout::{self, Counters};
use super::overlay::Overlay;
use super::recent::RecentHeads;
use super::requests::Requests;
use super::run::Run;
use super::view::{ObjectView, ViewSource, read_counters, read_held};
use crate::state::{Batch, Change, Operation, Outcome, Upkeep};
use crate::{Error, Result};

/// Where a batch stands: the log's position for `raft`, a counter for kinds without a log.
pub type Position = odgm_storage::log::LogPosition;

/// What the log hands to the state machine.
#[derive(Debug, Clone)]
pub enum Input {
    /// Commands to apply.
    Batch(Batch),
    /// A membership, opaque here, to be kept with the position.
    Membership(Bytes),
    /// Nothing but the position.
    Blank,
}

/// What one call of [`ObjectTable::apply`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// For each input, what became of each of its commands; empty for what is no batch.
    pub outcomes: Vec<Vec<Outcome>>,
    /// The changes of all inputs, by revision.
    pub changes: Vec<Change>,
}

/// The objects of one partition: the one writer of its data layer.
#[derive(Debug)]
pub struct ObjectTable {
    storage: Arc<dyn ApplicationDataStorage>,
    counters: Counters,
    membership: Option<Bytes>,
    held: Held,
    /// `None` after a call that failed half-way: read anew by the next one.
    derived: Option<Derived>,
}

/// What is kept in memory of the rows.
#[derive(Debug)]
struct Derived {
    requests: Requests,
    history: History,
    recent: RecentHeads,
}

impl Derived {
    fn load(view: &dyn DataView, counters: &Counters) -> Result<Self> {
        Ok(Derived {
            requests: Requests::load(view, counters)?,
            history: History::load(view)?,
            recent: RecentHeads::default(),
        })
    }
}

impl ObjectTable {
    /// Opens what the data layer holds.
    ///
    /// # Errors
    /// When the data layer fails, or holds records of a format that this build does not read.
    pub fn open(storage: Arc<dyn ApplicationDataStorage>) -> Result<Self> {
        let view = storage.view();
        let counters = read_counters(view.as_ref())?;
        let membership = view.get(Keyspace::Meta, layout::MEMBERSHIP)?;
        let held = read_held(view.as_ref())?;
        let derived = Some(Derived::load(view.as_ref(), &counters)?);
        drop(view);
        Ok(ObjectTable { storage, counters, membership, held, derived })
    }

    /// The last position applied.
    pub fn applied(&self) -> Option<Position> {
        self.counters.applied
    }

    /// The last membership applied.
    pub fn membership(&self) -> Option<Bytes> {
        self.membership.clone()
    }

    /// The last revision taken.
    pub fn revision(&self) -> u64 {
        self.counters.revision
    }

    /// The present state.
    pub fn view(&self) -> ObjectView {
        self.views().view()
    }

    /// A source of views that needs no access to the table.
    pub fn views(&self) -> ViewSource {
        ViewSource::new(self.storage.clone())
    }

    /// Applies inputs in order, each above the last position applied, in one batch of the data layer
    /// that is visible when this returns and durable later, in order.
    ///
    /// # Errors
    /// Nothing was applied. After a failure of the data layer the shard must stop; an input at or
    /// below the applied position is a broken invariant of the caller.
    pub fn apply(&mut self, inputs: Vec<(Position, Input)>) -> Result<Applied> {
        let view = self.storage.view();
        let mut counters = self.counters;
        let mut held = self.held.clone();
        let mut derived = match self.derived.take() {
            Some(derived) => derived,
            None => Derived::load(view.as_ref(), &counters)?,
        };
        let Derived { requests, history, recent } = &mut derived;
        let mut overlay = Overlay::new(view.as_ref(), recent);
        let (membership, applied) = run(&mut overlay, &mut counters, &mut held, requests, history, inputs)?;
        let (mut batch, heads) = overlay.into_batch();
        batch.put(Keyspace::Meta, layout::COUNTERS, layout::encode_record(&counters));
        if let Some(membership) = &membership {
            batch.put(Keyspace::Meta, layout::MEMBERSHIP, membership.clone());
        }
        drop(view);
        self.storage.write(batch, Durability::Later)?;
        derived.recent.wrote(heads);
        self.counters = counters;
        self.held = held;
        self.derived = Some(derived);
        self.membership = membership.or_else(|| self.membership.take());
        Ok(applied)
    }
}

/// Runs inputs; gives the last membership among them, and what became of them.
fn run(
    overlay: &mut Overlay<'_>,
    counters: &mut Counters,
    held: &mut Held,
    requests: &mut Requests,
    history: &mut History,
    inputs: Vec<(Position, Input)>,
) -> Result<(Option<Bytes>, Applied)> {
    let mut membership = None;
    let mut applied = Applied::default();
    for (position, input) in inputs {
        if counters.applied.is_some_and(|last| position.index <= last.index) {
            let last = counters.applied;
            return Err(Error::Internal(format!("input at {position:?} but applied up to {last:?}")));
        }
        counters.applied = Some(position);
        let outcomes = match input {
            Input::Blank => Vec::new(),
            Input::Membership(new) => {
                membership = Some(new);
                Vec::new()
            }
            Input::Batch(batch) => {
                counters.log_time = counters.log_time.max(batch.time);
                let mut outcomes = Vec::with_capacity(batch.commands.len());
                for command in batch.commands {
                    let sweep = match command.operation {
                        Operation::Upkeep(Upkeep::Sweep) => history::REMOVE_PER_SWEEP,
                        _ => 0,
                    };
                    let before = applied.changes.len();
                    let changes = &mut applied.changes;
                    let mut run = Run { overlay, counters, held, changes };
                    outcomes.push(requests.run(&mut run, command, batch.rid_window_ms)?);
                    let (batch, retain) = (overlay.derived(), held.history.as_ref());
                    history.follow(batch, counters, &applied.changes[before..], retain, sweep);
                }
                outcomes
            }
        };
        applied.outcomes.push(outcomes);
    }
    Ok((membership, applied))
}
