//! A consistent view of the objects of a partition: point reads and lazy, ordered listings.

use std::fmt;
use std::sync::Arc;

use odgm_storage::data::{ApplicationDataStorage, DataView, Keyspace};

use super::layout::{self, Counters};
use super::listing::Listing;
use crate::object::{ObjectId, ObjectKey, Value};
use crate::state::Selection;
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
