//! The walk behind a listing: rows in key order, with jumps over what the selection cannot match.

use std::ops::Bound;

use bytes::Bytes;
use odgm_storage::data::{DataView, Direction, Keyspace, Row as DataRow};

use super::layout::{self, Head, Row};
use super::view::{Record, read_head};
use crate::object::{ObjectId, ObjectKey};
use crate::state::Selection;
use crate::{Error, Result};

/// Rows that are read over rather than jumped: opening a scan costs about as much.
const JUMP_ROWS: u64 = 32;

type Rows<'a> = Box<dyn Iterator<Item = odgm_storage::Result<DataRow>> + Send + 'a>;

/// The selected keys of a view, lazily.
pub(crate) struct Listing<'a> {
    view: &'a dyn DataView,
    selection: &'a Selection,
    rows: Rows<'a>,
    end: Bound<Bytes>,
    /// The object that the rows are in.
    object: Option<(ObjectId, Head)>,
    after: Option<ObjectKey>,
    done: bool,
}

impl<'a> Listing<'a> {
    pub(crate) fn new(view: &'a dyn DataView, selection: &'a Selection, after: Option<&ObjectKey>) -> Self {
        let empty: Rows<'a> = Box::new(std::iter::empty());
        let mut listing = Listing {
            view,
            selection,
            rows: empty,
            end: Bound::Unbounded,
            object: None,
            after: after.cloned(),
            done: false,
        };
        let Some(head) = selection.object_head() else { return listing };
        let from = match selection.object() {
            Some(object) => {
                let prefix = Bytes::from([object.as_bytes(), &[0]].concat());
                listing.end = layout::prefix_end(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
                prefix
            }
            None => {
                let end = layout::prefix_end(head.as_bytes());
                listing.end = end.map_or(Bound::Unbounded, Bound::Excluded);
                Bytes::copy_from_slice(head.as_bytes())
            }
        };
        // The rows of the object of `after` are met from its head on: a reply needs its numbers.
        let resume = after.map(|after| layout::head_key(&after.object));
        listing.seek(resume.filter(|resume| *resume > from).unwrap_or(from));
        listing
    }

    /// The selected keys of one object.
    pub(crate) fn of_object(
        view: &'a dyn DataView,
        selection: &'a Selection,
        object: &ObjectId,
        after: Option<&ObjectKey>,
    ) -> Self {
        let empty: Rows<'a> = Box::new(std::iter::empty());
        let end = Bound::Excluded(layout::object_end(object));
        let after = after.cloned();
        let mut listing = Listing { view, selection, rows: empty, end, object: None, after, done: false };
        listing.seek(layout::head_key(object));
        listing
    }

    fn seek(&mut self, from: Bytes) {
        let from = if from.is_empty() { Bound::Unbounded } else { Bound::Included(from) };
        self.rows = self.view.scan(Keyspace::Data, from, self.end.clone(), Direction::Forward);
    }

    /// Notes the object whose rows follow, and jumps over them when none or few can match.
    fn enter(&mut self, object: ObjectId, head: Head) {
        let own = self.selection.contains_own(&object);
        let entry_head = self.selection.entry_head(&object);
        let mut first_entry = entry_head.unwrap_or("").to_owned();
        let mut skip_own = !own;
        if let Some(after) = self.after.as_ref().filter(|after| after.object == object) {
            skip_own = true;
            let name = after.entry.as_ref().map_or("", |entry| entry.as_str());
            if name > first_entry.as_str() {
                name.clone_into(&mut first_entry);
            }
        }
        if head.entries > JUMP_ROWS {
            if entry_head.is_none() && skip_own {
                self.seek(layout::object_end(&object));
            } else if skip_own && !first_entry.is_empty() {
                self.seek(layout::entries_from(&object, &first_entry));
            }
        }
        self.object = Some((object, head));
    }

    /// Leaves the object's remaining rows when no further entry of it can match.
    fn pass(&mut self, key: &ObjectKey) {
        let Some((object, head)) = &self.object else { return };
        if head.entries <= JUMP_ROWS {
            return;
        }
        let beyond = match (self.selection.entry_head(object), &key.entry) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(head), Some(entry)) => entry.as_str() > head && !entry.as_str().starts_with(head),
        };
        if beyond {
            let next = layout::object_end(object);
            self.seek(next);
        } else if key.entry.is_none() {
            let first = self.selection.entry_head(object).unwrap_or("").to_owned();
            if !first.is_empty() {
                let from = layout::entries_from(object, &first);
                self.seek(from);
            }
        }
    }

    fn head_of(&mut self, object: &ObjectId) -> Result<Head> {
        if let Some((entered, head)) = &self.object
            && entered == object
        {
            return Ok(*head);
        }
        let head = read_head(self.view, object)?
            .ok_or_else(|| Error::Internal(format!("object {object} has a value but no head")))?;
        self.object = Some((object.clone(), head));
        Ok(head)
    }

    fn step(&mut self) -> Option<Result<(ObjectKey, Record)>> {
        loop {
            let found = match self.rows.next()? {
                Ok((key, row)) => self.look(&key, &row),
                Err(error) => Err(error.into()),
            };
            if let Some(found) = found.transpose() {
                return Some(found);
            }
        }
    }

    fn look(&mut self, key: &Bytes, row: &Bytes) -> Result<Option<(ObjectKey, Record)>> {
        match layout::parse_row(key)? {
            Row::Head(object) => {
                let head = layout::decode_record("object head", row)?;
                self.enter(object, head);
                Ok(None)
            }
            Row::Key(key) => {
                let head = self.head_of(&key.object)?;
                let passed = self.after.as_ref().is_some_and(|after| key <= *after);
                let found = if !passed && self.selection.contains(&key) {
                    Some(Record::new(&head, layout::decode_stored(row)?))
                } else {
                    None
                };
                self.pass(&key);
                Ok(found.map(|record| (key, record)))
            }
        }
    }
}

impl Iterator for Listing<'_> {
    type Item = Result<(ObjectKey, Record)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.step();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}
