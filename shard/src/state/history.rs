//! The history: every change of a key, by its revision, for as long as the collection retains it.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `History` | revision (8, big-endian) | version byte, bincode of the change without key's revision and payload, then the payload |
//! | `Meta` | `block/` first revision (8, big-endian) | version byte, bincode of [`Block`] |
//!
//! Revisions have no holes, so what is to be removed is known by number, without a read. How many bytes and
//! how old the oldest are is counted by blocks of consecutive changes; the youngest block stands in the
//! counters. What the history no longer promises goes at once from [`Bounds::start`]; its rows are removed a
//! few with each command, so that no command pays for a long pause or a smaller limit. Nothing here
//! depends on how commands are split over calls.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;
use odgm_storage::data::{DataView, Direction, Keyspace, WriteBatch};
use serde::{Deserialize, Serialize};

use super::layout::{self, Counters};
use super::requests::ntp64_ms;
use crate::object::{ObjectKey, Value};
use crate::runtime::unix_ms;
use crate::state::{Change, ChangeKind, Retain};
use crate::{Error, Result};

/// Rows that a command removes beside twice those that it adds.
const REMOVE_PER_COMMAND: u64 = 2;
/// Rows that a command removes whose purpose it is.
pub(crate) const REMOVE_PER_SWEEP: u64 = 5_000;
/// What closes a block, at the latest.
const BLOCK_CHANGES: u64 = 256;
const BLOCK_BYTES: u64 = 64 << 10;
const BLOCK_AGE_MS: u64 = 1_000;
/// A block is no larger than this part of what is retained.
const BLOCKS: u64 = 16;

const BLOCK_PREFIX: &[u8] = b"block/";

/// Consecutive changes that are counted, and let go by bytes and age, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Block {
    first: u64,
    /// The revision behind its last.
    end: u64,
    bytes: u64,
    /// Commit times, NTP64.
    first_time: u64,
    last_time: u64,
}

/// Where the history stands; a part of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// The oldest change that is retained; one above the last revision when none is.
    pub(crate) start: u64,
    /// The oldest row that is still there.
    removed: u64,
    /// The block that still grows.
    open: Option<Block>,
    /// The last revision that a server said it has published.
    pub(crate) published: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { start: 1, removed: 1, open: None, published: 0 }
    }
}

/// The closed blocks, as their rows say.
#[derive(Debug, Default)]
pub(crate) struct History {
    blocks: VecDeque<Block>,
    bytes: u64,
}

impl History {
    /// Reads the blocks of a state.
    pub(crate) fn load(view: &dyn DataView) -> Result<Self> {
        let mut loaded = History::default();
        for row in blocks(view) {
            let block = row?;
            loaded.bytes += block.bytes;
            loaded.blocks.push_back(block);
        }
        Ok(loaded)
    }

    /// Takes in what a command changed, lets go of what is not retained any more, and removes up to
    /// `sweep` rows beside what every command removes.
    pub(crate) fn follow(
        &mut self,
        batch: &mut WriteBatch,
        counters: &mut Counters,
        changes: &[Change],
        retain: Option<&Retain>,
        sweep: u64,
    ) {
        match retain {
            Some(retain) => {
                for change in changes {
                    self.append(batch, &mut counters.history, change, retain);
                }
                self.let_go(batch, counters, retain);
            }
            None => self.clear(batch, counters),
        }
        let bounds = &mut counters.history;
        let most = sweep + REMOVE_PER_COMMAND * (1 + changes.len() as u64);
        let upto = bounds.start.min(bounds.removed.saturating_add(most));
        for revision in bounds.removed..upto {
            batch.delete(Keyspace::History, key(revision));
        }
        bounds.removed = upto.max(bounds.removed);
    }

    fn append(&mut self, batch: &mut WriteBatch, bounds: &mut Bounds, change: &Change, retain: &Retain) {
        let row = encode(change);
        let (revision, bytes, time) = (change.revision, row.len() as u64 + 8, change.time);
        batch.put(Keyspace::History, key(revision), row);
        let fresh = Block { first: revision, end: revision, bytes: 0, first_time: time, last_time: time };
        let mut block = bounds.open.take().unwrap_or(fresh);
        block.end = revision + 1;
        block.bytes += bytes;
        block.last_time = time;
        let age_ms = BLOCK_AGE_MS.min(retain.age_ms / BLOCKS);
        let is_full = block.end - block.first >= BLOCK_CHANGES
            || block.bytes >= BLOCK_BYTES.min(retain.bytes / BLOCKS)
            || time - block.first_time >= ntp64_ms(age_ms);
        if is_full {
            batch.put(Keyspace::Meta, block_key(block.first), layout::encode_record(&block));
            self.bytes += block.bytes;
            self.blocks.push_back(block);
        } else {
            bounds.open = Some(block);
        }
    }

