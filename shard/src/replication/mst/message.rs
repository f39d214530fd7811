//! The messages of an exchange, and those that replicas send beside one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::item::{Entry, Mark};
use super::table::MstTable;
use super::tree::{Fingerprint, Range};
use crate::{Error, Result, codec};

/// The format of the messages.
const VERSION: u8 = 1;
/// About how many bytes of entries go into one message; one entry always fits.
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// What the leader asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// "I have this." With the time of its clock when there are tombstones to agree on.
    Hello { root: u64, retired: u64, clock: Option<u64> },
    /// Which of these ranges differ?
    Compare(Vec<(Range, Fingerprint)>),
    /// What is there beside these?
    Leaves(Vec<Leaf>),
    /// Take these.
    Give { clock: u64, entries: Vec<Entry> },
    /// The exchange that began at these times of the leader's and the answerer's clock is complete.
    Done { leader: u64, answerer: u64 },
    /// Last writes of a replica that left the placement.
    Inherit { entries: Vec<Entry> },
    /// Lead an exchange with me.
    Nudge,
}

/// A range with few items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leaf {
    pub(super) range: Range,
    /// The leader's items in it.
    pub(super) marks: Vec<Mark>,
    /// Whether to say which of them are not there.
    pub(super) compare: bool,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Response {
    /// The roots are the same. `buries`: tombstones are there.
    Same { buries: bool, clock: Option<u64>, retired: u64 },
    /// They differ.
    Differs { root: Fingerprint, retired: u64, clock: Option<u64> },
    /// One for each range.
    Compared(Vec<Verdict>),
    /// Entries that the leader lacks; for each leaf which of its items lack here; and, when the entries
    /// did not fit, in which leaf and where the rest begins.
    Entries { clock: u64, entries: Vec<Entry>, wanted: Vec<Vec<u32>>, rest: Option<(u32, Bytes)> },
    /// Taken; so many wait for the clock.
    Given { held: u64 },
    /// Noted.
    Done,
}

/// How a range compares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Verdict {
    Same,
    /// There is nothing there.
    Empty,
    /// It has few items.
    Few,
    /// Its parts: where each ends, and what is in it.
    Parts(Vec<(Option<Bytes>, Fingerprint)>),
}

pub(super) fn encode<T: Serialize>(message: &T) -> Bytes {
    codec::encode_versioned(VERSION, message).into()
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    codec::decode_versioned(VERSION, bytes).ok_or_else(|| unfit("a message that can't be read"))
}

pub(super) fn unfit(what: &str) -> Error {
    Error::Invalid(format!("exchange: {what}"))
}

/// What of a fingerprint goes with every hello.
pub(super) fn short(root: Fingerprint) -> u64 {
    (root.sum >> 64) as u64 ^ root.sum as u64 ^ root.count
}

/// Entries as messages for another replica of the placement, each answered like a request of an exchange.
pub fn push(table: &mut MstTable, entries: Vec<Entry>, now: u64) -> Vec<Bytes> {
    let mut messages = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut entries = entries.into_iter().peekable();
    while let Some(entry) = entries.next() {
        bytes += entry.bytes();
        batch.push(entry);
        if bytes >= BATCH_BYTES || entries.peek().is_none() {
            let clock = table.tick(now);
            messages.push(encode(&Request::Give { clock, entries: std::mem::take(&mut batch) }));
            bytes = 0;
        }
    }
    messages
}

/// A batch of the writes that this replica stamped itself, for one that stays when this one leaves; and where
/// the rest begins.
pub(super) fn inheritance(table: &MstTable, from: Bytes) -> Result<(Bytes, Option<Bytes>)> {
    let mut bytes = BATCH_BYTES;
    let (mut entries, rest) = table.entries(&Range { from, to: None }, &|_| true, &mut bytes)?;
    entries.retain(|entry| entry.stamp().replica == table.replica());
    Ok((encode(&Request::Inherit { entries }), rest))
}

/// Asks a replica that leads the exchanges with this one for an exchange.
pub(super) fn nudge() -> Bytes {
    encode(&Request::Nudge)
}

/// What a nudge is answered with: it will not be forgotten.
pub(super) fn done() -> Bytes {
    encode(&Response::Done)
}

/// Whether a message asks for an exchange.
pub(super) fn is_nudge(message: &[u8]) -> bool {
    matches!(decode(message), Ok(Request::Nudge))
}
