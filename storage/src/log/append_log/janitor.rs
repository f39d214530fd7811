//! Keeps segments ready, frees those that hold nothing live, and moves the last live entries out of
//! old ones.
//!
//! Only the oldest segment is ever freed, so that what is left is one unbroken chain. Before that the
//! log says durably where it begins from now on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::Core;
use super::group::{EntryPlace, EntryRef, Group, GroupState};
use super::queue::{Change, Queued};
use super::reader;
use super::record::record_bytes;
use super::writer::MARK_ROOM;
use crate::log::window::Whereabouts;
use crate::log::{LogEntry, LogPosition};
use crate::{Error, Result};

/// About what the vote and the positions of a group take.
const GROUP_BYTES: u64 = 256;
/// What is moved at a time, so that nobody waits long behind it.
const MOVE_BYTES: u64 = 256 << 10;

/// Does one piece of work; says whether there may be more. On a full disk what can be freed is freed all the
/// same: it becomes the next segments.
///
/// # Errors
/// [`Error::Full`] when nothing is left to do but to wait for room.
pub(super) fn round(core: &Arc<Core>) -> Result<bool> {
    core.segments.reclaim()?;
    match core.segments.prepare() {
        Ok(true) => Ok(true),
        Ok(false) => free_one(core),
        Err(full @ Error::Full { .. }) => {
            if free_one(core)? {
                Ok(true)
            } else {
                Err(full)
            }
        }
        Err(error) => Err(error),
    }
}

/// Takes one step towards freeing the oldest segment; says whether it did.
fn free_one(core: &Arc<Core>) -> Result<bool> {
    let (oldest, active) = core.segments.ends();
    if oldest < core.durable_oldest.load(Ordering::Acquire) && oldest < active {
        core.segments.retire(oldest)?;
        return Ok(true);
    }
    let blocked = !core.damaged.lock().unwrap_or_else(|p| p.into_inner()).is_empty();
    if blocked || oldest >= active || core.collecting.swap(true, Ordering::AcqRel) {
        return Ok(false);
    }
    let groups: Vec<Arc<Group>> =
        core.groups.read().unwrap_or_else(|p| p.into_inner()).values().cloned().collect();
    let mut dead_below = oldest;
    while dead_below < active && !groups.iter().any(|group| group.lock().needs(dead_below)) {
        dead_below += 1;
    }
    if dead_below == oldest {
        if !mostly_garbage(core, &groups) {
            core.collecting.store(false, Ordering::Release);
            return Ok(false);
        }
        move_out(core, &groups, oldest)?;
    }
    let again = Arc::clone(core);
    let done = Box::new(move |outcome: Result<()>| {
        again.collecting.store(false, Ordering::Release);
        if outcome.is_ok() {
            again.janitor_wanted();
        }
    });
    // Closed or poisoned: then nothing is left to do here.
    let queued = core.enqueue_global(Queued::new(None, Change::Oldest(dead_below), Some(done)));
    Ok(queued.is_ok())
}

/// Whether moving pays: clearly more segments are in use than what is live would fill. A segment that
/// is filled by moving is at least about half full, so moving everything always ends below the bound,
/// and the janitor comes to rest.
fn mostly_garbage(core: &Core, groups: &[Arc<Group>]) -> bool {
    let used = core.segments.used_count() as u64;
    let live: u64 = groups.iter().map(|group| group.lock().live_bytes() + GROUP_BYTES).sum();
    let half = (core.options.segment_bytes - 2 * MARK_ROOM) / 2;
    let filled = live.div_ceil(half);
    used > filled + filled / 2 + 2
}

/// Queues copies of what is live in a segment, up to a bound.
fn move_out(core: &Core, groups: &[Arc<Group>], sequence: u64) -> Result<()> {
    let mut budget = MOVE_BYTES.min(core.options.segment_bytes / 4);
    for group in groups {
        if budget == 0 {
            return Ok(());
        }
        let mut found: Vec<(u64, EntryRef, EntryPlace)> = Vec::new();
        {
            let mut state = group.lock();
            if state.state_in(sequence) {
                let items = state_items(group, &mut state);
                // A removed group, or a log that takes no more, needs nothing moved.
                let _ = core.enqueue(&mut state, |_| items);
            }
            for (index, entry) in (state.window.first..).zip(&state.window.entries) {
                match entry.at {
                    Whereabouts::At(at) if at.sequence == sequence => found.push((index, *entry, at)),
                    _ => continue,
                }
                budget = budget.saturating_sub(record_bytes(entry.payload_bytes as usize) as u64);
                if budget == 0 {
                    break;
                }
            }
        }
        let mut entries = Vec::with_capacity(found.len());
        for (index, entry, at) in found {
            let position = LogPosition { term: entry.term, index };
            let read = reader::read_records(core, group.id, &[(position, entry)])?;
            entries.extend(read.into_iter().flatten().map(|entry| (entry, at)));
        }
        let mut state = group.lock();
        entries.retain(|(entry, at): &(LogEntry, EntryPlace)| {
            state.window.get(entry.position.index).is_some_and(|now| now.at == Whereabouts::At(*at))
        });
        if !entries.is_empty() {
            let item = Queued::new(Some(Arc::clone(group)), Change::Move { entries }, None);
            let _ = core.enqueue(&mut state, |_| [item]);
        }
    }
    Ok(())
}

/// The vote and the positions of a group, to be written once more.
fn state_items(group: &Arc<Group>, state: &mut GroupState) -> Vec<Queued> {
    let vote = state.vote.clone().map(Change::Vote);
    let purged = state.window.purged.map(Change::Purge);
    let committed = (state.committed.is_some() && !state.committed_queued).then_some(Change::Committed);
    state.committed_queued |= committed.is_some();
    [vote, purged, committed]
        .into_iter()
        .flatten()
        .map(|change| Queued::new(Some(Arc::clone(group)), change, None))
        .collect()
}
