//! Which objects are in use: a handful for a few seconds, then others, so that each has a history short enough to
//! be checked and forgotten, however long the run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use odgm_shard::object::{CollectionName, ObjectId, ObjectKey, partition_of};

/// How long one handful is in use.
const ACT: Duration = Duration::from_secs(4);
/// Objects of a handful that take puts and deletes, and that count.
pub(crate) const REGISTERS: u64 = 8;
/// Those that count.
pub(crate) const COUNTERS: u64 = 4;
/// No act: the client is between two operations.
const IDLE: u64 = u64::MAX;

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) collection: CollectionName,
    pub(crate) partitions: u32,
    began: Instant,
    /// The act that each client works on.
    busy: Vec<AtomicU64>,
}

impl Stage {
    pub(crate) fn new(collection: CollectionName, partitions: u32, clients: usize) -> Self {
        let busy = (0..clients).map(|_| AtomicU64::new(IDLE)).collect();
        Stage { collection, partitions, began: Instant::now(), busy }
    }

    /// Nanoseconds from the start of the history.
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The present act, which does not close before [`Stage::leave`].
    pub(crate) fn enter(&self, client: usize) -> u64 {
        loop {
            let act = self.present();
            self.busy[client].store(act, Ordering::SeqCst);
            // Else it may have closed before it was seen here.
            if act == self.present() {
                return act;
            }
        }
    }

    pub(crate) fn leave(&self, client: usize) {
        self.busy[client].store(IDLE, Ordering::SeqCst);
    }

    /// Acts below this one are over: nobody works on them, nor will.
    pub(crate) fn over(&self) -> u64 {
        let busy = self.busy.iter().map(|act| act.load(Ordering::SeqCst)).min();
        self.present().min(busy.unwrap_or(IDLE))
    }

    /// The act of now.
    pub(crate) fn present(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis() / ACT.as_millis()).unwrap_or(IDLE)
    }

    /// The objects of an act; every partition has its share.
    pub(crate) fn objects(&self, act: u64) -> impl Iterator<Item = String> + '_ {
        let registers = (0..REGISTERS).map(move |number| self.name('r', act, number));
        registers.chain((0..COUNTERS).map(move |number| self.name('n', act, number)))
    }

    pub(crate) fn register(&self, act: u64, number: u64) -> String {
        self.name('r', act, number)
    }

    pub(crate) fn counter(&self, act: u64, number: u64) -> String {
        self.name('n', act, number)
    }

    /// A name in partition `number` modulo their count.
    fn name(&self, kind: char, act: u64, number: u64) -> String {
        let wanted = number % u64::from(self.partitions);
        let mut names = (0..).map(|salt| format!("{kind}{act}-{number}-{salt}"));
        names.find(|name| u64::from(self.partition(name)) == wanted).expect("each has a share of all names")
    }

    pub(crate) fn partition(&self, name: &str) -> u32 {
        partition_of(&key(name).object, self.partitions).0
    }
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey { object: ObjectId::parse(name).expect("letters, digits and dashes"), entry: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_in_which_a_client_works_is_not_over_and_its_objects_are_spread() {
        let mut stage = Stage::new(CollectionName::parse("default").unwrap(), 4, 2);
        let act = stage.enter(0);
        stage.began -= ACT * 3;
        assert_eq!((stage.over(), stage.enter(1)), (act, act + 3));
        stage.leave(0);
        assert_eq!(stage.over(), act + 3);
        let mut partitions: Vec<_> = stage.objects(act).map(|name| stage.partition(&name)).collect();
        partitions.sort_unstable();
        assert_eq!(partitions, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    }
}
