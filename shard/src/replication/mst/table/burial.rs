//! When a replica forgets its tombstones.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use odgm_storage::data::{DataView, Direction, Durability, Keyspace, WriteBatch};

use super::MstTable;
use crate::object::ReplicaId;
use crate::planted::{Bug, planted};
use crate::replication::mst::agreed::Agreed;
use crate::replication::mst::edit::read_item;
use crate::replication::mst::item::{self, AGREED};
use crate::replication::mst::tree::Delta;
use crate::state::layout;
use crate::{Error, Result};

impl MstTable {
    /// An exchange with a replica ended that began when its clock and the own one were there.
    pub(in crate::replication::mst) fn met(&mut self, peer: ReplicaId, theirs: u64, ours: u64) {
        self.agreed.met(peer, theirs, ours);
    }

    /// Forgets the tombstones that every replica of the placement has seen. `others` are the other replicas.
    ///
    /// # Errors
    /// After a failure of the data layer the replica must stop.
    pub fn collect(&mut self, others: &BTreeSet<ReplicaId>, now: u64) -> Result<u64> {
        self.check()?;
        if self.tombstones == 0 {
            return Ok(0);
        }
        let clock = self.tick(now);
        let mut agreed = self.agreed.clone();
        let nobody = BTreeSet::new();
        agreed.advance(if planted(Bug::ForgetTombstone) { &nobody } else { others }, clock);
        self.forget(agreed)
    }

    /// Forgets the tombstones up to a time, whoever has seen them: for replicas that keep them for a time.
    ///
    /// # Errors
    /// As [`MstTable::collect`].
    pub fn collect_until(&mut self, time: u64) -> Result<u64> {
        self.check()?;
        let mut agreed = self.agreed.clone();
        agreed.raise(time);
        if self.tombstones == 0 {
            self.agreed = agreed;
            return Ok(0);
        }
        self.forget(agreed)
    }

    /// The placement changed.
    pub fn reconsider(&mut self) {
        self.agreed.reconsider();
    }

    /// The highest floor known: what is buried at or below it counts in no fingerprint.
    pub(in crate::replication::mst) fn retired(&self) -> u64 {
        self.agreed.retired
    }

    /// Believes another replica's floor.
    pub(in crate::replication::mst) fn retire(&mut self, floor: u64) -> Result<()> {
        self.check()?;
        if floor <= self.agreed.retired {
            return Ok(());
        }
        let deltas = self.retiring(self.agreed.retired, floor)?;
        self.agreed.retired = floor;
        self.agree(self.agreed.clone(), WriteBatch::default(), Durability::Later)?;
        self.apply_to_tree(&deltas)
    }

    fn forget(&mut self, agreed: Agreed) -> Result<u64> {
        let deltas = self.retiring(self.agreed.retired, agreed.retired)?;
        let (mut batch, mut agreed, mut forgotten) = (WriteBatch::default(), agreed, 0);
        let view = self.storage.view();
        for found in buried(view.as_ref(), 0, agreed.floor) {
            let (time, slot) = found?;
            batch.delete(Keyspace::Index, item::tombstone_key(time, &slot));
            batch.delete(Keyspace::Index, item::item_key(&slot));
            agreed.dropped = agreed.dropped.max(time);
            forgotten += 1;
        }
        drop(view);
        if agreed == self.agreed {
            return Ok(0);
        }
        self.agree(agreed, batch, Durability::Later)?;
        self.tombstones -= forgotten;
        self.apply_to_tree(&deltas)?;
        Ok(forgotten)
    }

    /// How the tree changes when the tombstones above one floor and up to another leave it.
    fn retiring(&self, above: u64, to: u64) -> Result<Vec<Delta>> {
        let view = self.storage.view();
        let mut deltas = Vec::new();
        for found in buried(view.as_ref(), above.saturating_add(1), to) {
            let (_, slot) = found?;
            if let Some(item) = read_item(view.as_ref(), &slot)? {
                let digest = item.digest(&slot);
                deltas.push((slot, Some(digest), None));
            }
        }
        Ok(deltas)
    }

    /// Writes what is agreed, with what comes of it.
    pub(super) fn agree(
        &mut self,
        agreed: Agreed,
        mut batch: WriteBatch,
        durability: Durability,
    ) -> Result<()> {
        batch.put(Keyspace::Meta, AGREED, layout::encode_record(&agreed));
        self.storage.write(batch, durability)?;
        self.agreed = agreed;
        Ok(())
    }
}

/// The tombstones that were made from one time to another, in that order.
fn buried(view: &dyn DataView, from: u64, to: u64) -> impl Iterator<Item = Result<(u64, Bytes)>> + '_ {
    let from = Bound::Included(item::tombstone_key(from, b""));
    let to = Bound::Excluded(item::tombstone_key(to.saturating_add(1), b""));
    view.scan(Keyspace::Index, from, to, Direction::Forward).map(|row| {
        let (key, _) = row?;
        item::parse_tombstone(&key).ok_or_else(|| Error::Internal("damaged tombstone row".to_owned()))
    })
}
