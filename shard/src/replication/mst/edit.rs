//! One batch of changes of a replica: what clients wrote here, or what was merged from others.
//!
//! Values, heads, numbers and answers are written as the state machine of every kind writes them; this adds
//! the items.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use odgm_storage::data::{DataView, Direction, Keyspace, WriteBatch};

use super::Stamp;
use super::item::{self, Body, Entry, Item, Kind, Slot};
use super::tree::Delta;
use crate::Result;
use crate::object::{ObjectId, ObjectKey, ReplicaId};
use crate::runtime::unix_ms;
use crate::state::history::{History, REMOVE_PER_SWEEP};
use crate::state::index::Held;
use crate::state::layout::{self, Counters, Stored};
use crate::state::overlay::Overlay;
use crate::state::requests::Requests;
use crate::state::run::Run;
use crate::state::table::Derived;
use crate::state::{Change, ChangeKind, Command, Done, Due, Operation, Outcome, Step, Upkeep};

/// An item before and after.
#[derive(Debug, Clone, Copy)]
struct Cell {
    before: Option<Item>,
    after: Option<Item>,
}

/// Uncommitted changes over a view.
pub(super) struct Edit<'a> {
    view: &'a dyn DataView,
    overlay: Overlay<'a>,
    pub(super) counters: Counters,
    held: Held,
    requests: Requests,
    history: History,
    pub(super) changes: Vec<Change>,
    items: BTreeMap<Bytes, Cell>,
    retired: u64,
}

impl<'a> Edit<'a> {
    pub(super) fn new(
        view: &'a dyn DataView,
        counters: Counters,
        held: Held,
        derived: Derived,
        retired: u64,
    ) -> Self {
        let Derived { requests, history, recent } = derived;
        let overlay = Overlay::new(view, recent);
        let (changes, items) = (Vec::new(), BTreeMap::new());
        Edit { view, overlay, counters, held, requests, history, changes, items, retired }
    }

    fn run(&mut self) -> Run<'_, 'a> {
        Run {
            overlay: &mut self.overlay,
            counters: &mut self.counters,
            held: &mut self.held,
            changes: &mut self.changes,
        }
    }

    /// Keeps the changes from one on, as they are told.
    fn record(&mut self, first: usize, sweep: u64) -> Result<()> {
        self.forget_numbers(first)?;
        let (batch, retain) = (self.overlay.derived(), self.held.history.as_ref());
        self.history.follow(batch, &mut self.counters, &self.changes[first..], retain, sweep);
        Ok(())
    }

    fn item(&self, slot: &Bytes) -> Result<Option<Item>> {
        if let Some(cell) = self.items.get(slot) {
            return Ok(cell.after);
        }
        read_item(self.view, slot)
    }

    fn set_item(&mut self, slot: &Bytes, after: Option<Item>) -> Result<()> {
        let before = match self.items.get(slot) {
            Some(cell) => cell.before,
            None => read_item(self.view, slot)?,
        };
        self.items.insert(slot.clone(), Cell { before, after });
        Ok(())
    }

    /// The items of an object's keys, without its deletion's.
    fn items_of(&self, object: &ObjectId) -> Result<BTreeMap<Bytes, Item>> {
        let (head, end) = (layout::head_key(object), layout::object_end(object));
        let mut found = BTreeMap::new();
        let from = Bound::Excluded(item::item_key(&head));
        let to = Bound::Excluded(item::item_key(&end));
        for row in self.view.scan(Keyspace::Index, from, to, Direction::Forward) {
            let (key, row) = row?;
            found.insert(item::slot_of(&key), layout::decode_record("item", &row)?);
        }
        for (slot, cell) in self.items.range((Bound::Excluded(head), Bound::Excluded(end))) {
            match cell.after {
                Some(item) => found.insert(slot.clone(), item),
                None => found.remove(slot),
            };
        }
        Ok(found)
    }

    /// A time of the own clock above all before.
    fn fresh(&mut self) -> u64 {
        let counters = &mut self.counters;
        counters.commit_time = counters.log_time.max(counters.commit_time.saturating_add(1));
        counters.commit_time
    }

