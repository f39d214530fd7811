//! Named secondary indexes: rows of [`Keyspace::Index`] that lead from a value inside a row to the row.
//!
//! | key | value | what |
//! |---|---|---|
//! | `03` index id (4, big-endian) [`IndexValue`] key | empty | a row with that value |
//! | `04` name | version byte 1, then bincode of [`Definition`] | an index |
//! | `05` | the last id given (4, big-endian) | ids are never given again |
//!
//! What is indexed is data, a JSON pointer, so it outlives a restart and travels in an export. A row whose
//! value is not JSON, or has no scalar at the pointer, is not in the index. [`build`] makes and drops
//! indexes of a store; [`change`] and [`scan`] are enough for a layer with rows of its own form.

pub mod build;
mod value;

use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

pub use value::IndexValue;

use super::page::prefix_end;
use super::{Cursor, DataView, Direction, Keyspace, MAX_KEY_BYTES, Select, WriteBatch};
use crate::{Error, Result, codec};

/// The first byte of the rows of all indexes.
pub const ROW_PREFIX: u8 = 0x03;
/// The first byte of the definitions.
pub const DEFINITION_PREFIX: u8 = 0x04;
/// The key of the last id given.
const LAST_ID: &[u8] = &[0x05];
/// The format of a stored definition.
const VERSION: u8 = 1;
/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// How far an index is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// New writes are in it; of the older rows those up to this key.
    Building(Option<Bytes>),
    /// It can be asked.
    Ready,
    /// Its rows are being removed.
    Dropping,
}

/// An index of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// What its rows are filed under; never given twice.
    pub id: u32,
    /// 1..=255 bytes.
    pub name: String,
    /// The rows that it covers.
    pub keyspace: KeyspaceId,
    /// A JSON pointer (RFC 6901) into their values.
    pub pointer: String,
    /// Whether it can be asked.
    pub progress: Progress,
}

/// A keyspace as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct KeyspaceId(pub Keyspace);

impl From<KeyspaceId> for u8 {
    fn from(id: KeyspaceId) -> u8 {
        id.0 as u8
    }
}

impl TryFrom<u8> for KeyspaceId {
    type Error = String;

    fn try_from(id: u8) -> Result<Self, String> {
        let found = Keyspace::ALL.into_iter().find(|keyspace| *keyspace as u8 == id);
        found.map(KeyspaceId).ok_or_else(|| format!("no keyspace has the number {id}"))
    }
}

/// What a row is found by: the scalar at a JSON pointer of its value. Pure.
#[must_use]
pub fn extract(pointer: &str, value: &[u8]) -> Option<IndexValue> {
    IndexValue::of(serde_json::from_slice::<serde_json::Value>(value).ok()?.pointer(pointer)?)
}

/// Adds to `batch` what moves a row from one value of an index to another; `None` is not in it. Pure.
///
/// # Errors
/// [`Error::TooLarge`] when value and key are too long together; nothing was added then.
pub fn change(
    batch: &mut WriteBatch,
    id: u32,
    key: &[u8],
    before: Option<&IndexValue>,
    after: Option<&IndexValue>,
) -> Result<()> {
    if before == after {
        return Ok(());
    }
    if let Some(after) = after {
        put_row(batch, id, key, after)?;
    }
    // A row that is too long was never put.
    let before = before.map(|before| row_key(id, before, key)).filter(|row| row.len() <= MAX_KEY_BYTES);
    if let Some(before) = before {
        batch.delete(Keyspace::Index, before);
    }
    Ok(())
}

fn put_row(batch: &mut WriteBatch, id: u32, key: &[u8], value: &IndexValue) -> Result<()> {
    let row = row_key(id, value, key);
    if row.len() > MAX_KEY_BYTES {
        let (found, limit) = (row.len() as u64, MAX_KEY_BYTES as u64);
        return Err(Error::TooLarge { what: "an indexed value with its key", found, limit });
    }
    batch.put(Keyspace::Index, row, Bytes::new());
    Ok(())
}

/// What an index is asked for, page by page.
#[derive(Debug, Clone)]
pub struct IndexSelect {
    from: Bound<IndexValue>,
    to: Bound<IndexValue>,
    direction: Direction,
    limit: usize,
    after: Option<Cursor>,
}

impl IndexSelect {
    /// The rows with this value, by rising key, 1000 a page.
    #[must_use]
    pub fn equal(value: impl Into<IndexValue>) -> Self {
        let value = value.into();
        Self::range(Bound::Included(value.clone()), Bound::Included(value))
    }

    /// The rows with a value between the bounds, by rising value, then key, 1000 a page. Values of all
    /// types have one order, see [`IndexValue`]: an open end goes on through the types behind it.
    #[must_use]
    pub fn range(from: Bound<IndexValue>, to: Bound<IndexValue>) -> Self {
        IndexSelect { from, to, direction: Direction::Forward, limit: 1000, after: None }
    }

    /// By falling value, then key.
    #[must_use]
    pub fn backward(mut self) -> Self {
        self.direction = Direction::Backward;
        self
    }

    /// At most so many hits a page, and at least one.
    #[must_use]
    pub fn limit(mut self, hits: usize) -> Self {
        self.limit = hits;
        self
    }

