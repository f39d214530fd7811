//! Replicas, a network that delays, repeats and loses, clocks that differ, and the truth to compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use odgm_shard::object::ReplicaId;
use odgm_shard::replication::mst::{Entry, Exchange, MstTable, Stamp, answer, push};
use odgm_shard::state::{Command, Selection};
use odgm_storage::data::{ApplicationDataStorage, Durability};

use super::{NOW, RID_WINDOW_MS, SECOND, delete, key, put, storage};

pub(super) const REPLICAS: usize = 3;

/// What can happen.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Put {
        at: usize,
        key: usize,
    },
    Lasting {
        at: usize,
        key: usize,
        ms: u64,
    },
    Delete {
        at: usize,
        key: usize,
    },
    /// Ends what is over.
    Expire {
        at: usize,
    },
    /// An exchange that breaks off after so many messages; some of them come again later.
    Exchange {
        leader: usize,
        other: usize,
        until: usize,
        kept: u8,
    },
    /// A message that was sent earlier arrives, perhaps again.
    Deliver {
        message: usize,
        again: bool,
    },
    /// The process dies and starts again.
    Crash {
        at: usize,
    },
    /// Goes out of reach, or comes back.
    Leave {
        at: usize,
    },
    Return {
        at: usize,
    },
    Wait {
        ms: u64,
    },
}

struct Replica {
    storage: Arc<dyn ApplicationDataStorage>,
    table: MstTable,
    /// Its clock against the true one.
    skew: i64,
    away: bool,
}

/// What was written to a slot: the greatest decides.
type Written = (Stamp, bool, Option<Bytes>);

pub(super) struct World {
    replicas: Vec<Replica>,
    now: u64,
    under_way: Vec<(usize, usize, Bytes)>,
    /// Everything that anybody wrote.
    written: BTreeMap<Vec<u8>, Written>,
    writes: u64,
    /// Planted: a replica that is away is not asked before tombstones are forgotten.
    forgetful: bool,
}

pub(super) const KEYS: [&str; 6] = ["a", "a/x", "a/y", "b", "b/x", "c"];

impl World {
    pub(super) fn new(skews_ms: [i64; REPLICAS], forgetful: bool) -> Self {
        let replica = |(at, skew): (usize, i64)| {
            let storage = storage();
            let table = MstTable::open(storage.clone(), ReplicaId(at as u64 + 1)).unwrap();
            Replica { storage, table, skew, away: false }
        };
        World {
            replicas: skews_ms.into_iter().enumerate().map(replica).collect(),
            now: NOW,
            under_way: Vec::new(),
            written: BTreeMap::new(),
            writes: 0,
            forgetful,
        }
    }

    fn now(&self, at: usize) -> u64 {
        let skew = self.replicas[at].skew * (SECOND / 1000) as i64;
        self.now.saturating_add_signed(skew)
    }

    fn id(at: usize) -> ReplicaId {
        ReplicaId(at as u64 + 1)
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms * (SECOND / 1000);
    }

    pub(super) fn happen(&mut self, event: Event) {
        self.pass(1);
        match event {
            Event::Put { at, key } => {
                self.writes += 1;
                let command = put(KEYS[key], &format!("{at}-{}", self.writes));
                self.write(at, command);
            }
            Event::Lasting { at, key, ms } => {
                self.writes += 1;
                let mut command = put(KEYS[key], &format!("{at}-{}", self.writes));
                if let odgm_shard::state::Operation::Put { ttl_ms, .. } = &mut command.operation {
                    *ttl_ms = Some(ms);
                }
                self.write(at, command);
            }
            Event::Delete { at, key } => self.write(at, delete(KEYS[key])),
            Event::Expire { at } => self.expire(at),
            Event::Exchange { leader, other, until, kept } => {
                self.exchange(leader, other, until, kept);
            }
            Event::Deliver { message, again } => self.deliver(message, again),
            Event::Crash { at } => {
                let Replica { storage, table, .. } = &mut self.replicas[at];
                *table = MstTable::open(storage.clone(), Self::id(at)).unwrap();
            }
            Event::Leave { at } => self.replicas[at].away = true,
            Event::Return { at } => self.replicas[at].away = false,
            Event::Wait { ms } => self.pass(ms),
        }
        for at in 0..REPLICAS {
            let now = self.now(at);
            self.replicas[at].table.release(now, Durability::Now).unwrap();
            self.collect(at);
        }
    }

    fn write(&mut self, at: usize, command: Command) {
        let now = self.now(at);
        let table = &mut self.replicas[at].table;
        // Refused when the clock stands too far before the stamps: then nothing was written.
        let Ok(written) = table.write(vec![command], now, RID_WINDOW_MS, Durability::Now) else { return };
        self.spread(at, written.entries);
    }

    fn expire(&mut self, at: usize) {
        let now = self.now(at);
        let keys = KEYS.map(key);
        let written = self.replicas[at].table.expire(&keys, now, Durability::Now).unwrap();
        self.spread(at, written.entries);
    }

    /// Notes what was written, and sends it.
    fn spread(&mut self, at: usize, entries: Vec<Entry>) {
        for entry in &entries {
            let fresh = (entry.stamp(), entry.value().is_none(), entry.value().map(|v| v.payload.clone()));
            let known = self.written.entry(entry.slot().to_vec()).or_insert_with(|| fresh.clone());
            if (fresh.0, fresh.1) > (known.0, known.1) {
                *known = fresh;
            }
        }
        let now = self.now(at);
        for message in push(&mut self.replicas[at].table, entries, now) {
            for other in (0..REPLICAS).filter(|other| *other != at) {
                self.under_way.push((at, other, message.clone()));
            }
        }
    }

