//! Reads entries back: from the cache of their group, else from the segments, verified.

use std::sync::Arc;

use bytes::Bytes;

use super::core::Core;
use super::frame::Slot;
use super::group::{EntryPlace, EntryRef, Group};
use super::record::{Record, RecordKind, record_bytes, verified};
use super::segments::Segment;
use crate::log::window::Whereabouts;
use crate::log::{GroupId, LogEntry, LogPosition};
use crate::{Error, Result};

/// Read at once at most this, so that records of other groups in between do not swell memory.
const SPAN_BYTES: usize = 1 << 20;
/// A hole between two wanted records that is cheaper to read than to seek over.
const HOLE_BYTES: usize = 16 << 10;

/// Entries of `from..to` that exist, up to `max_bytes` of payload but at least one.
pub(super) fn read(core: &Core, group: &Group, from: u64, to: u64, max_bytes: u64) -> Result<Vec<LogEntry>> {
    let mut entries = Vec::new();
    let mut next = from;
    let mut room = max_bytes;
    let mut begun = None;
    loop {
        let wanted = {
            let state = &group.lock().window;
            if begun.is_some_and(|begun| begun != state.stamp) {
                // Truncated since: what was read may be gone.
                (entries, begun) = (Vec::new(), None);
                (next, room) = (from, max_bytes);
                continue;
            }
            begun = Some(state.stamp);
            let start = next.max(state.first);
            let end = to.min(state.next_index());
            if start >= end || (start != next && !entries.is_empty()) {
                return Ok(entries);
            }
            let cached_from = state.cached_from();
            if start >= cached_from {
                state.take_cached(start, end, room, &mut entries);
                return Ok(entries);
            }
            let mut wanted = Vec::new();
            for index in start..end.min(cached_from) {
                let Some(entry) = state.get(index) else { break };
                let bytes = u64::from(entry.payload_bytes);
                if bytes > room && !(entries.is_empty() && wanted.is_empty()) {
                    room = 0;
                    break;
                }
                room = room.saturating_sub(bytes);
                wanted.push((LogPosition { term: entry.term, index }, *entry));
            }
            wanted
        };
        let Some((last, _)) = wanted.last() else { return Ok(entries) };
        next = last.index + 1;
        match read_records(core, group.id, &wanted)? {
            Some(read) => entries.extend(read),
            // Moved or purged since: ask again where they are.
            None => {
                next = entries.last().map_or(from, |entry: &LogEntry| entry.position.index + 1);
                let taken: u64 = entries.iter().map(|entry| entry.payload.len() as u64).sum();
                room = max_bytes.saturating_sub(taken);
            }
        }
        if next >= to || (room == 0 && !entries.is_empty()) {
            return Ok(entries);
        }
    }
}

/// Reads written records. `None` when one of their segments is gone by now.
pub(super) fn read_records(
    core: &Core,
    group: GroupId,
    wanted: &[(LogPosition, EntryRef)],
) -> Result<Option<Vec<LogEntry>>> {
    let mut entries = Vec::with_capacity(wanted.len());
    let mut rest = wanted;
    while let Some((_, head)) = rest.first() {
        let Some(start) = place(head) else { return Ok(None) };
        let Some(segment) = core.segments.get(start.sequence) else { return Ok(None) };
        let mut end = start.offset as usize + record_bytes(head.payload_bytes as usize);
        let mut count = 1;
        for (_, entry) in &rest[1..] {
            let Some(at) = place(entry) else { break };
            let offset = at.offset as usize;
            let reach = offset + record_bytes(entry.payload_bytes as usize);
            let near = offset >= end && offset - end <= HOLE_BYTES;
            if at.sequence != start.sequence || !near || reach - start.offset as usize > SPAN_BYTES {
                break;
            }
            (end, count) = (reach, count + 1);
        }
        let span = read_span(&segment, start.offset as usize, end)?;
        for (position, entry) in &rest[..count] {
            entries.push(decode(&segment, group, start.offset as usize, &span, *position, entry)?);
        }
        rest = &rest[count..];
    }
    Ok(Some(entries))
}

fn place(entry: &EntryRef) -> Option<EntryPlace> {
    match entry.at {
        Whereabouts::At(at) => Some(at),
        Whereabouts::Queued(_) => None,
    }
}

fn read_span(segment: &Arc<Segment>, start: usize, end: usize) -> Result<Bytes> {
    let mut bytes = vec![0; end - start];
    let read = segment.file.read_at(&mut bytes, start as u64)?;
    bytes.truncate(read);
    Ok(Bytes::from(bytes))
}

fn decode(
    segment: &Segment,
    group: GroupId,
    start: usize,
    span: &Bytes,
    position: LogPosition,
    entry: &EntryRef,
) -> Result<LogEntry> {
    let offset = place(entry).map_or(start, |at| at.offset as usize);
    let from = offset - start;
    let tie = Slot { group, term: position.term }.tie();
    let found = span.get(from..).and_then(|bytes| {
        let (_, len) = verified(bytes, tie)?;
        Record::decode(&bytes[..len]).ok().map(|record| (record, len))
    });
    match found {
        Some((record, end))
            if matches!(record.kind, RecordKind::Entry | RecordKind::Moved)
                && record.index == position.index =>
        {
            let payload = span.slice(from + end - record.payload.len()..from + end);
            Ok(LogEntry { position, kind: entry.kind, payload })
        }
        _ => Err(Error::Corrupt {
            path: segment.path.clone(),
            offset: offset as u64,
            what: format!("entry {} of group {}", position.index, group.0),
        }),
    }
}
