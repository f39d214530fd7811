//! Reads the log at open: what is the tail, what is damage, and what every group then holds.
//!
//! A bad frame below the durable position of any later valid frame is damage. When its header can be
//! read, the groups that it names are damaged and the others go on; when not, the open fails. Any
//! other bad frame is the tail: it and all after it were never acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{BLOCK, CLOSED, FrameHeader, Place, Placed, VERSION};
use super::group::{EntryPlace, EntryRef, GroupState};
use super::record::{Record, RecordKind, UnknownKind, entry_kind};
use super::segments::{Found, Segment, open_segment};
use crate::disk::Disk;
use crate::log::window::{Whereabouts, Window};
use crate::log::{GroupId, LogPosition};
use crate::{Error, Result};

/// What an open found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub groups: BTreeMap<GroupId, GroupState>,
    pub damaged: BTreeMap<GroupId, Error>,
    /// Damage that hit nothing.
    pub blemishes: Vec<Error>,
    /// Segments with valid frames, by sequence.
    pub used: BTreeMap<u64, Arc<Segment>>,
    /// Segments behind the tail: nothing in them counts.
    pub unused: Vec<PathBuf>,
    /// The end of the last valid frame.
    pub end: Place,
    /// Frames below this are known to be durable: later ones say so.
    pub durable: Place,
    /// The checksum of its header.
    pub previous: u64,
    pub oldest: u64,
    /// `close` was the last to write.
    pub closed: bool,
}

/// Reads all segments in order.
pub(super) fn recover(disk: &dyn Disk, found: &Found) -> Result<Recovered> {
    let mut scan = Scan { disk, found, out: Recovered::default(), replay: BTreeMap::new(), first: true };
    scan.run()?;
    let Scan { mut out, replay, .. } = scan;
    for (id, group) in replay {
        if out.damaged.contains_key(&id) {
            continue;
        }
        match group.finish() {
            Ok(state) => {
                out.groups.insert(id, state);
            }
            Err(index) => {
                let path = out.used.values().next().map_or_else(PathBuf::new, |s| s.path.clone());
                let what = format!("entry {index}, which is missing, of group {}", id.0);
                out.damaged.insert(id, Error::Corrupt { path, offset: 0, what });
            }
        }
    }
    Ok(out)
}

