//! Pages: what part of a keyspace is asked for, and where the next page begins.

use std::ops::Bound;

use bytes::Bytes;

use super::{Direction, Row};
use crate::Result;

/// Rows of a page when nothing else is said.
const DEFAULT_ROWS: usize = 1000;
/// Bytes of a page when nothing else is said; its first row may be larger.
const DEFAULT_BYTES: usize = 8 << 20;

/// Where a page ended: the next one begins behind it, whatever was written meanwhile. A cursor belongs
/// to the selection and direction that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Bytes);

/// A part of a keyspace, in one direction, page by page.
///
/// ```
/// use odgm_storage::data::{DataView, Keyspace, MemoryData, Select, Transaction};
/// use odgm_storage::data::{ApplicationDataStorage, Durability};
///
/// let store = MemoryData::new(1 << 20);
/// let mut writes = Transaction::begin(&store);
/// for key in ["user/a", "user/b", "zone/a"] {
///     writes.put(Keyspace::Data, key, "value").unwrap();
/// }
/// writes.commit(Durability::Now).unwrap();
/// let view = store.view();
/// let first = view.page(Keyspace::Data, &Select::prefix("user/").limit(1)).unwrap();
/// assert_eq!(first.rows[0].0, "user/a");
/// let next = Select::prefix("user/").limit(1).after(first.next.unwrap());
/// assert_eq!(view.page(Keyspace::Data, &next).unwrap().rows[0].0, "user/b");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    pub(super) direction: Direction,
    rows: usize,
    bytes: usize,
    after: Option<Cursor>,
}

impl Select {
    /// The keys between two bounds, by rising key, 1000 rows or 8 MiB a page.
    #[must_use]
    pub fn range(from: Bound<Bytes>, to: Bound<Bytes>) -> Self {
        let (rows, bytes) = (DEFAULT_ROWS, DEFAULT_BYTES);
        Select { from, to, direction: Direction::Forward, rows, bytes, after: None }
    }

    /// All keys.
    #[must_use]
    pub fn all() -> Self {
        Self::range(Bound::Unbounded, Bound::Unbounded)
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        let to = prefix_end(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
        let from = if prefix.is_empty() { Bound::Unbounded } else { Bound::Included(prefix) };
        Self::range(from, to)
    }

    /// By falling key.
    #[must_use]
    pub fn backward(mut self) -> Self {
        self.direction = Direction::Backward;
        self
    }

    /// At most so many rows a page, and at least one.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.rows = rows.max(1);
        self
    }

    /// At most so many bytes of keys and values a page; its first row may be larger.
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes = bytes;
        self
    }

    /// The page behind a cursor.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// The bounds with the cursor applied.
    pub(super) fn bounds(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        let (mut from, mut to) = (self.from.clone(), self.to.clone());
        if let Some(Cursor(at)) = &self.after {
            let beyond = |bound: &Bound<Bytes>, outside: fn(&Bytes, &Bytes) -> bool| match bound {
                Bound::Included(key) | Bound::Excluded(key) => outside(key, at),
                Bound::Unbounded => false,
            };
            match self.direction {
                Direction::Forward if !beyond(&from, |from, at| from > at) => {
                    from = Bound::Excluded(at.clone());
                }
                Direction::Backward if !beyond(&to, |to, at| to < at) => to = Bound::Excluded(at.clone()),
                _ => {}
            }
        }
        (from, to)
    }
}

/// Rows, and the cursor of the next page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// In the direction of the selection.
    pub rows: Vec<Row>,
    /// `None` when there is no further row.
    pub next: Option<Cursor>,
}

impl Page {
    pub(super) fn gather(rows: impl Iterator<Item = Result<Row>>, select: &Select) -> Result<Self> {
        let mut page = Page::default();
        let mut bytes = 0;
        for row in rows {
            let (key, value) = row?;
            bytes += key.len() + value.len();
            let full = page.rows.len() >= select.rows || bytes > select.bytes;
            if let Some((last, _)) = page.rows.last().filter(|_| full) {
                page.next = Some(Cursor(last.clone()));
                break;
            }
            page.rows.push((key, value));
        }
        Ok(page)
    }
}

/// The smallest key above all that begin with `prefix`; `None` when there is no such key.
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}
