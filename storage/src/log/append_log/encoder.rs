//! Turns what is queued into the records of a frame.

use super::frame::{BodySum, Slot};
use super::queue::{Change, Queued};
use super::record::{self, Record, RecordKind};
use crate::log::LogPosition;

/// The records of a frame while they are encoded.
pub(super) struct Records<'a> {
    slots: &'a [Slot],
    /// The slot of the last record and its number: mostly that of the next one too.
    last: Option<(Slot, usize)>,
    frame: &'a mut Vec<u8>,
}

impl<'a> Records<'a> {
    pub(super) fn new(slots: &'a [Slot], frame: &'a mut Vec<u8>) -> Self {
        Records { slots, last: None, frame }
    }

    fn push(&mut self, slot: Slot, record: &Record<'_>) {
        let number = match self.last {
            Some((last, number)) if last == slot => number,
            _ => self.slots.binary_search(&slot).expect("the slots were taken from the records"),
        };
        self.last = Some((slot, number));
        record.encode(number, self.frame);
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

/// Enters the checksums of a frame's records. All at once, since bytes that were just copied are slow to read back.
pub(super) fn seal(mut records: &mut [u8], slots: &[Slot], sums: &mut BodySum) {
    let ties: Vec<u64> = slots.iter().map(|slot| slot.tie()).collect();
    while let Some(slot) = record::slot_of(records) {
        let (sum, len) = record::seal(records, ties[slot]);
        sums.add(sum);
        records = &mut records[len..];
    }
}