    /// The page behind a cursor.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// The same as rows of an index. A value's bytes begin no other value's.
    fn rows(&self, id: u32) -> Select {
        let at = |value: &IndexValue| row_key(id, value, &[]);
        let behind = |value: &IndexValue| prefix_end(&at(value)).unwrap_or_default();
        let from = match &self.from {
            Bound::Included(value) => at(value),
            Bound::Excluded(value) => behind(value),
            Bound::Unbounded => index_prefix(id),
        };
        let to = match &self.to {
            Bound::Included(value) => behind(value),
            Bound::Excluded(value) => at(value),
            Bound::Unbounded => prefix_end(&index_prefix(id)).unwrap_or_default(),
        };
        let select = Select::range(Bound::Included(from), Bound::Excluded(to)).limit(self.limit);
        let select = match self.direction {
            Direction::Forward => select,
            Direction::Backward => select.backward(),
        };
        match &self.after {
            Some(cursor) => select.after(cursor.clone()),
            None => select,
        }
    }
}

/// A row found in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// What it was found by.
    pub value: IndexValue,
    /// The key of the row.
    pub key: Bytes,
}

/// Hits, and the cursor of the next page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexPage {
    /// In the direction of the selection.
    pub hits: Vec<Hit>,
    /// `None` when there is no further hit.
    pub next: Option<Cursor>,
}

/// A page of the rows filed under an id.
///
/// # Errors
/// [`Error::Refused`] for a row that this layer did not write.
pub fn scan(view: &dyn DataView, id: u32, select: &IndexSelect) -> Result<IndexPage> {
    let page = view.page(Keyspace::Index, &select.rows(id))?;
    let hits = page.rows.iter().map(|(row, _)| parse(row)).collect::<Result<_>>()?;
    Ok(IndexPage { hits, next: page.next })
}

/// The cursor behind a hit: of a page that ended there, or was cut there.
#[must_use]
pub fn behind(id: u32, hit: &Hit) -> Cursor {
    Cursor(row_key(id, &hit.value, &hit.key))
}

/// A page of an index by its name.
///
/// # Errors
/// [`Error::NotFound`] without such an index, [`Error::Refused`] for one that is not ready.
pub fn query(view: &dyn DataView, name: &str, select: &IndexSelect) -> Result<IndexPage> {
    let index = find(view, name)?.ok_or_else(|| absent(name))?;
    match index.progress {
        Progress::Ready => scan(view, index.id, select),
        Progress::Building(_) => Err(refused(name, "is being built")),
        Progress::Dropping => Err(refused(name, "is being dropped")),
    }
}

/// All indexes, by name.
///
/// # Errors
/// [`Error::Refused`] for a definition that this build does not read.
pub fn definitions(view: &dyn DataView) -> Result<Vec<Definition>> {
    let from = Bound::Included(Bytes::from_static(&[DEFINITION_PREFIX]));
    let to = Bound::Excluded(Bytes::from_static(&[DEFINITION_PREFIX + 1]));
    let rows = view.scan(Keyspace::Index, from, to, Direction::Forward);
    rows.map(|row| row.and_then(|(_, record)| decode(&record))).collect()
}

/// Adds what a change of a row's value means for the indexes of its keyspace.
pub(super) fn follow(
    batch: &mut WriteBatch,
    indexes: &[Definition],
    keyspace: Keyspace,
    key: &[u8],
    before: Option<&Bytes>,
    after: Option<&Bytes>,
) -> Result<()> {
    let kept = |index: &&Definition| index.keyspace.0 == keyspace && index.progress != Progress::Dropping;
    for index in indexes.iter().filter(kept) {
        let value = |row: Option<&Bytes>| row.and_then(|row| extract(&index.pointer, row));
        let (before, after) = (value(before), value(after));
        // A row that an index under construction has not come to yet gets in when it does.
        change(batch, index.id, key, before.as_ref(), after.as_ref())?;
    }
    Ok(())
}

/// Whether a key of [`Keyspace::Index`] is that of a definition.
pub(super) fn is_definition(key: &[u8]) -> bool {
    key.first() == Some(&DEFINITION_PREFIX)
}

fn find(view: &dyn DataView, name: &str) -> Result<Option<Definition>> {
    view.get(Keyspace::Index, &definition_key(name))?.map(|record| decode(&record)).transpose()
}

fn decode(record: &Bytes) -> Result<Definition> {
    let decoded = match record.split_first() {
        Some((&VERSION, body)) => codec::decode(body),
        _ => None,
    };
    decoded.ok_or_else(|| Error::Refused {
        what: "the definition of an index",
        reason: format!("it is damaged, or not of version {VERSION}"),
    })
}

fn encode(definition: &Definition) -> Bytes {
    [&[VERSION], &codec::encode(definition)[..]].concat().into()
}

fn absent(name: &str) -> Error {
    Error::NotFound { what: format!("index {name}") }
}

fn refused(name: &str, why: &str) -> Error {
    Error::Refused { what: "an index", reason: format!("{name} {why}") }
}

fn definition_key(name: &str) -> Bytes {
    [&[DEFINITION_PREFIX], name.as_bytes()].concat().into()
}

fn index_prefix(id: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(5);
    key.put_u8(ROW_PREFIX);
    key.put_u32(id);
    key.freeze()
}

fn row_key(id: u32, value: &IndexValue, key: &[u8]) -> Bytes {
    [&index_prefix(id)[..], value.as_bytes(), key].concat().into()
}

fn parse(row: &Bytes) -> Result<Hit> {
    let value = row.get(5..).and_then(IndexValue::end_in).map(|end| 5 + end);
    let end = value.ok_or_else(|| refused("row", &format!("{} is damaged", row.escape_ascii())))?;
    Ok(Hit { value: IndexValue::from_sortable(&row[5..end]), key: row.slice(end..) })
}