struct Scan<'a> {
    disk: &'a dyn Disk,
    found: &'a Found,
    out: Recovered,
    replay: BTreeMap<GroupId, Replay>,
    /// No frame was met yet: the oldest one may follow any.
    first: bool,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<()> {
        let sequences: Vec<u64> = self.found.segments.keys().copied().collect();
        let mut bytes = Vec::new();
        let mut cut = None;
        for (n, &sequence) in sequences.iter().enumerate() {
            let path = &self.found.segments[&sequence];
            let segment = open_segment(self.disk, path, sequence, &mut bytes)?;
            let head = FrameHeader::decode(&bytes, segment.nonce, Place { sequence, offset: BLOCK as u64 });
            if !head.is_some_and(|head| self.follows(&head)) {
                // Either never written, or the end of the segment before was not the end.
                self.refuse_if_covered(&sequences[n..])?;
                cut = Some(n);
                break;
            }
            let segment = Arc::new(segment);
            self.out.used.insert(sequence, Arc::clone(&segment));
            let stop = self.scan_segment(&segment, &bytes, &sequences[n + 1..])?;
            if let Some(bad) = stop {
                self.out.end = bad;
                cut = Some(n + 1);
                break;
            }
        }
        let unused = &sequences[cut.unwrap_or(sequences.len())..];
        self.out.unused = unused.iter().map(|s| self.found.segments[s].clone()).collect();
        match self.out.used.keys().next() {
            Some(&first) if !self.first && first > self.out.oldest => {
                let path =
                    self.found.segments[&first].with_file_name(format!("{:016x}.log", self.out.oldest));
                Err(Error::Corrupt { path, offset: 0, what: "missing segment, groups: all".to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn follows(&self, frame: &FrameHeader) -> bool {
        self.first || frame.previous == self.out.previous
    }

    /// Takes the frames of a segment. `Some` when a frame with a readable header is the torn tail.
    fn scan_segment(&mut self, segment: &Segment, bytes: &[u8], later: &[u64]) -> Result<Option<Place>> {
        let mut place = Place { sequence: segment.sequence, offset: BLOCK as u64 };
        while let Some(frame) = FrameHeader::decode(bytes, segment.nonce, place) {
            if !self.follows(&frame) {
                break;
            }
            match frame.records(bytes) {
                Some(records) => {
                    self.take(segment, records)?;
                    self.check_padding(segment, &frame, bytes);
                }
                None => {
                    if self.next_follows(later, frame.previous)? {
                        // An earlier open cut it and went on in the next segment.
                        return Ok(None);
                    }
                    let covered = covering(bytes, segment, frame.end(), place)
                        .map_or_else(|| self.covered_by(later, place), |at| Ok(Some(at)))?;
                    if covered.is_none() {
                        return Ok(Some(place));
                    }
                    self.damage(segment, &frame);
                }
            }
            self.first = false;
            self.out.previous = frame.checksum;
            self.out.oldest = self.out.oldest.max(frame.oldest);
            self.out.durable = self.out.durable.max(frame.durable);
            self.out.closed = frame.flags & CLOSED != 0;
            place.offset = frame.end();
            self.out.end = place;
        }
        // No frame of this log begins at `place`.
        match covering(bytes, segment, place.offset, place) {
            Some(_) if !self.next_follows(later, self.out.previous)? => {
                Err(unreadable(segment.path.clone(), place))
            }
            _ => Ok(None),
        }
    }

    /// Whether the next segment begins with the frame that follows the one of this checksum.
    fn next_follows(&self, later: &[u64], previous: u64) -> Result<bool> {
        let Some(&sequence) = later.first() else { return Ok(false) };
        let mut bytes = Vec::new();
        let segment = open_segment(self.disk, &self.found.segments[&sequence], sequence, &mut bytes)?;
        let head = FrameHeader::decode(&bytes, segment.nonce, Place { sequence, offset: BLOCK as u64 });
        Ok(head.is_some_and(|head| head.previous == previous))
    }

    /// Fails when a frame in one of these segments says that the log went on durably after its end.
    fn refuse_if_covered(&self, sequences: &[u64]) -> Result<()> {
        match self.covered_by(sequences, self.out.end)? {
            Some(at) if at.offset == BLOCK as u64 => {
                // The first frame there is whole but follows another than our last.
                let path = self.out.used.values().next_back().map(|s| s.path.clone());
                let path = path.unwrap_or_else(|| self.found.segments[&at.sequence].clone());
                Err(unreadable(path, self.out.end))
            }
            Some(at) => {
                let place = Place { sequence: at.sequence, offset: BLOCK as u64 };
                Err(unreadable(self.found.segments[&at.sequence].clone(), place))
            }
            None => Ok(()),
        }
    }

    fn covered_by(&self, sequences: &[u64], place: Place) -> Result<Option<Place>> {
        let mut bytes = Vec::new();
        for &sequence in sequences {
            let segment = open_segment(self.disk, &self.found.segments[&sequence], sequence, &mut bytes)?;
            if let Some(at) = covering(&bytes, &segment, BLOCK as u64, place) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn check_padding(&mut self, segment: &Segment, frame: &FrameHeader, bytes: &[u8]) {
        let Some(offset) = frame.spoiled_padding(bytes) else { return };
        let what = "padding of a frame, groups: none".to_owned();
        let error = Error::Corrupt { path: segment.path.clone(), offset, what };
        tracing::warn!(%error, "the disk spoils bytes");
        self.out.blemishes.push(error);
    }

    fn damage(&mut self, segment: &Segment, frame: &FrameHeader) {
        let names: Vec<String> = frame.groups().iter().map(|group| group.0.to_string()).collect();
        let what = format!("frame, groups: {}", names.join(", "));
        let error = Error::Corrupt { path: segment.path.clone(), offset: frame.place.offset, what };
        tracing::error!(%error, "acknowledged log entries are damaged");
        for group in frame.groups() {
            self.out.damaged.entry(group).or_insert_with(|| error.clone());
        }
    }

    fn take(&mut self, segment: &Segment, records: Vec<Placed<'_>>) -> Result<()> {
        for Placed { slot, offset, bytes } in records {
            let record = Record::decode(bytes).map_err(|UnknownKind(kind)| Error::Format {
                path: segment.path.clone(),
                found: format!("{VERSION}, record kind {kind}"),
                supported: format!("{VERSION}, record kinds 1 to 7"),
            })?;
            let place = EntryPlace { sequence: segment.sequence, offset: offset as u32 };
            if record.kind == RecordKind::Remove {
                self.out.damaged.remove(&slot.group);
                self.replay.remove(&slot.group);
            } else {
                self.replay.entry(slot.group).or_default().take(slot.term, &record, place);
            }
        }
        Ok(())
    }
}

fn unreadable(path: PathBuf, place: Place) -> Error {
    Error::Corrupt { path, offset: place.offset, what: "frame header, groups: all".to_owned() }
}

/// Where the first frame from `from` on stands that was written when `place` was durable.
fn covering(bytes: &[u8], segment: &Segment, from: u64, place: Place) -> Option<Place> {
    let mut offset = from.next_multiple_of(BLOCK as u64);
    while (offset as usize) < bytes.len() {
        let at = Place { sequence: segment.sequence, offset };
        match FrameHeader::decode(bytes, segment.nonce, at) {
            Some(frame) if frame.durable > place => return Some(at),
            _ => offset += BLOCK as u64,
        }
    }
    None
}

/// A group while the log is read.
#[derive(Debug, Default)]
struct Replay {
    state: GroupState,
    purged: Option<LogPosition>,
    entries: BTreeMap<u64, EntryRef>,
}

impl Replay {
    fn take(&mut self, term: u64, record: &Record<'_>, place: EntryPlace) {
        let index = record.index;
        let position = LogPosition { term, index };
        match record.kind {
            RecordKind::Entry | RecordKind::Moved => {
                let purged = self.purged.is_some_and(|purged| index <= purged.index);
                if let Some(kind) = entry_kind(record.detail)
                    && !purged
                {
                    let payload_bytes = record.payload.len() as u32;
                    let at = Whereabouts::At(place);
                    self.entries.insert(index, EntryRef { term, kind, payload_bytes, at });
                }
            }
            RecordKind::Vote => {
                self.state.vote = Some(Bytes::copy_from_slice(record.payload));
                self.state.vote_in = place.sequence;
            }
            RecordKind::Truncate => {
                if record.detail == 1 {
                    self.entries.clear();
                } else {
                    self.entries.split_off(&index.saturating_add(1));
                }
            }
            RecordKind::Purge => {
                self.entries = self.entries.split_off(&index.saturating_add(1));
                self.purged = Some(position);
                self.state.purged_in = place.sequence;
            }
            RecordKind::Committed => {
                self.state.committed = (record.detail == 0).then_some(position);
                self.state.committed_in = place.sequence;
            }
            RecordKind::Remove => {}
        }
    }

    /// The state, or the index at which entries are missing.
    fn finish(self) -> Result<GroupState, u64> {
        let Replay { mut state, purged, entries } = self;
        let first = match purged {
            Some(purged) => purged.index.saturating_add(1),
            None => entries.keys().next().copied().unwrap_or(0),
        };
        let mut refs = VecDeque::with_capacity(entries.len());
        for ((index, entry), expected) in entries.into_iter().zip(first..=u64::MAX) {
            // The greatest index is nobody's: an append refuses it.
            if index != expected || index == u64::MAX {
                return Err(expected);
            }
            refs.push_back(entry);
        }
        state.window = Window::found(purged, first, refs);
        // A hint that ran ahead of what survived would name entries that are not there.
        let last: Option<LogPosition> = state.window.bounds().last;
        if state.committed.is_some_and(|committed| last.is_none_or(|last| committed.index > last.index)) {
            state.committed = None;
        }
        Ok(state)
    }
}
