//! The tree: fingerprints of key ranges, whose boundaries follow from the keys alone.
//!
//! A Merkle search tree (Auvolat and Taïani, 2019): a key's level is drawn from its hash, one in
//! [`FANOUT`] reaches the next; a page of a level lies between two keys of a higher one, so replicas with the
//! same keys have the same pages, whatever the order they came in. It differs in what a page's fingerprint
//! is: the sum of its items' digests (as in range-based set reconciliation, Meyer 2022), so that an insert or a
//! removal changes one number a level, any range can be compared, and the items themselves need not be
//! here: only the pages are, one for about 32 items; items are read from the data layer's rows where a page
//! splits. A million items take about 4 MiB. Rebuilt at open from the items' rows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{AddAssign, Bound};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::Result;

/// Items of a page, and pages of a page above, on average.
const FANOUT_BITS: u32 = 5;
/// Levels of pages; enough for 2^40 items.
const LEVELS: usize = 8;

/// What a set of items looks like: equal sets are equal, others differ but for a chance of 2^-128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many items.
    pub count: u64,
    /// The sum of their digests.
    pub sum: u128,
}

impl Fingerprint {
    /// Adds an item.
    pub(super) fn add(&mut self, digest: u128) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(digest);
    }

    fn remove(&mut self, digest: u128) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(digest);
    }
}

impl AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// Slots from one to another; `None` is the end of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) from: Bytes,
    pub(super) to: Option<Bytes>,
}

impl Range {
    pub(super) fn all() -> Self {
        Range { from: Bytes::new(), to: None }
    }

    fn is_before_end(&self, key: &Bytes) -> bool {
        self.to.as_ref().is_none_or(|to| key < to)
    }

    fn is_empty(&self) -> bool {
        !self.is_before_end(&self.from)
    }
}

/// A change of one item: its slot, and its digests before and after.
pub(super) type Delta = (Bytes, Option<u128>, Option<u128>);

/// One level: where its pages begin.
type Pages = BTreeMap<Bytes, Fingerprint>;

/// The pages of all levels.
#[derive(Debug)]
pub(super) struct Tree {
    levels: Vec<Pages>,
}

fn level(slot: &[u8]) -> usize {
    ((xxh3_64(slot).trailing_zeros() / FANOUT_BITS) as usize).min(LEVELS)
}

impl Tree {
    pub(super) fn new() -> Self {
        let empty = || Pages::from([(Bytes::new(), Fingerprint::default())]);
        Tree { levels: (0..LEVELS).map(|_| empty()).collect() }
    }

    /// Adds an item behind all others.
    pub(super) fn push(&mut self, slot: &Bytes, digest: u128) {
        let height = level(slot);
        for (at, pages) in self.levels.iter_mut().enumerate() {
            if at < height {
                pages.insert(slot.clone(), Fingerprint::default());
            }
            if let Some(mut last) = pages.last_entry() {
                last.get_mut().add(digest);
            }
        }
    }

    /// How many pages there are.
    pub(super) fn pages(&self) -> usize {
        self.levels.iter().map(Pages::len).sum()
    }

    pub(super) fn root(&self) -> Fingerprint {
        self.levels[LEVELS - 1].values().fold(Fingerprint::default(), |mut sum, page| {
            sum += *page;
            sum
        })
    }

    /// Takes over the changes of items, each slot once; `read` gives the fingerprint of a range of items
    /// as they are after all of them.
    pub(super) fn apply(
        &mut self,
        deltas: &[Delta],
        read: &mut dyn FnMut(&Range) -> Result<Fingerprint>,
    ) -> Result<()> {
        for at in 0..LEVELS {
            let mut cut: BTreeSet<Bytes> = BTreeSet::new();
            for (slot, before, after) in deltas.iter().filter(|(slot, ..)| level(slot) > at) {
                let pages = &mut self.levels[at];
                match (before, after) {
                    (None, Some(_)) => {
                        cut.insert(page_of(pages, slot));
                        pages.insert(slot.clone(), Fingerprint::default());
                        cut.insert(slot.clone());
                    }
                    (Some(_), None) => {
                        pages.remove(slot);
                        cut.remove(slot);
                        cut.insert(page_of(pages, slot));
                    }
                    _ => {}
                }
            }
            for (slot, before, after) in deltas {
                let start = page_of(&self.levels[at], slot);
                if let Some(page) = self.levels[at].get_mut(&start).filter(|_| !cut.contains(&start)) {
                    before.iter().for_each(|digest| page.remove(*digest));
                    after.iter().for_each(|digest| page.add(*digest));
                }
            }
            for start in cut {
                let range = self.page_range(at, &start);
                let sum = match at {
                    0 => read(&range)?,
                    _ => total(&self.levels[at - 1], &range),
                };
                self.levels[at].insert(start, sum);
            }
        }
        Ok(())
    }

    fn page_range(&self, at: usize, start: &Bytes) -> Range {
        let next = self.levels[at].range((Bound::Excluded(start.clone()), Bound::Unbounded)).next();
        Range { from: start.clone(), to: next.map(|(start, _)| start.clone()) }
    }