    /// Runs a command that a client gave, stamped by this replica; gives the slots that it changed.
    pub(super) fn command(
        &mut self,
        me: ReplicaId,
        command: Command,
        rid_window_ms: u64,
    ) -> Result<(Outcome, BTreeSet<Bytes>)> {
        let sweep = match &command.operation {
            Operation::Upkeep(Upkeep::Expire(due)) => return self.expire_due(due),
            Operation::Upkeep(Upkeep::Sweep) => REMOVE_PER_SWEEP,
            _ => 0,
        };
        let deleted = deleted(&command.operation);
        let (has_rid, answers, first) =
            (command.rid.is_some(), self.counters.requests_end, self.changes.len());
        let mut run = Run {
            overlay: &mut self.overlay,
            counters: &mut self.counters,
            held: &mut self.held,
            changes: &mut self.changes,
        };
        let outcome = self.requests.run(&mut run, command, rid_window_ms)?;
        let is_repeat = has_rid && answers == self.counters.requests_end;
        let mut slots = BTreeSet::new();
        if !is_repeat && !matches!(outcome, Outcome::Refused(_)) {
            self.stamp(me, first, &deleted, &mut slots)?;
        }
        self.record(first, sweep)?;
        Ok((without_numbers(outcome), slots))
    }

    /// Gives stamps to what a command changed, and to what it deleted though it was not here: another
    /// replica may have it.
    fn stamp(
        &mut self,
        me: ReplicaId,
        first: usize,
        deleted: &[ObjectKey],
        slots: &mut BTreeSet<Bytes>,
    ) -> Result<()> {
        let whole = |key: &ObjectKey| {
            deleted.iter().any(|deleted| deleted.entry.is_none() && deleted.object == key.object)
        };
        let changed: Vec<(ObjectKey, u64, Option<u64>)> = self.changes[first..]
            .iter()
            .map(|change| (change.key.clone(), change.time, content_of(change)))
            .collect();
        for (key, time, content) in changed.iter().filter(|(key, ..)| !whole(key)) {
            let kind = content.map_or(Kind::Deleted, Kind::Put);
            let slot = layout::value_key(key);
            self.set_item(&slot, Some(Item { stamp: Stamp { time: *time, replica: me }, kind }))?;
            slots.insert(slot);
        }
        for key in deleted {
            let times = changed.iter().filter(|(changed, ..)| match key.entry {
                None => changed.object == key.object,
                Some(_) => changed == key,
            });
            let time = match times.map(|(_, time, _)| *time).max() {
                Some(_) if key.entry.is_some() => continue,
                Some(time) => time,
                None => self.fresh(),
            };
            let item = Item { stamp: Stamp { time, replica: me }, kind: Kind::Deleted };
            let slot = match key.entry {
                None => layout::head_key(&key.object),
                Some(_) => layout::value_key(key),
            };
            self.set_item(&slot, Some(item))?;
            slots.insert(slot);
            if key.entry.is_none() {
                for covered in self.items_of(&key.object)?.into_keys() {
                    self.set_item(&covered, None)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the keys whose deadlines are over and still theirs.
    fn expire_due(&mut self, due: &[Due]) -> Result<(Outcome, BTreeSet<Bytes>)> {
        let now_ms = unix_ms(self.counters.log_time);
        let mut slots = BTreeSet::new();
        for Due { key, expires_unix_ms } in due {
            let deadline = self.overlay.value(key)?.map_or(0, |stored| stored.expires_unix_ms);
            if deadline == *expires_unix_ms && (1..=now_ms).contains(&deadline) {
                slots.extend(self.expire(key)?);
            }
        }
        let revision = self.counters.revision;
        Ok((Outcome::Done(Done { revision, ..Done::default() }), slots))
    }

    /// Marks as expired, by this replica, what an expiry deleted.
    pub(super) fn expire(&mut self, key: &ObjectKey) -> Result<Option<Bytes>> {
        let slot = layout::value_key(key);
        let Some(item) = self.item(&slot)?.filter(Item::is_value) else { return Ok(None) };
        let first = self.changes.len();
        self.run().remove(key.clone())?;
        self.record(first, 0)?;
        let at = self.counters.commit_time;
        self.set_item(&slot, Some(Item { kind: Kind::Expired(at), ..item }))?;
        Ok(Some(slot))
    }

    /// Takes over an entry of another replica when it is newer than what is here; says whether it was.
    pub(super) fn merge(&mut self, entry: Entry) -> Result<bool> {
        let (slot, item) = (entry.slot.clone(), entry.item());
        if self.item(&slot)?.is_some_and(|present| present >= item) {
            return Ok(false);
        }
        // Everything that is stamped later here is above what was seen.
        let newest = item.buried().unwrap_or(item.stamp.time);
        self.counters.log_time = self.counters.log_time.max(newest);
        let first = self.changes.len();
        let is_new = match Slot::parse(&slot)? {
            Slot::Object(object) => self.bury(&slot, &object, item)?,
            Slot::Key(key) => self.merge_key(&slot, key, item, entry.body)?,
        };
        self.record(first, 0)?;
        Ok(is_new)
    }

    fn merge_key(&mut self, slot: &Bytes, key: ObjectKey, item: Item, body: Body) -> Result<bool> {
        let burial = self.item(&layout::head_key(&key.object))?;
        if burial.is_some_and(|burial| burial.stamp >= item.stamp) {
            return Ok(false);
        }
        let present = self.item(slot)?;
        match body {
            Body::Put { value, expires_unix_ms } => {
                self.run().set(key.clone(), value.clone(), expires_unix_ms)?;
                let stored = Stored { value, expires_unix_ms, time: item.stamp.time };
                self.overlay.set_value(&key, Some(stored));
            }
            Body::Expired(_) | Body::Deleted => match present {
                Some(present) if present.is_value() => {
                    self.run().remove(key)?;
                }
                None if self.is_forgotten(&item) => return Ok(false),
                _ => {}
            },
        }
        self.set_item(slot, Some(item))?;
        Ok(true)
    }

    /// The deletion of an object, with all of its keys that are older.
    fn bury(&mut self, slot: &Bytes, object: &ObjectId, item: Item) -> Result<bool> {
        if item.kind != Kind::Deleted {
            return Ok(false);
        }
        let mut covered = self.items_of(object)?;
        covered.retain(|_, present| present.stamp <= item.stamp);
        if covered.is_empty() && self.item(slot)?.is_none() && self.is_forgotten(&item) {
            return Ok(false);
        }
        // As a delete does everywhere: the entries by name, then the object's own value.
        let own = layout::value_key(&ObjectKey { object: object.clone(), entry: None });
        let last = covered.remove_entry(&own);
        for (covered, present) in covered.into_iter().chain(last) {
            if present.is_value()
                && let Slot::Key(key) = Slot::parse(&covered)?
            {
                self.run().remove(key)?;
            }
            self.set_item(&covered, None)?;
        }
        self.set_item(slot, Some(item))?;
        Ok(true)
    }

    /// Whether a tombstone is one that every replica has, or had.
    fn is_forgotten(&self, item: &Item) -> bool {
        item.buried().is_some_and(|buried| buried <= self.retired)
    }

    /// Objects have no numbers of their own here: they would differ from replica to replica.
    fn forget_numbers(&mut self, first: usize) -> Result<()> {
        for at in first..self.changes.len() {
            let change = &mut self.changes[at];
            (change.created_revision, change.version) = (0, 0);
            let object = change.key.object.clone();
            if let Some(head) = self.overlay.head(&object)?
                && head.version != 0
            {
                let head = layout::Head { created_revision: 0, version: 0, ..head };
                self.overlay.set_head(&object, Some(head));
            }
        }
        Ok(())
    }

    /// What is to be written, and how the items changed.
    pub(super) fn finish(self) -> Finished {
        let (mut batch, recent) = self.overlay.into_batch();
        let (mut deltas, mut tombstones) = (Vec::new(), Tombstones::default());
        for (slot, Cell { before, after }) in self.items {
            if before == after {
                continue;
            }
            let row = after.map(|item| layout::encode_record(&item));
            batch.operations.push((Keyspace::Index, item::item_key(&slot), row));
            let (old, new) = (before.and_then(|i| i.buried()), after.and_then(|i| i.buried()));
            if old != new {
                if let Some(old) = old {
                    batch.delete(Keyspace::Index, item::tombstone_key(old, &slot));
                    tombstones.removed += 1;
                }
                if let Some(new) = new {
                    batch.put(Keyspace::Index, item::tombstone_key(new, &slot), Bytes::new());
                    tombstones.added += 1;
                }
            }
            let retired = self.retired;
            let digest = |item: Option<Item>| {
                item.filter(|item| item.buried().is_none_or(|buried| buried > retired))
                    .map(|item| item.digest(&slot))
            };
            let (before, after) = (digest(before), digest(after));
            if before != after {
                deltas.push((slot, before, after));
            }
        }
        let derived = Derived { requests: self.requests, history: self.history, recent };
        Finished { batch, deltas, tombstones, held: self.held, derived }
    }
}

/// What an edit leaves to do.
pub(super) struct Finished {
    pub(super) batch: WriteBatch,
    pub(super) deltas: Vec<Delta>,
    pub(super) tombstones: Tombstones,
    pub(super) held: Held,
    pub(super) derived: Derived,
}

/// How the number of tombstones changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tombstones {
    pub(super) added: u64,
    pub(super) removed: u64,
}

pub(super) fn read_item(view: &dyn DataView, slot: &[u8]) -> Result<Option<Item>> {
    let row = view.get(Keyspace::Index, &item::item_key(slot))?;
    row.map(|row| layout::decode_record("item", &row)).transpose()
}

/// The entry of an item, its value read from the view.
pub(super) fn read_entry(view: &dyn DataView, slot: Bytes, item: Item) -> Result<Entry> {
    let body = match item.kind {
        Kind::Deleted => Body::Deleted,
        Kind::Expired(at) => Body::Expired(at),
        Kind::Put(_) => {
            let row = view.get(Keyspace::Data, &slot)?;
            let row = row.ok_or_else(|| crate::Error::Internal("an item has no value".to_owned()))?;
            let Stored { value, expires_unix_ms, .. } = layout::decode_stored(&row)?;
            Body::Put { value, expires_unix_ms }
        }
    };
    Ok(Entry { slot, stamp: item.stamp, body })
}

fn content_of(change: &Change) -> Option<u64> {
    match &change.kind {
        ChangeKind::Put(value) => Some(item::content(value, change.expires_unix_ms)),
        ChangeKind::Delete => None,
    }
}

/// The keys that an operation deletes, whether they are here or not.
fn deleted(operation: &Operation) -> Vec<ObjectKey> {
    let of_step = |step: &Step| match step {
        Step::Delete { key } => Some(key.clone()),
        Step::Put { .. } | Step::Increment { .. } => None,
    };
    match operation {
        Operation::Delete { key, .. } => vec![key.clone()],
        Operation::Txn { then, .. } => then.iter().filter_map(of_step).collect(),
        Operation::Put { .. }
        | Operation::Increment { .. }
        | Operation::Touch { .. }
        | Operation::Upkeep(_) => Vec::new(),
    }
}

fn without_numbers(outcome: Outcome) -> Outcome {
    let bare = |done: Done| Done { created_revision: 0, version: 0, ..done };
    match outcome {
        Outcome::Done(done) => Outcome::Done(bare(done)),
        Outcome::Txn(mut txn) => {
            for step in &mut txn.results {
                step.done = bare(std::mem::take(&mut step.done));
            }
            Outcome::Txn(txn)
        }
        refused @ Outcome::Refused(_) => refused,
    }
}
