//! Secondary indexes: from a scalar in an object's value, or of one of its entries, to the object.
//!
//! Rows and their order are the data layer's ([`odgm_storage::data::index`]): by value, then object. They are
//! kept in the batch of the write. An index that is made, or dropped, walks over all objects in steps of
//! bounded size, each a command: what is written meanwhile is in it from the first step on, or no longer.
//! Both walk by the state as the command finds it, so every replica is equally far.

use std::ops::Bound;

use bytes::Bytes;
use odgm_storage::data::index::{self, Hit, IndexSelect, IndexValue};
use odgm_storage::data::{DataView, WriteBatch};
use serde::{Deserialize, Serialize};

use super::layout::Stored;
use super::overlay::Overlay;
use crate::Result;
use crate::object::{ObjectId, ObjectKey};
use crate::state::{IndexSource, IndexSpec, Retain, Settings};

/// Objects of a step.
const STEP_OBJECTS: usize = 1000;
/// Bytes of values after which a step ends.
const STEP_BYTES: usize = 4 << 20;
/// Longer values, in their sortable form, are in no index.
pub const MAX_INDEXED_BYTES: usize = 4096;
/// Hits read at a time.
const PAGE: usize = 256;

/// What the state holds of its settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) history: Option<Retain>,
    /// In the order of the settings, and behind them those that are being dropped.
    pub(crate) indexes: Vec<Index>,
    /// The last id given; none is given twice.
    last_index: u32,
}

impl Default for Held {
    fn default() -> Self {
        Held { history: Settings::default().history, indexes: Vec::new(), last_index: 0 }
    }
}

impl Held {
    /// The settings that it was told.
    pub(crate) fn settings(&self) -> Settings {
        let kept = self.indexes.iter().filter(|index| !index.is_dropping());
        Settings { history: self.history, indexes: kept.map(|index| index.spec.clone()).collect() }
    }

    /// Takes new settings: indexes that are new are built from now on, others dropped.
    pub(crate) fn configure(&mut self, settings: Settings) {
        self.history = settings.history;
        let mut before = std::mem::take(&mut self.indexes);
        for spec in settings.indexes {
            let known = before.iter().position(|index| index.spec == spec && !index.is_dropping());
            let index = match known {
                Some(at) => before.remove(at),
                None => {
                    self.last_index += 1;
                    Index { id: self.last_index, spec, progress: Progress::Building(None) }
                }
            };
            self.indexes.push(index);
        }
        for mut index in before {
            if !index.is_dropping() {
                index.progress = Progress::Dropping(None);
            }
            self.indexes.push(index);
        }
    }

    /// Takes the next objects into, or out of, the first index that is not settled.
    pub(crate) fn step(&mut self, overlay: &mut Overlay<'_>) -> Result<()> {
        let unsettled = self.indexes.iter().position(|index| index.progress != Progress::Ready);
        let Some(at) = unsettled else { return Ok(()) };
        let index = &mut self.indexes[at];
        let (Progress::Building(after) | Progress::Dropping(after)) = &index.progress else { return Ok(()) };
        let objects = overlay.objects_after(after.as_ref(), STEP_OBJECTS)?;
        let mut is_last = objects.len() < STEP_OBJECTS;
        let (mut bytes, mut last, count) = (0, after.clone(), objects.len());
        for (number, object) in objects.into_iter().enumerate() {
            let key = index.spec.source.key(&object);
            let stored = overlay.value(&key)?;
            bytes += stored.map_or(0, |stored| stored.value.payload.len());
            let value = stored.and_then(|stored| index.spec.source.value(stored));
            let (before, after) = match index.progress {
                Progress::Dropping(_) => (value.as_ref(), None),
                _ => (None, value.as_ref()),
            };
            change(overlay.derived(), index.id, &object, before, after)?;
            last = Some(object);
            if bytes >= STEP_BYTES && number + 1 < count {
                is_last = false;
                break;
            }
        }
        match (&index.progress, is_last) {
            (Progress::Dropping(_), true) => drop(self.indexes.remove(at)),
            (Progress::Dropping(_), false) => index.progress = Progress::Dropping(last),
            (_, true) => index.progress = Progress::Ready,
            (_, false) => index.progress = Progress::Building(last),
        }
        Ok(())
    }

    /// Whether a step would do anything.
    pub(crate) fn is_settled(&self) -> bool {
        self.indexes.iter().all(|index| index.progress == Progress::Ready)
    }
}