    /// The fingerprint of a range; `read` is asked for the parts of pages, two at most.
    pub(super) fn fingerprint(
        &self,
        range: &Range,
        read: &mut dyn FnMut(&Range) -> Result<Fingerprint>,
    ) -> Result<Fingerprint> {
        if range.is_empty() { Ok(Fingerprint::default()) } else { self.sum(LEVELS - 1, range, read) }
    }

    fn sum(
        &self,
        at: usize,
        range: &Range,
        read: &mut dyn FnMut(&Range) -> Result<Fingerprint>,
    ) -> Result<Fingerprint> {
        let pages = &self.levels[at];
        let mut sum = Fingerprint::default();
        let mut start = page_of(pages, &range.from);
        loop {
            let page = self.page_range(at, &start);
            let ends_inside = match (&page.to, &range.to) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(end), Some(to)) => end <= to,
            };
            if start >= range.from && ends_inside {
                sum += pages.get(&start).copied().unwrap_or_default();
            } else {
                let from = start.max(range.from.clone());
                let to = if ends_inside { page.to.clone() } else { range.to.clone() };
                let part = Range { from, to };
                sum += if at == 0 { read(&part)? } else { self.sum(at - 1, &part, read)? };
            }
            match page.to {
                Some(next) if range.is_before_end(&next) => start = next,
                _ => return Ok(sum),
            }
        }
    }

    /// Cuts a range at the boundaries of the highest level that has any inside it; `None` when there are none:
    /// the range is within one page.
    pub(super) fn split(&self, range: &Range) -> Option<Vec<Range>> {
        if range.is_empty() {
            return None;
        }
        let inside = (Bound::Excluded(range.from.clone()), bound(range.to.as_ref()));
        let pages = self.levels.iter().rev().find(|pages| pages.range(inside.clone()).next().is_some())?;
        let mut parts = Vec::new();
        let mut from = range.from.clone();
        for (boundary, _) in pages.range(inside) {
            parts.push(Range { from, to: Some(boundary.clone()) });
            from = boundary.clone();
        }
        parts.push(Range { from, to: range.to.clone() });
        Some(parts)
    }
}

fn bound(to: Option<&Bytes>) -> Bound<Bytes> {
    to.map_or(Bound::Unbounded, |to| Bound::Excluded(to.clone()))
}

/// Where the page begins that a slot is in.
fn page_of(pages: &Pages, slot: &Bytes) -> Bytes {
    pages.range(..=slot.clone()).next_back().map(|(start, _)| start.clone()).unwrap_or_default()
}

fn total(pages: &Pages, range: &Range) -> Fingerprint {
    let mut sum = Fingerprint::default();
    for (_, page) in pages.range((Bound::Included(range.from.clone()), bound(range.to.as_ref()))) {
        sum += *page;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Model = BTreeMap<Bytes, u128>;

    fn read(model: &Model, range: &Range) -> Fingerprint {
        let mut sum = Fingerprint::default();
        for (_, digest) in model.range((Bound::Included(range.from.clone()), bound(range.to.as_ref()))) {
            sum.add(*digest);
        }
        sum
    }

    fn built(model: &Model) -> Tree {
        let mut tree = Tree::new();
        model.iter().for_each(|(slot, digest)| tree.push(slot, *digest));
        tree
    }

    fn slot(n: u16) -> Bytes {
        Bytes::from(format!("k{n}"))
    }

    proptest! {
        #[test]
        fn a_changed_tree_is_the_tree_built_anew_and_adds_up_over_every_range(
            batches in proptest::collection::vec(proptest::collection::btree_map(0u16..2000, proptest::option::of(any::<u128>()), 1..200), 1..12),
            ranges in proptest::collection::vec((0u16..2000, proptest::option::of(0u16..2000)), 1..20),
        ) {
            let (mut model, mut tree) = (Model::new(), Tree::new());
            for batch in batches {
                let mut deltas = Vec::new();
                for (key, after) in batch {
                    let before = match after {
                        Some(digest) => model.insert(slot(key), digest),
                        None => model.remove(&slot(key)),
                    };
                    deltas.push((slot(key), before, after));
                }
                tree.apply(&deltas, &mut |range| Ok(read(&model, range))).unwrap();
                prop_assert_eq!(&tree.levels, &built(&model).levels);
            }
            for (from, to) in ranges {
                let range = Range { from: slot(from), to: to.map(slot) };
                let sum = tree.fingerprint(&range, &mut |range| Ok(read(&model, range))).unwrap();
                let wanted = if range.is_empty() { Fingerprint::default() } else { read(&model, &range) };
                prop_assert_eq!(sum, wanted);
                for part in tree.split(&range).into_iter().flatten() {
                    prop_assert!(!part.is_empty());
                }
            }
            prop_assert_eq!(tree.root(), read(&model, &Range::all()));
        }
    }

    #[test]
    fn a_million_items_take_few_pages() {
        let mut tree = Tree::new();
        let mut slots: Vec<Bytes> = (0..100_000).map(|n| Bytes::from(format!("object-{n:07}"))).collect();
        slots.sort();
        slots.iter().for_each(|slot| tree.push(slot, 1));
        assert!((2_500..4_000).contains(&tree.pages()), "{} pages", tree.pages());
    }
}
