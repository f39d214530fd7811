//! What one apply call has changed so far, over the state before it: every read goes through here, so
//! commands of the call see each other's effects, and each row is read and written at most once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use odgm_storage::data::{DataView, Direction, Keyspace, WriteBatch};

use super::layout::{self, Head, Remembered, Row, Stored};
use super::recent::RecentHeads;
use super::view::read_head;
use crate::Result;
use crate::object::{EntryName, ObjectId, ObjectKey};

/// Entries that are read over rather than jumped, see [`super::listing`].
const JUMP_ENTRIES: u64 = 32;

/// A row as it is now: gone, or its record; and whether it is still to be written.
#[derive(Debug, Clone)]
struct Cell<T> {
    record: Option<T>,
    dirty: bool,
}

/// What a row was before a transaction changed it.
enum Undo {
    Head(ObjectId, Option<Cell<Head>>),
    Value(ObjectKey, Option<Cell<Stored>>),
}

/// Uncommitted changes over a view.
pub(crate) struct Overlay<'a> {
    view: &'a dyn DataView,
    recent: &'a RecentHeads,
    heads: HashMap<ObjectId, Cell<Head>>,
    /// Ordered as the rows are, so that an object's entries are found.
    values: BTreeMap<ObjectKey, Cell<Stored>>,
    /// By place.
    requests: HashMap<u64, Option<Remembered>>,
    /// Rows that follow from the others, in the order in which they were changed.
    derived: WriteBatch,
    undo: Option<Undos>,
}

/// What takes a transaction back.
#[derive(Default)]
struct Undos {
    rows: Vec<Undo>,
    /// How many derived rows there were.
    derived: usize,
}

impl<'a> Overlay<'a> {
    /// Over a view, of which `recent` knows a part.
    pub(crate) fn new(view: &'a dyn DataView, recent: &'a RecentHeads) -> Self {
        Overlay {
            view,
            recent,
            heads: HashMap::new(),
            values: BTreeMap::new(),
            requests: HashMap::new(),
            derived: WriteBatch::default(),
            undo: None,
        }
    }

    pub(crate) fn head(&mut self, object: &ObjectId) -> Result<Option<Head>> {
        if let Some(cell) = self.heads.get(object) {
            return Ok(cell.record);
        }
        let record = match self.recent.get(object) {
            Some(record) => record,
            None => read_head(self.view, object)?,
        };
        self.heads.insert(object.clone(), Cell { record, dirty: false });
        Ok(record)
    }

    pub(crate) fn set_head(&mut self, object: &ObjectId, record: Option<Head>) {
        let before = self.heads.insert(object.clone(), Cell { record, dirty: true });
        if let Some(undo) = &mut self.undo {
            undo.rows.push(Undo::Head(object.clone(), before));
        }
    }

    pub(crate) fn value(&mut self, key: &ObjectKey) -> Result<Option<&Stored>> {
        if !self.values.contains_key(key) {
            let row = self.view.get(Keyspace::Data, &layout::value_key(key))?;
            let record = row.map(|row| layout::decode_stored(&row)).transpose()?;
            self.values.insert(key.clone(), Cell { record, dirty: false });
        }
        Ok(self.values.get(key).and_then(|cell| cell.record.as_ref()))
    }

    pub(crate) fn set_value(&mut self, key: &ObjectKey, record: Option<Stored>) {
        let before = self.values.insert(key.clone(), Cell { record, dirty: true });
        if let Some(undo) = &mut self.undo {
            undo.rows.push(Undo::Value(key.clone(), before));
        }
    }

    /// The names of an object's entries as they are now, in order.
    pub(crate) fn entries(&self, object: &ObjectId) -> Result<Vec<EntryName>> {
        let mut present = BTreeMap::new();
        let from = Bound::Included(layout::entries_from(object, ""));
        let to = Bound::Excluded(layout::object_end(object));
        for row in self.view.scan(Keyspace::Data, from, to, Direction::Forward) {
            if let Row::Key(ObjectKey { entry: Some(entry), .. }) = layout::parse_row(&row?.0)? {
                present.insert(entry, true);
            }
        }
        let own = ObjectKey { object: object.clone(), entry: None };
        let changed = self.values.range((Bound::Excluded(own), Bound::Unbounded));
        for (key, cell) in changed.take_while(|(key, _)| key.object == *object) {
            if let Some(entry) = &key.entry {
                present.insert(entry.clone(), cell.record.is_some());
            }
        }
        Ok(present.into_iter().filter_map(|(entry, is_there)| is_there.then_some(entry)).collect())
    }

