//! The exchange: how two replicas find out what each lacks, and give it to each other.
//!
//! One side leads, with requests; the other answers each from what it holds at that moment and remembers
//! nothing. First the roots are compared. Where they differ the ranges of the tree's pages are, from
//! the top; where few items are left, the leader sends their marks, gets what it lacks and hears what the
//! other lacks. Both ways in batches of [`BATCH_BYTES`], one under way at a time. What is lost or comes twice
//! costs time and nothing else. It may be broken off anywhere: the next one finds what is left.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use odgm_storage::data::Durability;

use super::answer::SMALL;
use super::item::{Entry, Mark};
use super::message::{BATCH_BYTES, Leaf, Request, Response, Verdict, decode, encode, short, unfit};
use super::table::{Merged, MstTable};
use super::traffic::Traffic;
use super::tree::{Fingerprint, Range};
use crate::Result;
use crate::object::ReplicaId;
use crate::state::Change;

/// Ranges of one comparison.
const COMPARED: usize = 64;
/// Ranges of one request for entries.
const LEAVES: usize = 256;
/// Marks of one request for entries.
const MARKS: usize = 8192;
/// A range with more items here is split here, even if the other has few.
const LARGE: u64 = 512;

/// Items that the answerer lacks.
#[derive(Debug)]
struct Gift {
    range: Range,
    /// `None`: all of the range.
    wanted: Option<HashSet<Mark>>,
}

/// An exchange, as its leader leads it.
#[derive(Debug)]
pub struct Exchange {
    peer: ReplicaId,
    opened: bool,
    finished: bool,
    /// When it began, by both clocks: the own one and the other's.
    clocks: (Option<u64>, Option<u64>),
    /// Something was not taken, so it can't be complete.
    partial: bool,
    compare: Vec<(Range, Fingerprint)>,
    leaves: VecDeque<Leaf>,
    gifts: VecDeque<Gift>,
    asked: Option<Request>,
    equal: bool,
    buries: bool,
    traffic: Traffic,
}

impl Exchange {
    /// An exchange with a replica, which this one leads.
    pub fn new(peer: ReplicaId) -> Self {
        Exchange {
            peer,
            opened: false,
            finished: false,
            clocks: (None, None),
            partial: false,
            compare: Vec::new(),
            leaves: VecDeque::new(),
            gifts: VecDeque::new(),
            asked: None,
            equal: false,
            buries: false,
            traffic: Traffic::default(),
        }
    }

    /// Whether the replicas held the same when it began.
    pub fn was_equal(&self) -> bool {
        self.equal
    }

    /// Whether the other has tombstones to agree on.
    pub fn other_buries(&self) -> bool {
        self.buries
    }

    /// What it moved so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The next request; `None` when the exchange is over. May wait for the disk. `agree`: there may be
    /// tombstones to agree on, at the price of a durable write on both sides.
    ///
    /// # Errors
    /// When the data layer fails.
    pub fn next(&mut self, table: &mut MstTable, agree: bool, now: u64) -> Result<Option<Bytes>> {
        let Some(request) = self.next_request(table, agree, now)? else { return Ok(None) };
        let encoded = encode(&request);
        self.traffic.requests += 1;
        self.traffic.bytes_sent += encoded.len() as u64;
        self.asked = Some(request);
        Ok(Some(encoded))
    }

    fn next_request(&mut self, table: &mut MstTable, agree: bool, now: u64) -> Result<Option<Request>> {
        let request = if !self.opened {
            self.opened = true;
            let clock = if agree { Some(table.promise(now)?) } else { None };
            self.clocks.0 = clock;
            Request::Hello { root: short(table.root()), retired: table.retired(), clock }
        } else if let Some(entries) = self.next_gift(table)? {
            self.traffic.given += entries.len() as u64;
            Request::Give { clock: table.tick(now), entries }
        } else if !self.leaves.is_empty() {
            Request::Leaves(self.next_leaves(table)?)
        } else if !self.compare.is_empty() {
            let rest = self.compare.len().saturating_sub(COMPARED);
            let mut ranges = Vec::new();
            for (range, _) in self.compare.split_off(rest) {
                let own = table.fingerprint(&range)?;
                ranges.push((range, own));
            }
            self.traffic.pages += ranges.len() as u64;
            Request::Compare(ranges)
        } else if let (false, false, (Some(leader), Some(answerer))) =
            (self.finished, self.partial, self.clocks)
        {
            self.finished = true;
            table.met(self.peer, answerer, leader);
            Request::Done { leader, answerer }
        } else {
            return Ok(None);
        };
        Ok(Some(request))
    }

    fn next_gift(&mut self, table: &MstTable) -> Result<Option<Vec<Entry>>> {
        let (mut bytes, mut entries) = (BATCH_BYTES, Vec::new());
        while bytes > 0
            && let Some(gift) = self.gifts.front_mut()
        {
            let wanted = |mark: &Mark| gift.wanted.as_ref().is_none_or(|wanted| wanted.contains(mark));
            let (more, rest) = table.entries(&gift.range, &wanted, &mut bytes)?;
            entries.extend(more);
            match rest {
                Some(rest) => gift.range.from = rest,
                None => drop(self.gifts.pop_front()),
            }
        }
        Ok((!entries.is_empty()).then_some(entries))
    }

