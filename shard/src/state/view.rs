//! A consistent view of the objects of a partition: point reads and lazy, ordered listings.

use std::fmt;
use std::sync::Arc;

use odgm_storage::data::index::IndexValue;
use odgm_storage::data::{ApplicationDataStorage, DataView, Direction, Keyspace};

use super::expiry;
use super::history::{self, HistoryBounds};
use super::index::{self, Found, Held, IndexQuery, Progress};
use super::layout::{self, Counters};
use super::listing::Listing;
use crate::object::{ObjectId, ObjectKey, Value};
use crate::state::{Change, Due, Selection, Settings};
use crate::{Error, Result};

pub use super::layout::Head;

/// A key's value with the numbers of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The stored value.
    pub value: Value,
    /// The revision of the object's last change.
    pub revision: u64,
    /// The revision of the object's first change.
    pub created_revision: u64,
    /// The object's count of changes.
    pub version: u64,
    /// When the key expires, Unix milliseconds; 0 is never.
    pub expires_unix_ms: u64,
    /// The key's commit time, NTP64.
    pub time: u64,
}

impl Record {
    pub(crate) fn new(head: &Head, stored: layout::Stored) -> Self {
        Record {
            value: stored.value,
            revision: head.revision,
            created_revision: head.created_revision,
            version: head.version,
            expires_unix_ms: stored.expires_unix_ms,
            time: stored.time,
        }
    }
}

/// Takes views without a lock on the table; cheap to clone.
#[derive(Debug, Clone)]
pub struct ViewSource {
    storage: Arc<dyn ApplicationDataStorage>,
}

impl ViewSource {
    pub(crate) fn new(storage: Arc<dyn ApplicationDataStorage>) -> Self {
        ViewSource { storage }
    }

    /// The present state: what was applied before this call, whole.
    pub fn view(&self) -> ObjectView {
        ObjectView::new(self.storage.view())
    }
}

/// The objects of a partition at one moment. Drop it soon: it keeps old versions on disk.
pub struct ObjectView {
    view: Box<dyn DataView>,
    /// Read at once, so that a failure is told by every read and not taken for revision 0.
    revision: Result<u64>,
}

impl ObjectView {
    /// A view over a view of the data layer, such as that of a checkpoint.
    pub fn new(view: Box<dyn DataView>) -> Self {
        let revision = read_counters(view.as_ref()).map(|counters| counters.revision);
        ObjectView { view, revision }
    }

    /// The last revision taken in this view; 0 when nothing was ever changed, and when the data layer
    /// fails, which every other call then says.
    pub fn revision(&self) -> u64 {
        self.revision.as_ref().copied().unwrap_or(0)
    }