    /// The first objects behind one, as they are now, in order.
    pub(crate) fn objects_after(&self, after: Option<&ObjectId>, limit: usize) -> Result<Vec<ObjectId>> {
        let mut present = BTreeSet::new();
        let mut from = after.map_or(Bound::Unbounded, |after| Bound::Included(layout::object_end(after)));
        'seek: loop {
            for row in self.view.scan(Keyspace::Data, from, Bound::Unbounded, Direction::Forward) {
                let (key, row) = row?;
                let Row::Head(object) = layout::parse_row(&key)? else { continue };
                let head: Head = layout::decode_record("object head", &row)?;
                let behind = layout::object_end(&object);
                if self.heads.get(&object).is_none_or(|cell| cell.record.is_some()) {
                    present.insert(object);
                }
                if present.len() >= limit {
                    break 'seek;
                }
                if head.entries > JUMP_ENTRIES {
                    from = Bound::Included(behind);
                    continue 'seek;
                }
            }
            break;
        }
        let fresh = self.heads.iter().filter(|(_, cell)| cell.record.is_some()).map(|(object, _)| object);
        present.extend(fresh.filter(|object| after.is_none_or(|after| *object > after)).cloned());
        Ok(present.into_iter().take(limit).collect())
    }

    /// The answer remembered at a place.
    pub(crate) fn remembered(&self, place: u64) -> Result<Option<Remembered>> {
        if let Some(remembered) = self.requests.get(&place) {
            return Ok(remembered.clone());
        }
        let row = self.view.get(Keyspace::Index, &layout::request_key(place))?;
        row.map(|row| layout::decode_record("remembered request", &row)).transpose()
    }

    pub(crate) fn remember(&mut self, place: u64, remembered: Option<Remembered>) {
        self.requests.insert(place, remembered);
    }

    /// Rows that follow from the objects'.
    pub(crate) fn derived(&mut self) -> &mut WriteBatch {
        &mut self.derived
    }

    /// From here on changes can be taken back.
    pub(crate) fn begin(&mut self) {
        self.undo = Some(Undos { rows: Vec::new(), derived: self.derived.operations.len() });
    }

    /// Keeps what was changed since `begin`.
    pub(crate) fn keep(&mut self) {
        self.undo = None;
    }

    /// Takes back what was changed since `begin`.
    pub(crate) fn take_back(&mut self) {
        let Some(undos) = self.undo.take() else { return };
        self.derived.operations.truncate(undos.derived);
        for undo in undos.rows.into_iter().rev() {
            match undo {
                Undo::Head(object, before) => {
                    match before {
                        Some(cell) => self.heads.insert(object, cell),
                        None => self.heads.remove(&object),
                    };
                }
                Undo::Value(key, before) => {
                    match before {
                        Some(cell) => self.values.insert(key, cell),
                        None => self.values.remove(&key),
                    };
                }
            }
        }
    }

    /// Everything that is to be written, and the heads in it.
    pub(crate) fn into_batch(self) -> (WriteBatch, Vec<(ObjectId, Option<Head>)>) {
        let mut batch = self.derived;
        let mut heads = Vec::new();
        for (object, cell) in self.heads.into_iter().filter(|(_, cell)| cell.dirty) {
            let row = cell.record.map(|head| layout::encode_record(&head));
            batch.operations.push((Keyspace::Data, layout::head_key(&object), row));
            heads.push((object, cell.record));
        }
        for (key, cell) in self.values.into_iter().filter(|(_, cell)| cell.dirty) {
            let row = cell.record.map(|stored| layout::encode_stored(&stored));
            batch.operations.push((Keyspace::Data, layout::value_key(&key), row));
        }
        for (place, remembered) in self.requests {
            let row = remembered.map(|remembered| layout::encode_record(&remembered));
            batch.operations.push((Keyspace::Index, layout::request_key(place), row));
        }
        (batch, heads)
    }
}