/// An index of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// What its rows are filed under.
    pub(crate) id: u32,
    pub(crate) spec: IndexSpec,
    pub(crate) progress: Progress,
}

impl Index {
    /// Whether queries mean it by this name.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.spec.name == name && !self.is_dropping()
    }

    fn is_dropping(&self) -> bool {
        matches!(self.progress, Progress::Dropping(_))
    }

    /// Adds what a write of a key that it concerns means for its rows.
    pub(crate) fn follow(
        &self,
        batch: &mut WriteBatch,
        key: &ObjectKey,
        before: Option<&Stored>,
        after: Option<&Stored>,
    ) -> Result<()> {
        let value = |stored: Option<&Stored>| stored.and_then(|stored| self.spec.source.value(stored));
        // Nothing comes into an index that is being dropped, and what goes may be gone already.
        let after = if self.is_dropping() { None } else { value(after) };
        change(batch, self.id, &key.object, value(before).as_ref(), after.as_ref())
    }
}

/// How far an index is: up to an object, or all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Progress {
    Building(Option<ObjectId>),
    Ready,
    Dropping(Option<ObjectId>),
}

impl IndexSource {
    /// Whether a write of this key may change what objects are found by.
    pub(crate) fn concerns(&self, key: &ObjectKey) -> bool {
        match self {
            IndexSource::Path(_) => key.entry.is_none(),
            IndexSource::Entry(name) => key.entry.as_ref() == Some(name),
        }
    }

    fn key(&self, object: &ObjectId) -> ObjectKey {
        let entry = match self {
            IndexSource::Path(_) => None,
            IndexSource::Entry(name) => Some(name.clone()),
        };
        ObjectKey { object: object.clone(), entry }
    }

    fn value(&self, stored: &Stored) -> Option<IndexValue> {
        let payload = &stored.value.payload;
        let value = match self {
            IndexSource::Path(pointer) => index::extract(pointer, payload),
            IndexSource::Entry(_) => std::str::from_utf8(payload).ok().map(scalar),
        };
        value.filter(|value| value.as_bytes().len() <= MAX_INDEXED_BYTES)
    }
}

/// A text as a value: the JSON scalar that it is, else the text itself.
pub fn scalar(text: &str) -> IndexValue {
    let json = serde_json::from_str::<serde_json::Value>(text).ok();
    json.and_then(|json| IndexValue::of(&json)).unwrap_or_else(|| text.into())
}

fn change(
    batch: &mut WriteBatch,
    id: u32,
    object: &ObjectId,
    before: Option<&IndexValue>,
    after: Option<&IndexValue>,
) -> Result<()> {
    Ok(index::change(batch, id, object.as_str().as_bytes(), before, after)?)
}

/// What an index is asked for: the objects with a value within the bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexQuery {
    /// The index.
    pub name: String,
    /// From which value on.
    pub from: Bound<IndexValue>,
    /// To which.
    pub to: Bound<IndexValue>,
}

/// An object that an index has, with what it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: IndexValue,
    /// The object.
    pub object: ObjectId,
}

/// The objects within the bounds behind one of them, lazily, by value, then object.
pub(crate) fn find<'a>(
    view: &'a dyn DataView,
    id: u32,
    query: &'a IndexQuery,
    after: Option<Found>,
) -> impl Iterator<Item = Result<Found>> + Send + 'a {
    let select = || IndexSelect::range(query.from.clone(), query.to.clone()).limit(PAGE);
    let cursor = after.map(|found| {
        let key = Bytes::copy_from_slice(found.object.as_str().as_bytes());
        index::behind(id, &Hit { value: found.value, key })
    });
    let mut next = Some(cursor.map_or_else(select, |cursor| select().after(cursor)));
    let pages = std::iter::from_fn(move || {
        let page = match index::scan(view, id, &next.take()?) {
            Ok(page) => page,
            Err(error) => return Some(vec![Err(error.into())]),
        };
        next = page.next.map(|cursor| select().after(cursor));
        Some(page.hits.into_iter().map(found).collect::<Vec<_>>())
    });
    pages.flatten()
}

fn found(hit: Hit) -> Result<Found> {
    let object = std::str::from_utf8(&hit.key).ok().and_then(|id| ObjectId::parse(id).ok());
    let object = object.ok_or_else(|| {
        crate::Error::Internal(format!("damaged row of an index: {}", hit.key.escape_ascii()))
    })?;
    Ok(Found { value: hit.value, object })
}
