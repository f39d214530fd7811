//! Rows that are not written yet, over a view: reads see both.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::Write;
use std::iter::Peekable;
use std::ops::Bound;

use bytes::Bytes;

use super::stream::StreamWriter;
use super::{DataView, Direction, Keyspace, Row, WriteBatch, is_empty_range};
use crate::Result;

/// Values, and `None` for what is deleted.
type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// Items in the order of a scan.
type Sorted<'a, T> = Peekable<Box<dyn Iterator<Item = T> + Send + 'a>>;

/// A view with changes over it.
pub(super) struct Pending {
    view: Box<dyn DataView>,
    changes: [Changes; 4],
}

impl Pending {
    pub(super) fn over(view: Box<dyn DataView>) -> Self {
        Pending { view, changes: Default::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.iter().all(Changes::is_empty)
    }

    pub(super) fn apply(&mut self, batch: WriteBatch) {
        for (keyspace, key, value) in batch.operations {
            self.changes[keyspace.slot()].insert(key, value);
        }
    }

    pub(super) fn into_batch(self) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for (keyspace, changes) in Keyspace::ALL.into_iter().zip(self.changes) {
            batch.operations.extend(changes.into_iter().map(|(key, value)| (keyspace, key, value)));
        }
        batch
    }
}

impl DataView for Pending {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        match self.changes[keyspace.slot()].get(key) {
            Some(change) => Ok(change.clone()),
            None => self.view.get(keyspace, key),
        }
    }

    fn scan<'a>(
        &'a self,
        keyspace: Keyspace,
        from: Bound<Bytes>,
        to: Bound<Bytes>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = Result<Row>> + Send + 'a> {
        if is_empty_range(&from, &to) {
            return Box::new(std::iter::empty());
        }
        let changes = self.changes[keyspace.slot()].range((from.clone(), to.clone()));
        let changes: Box<dyn Iterator<Item = _> + Send + 'a> = match direction {
            Direction::Forward => Box::new(changes),
            Direction::Backward => Box::new(changes.rev()),
        };
        let rows = self.view.scan(keyspace, from, to, direction);
        Box::new(Merged { rows: rows.peekable(), changes: changes.peekable(), direction })
    }

    fn export(&self, into: &mut dyn Write) -> Result<()> {
        let mut stream = StreamWriter::new(into);
        for keyspace in Keyspace::ALL {
            stream.keyspace(keyspace)?;
            for row in self.scan(keyspace, Bound::Unbounded, Bound::Unbounded, Direction::Forward) {
                let (key, value) = row?;
                stream.row(&key, &value)?;
            }
            stream.end_keyspace()?;
        }
        stream.finish()
    }
}

/// Two sorted sequences as one; a change stands for the row of its key.
struct Merged<'a> {
    rows: Sorted<'a, Result<Row>>,
    changes: Sorted<'a, (&'a Bytes, &'a Option<Bytes>)>,
    direction: Direction,
}

impl Iterator for Merged<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.rows.peek(), self.changes.peek()) {
                (Some(Ok((row, _))), Some((change, _))) => match self.direction {
                    Direction::Forward => row.cmp(change),
                    Direction::Backward => Bytes::cmp(change, row),
                },
                (None, Some(_)) => Ordering::Greater,
                _ => Ordering::Less,
            };
            if order == Ordering::Less {
                return self.rows.next();
            }
            if order == Ordering::Equal {
                self.rows.next();
            }
            if let (key, Some(value)) = self.changes.next()? {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}