    fn healthy(&self) -> Result<&dyn DataView> {
        self.revision.as_ref().map_err(Error::clone)?;
        Ok(self.view.as_ref())
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the data layer fails, or holds a record that this build cannot read.
    pub fn get(&self, key: &ObjectKey) -> Result<Option<Record>> {
        let view = self.healthy()?;
        let Some(row) = view.get(Keyspace::Data, &layout::value_key(key))? else { return Ok(None) };
        let head = read_head(view, &key.object)?
            .ok_or_else(|| Error::Internal(format!("object {} has a value but no head", key.object)))?;
        Ok(Some(Record::new(&head, layout::decode_stored(&row)?)))
    }

    /// What is known of an object beside its values; `None` when it does not exist.
    ///
    /// # Errors
    /// As [`ObjectView::get`].
    pub fn head(&self, object: &ObjectId) -> Result<Option<Head>> {
        read_head(self.healthy()?, object)
    }

    /// At most `limit` keys with a deadline from `from_unix_ms` to `now_unix_ms`, the earliest first.
    ///
    /// # Errors
    /// As [`ObjectView::get`].
    pub fn due(&self, from_unix_ms: u64, now_unix_ms: u64, limit: usize) -> Result<Vec<Due>> {
        expiry::due(self.healthy()?, from_unix_ms, now_unix_ms, limit)
    }

    /// What the state machine was last told of its collection.
    ///
    /// # Errors
    /// As [`ObjectView::get`].
    pub fn settings(&self) -> Result<Settings> {
        Ok(read_held(self.healthy()?)?.settings())
    }

    /// Whether an index can be asked; `None` when there is none of the name.
    ///
    /// # Errors
    /// As [`ObjectView::get`].
    pub fn index_ready(&self, name: &str) -> Result<Option<bool>> {
        let held = read_held(self.healthy()?)?;
        let known = held.indexes.iter().find(|index| index.is_named(name));
        Ok(known.map(|index| index.progress == Progress::Ready))
    }

    /// Whether no index is being built or dropped.
    ///
    /// # Errors
    /// As [`ObjectView::get`].
    pub fn indexes_settled(&self) -> Result<bool> {
        Ok(read_held(self.healthy()?)?.is_settled())
    }

    /// The selected keys of the objects that an index finds behind `after`, lazily: by value, then
    /// object, then key. Ends after an error.
    ///
    /// # Errors
    /// As [`ObjectView::get`]; [`Error::Busy`] for an index that is not ready, [`Error::Invalid`] without it.
    pub fn find<'a>(
        &'a self,
        query: &'a IndexQuery,
        selection: &'a Selection,
        after: Option<(IndexValue, ObjectKey)>,
    ) -> Result<impl Iterator<Item = Result<(IndexValue, ObjectKey, Record)>> + Send + 'a> {
        let view = self.healthy()?;
        let held = read_held(view)?;
        let index = held.indexes.iter().find(|index| index.is_named(&query.name));
        let index = index.ok_or_else(|| Error::Invalid(format!("there is no index {:?}", query.name)))?;
        if index.progress != Progress::Ready {
            return Err(Error::Busy("the index is being built"));
        }
        let found =
            after.as_ref().map(|(value, key)| Found { value: value.clone(), object: key.object.clone() });
        // The object that a page ended in goes on first, if it has more keys.
        let first = found.clone().map(Ok);
        let hits = first.into_iter().chain(index::find(view, index.id, query, found));
        let rows = hits.flat_map(move |hit| {
            let (hit, failed) = match hit {
                Ok(hit) => (Some(hit), None),
                Err(error) => (None, Some(Err(error))),
            };
            let after = after.clone().map(|(_, key)| key);
            let rows = hit.into_iter().flat_map(move |Found { value, object }| {
                let after = after.clone().filter(|after| after.object == object);
                let rows = Listing::of_object(view, selection, &object, after.as_ref());
                rows.map(move |row| row.map(|(key, record)| (value.clone(), key, record)))
            });
            failed.into_iter().chain(rows)
        });
        Ok(rows)
    }

    /// What of the history is there.
    ///
    /// # Errors
    /// As [`ObjectView::get`].
    pub fn history(&self) -> Result<HistoryBounds> {
        let view = self.healthy()?;
        history::bounds(view, &read_counters(view)?, read_held(view)?.history.as_ref())
    }

    /// The retained changes from revision `from` to `to`, lazily, by rising or falling revision. What is
    /// older than [`HistoryBounds::oldest`] may be there or not.
    pub fn changes(
        &self,
        from: u64,
        to: u64,
        direction: Direction,
    ) -> impl Iterator<Item = Result<Change>> + Send + '_ {
        history::changes(self.view.as_ref(), from, to, direction)
    }

    /// The selected keys above `after`, lazily, in key order: objects by id, each with its own value
    /// first and then its entries by name. Ends after an error.
    pub fn list<'a>(
        &'a self,
        selection: &'a Selection,
        after: Option<&ObjectKey>,
    ) -> impl Iterator<Item = Result<(ObjectKey, Record)>> + Send + 'a {
        let listing = self.healthy().map(|view| Listing::new(view, selection, after));
        let (listing, failed) = match listing {
            Ok(listing) => (Some(listing), None),
            Err(error) => (None, Some(Err(error))),
        };
        failed.into_iter().chain(listing.into_iter().flatten())
    }

    /// How many selected keys stand above `after`.
    ///
    /// # Errors
    /// As [`ObjectView::get`].
    pub fn count(&self, selection: &Selection, after: Option<&ObjectKey>) -> Result<u64> {
        self.list(selection, after).try_fold(0, |count, row| row.map(|_| count + 1))
    }
}

impl fmt::Debug for ObjectView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectView").field("revision", &self.revision).finish_non_exhaustive()
    }
}

pub(crate) fn read_head(view: &dyn DataView, object: &ObjectId) -> Result<Option<Head>> {
    let row = view.get(Keyspace::Data, &layout::head_key(object))?;
    row.map(|row| layout::decode_record("object head", &row)).transpose()
}

pub(crate) fn read_counters(view: &dyn DataView) -> Result<Counters> {
    let row = view.get(Keyspace::Meta, layout::COUNTERS)?;
    row.map_or_else(|| Ok(Counters::default()), |row| layout::decode_record("counters", &row))
}

pub(crate) fn read_held(view: &dyn DataView) -> Result<Held> {
    let row = view.get(Keyspace::Meta, layout::SETTINGS)?;
    row.map_or_else(|| Ok(Held::default()), |row| layout::decode_record("settings", &row))
}
