//! The table of a divergent replica: takes clients' commands, merges what other replicas send, and knows by
//! its tree what it holds.
//!
//! Synchronous, without a clock: wall time comes in with each call. Merging is commutative, associative and
//! idempotent: for each key the greatest (time, replica) wins, and a deletion of an object covers all that is
//! older of it. So whatever order, repetition or loss the exchanges meet, replicas that have heard of the
//! same writes hold the same.

mod burial;
mod ranges;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use odgm_storage::data::{ApplicationDataStorage, DataView, Durability, Keyspace, WriteBatch};

use self::ranges::{items, read_fingerprint};
use super::agreed::Agreed;
use super::edit::{Edit, Finished, Tombstones, read_entry, read_item};
use super::item::{self, AGREED, Entry};
use super::stamp::is_future;
use super::tree::{Delta, Fingerprint, Range, Tree};
use crate::object::{ObjectKey, ReplicaId};
use crate::runtime::ntp64;
use crate::state::index::Held;
use crate::state::layout::{self, Counters};
use crate::state::table::Derived;
use crate::state::view::{ViewSource, read_counters, read_held};
use crate::state::{Change, Command, ObjectView, Outcome, Position};
use crate::{Error, Result};

/// How many entries of the future are kept at most; the others come again.
const MAX_HELD: usize = 10_000;
/// What they take at most.
const MAX_HELD_BYTES: usize = 16 << 20;

/// What clients' commands did.
#[derive(Debug, Default)]
pub struct Written {
    /// One for each command.
    pub outcomes: Vec<Outcome>,
    /// The changes, by revision.
    pub changes: Vec<Change>,
    /// What the other replicas are to hear.
    pub entries: Vec<Entry>,
}

/// What merging did.
#[derive(Debug, Default)]
pub struct Merged {
    /// The changes, by revision.
    pub changes: Vec<Change>,
    /// Entries that were newer than what was here.
    pub taken: u64,
    /// Entries that wait until the clock has reached them.
    pub held: u64,
}

/// The objects of one replica of a divergent shard.
#[derive(Debug)]
pub struct MstTable {
    storage: Arc<dyn ApplicationDataStorage>,
    me: ReplicaId,
    counters: Counters,
    settings: Held,
    /// `None` after a call that failed half-way: read anew by the next one.
    derived: Option<Derived>,
    tree: Tree,
    agreed: Agreed,
    tombstones: u64,
    /// By time.
    held: BTreeMap<(u64, Bytes), Entry>,
    held_bytes: usize,
    /// Memory and disk may differ: nothing works any more.
    broken: bool,
}

impl MstTable {
    /// Opens what the data layer holds for this replica; reads all items, but no values.
    ///
    /// # Errors
    /// When the data layer fails, or holds records that this build does not read.
    pub fn open(storage: Arc<dyn ApplicationDataStorage>, me: ReplicaId) -> Result<Self> {
        let view = storage.view();
        let counters = read_counters(view.as_ref())?;
        let settings = read_held(view.as_ref())?;
        let derived = Some(Derived::load(view.as_ref(), &counters)?);
        let row = view.get(Keyspace::Meta, AGREED)?;
        let agreed: Agreed =
            row.map_or_else(|| Ok(Agreed::default()), |row| layout::decode_record("agreement", &row))?;
        let (mut tree, mut tombstones) = (Tree::new(), 0);
        for found in items(view.as_ref(), &Range::all()) {
            let (slot, item) = found?;
            tombstones += u64::from(!item.is_value());
            if item.buried().is_none_or(|buried| buried > agreed.retired) {
                tree.push(&slot, item.digest(&slot));
            }
        }
        drop(view);
        Ok(MstTable {
            storage,
            me,
            counters,
            settings,
            derived,
            tree,
            agreed,
            tombstones,
            held: BTreeMap::new(),
            held_bytes: 0,
            broken: false,
        })
    }

    /// This replica.
    pub fn replica(&self) -> ReplicaId {
        self.me
    }

    /// How many changes this replica applied.
    pub fn revision(&self) -> u64 {
        self.counters.revision
    }

    /// How many tombstones it keeps.
    pub fn tombstones(&self) -> u64 {
        self.tombstones
    }

    /// How many entries wait for the clock.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many pages its tree has.
    pub fn pages(&self) -> usize {
        self.tree.pages()
    }

