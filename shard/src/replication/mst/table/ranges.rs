//! What an exchange asks of a table: fingerprints, marks and entries of ranges.

use std::ops::Bound;

use bytes::Bytes;
use odgm_storage::data::{DataView, Direction, Keyspace};

use super::MstTable;
use crate::Result;
use crate::replication::mst::edit::read_entry;
use crate::replication::mst::item::{self, Entry, Item, Mark};
use crate::replication::mst::tree::{Fingerprint, Range};
use crate::state::layout;

impl MstTable {
    /// The fingerprint of a range.
    pub(in crate::replication::mst) fn fingerprint(&self, range: &Range) -> Result<Fingerprint> {
        let view = self.storage.view();
        let retired = self.agreed.retired;
        self.tree.fingerprint(range, &mut |part| read_fingerprint(view.as_ref(), part, retired))
    }

    /// Parts of a range, by the tree's pages.
    pub(in crate::replication::mst) fn split(&self, range: &Range) -> Option<Vec<Range>> {
        self.tree.split(range)
    }

    /// The marks of a range's items that count.
    pub(in crate::replication::mst) fn marks(&self, range: &Range) -> Result<Vec<Mark>> {
        let view = self.storage.view();
        let mut marks = Vec::new();
        for found in items(view.as_ref(), range) {
            let (slot, item) = found?;
            if self.counts(&item) {
                marks.push(item.mark(&slot));
            }
        }
        Ok(marks)
    }

    /// Entries of a range, those whose marks `wanted` picks, up to about so many bytes; and where the rest
    /// begins.
    pub(in crate::replication::mst) fn entries(
        &self,
        range: &Range,
        wanted: &dyn Fn(&Mark) -> bool,
        bytes: &mut usize,
    ) -> Result<(Vec<Entry>, Option<Bytes>)> {
        let view = self.storage.view();
        let mut entries = Vec::new();
        for found in items(view.as_ref(), range) {
            let (slot, item) = found?;
            if !self.counts(&item) || !wanted(&item.mark(&slot)) {
                continue;
            }
            if *bytes == 0 {
                return Ok((entries, Some(slot)));
            }
            let entry = read_entry(view.as_ref(), slot, item)?;
            *bytes = bytes.saturating_sub(entry.bytes());
            entries.push(entry);
        }
        Ok((entries, None))
    }

    fn counts(&self, item: &Item) -> bool {
        item.buried().is_none_or(|buried| buried > self.agreed.retired)
    }
}

/// The items of a range, by slot.
pub(super) fn items<'a>(
    view: &'a dyn DataView,
    range: &Range,
) -> impl Iterator<Item = Result<(Bytes, Item)>> + 'a {
    let from = Bound::Included(item::item_key(&range.from));
    let to = range.to.as_ref().map_or_else(item::items_end, |to| item::item_key(to));
    view.scan(Keyspace::Index, from, Bound::Excluded(to), Direction::Forward).map(|row| {
        let (key, row) = row?;
        Ok((item::slot_of(&key), layout::decode_record("item", &row)?))
    })
}

pub(super) fn read_fingerprint(view: &dyn DataView, range: &Range, retired: u64) -> Result<Fingerprint> {
    let mut sum = Fingerprint::default();
    for found in items(view, range) {
        let (slot, item) = found?;
        if item.buried().is_none_or(|buried| buried > retired) {
            sum.add(item.digest(&slot));
        }
    }
    Ok(sum)
}
