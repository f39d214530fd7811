//! The types of openraft, pinned once. Only the runtime is open, so that the same code runs simulated.
//!
//! A log position is (term, index): there is one leader a term (`leader_id_std`). A node id of openraft is
//! a *replica* id here; its `Node` says on which node the replica lives.

use std::cmp::Ordering;
use std::fmt;
use std::io;
use std::marker::PhantomData;

use bytes::Bytes;
use odgm_storage::log::LogPosition;
use openraft::OptionalSend;
use openraft::RaftTypeConfig;
use openraft::impls::{BoxedErrorSource, InlineBatch, OneshotResponder};
use openraft::vote::leader_id_std;

use super::snapshot::SnapshotHandle;
use crate::runtime::Runtime;
use crate::state::Outcome;

/// The parameters of openraft.
pub(crate) struct Types<R>(PhantomData<fn() -> R>);

pub(crate) type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub(crate) type Term = leader_id_std::CommittedLeaderId<u64>;
pub(crate) type LogId = openraft::LogId<Term>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<Term, u64, Member>;
pub(crate) type EntryPayload = openraft::EntryPayload<Payload, u64, Member>;
pub(crate) type Entry = openraft::Entry<Term, EntryPayload>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<Term, u64, Member>;
pub(crate) type Snapshot = openraft::Snapshot<Term, u64, Member, SnapshotHandle>;

impl<R: Runtime> RaftTypeConfig for Types<R> {
    type D = Payload;
    type R = Outcomes;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = EntryPayload;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

/// A batch of commands as it travels and is logged: encoded once, by its proposer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Payload(pub(crate) Bytes);

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0.len())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What became of the commands of a batch, in order.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(pub(crate) Vec<Outcome>);

/// Where a replica lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Member {
    pub(crate) node: u64,
}

/// The position of a log id.
pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, index: id.index }
}

/// The log id of a position.
pub(crate) fn log_id(position: LogPosition) -> LogId {
    LogId { leader_id: Term::new(position.term), index: position.index }
}

/// An error of this crate or of a layer, as openraft takes it.
pub(crate) fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

// By hand, since a derive would ask the same of the runtime.

impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Types<R> {}

impl<R> Default for Types<R> {
    fn default() -> Self {
        Types(PhantomData)
    }
}

impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}

impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R> Eq for Types<R> {}

impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}