    fn next_leaves(&mut self, table: &MstTable) -> Result<Vec<Leaf>> {
        let (mut leaves, mut marks) = (Vec::new(), 0);
        while leaves.len() < LEAVES
            && marks < MARKS
            && let Some(mut leaf) = self.leaves.pop_front()
        {
            leaf.marks = table.marks(&leaf.range)?;
            marks += leaf.marks.len();
            leaves.push(leaf);
        }
        self.traffic.pages += leaves.len() as u64;
        Ok(leaves)
    }

    /// Takes the answer to the last request. May wait for the disk.
    ///
    /// # Errors
    /// When it does not fit, or the data layer fails: the exchange is over.
    pub fn answered(&mut self, table: &mut MstTable, response: &[u8], now: u64) -> Result<Vec<Change>> {
        self.traffic.bytes_received += response.len() as u64;
        let response = decode(response)?;
        let asked = self.asked.take().ok_or_else(|| unfit("nothing was asked"))?;
        match (asked, response) {
            (Request::Hello { .. }, Response::Same { buries, clock, retired }) => {
                self.clocks.1 = clock;
                (self.equal, self.buries) = (true, buries);
                table.retire(retired)?;
                Ok(Vec::new())
            }
            (Request::Hello { .. }, Response::Differs { root, retired, clock }) => {
                self.clocks.1 = clock;
                table.retire(retired)?;
                // They may have differed in nothing but what one of them had retired already.
                self.equal = table.root() == root;
                self.part(table, Range::all(), root)?;
                Ok(Vec::new())
            }
            (Request::Compare(ranges), Response::Compared(verdicts)) if ranges.len() == verdicts.len() => {
                for ((range, own), verdict) in ranges.into_iter().zip(verdicts) {
                    self.judge(table, range, own, verdict)?;
                }
                Ok(Vec::new())
            }
            (Request::Leaves(leaves), Response::Entries { clock, entries, wanted, rest }) => {
                self.plan(leaves, wanted, rest)?;
                self.traffic.received += entries.len() as u64;
                let Merged { changes, held, .. } =
                    table.merge((self.peer, clock), entries, now, Durability::Now)?;
                self.partial |= held > 0;
                Ok(changes)
            }
            (Request::Give { .. }, Response::Given { held }) => {
                self.partial |= held > 0;
                Ok(Vec::new())
            }
            (Request::Done { .. }, Response::Done) => Ok(Vec::new()),
            _ => Err(unfit("an answer to another question")),
        }
    }

    /// A range of which is known what the other has.
    fn part(&mut self, table: &MstTable, range: Range, theirs: Fingerprint) -> Result<()> {
        let own = table.fingerprint(&range)?;
        if own == theirs {
        } else if theirs.count == 0 {
            self.gifts.push_back(Gift { range, wanted: None });
        } else if own.count == 0 {
            self.leaves.push_back(Leaf { range, marks: Vec::new(), compare: false });
        } else if own.count <= LARGE && theirs.count <= SMALL {
            self.leaves.push_back(Leaf { range, marks: Vec::new(), compare: true });
        } else {
            self.compare.push((range, own));
        }
        Ok(())
    }

    fn judge(&mut self, table: &MstTable, range: Range, own: Fingerprint, verdict: Verdict) -> Result<()> {
        match verdict {
            Verdict::Same => {}
            Verdict::Empty => self.gifts.push_back(Gift { range, wanted: None }),
            Verdict::Few => match table.split(&range).filter(|_| own.count > LARGE) {
                None => self.leaves.push_back(Leaf { range, marks: Vec::new(), compare: true }),
                Some(parts) => {
                    self.compare.extend(parts.into_iter().map(|part| (part, Fingerprint::default())));
                }
            },
            Verdict::Parts(parts) => {
                let Range { mut from, to } = range;
                let whole = parts.last().is_some_and(|(last, _)| *last == to);
                if parts.len() < 2 || !whole {
                    return Err(unfit("parts that are not the whole"));
                }
                for (end, theirs) in parts {
                    let inside =
                        end.as_ref().is_none_or(|end| *end > from && to.as_ref().is_none_or(|to| end <= to));
                    if !inside {
                        return Err(unfit("parts that are not the whole"));
                    }
                    let part = Range { from: from.clone(), to: end.clone() };
                    self.part(table, part, theirs)?;
                    from = end.unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// What is left to do behind a request for entries.
    fn plan(&mut self, leaves: Vec<Leaf>, wanted: Vec<Vec<u32>>, rest: Option<(u32, Bytes)>) -> Result<()> {
        if wanted.len() > leaves.len() {
            return Err(unfit("more wishes than ranges"));
        }
        let cut = rest.as_ref().map_or(usize::MAX, |(leaf, _)| *leaf as usize);
        let mut wanted = wanted.into_iter();
        for (at, leaf) in leaves.into_iter().enumerate() {
            let wishes = wanted.next().filter(|wishes| !wishes.is_empty());
            if let Some(wishes) = wishes.filter(|_| at <= cut) {
                let wanted = wishes.into_iter().filter_map(|at| leaf.marks.get(at as usize).copied());
                let gift = Gift { range: leaf.range.clone(), wanted: Some(wanted.collect()) };
                self.gifts.push_back(gift);
            }
            if at > cut {
                self.leaves.push_back(Leaf { marks: Vec::new(), ..leaf });
            } else if at == cut
                && let Some((_, from)) = &rest
            {
                if *from < leaf.range.from || (at == 0 && *from == leaf.range.from) {
                    return Err(unfit("a rest that does not get smaller"));
                }
                let range = Range { from: from.clone(), to: leaf.range.to };
                self.leaves.push_back(Leaf { range, marks: Vec::new(), compare: false });
            }
        }
        Ok(())
    }
}
