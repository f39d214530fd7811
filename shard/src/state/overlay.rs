//! What one apply call has changed so far, over the state before it: every read goes through here, so
//! commands of the call see each other's effects, and each row is read and written at most once.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use odgm_storage::data::{DataView, Direction, Keyspace, WriteBatch};

use super::layout::{self, Head, Remembered, Row, Stored};
use super::recent::RecentHeads;
use super::view::read_head;
use crate::Result;
use crate::object::{EntryName, ObjectId, ObjectKey};

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
    undo: Option<Vec<Undo>>,
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
            undo.push(Undo::Head(object.clone(), before));
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
            undo.push(Undo::Value(key.clone(), before));
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

    /// From here on changes can be taken back.
    pub(crate) fn begin(&mut self) {
        self.undo = Some(Vec::new());
    }

    /// Keeps what was changed since `begin`.
    pub(crate) fn keep(&mut self) {
        self.undo = None;
    }

    /// Takes back what was changed since `begin`.
    pub(crate) fn take_back(&mut self) {
        for undo in self.undo.take().into_iter().flatten().rev() {
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
        let mut batch = WriteBatch::default();
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
