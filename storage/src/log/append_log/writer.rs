//! The committer's hand: forms frames from what is queued, writes, syncs, and says who may go on.
//!
//! One frame at a time: the next is formed from all that came while this one was synced.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::Core;
use super::encoder::{self, Records};
use super::frame::{BodySum, CLOSED, FrameHeader, Place, Slot};
use super::group::{EntryPlace, Group};
use super::queue::{Change, Queued};
use super::record::{SLOTS, record_bytes};
use super::segments::Segment;
use crate::disk::ALIGNED;
use crate::log::Durable;
use crate::log::options::SyncPolicy;
use crate::{Error, Result};

/// The end of a segment that only frames without records use, so that a full one can still be marked.
pub(super) const MARK_ROOM: u64 = 4096;
/// A frame takes no further item beyond this.
const FRAME_TARGET: usize = 8 << 20;

/// The only one that writes.
#[derive(Debug)]
pub(super) struct Writer {
    pub segment: Arc<Segment>,
    /// Where the next frame begins.
    pub offset: u64,
    /// Checksum of the last frame's header.
    pub previous: u64,
    /// All below is synced.
    pub durable: Place,
    pub oldest: u64,
    /// A frame was written whose durability no later frame attests.
    pub unmarked: bool,
    pub closed: bool,
    backlog: VecDeque<Queued>,
    current: Vec<Queued>,
    frame: Vec<u8>,
    sums: BodySum,
    /// Written entries that may leave the cache: a group and its last index of an append.
    evictable: VecDeque<(Arc<Group>, u64)>,
}

/// What a step did.
#[derive(Default)]
pub(super) struct Step {
    /// A frame was written.
    pub wrote: bool,
    /// No segment is ready.
    pub stalled: bool,
    /// To be called in this order, without any lock.
    pub fired: Vec<Durable>,
}

impl Writer {
    pub(super) fn new(
        segment: Arc<Segment>,
        offset: u64,
        previous: u64,
        durable: Place,
        oldest: u64,
    ) -> Self {
        Writer {
            segment,
            offset,
            previous,
            durable,
            oldest,
            unmarked: false,
            closed: false,
            backlog: VecDeque::new(),
            current: Vec::new(),
            frame: Vec::new(),
            sums: BodySum::default(),
            evictable: VecDeque::new(),
        }
    }

