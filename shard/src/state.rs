//! The state machine: takes a position and commands, gives outcomes and changes.
//!
//! No clock, no randomness, no I/O but the data layer: time and ids come in with the command, so
//! every replica that applies the same log holds the same state.

pub mod change;
pub mod command;
mod expiry;
mod history;
pub mod index;
pub(crate) mod layout;
mod listing;
mod overlay;
mod recent;
mod requests;
mod run;
pub mod selection;
pub mod settings;
pub mod table;
pub mod view;

pub use change::{Change, ChangeKind};
pub use command::{
    Batch, Check, CheckKind, Command, Condition, Done, Operation, Outcome, Refusal, Step, StepDone, TxnDone,
    Upkeep,
};
pub use expiry::Due;
pub use history::HistoryBounds;
pub use index::IndexQuery;
pub use selection::Selection;
pub use settings::{IndexSource, IndexSpec, Retain, Settings};
pub use table::{Applied, Input, ObjectTable, Position};
pub use view::{Head, ObjectView, Record, ViewSource};
