//! Turns what is queued into the records of a frame.

use super::frame::{BodySum, Slot};
use super::queue::{Change, Queued};
use super::record::{Record, RecordKind};
use crate::log::LogPosition;

/// The records of a frame while they are encoded.
pub(super) struct Records<'a> {
    slots: &'a [Slot],
    /// The slot of the last record, its number and its tie: mostly that of the next one too.
    last: Option<(Slot, usize, u64)>,
    frame: &'a mut Vec<u8>,
    sums: &'a mut BodySum,
}

impl<'a> Records<'a> {
    pub(super) fn new(slots: &'a [Slot], frame: &'a mut Vec<u8>, sums: &'a mut BodySum) -> Self {
        Records { slots, last: None, frame, sums }
    }

    fn push(&mut self, slot: Slot, record: &Record<'_>) {
        let (number, tie) = match self.last {
            Some((last, number, tie)) if last == slot => (number, tie),
            _ => {
                let number = self.slots.binary_search(&slot).expect("the slots were taken from the records");
                (number, slot.tie())
            }
        };
        self.last = Some((slot, number, tie));
        self.sums.add(record.encode(number, tie, self.frame));
    }

    pub(super) fn encode(&mut self, item: &Queued) {
        let Some(group) = item.id() else { return };
        let mut push = |term, kind, detail, index, payload| {
            self.push(Slot { group, term }, &Record { kind, detail, index, payload });
        };
        match &item.change {
            Change::Append { entries, .. } => {
                for entry in entries {
                    let slot = Slot { group, term: entry.position.term };
                    self.push(slot, &Record::of_entry(RecordKind::Entry, entry));
                }
            }
            Change::Move { entries } => {
                for (entry, _) in entries {
                    let slot = Slot { group, term: entry.position.term };
                    self.push(slot, &Record::of_entry(RecordKind::Moved, entry));
                }
            }
            Change::Vote(vote) => push(0, RecordKind::Vote, 0, 0, vote),
            Change::Truncate(last) => {
                push(0, RecordKind::Truncate, u8::from(last.is_none()), last.unwrap_or(0), &[]);
            }
            Change::Purge(upto) => push(upto.term, RecordKind::Purge, 0, upto.index, &[]),
            Change::CommittedAt(committed) => {
                let LogPosition { term, index } = committed.unwrap_or(LogPosition { term: 0, index: 0 });
                push(term, RecordKind::Committed, u8::from(committed.is_none()), index, &[]);
            }
            Change::Remove => push(0, RecordKind::Remove, 0, 0, &[]),
            Change::Committed | Change::Sync | Change::Oldest(_) | Change::Close => {}
        }
    }
}