    pub(super) fn take(&mut self, items: Vec<Queued>) {
        self.backlog.extend(items);
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Writes one frame of what waits; when nothing does and the log is `idle`, a durability mark.
    pub(super) fn step(&mut self, core: &Core, idle: bool) -> Result<Step> {
        if self.backlog.is_empty() {
            if idle && self.unmarked {
                self.mark()?;
                return Ok(Step { wrote: true, ..Step::default() });
            }
            return Ok(Step::default());
        }
        let policy = core.options.sync;
        let mut count = self.fitting(policy);
        if count == 0 {
            let Some(next) = core.segments.take() else {
                return Ok(Step { stalled: true, ..Step::default() });
            };
            self.rotate(next)?;
            core.janitor_wanted();
            count = self.fitting(policy);
            assert!(count > 0, "an item that is larger than a segment was refused when it came");
        }
        self.current.extend(self.backlog.drain(..count));
        let sync =
            idle || policy != SyncPolicy::None || self.current.iter().any(|i| i.change.always_synced());
        let body_offset = self.write(sync)?;
        if sync {
            core.durable_oldest.store(self.oldest, Ordering::Release);
        }
        let written: usize = self.current.iter().map(|item| item.bytes).sum();
        core.waiting_bytes.fetch_sub(written as u64, Ordering::Relaxed);
        let fired = self.complete(body_offset);
        self.evict(core);
        Ok(Step { wrote: true, stalled: false, fired })
    }

    /// All that waits, for the one who tells them that it is over.
    pub(super) fn abandon(&mut self) -> Vec<Queued> {
        self.evictable.clear();
        self.current.drain(..).chain(self.backlog.drain(..)).collect()
    }

    /// How many waiting items go into the next frame.
    fn fitting(&self, policy: SyncPolicy) -> usize {
        let (mut slots, mut body, mut waited_for) = (0, 0, false);
        for (n, item) in self.backlog.iter().enumerate() {
            slots += item.slots;
            body += item.bytes;
            let limit = if body == 0 { self.segment.bytes } else { self.segment.bytes - MARK_ROOM };
            let full = self.offset + FrameHeader::frame_bytes(slots, body) as u64 > limit || slots > SLOTS;
            let alone = policy == SyncPolicy::Always && waited_for && item.durable.is_some();
            if full || alone || (n > 0 && body > FRAME_TARGET) {
                return n;
            }
            waited_for |= item.durable.is_some();
        }
        self.backlog.len()
    }

    /// Goes on in another segment. The one left is durable first.
    fn rotate(&mut self, next: Arc<Segment>) -> Result<()> {
        self.sync()?;
        self.segment = next;
        self.offset = super::frame::BLOCK as u64;
        Ok(())
    }

    fn end(&self) -> Place {
        Place { sequence: self.segment.sequence, offset: self.offset }
    }

    fn sync(&mut self) -> Result<()> {
        if self.durable < self.end() {
            self.segment.file.sync_data()?;
            self.durable = self.end();
        }
        Ok(())
    }

    /// Says on disk that all frames so far are durable.
    pub(super) fn mark(&mut self) -> Result<()> {
        self.sync()?;
        self.unmarked = false;
        if self.offset + FrameHeader::frame_bytes(0, 0) as u64 <= self.segment.bytes {
            self.write(true)?;
            self.unmarked = false;
        }
        Ok(())
    }

    /// Writes `current` as a frame and says where its records begin in the segment.
    fn write(&mut self, sync: bool) -> Result<u64> {
        let slots = self.slots();
        let body: usize = self.current.iter().map(|item| item.bytes).sum();
        let start = self.begin_frame(FrameHeader::frame_bytes(slots.len(), body));
        let records_at = start + FrameHeader::header_bytes(slots.len());
        self.frame.resize(records_at, 0);
        let mut flags = 0;
        let mut records = Records::new(&slots, &mut self.frame);
        for item in &self.current {
            match item.change {
                Change::Close => flags |= CLOSED,
                Change::Oldest(sequence) => self.oldest = self.oldest.max(sequence),
                _ => records.encode(item),
            }
        }
        self.sums.clear();
        encoder::seal(&mut self.frame[records_at..], &slots, &mut self.sums);
        let body_bytes = u32::try_from(self.frame.len() - records_at).expect("a frame fits into a segment");
        let bytes = FrameHeader::frame_bytes(slots.len(), body_bytes as usize);
        self.frame.resize(start + bytes, 0);
        let frame = &mut self.frame[start..];
        let mut sealed = FrameHeader {
            nonce: self.segment.nonce,
            place: Place { sequence: self.segment.sequence, offset: self.offset },
            previous: self.previous,
            durable: self.durable,
            oldest: self.oldest,
            body_checksum: self.sums.checksum(),
            body_bytes,
            flags,
            slots,
            checksum: 0,
        };
        self.previous = sealed.seal(frame);
        self.segment.file.write_at(frame, self.offset)?;
        self.offset += bytes as u64;
        self.unmarked = true;
        self.closed = flags & CLOSED != 0;
        if sync {
            self.sync()?;
        }
        Ok(sealed.place.offset + (records_at - start) as u64)
    }

    /// Makes room for a frame of so many bytes; says where it begins.
    fn begin_frame(&mut self, bytes: usize) -> usize {
        self.frame.clear();
        self.frame.reserve(ALIGNED + bytes);
        let start = self.frame.as_ptr().align_offset(ALIGNED);
        self.frame.resize(start, 0);
        start
    }

    /// What the records of `current` belong to; fixes the committed positions that they say.
    fn slots(&mut self) -> Vec<Slot> {
        let mut slots = Vec::new();
        for item in &mut self.current {
            let Some(group) = &item.group else { continue };
            if matches!(item.change, Change::Committed) {
                let mut state = group.lock();
                state.committed_queued = false;
                item.change = Change::CommittedAt(state.committed);
            }
            slots.extend(item.change.terms().into_iter().map(|term| Slot { group: group.id, term }));
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Notes where the records of `current` stand, and takes their callbacks.
    fn complete(&mut self, body_offset: u64) -> Vec<Durable> {
        let sequence = self.segment.sequence;
        let mut at = Place { sequence, offset: body_offset };
        let mut fired = Vec::with_capacity(self.current.len());
        for item in self.current.drain(..) {
            fired.extend(item.durable);
            let Some(group) = item.group else { continue };
            let mut state = group.lock();
            match item.change {
                Change::Append { entries, stamp } => {
                    for entry in &entries {
                        state.window.written(entry.position.index, stamp, EntryPlace::new(at));
                        at.offset += record_bytes(entry.payload.len()) as u64;
                    }
                    drop(state);
                    if let Some(last) = entries.last() {
                        self.evictable.push_back((group, last.position.index));
                    }
                    continue;
                }
                Change::Move { entries } => {
                    for (entry, from) in &entries {
                        state.window.moved(entry.position.index, *from, EntryPlace::new(at));
                        at.offset += record_bytes(entry.payload.len()) as u64;
                    }
                    continue;
                }
                Change::Vote(_) => state.vote_in = sequence,
                Change::Purge(_) => state.purged_in = sequence,
                Change::Committed | Change::CommittedAt(_) => state.committed_in = sequence,
                Change::Truncate(_) | Change::Remove | Change::Sync | Change::Oldest(_) | Change::Close => {}
            }
            at.offset += item.bytes as u64;
        }
        fired
    }

    /// Keeps the cache within its bound, oldest appends first.
    fn evict(&mut self, core: &Core) {
        while core.cached_bytes.load(Ordering::Relaxed) > core.options.cache_bytes {
            let Some((group, upto)) = self.evictable.pop_front() else { break };
            let freed = group.lock().window.evict(upto);
            core.cached_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
        // Appends whose entries were purged or truncated leave nothing to evict.
        while let Some((group, upto)) = self.evictable.front() {
            if group.lock().window.cached_from() <= *upto {
                break;
            }
            self.evictable.pop_front();
        }
    }
}

/// Tells everyone who waits that it is over.
pub(super) fn refuse(items: Vec<Queued>, error: &Error) {
    for durable in items.into_iter().filter_map(|item| item.durable) {
        durable(Err(error.clone()));
    }
}