    fn let_go(&mut self, batch: &mut WriteBatch, counters: &mut Counters, retain: &Retain) {
        let end = counters.revision + 1;
        let cutoff = counters.log_time.saturating_sub(ntp64_ms(retain.age_ms));
        let bounds = &mut counters.history;
        let mut start = bounds.start.max(end.saturating_sub(retain.count));
        while let Some(oldest) = self.blocks.front().copied() {
            let bytes = self.bytes + bounds.open.map_or(0, |open| open.bytes);
            // The youngest stays, however large: who is there to see it gets it.
            let is_heavy = bytes > retain.bytes && (self.blocks.len() > 1 || bounds.open.is_some());
            if oldest.end > start && oldest.last_time >= cutoff && !is_heavy {
                break;
            }
            start = start.max(oldest.end);
            self.pop(batch);
        }
        if self.blocks.is_empty()
            && let Some(open) = bounds.open
            && open.last_time < cutoff
        {
            start = end;
            bounds.open = None;
        }
        bounds.start = start;
    }

    fn pop(&mut self, batch: &mut WriteBatch) {
        if let Some(oldest) = self.blocks.pop_front() {
            self.bytes -= oldest.bytes;
            batch.delete(Keyspace::Meta, block_key(oldest.first));
        }
    }

    fn clear(&mut self, batch: &mut WriteBatch, counters: &mut Counters) {
        while !self.blocks.is_empty() {
            self.pop(batch);
        }
        let bounds = &mut counters.history;
        bounds.open = None;
        if bounds.removed >= bounds.start {
            // Nothing was written since: there is nothing to remove up to the next one.
            bounds.removed = counters.revision + 1;
        }
        bounds.start = counters.revision + 1;
    }
}

/// What a view tells of its history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Whether changes are retained at all.
    pub enabled: bool,
    /// The oldest change that is retained; one above `last` when none is.
    pub oldest: u64,
    /// The last revision.
    pub last: u64,
    /// The last revision that a server said it has published.
    pub published: u64,
    /// From when on, Unix milliseconds, a sweep has something to remove.
    pub sweep_unix_ms: Option<u64>,
}

pub(crate) fn bounds(
    view: &dyn DataView,
    counters: &Counters,
    retain: Option<&Retain>,
) -> Result<HistoryBounds> {
    let Bounds { start, removed, open, published } = counters.history;
    let oldest = blocks(view).next().transpose()?.or(open);
    let stale = oldest.zip(retain).map(|(block, retain)| unix_ms(block.last_time) + retain.age_ms + 1);
    let sweep_unix_ms = if removed < start { Some(0) } else { stale };
    Ok(HistoryBounds {
        enabled: retain.is_some(),
        oldest: start,
        last: counters.revision,
        published,
        sweep_unix_ms,
    })
}

/// The changes with revisions within the bounds, lazily.
pub(crate) fn changes(
    view: &dyn DataView,
    from: u64,
    to: u64,
    direction: Direction,
) -> impl Iterator<Item = Result<Change>> + Send + '_ {
    let (from, to) = (Bound::Included(key(from)), Bound::Included(key(to)));
    view.scan(Keyspace::History, from, to, direction).map(|row| {
        let (key, row) = row?;
        decode(&key, &row)
    })
}

fn key(revision: u64) -> Bytes {
    Bytes::copy_from_slice(&revision.to_be_bytes())
}

fn block_key(first: u64) -> Bytes {
    [BLOCK_PREFIX, &first.to_be_bytes()].concat().into()
}

fn blocks(view: &dyn DataView) -> impl Iterator<Item = Result<Block>> + '_ {
    let (from, to) = (block_key(0), block_key(u64::MAX));
    let rows = view.scan(Keyspace::Meta, Bound::Included(from), Bound::Included(to), Direction::Forward);
    rows.map(|row| layout::decode_record("block of the history", &row?.1))
}

/// A change without what its key and the end of its row say.
#[derive(Serialize, Deserialize)]
struct Header<K, T, A> {
    key: K,
    created_revision: u64,
    version: u64,
    expires_unix_ms: u64,
    time: u64,
    /// Encoding and attachment of a put; `None` is a delete.
    put: Option<(T, Option<A>)>,
}

fn encode(change: &Change) -> Bytes {
    let (put, payload): (_, &[u8]) = match &change.kind {
        ChangeKind::Put(value) => (Some((&value.encoding, value.attachment.as_ref())), &value.payload),
        ChangeKind::Delete => (None, &[]),
    };
    let header = Header {
        key: &change.key,
        created_revision: change.created_revision,
        version: change.version,
        expires_unix_ms: change.expires_unix_ms,
        time: change.time,
        put,
    };
    layout::encode_with_payload(&header, payload)
}

fn decode(key: &Bytes, row: &Bytes) -> Result<Change> {
    let revision = key[..].try_into().map(u64::from_be_bytes);
    let revision = revision.map_err(|_| Error::Internal("damaged key of the history".to_owned()))?;
    let (header, payload): (Header<ObjectKey, String, Bytes>, Bytes) =
        layout::decode_with_payload("change", row)?;
    let kind = match header.put {
        Some((encoding, attachment)) => ChangeKind::Put(Value { payload, encoding, attachment }),
        None => ChangeKind::Delete,
    };
    Ok(Change {
        key: header.key,
        revision,
        created_revision: header.created_revision,
        version: header.version,
        expires_unix_ms: header.expires_unix_ms,
        time: header.time,
        kind,
    })
}