    fn deliver(&mut self, message: usize, again: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let at = message % self.under_way.len();
        let (from, to, bytes) =
            if again { self.under_way[at].clone() } else { self.under_way.swap_remove(at) };
        if !self.replicas[to].away {
            let now = self.now(to);
            answer(&mut self.replicas[to].table, Self::id(from), &bytes, now).unwrap();
        }
    }

    /// Says whether it was complete, and the replicas the same from the start.
    fn exchange(&mut self, leader: usize, other: usize, until: usize, kept: u8) -> bool {
        if leader == other || self.replicas[leader].away || self.replicas[other].away {
            return false;
        }
        let mut exchange = Exchange::new(Self::id(other));
        for step in 0..until {
            let now = self.now(leader);
            let Some(request) = exchange.next(&mut self.replicas[leader].table, true, now).unwrap() else {
                return exchange.was_equal();
            };
            if step % 3 == usize::from(kept) {
                self.under_way.push((leader, other, request.clone()));
            }
            self.pass(1);
            let now = self.now(other);
            let (response, _) =
                answer(&mut self.replicas[other].table, Self::id(leader), &request, now).unwrap();
            if step + 1 == until {
                break; // the answer is lost
            }
            let now = self.now(leader);
            exchange.answered(&mut self.replicas[leader].table, &response, now).unwrap();
        }
        false
    }

    fn collect(&mut self, at: usize) {
        let others: BTreeSet<ReplicaId> = (0..REPLICAS)
            .filter(|other| *other != at && !(self.forgetful && self.replicas[*other].away))
            .map(Self::id)
            .collect();
        let now = self.now(at);
        self.replicas[at].table.collect(&others, now).unwrap();
    }

    /// What each key must have in the end.
    fn truth(&self) -> BTreeMap<String, Bytes> {
        let mut truth = BTreeMap::new();
        for (slot, (stamp, _, value)) in &self.written {
            let zero = slot.iter().position(|byte| *byte == 0).unwrap();
            let (object, tag, entry) = (&slot[..zero], slot[zero + 1], &slot[zero + 2..]);
            let burial = self.written.get(&[object, &[0, 0][..]].concat());
            let buried = burial.is_some_and(|(burial, ..)| burial >= stamp);
            if let Some(value) = value.clone().filter(|_| tag != 0 && !buried) {
                let object = String::from_utf8(object.to_vec()).unwrap();
                let entry = String::from_utf8(entry.to_vec()).unwrap();
                let path = if tag == 1 { object } else { format!("{object}/{entry}") };
                truth.insert(path, value);
            }
        }
        truth
    }

    fn held(&self, at: usize) -> BTreeMap<String, Bytes> {
        let (view, all) = (self.replicas[at].table.view(), Selection::all());
        let listed = view.list(&all, None).map(|row| {
            let (key, record) = row.unwrap();
            let path = match &key.entry {
                None => key.object.to_string(),
                Some(entry) => format!("{}/{entry}", key.object),
            };
            (path, record.value.payload)
        });
        listed.collect()
    }

    fn rounds(&mut self, rounds: usize) -> bool {
        let mut equal = false;
        for _ in 0..rounds {
            self.pass(1000);
            equal = true;
            for at in 0..REPLICAS {
                let now = self.now(at);
                self.replicas[at].table.release(now, Durability::Now).unwrap();
                for other in at + 1..REPLICAS {
                    equal &= self.exchange(at, other, usize::MAX, 9);
                }
            }
            (0..REPLICAS).for_each(|at| self.collect(at));
        }
        equal
    }

    /// Everybody is there again, and nothing is lost: says what is wrong then.
    pub(super) fn settle(mut self) -> Result<(), String> {
        self.replicas.iter_mut().for_each(|replica| replica.away = false);
        self.pass(5000);
        (0..REPLICAS).for_each(|at| self.expire(at));
        let truth = |world: &Self, when: &str| {
            for at in 0..REPLICAS {
                let (held, truth) = (world.held(at), world.truth());
                if held != truth {
                    return Err(format!("replica {at} {when} holds {held:?}, written was {truth:?}"));
                }
                let reopened = MstTable::open(world.replicas[at].storage.clone(), Self::id(at)).unwrap();
                if reopened.root() != world.replicas[at].table.root() {
                    return Err(format!("replica {at} {when} has another tree than its rows"));
                }
            }
            Ok(())
        };
        // An end that a clock two seconds ahead gave is held back, and goes on to the third only then.
        if !(0..8).any(|_| self.rounds(1)) {
            return Err("the replicas still differ".to_owned());
        }
        truth(&self, "after the exchanges")?;
        let tombstones = |world: &Self| -> Vec<u64> {
            world.replicas.iter().map(|replica| replica.table.tombstones()).collect()
        };
        let forgotten = (0..8).any(|_| {
            self.rounds(1);
            tombstones(&self).iter().all(|kept| *kept == 0)
        });
        if !forgotten {
            let kept = tombstones(&self);
            return Err(format!("tombstones that all have seen are kept: {kept:?}"));
        }
        while !self.under_way.is_empty() {
            self.deliver(0, false);
        }
        truth(&self, "after the last late message")
    }
}