    /// What it holds, for comparison with another replica.
    pub fn root(&self) -> Fingerprint {
        self.tree.root()
    }

    /// The present state.
    pub fn view(&self) -> ObjectView {
        self.views().view()
    }

    /// A source of views that needs no access to the table.
    pub fn views(&self) -> ViewSource {
        ViewSource::new(self.storage.clone())
    }

    fn clock(&self) -> u64 {
        self.counters.commit_time.max(self.counters.log_time).max(self.agreed.promised)
    }

    /// Advances the clock: the result is above every time it gave before.
    pub(super) fn tick(&mut self, now: u64) -> u64 {
        let time = now.max(self.clock() + 1);
        self.counters.log_time = time;
        self.counters.commit_time = time;
        time
    }

    /// A time of the clock to which this replica holds even through a restart: no stamp at or below it is given
    /// later. Durable when it returns.
    pub(super) fn promise(&mut self, now: u64) -> Result<u64> {
        let time = self.tick(now);
        let mut agreed = self.agreed.clone();
        agreed.promised = time;
        self.agree(agreed, WriteBatch::default(), Durability::Now)?;
        Ok(time)
    }

    /// Runs clients' commands in order, in one batch.
    ///
    /// # Errors
    /// [`Error::Busy`] while the clock is too far ahead of the wall clock to stamp anything: nothing
    /// happened. After a failure of the data layer the replica must stop.
    pub fn write(
        &mut self,
        commands: Vec<Command>,
        now: u64,
        rid_window_ms: u64,
        durability: Durability,
    ) -> Result<Written> {
        self.check()?;
        if is_future(self.clock(), now) {
            return Err(Error::Busy("the wall clock of this replica is behind the stamps it has given"));
        }
        let storage = self.storage.clone();
        let view = storage.view();
        let mut edit = self.edit(view.as_ref())?;
        edit.counters.log_time = now.max(self.clock());
        edit.counters.commit_time = edit.counters.commit_time.max(self.agreed.promised);
        let (mut written, mut slots) = (Written::default(), BTreeSet::new());
        for command in commands {
            let (outcome, changed) = edit.command(self.me, command, rid_window_ms)?;
            written.outcomes.push(outcome);
            slots.extend(changed);
        }
        written.changes = self.commit(edit, durability)?;
        written.entries = self.read(slots)?;
        Ok(written)
    }

    /// Takes over what another replica sent at a time of its clock. A message that left before the last exchange
    /// with its sender is ignored: it holds nothing new, and may hold what was forgotten since.
    ///
    /// # Errors
    /// When an entry is malformed: nothing was taken. After a failure of the data layer the replica must stop.
    pub fn merge(
        &mut self,
        sender: (ReplicaId, u64),
        entries: Vec<Entry>,
        now: u64,
        durability: Durability,
    ) -> Result<Merged> {
        self.check()?;
        if self.agreed.is_stale(sender.0, sender.1) {
            return Ok(Merged::default());
        }
        self.take(entries, now, durability)
    }

    /// Takes over the last writes of a replica that left the placement: the others may have forgotten tombstones
    /// without it, so only what is newer than those.
    ///
    /// # Errors
    /// As [`MstTable::merge`].
    pub fn inherit(&mut self, mut entries: Vec<Entry>, now: u64, durability: Durability) -> Result<Merged> {
        self.check()?;
        entries.retain(|entry| entry.stamp.time > self.agreed.dropped);
        self.take(entries, now, durability)
    }

    fn take(&mut self, entries: Vec<Entry>, now: u64, durability: Durability) -> Result<Merged> {
        for entry in &entries {
            item::Slot::parse(&entry.slot)?;
        }
        let mut merged = Merged::default();
        let (future, present): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| is_future(entry.newest(), now));
        for entry in future {
            merged.held += 1;
            self.hold(entry);
        }
        if present.is_empty() {
            return Ok(merged);
        }
        let storage = self.storage.clone();
        let view = storage.view();
        let mut edit = self.edit(view.as_ref())?;
        edit.counters.log_time = edit.counters.log_time.max(now);
        for entry in present {
            merged.taken += u64::from(edit.merge(entry)?);
        }
        merged.changes = self.commit(edit, durability)?;
        Ok(merged)
    }

    fn hold(&mut self, entry: Entry) {
        let bytes = entry.bytes();
        let key = (entry.newest(), entry.slot.clone());
        let has_room = self.held.len() < MAX_HELD && self.held_bytes + bytes <= MAX_HELD_BYTES;
        if has_room && !self.held.contains_key(&key) {
            self.held_bytes += bytes;
            self.held.insert(key, entry);
        }
    }

    /// Takes over what was held and whose time has come. What a tombstone that was forgotten meanwhile may have ended
    /// is left to the replicas that have it.
    ///
    /// # Errors
    /// As [`MstTable::merge`].
    pub fn release(&mut self, now: u64, durability: Durability) -> Result<Merged> {
        self.check()?;
        let later = self.held.split_off(&(now.saturating_add(1), Bytes::new()));
        let due = std::mem::replace(&mut self.held, later);
        let mut due: Vec<Entry> = due.into_values().collect();
        self.held_bytes -= due.iter().map(Entry::bytes).sum::<usize>();
        due.retain(|entry| entry.stamp.time > self.agreed.dropped);
        if due.is_empty() { Ok(Merged::default()) } else { self.take(due, now, durability) }
    }

    /// Ends keys whose time is over.
    ///
    /// # Errors
    /// After a failure of the data layer the replica must stop.
    pub fn expire(&mut self, keys: &[ObjectKey], now: u64, durability: Durability) -> Result<Written> {
        self.check()?;
        let storage = self.storage.clone();
        let view = storage.view();
        let mut edit = self.edit(view.as_ref())?;
        edit.counters.log_time = now.max(self.clock());
        let mut slots = BTreeSet::new();
        for key in keys {
            let record = self.view().get(key)?;
            let is_due = record.is_some_and(|record| {
                record.expires_unix_ms > 0 && ntp64_of_ms(record.expires_unix_ms) <= now
            });
            if is_due {
                slots.extend(edit.expire(key)?);
            }
        }
        let changes = self.commit(edit, durability)?;
        Ok(Written { outcomes: Vec::new(), changes, entries: self.read(slots)? })
    }

    fn read(&self, slots: BTreeSet<Bytes>) -> Result<Vec<Entry>> {
        let view = self.storage.view();
        let mut entries = Vec::with_capacity(slots.len());
        for slot in slots {
            if let Some(item) = read_item(view.as_ref(), &slot)? {
                entries.push(read_entry(view.as_ref(), slot, item)?);
            }
        }
        Ok(entries)
    }

    fn check(&self) -> Result<()> {
        if self.broken {
            return Err(Error::Internal("an earlier write of this replica failed".to_owned()));
        }
        Ok(())
    }

    fn edit<'a>(&mut self, view: &'a dyn DataView) -> Result<Edit<'a>> {
        let derived = match self.derived.take() {
            Some(derived) => derived,
            None => Derived::load(view, &self.counters)?,
        };
        Ok(Edit::new(view, self.counters, self.settings.clone(), derived, self.agreed.retired))
    }

    /// Writes a batch of changes, and brings the tree after it.
    fn commit(&mut self, edit: Edit<'_>, durability: Durability) -> Result<Vec<Change>> {
        let mut edit = edit;
        let changes = std::mem::take(&mut edit.changes);
        let mut counters = edit.counters;
        let index = counters.applied.map_or(1, |position| position.index + 1);
        counters.applied = Some(Position { term: 0, index });
        let Finished { mut batch, deltas, tombstones, held, derived } = edit.finish();
        let Tombstones { added, removed } = tombstones;
        batch.put(Keyspace::Meta, layout::COUNTERS, layout::encode_record(&counters));
        self.storage.write(batch, durability)?;
        self.counters = counters;
        (self.settings, self.derived) = (held, Some(derived));
        self.tombstones = self.tombstones + added - removed;
        self.apply_to_tree(&deltas)?;
        Ok(changes)
    }

    fn apply_to_tree(&mut self, deltas: &[Delta]) -> Result<()> {
        if deltas.is_empty() {
            return Ok(());
        }
        let (view, retired) = (self.storage.view(), self.agreed.retired);
        let applied = self.tree.apply(deltas, &mut |part| read_fingerprint(view.as_ref(), part, retired));
        self.broken |= applied.is_err();
        applied
    }
}

impl Entry {
    /// The latest time that it names.
    fn newest(&self) -> u64 {
        self.item().buried().unwrap_or(self.stamp.time)
    }
}

fn ntp64_of_ms(unix_ms: u64) -> u64 {
    ntp64(std::time::Duration::from_millis(unix_ms))
}
