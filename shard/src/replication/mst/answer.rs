//! The side of an exchange that answers: each request from what is here at that moment, remembering nothing.

use bytes::Bytes;
use odgm_storage::data::Durability;

use super::item::Marks;
use super::message::{BATCH_BYTES, Leaf, Request, Response, Verdict, decode, encode, short, unfit};
use super::table::{Merged, MstTable};
use super::tree::{Fingerprint, Range};
use crate::object::ReplicaId;
use crate::state::Change;
use crate::{Error, Result};

/// A range with at most so many items is not split any more.
pub(super) const SMALL: u64 = 64;

/// Answers a request of another replica of the placement. May wait for the disk.
///
/// # Errors
/// When the request is malformed, or the data layer fails.
pub fn answer(
    table: &mut MstTable,
    leader: ReplicaId,
    request: &[u8],
    now: u64,
) -> Result<(Bytes, Vec<Change>)> {
    let (response, changes) = answer_request(table, leader, decode(request)?, now)?;
    Ok((encode(&response), changes))
}

fn answer_request(
    table: &mut MstTable,
    leader: ReplicaId,
    request: Request,
    now: u64,
) -> Result<(Response, Vec<Change>)> {
    let mut changes = Vec::new();
    let response = match request {
        Request::Hello { root, retired, clock } => {
            table.retire(retired)?;
            let clock = if clock.is_some() { Some(table.promise(now)?) } else { None };
            let (own, retired) = (table.root(), table.retired());
            if short(own) == root {
                Response::Same { buries: table.tombstones() > 0, clock, retired }
            } else {
                Response::Differs { root: own, retired, clock }
            }
        }
        Request::Compare(ranges) => {
            let verdicts = ranges.into_iter().map(|(range, theirs)| compare(table, range, theirs));
            Response::Compared(verdicts.collect::<Result<_>>()?)
        }
        Request::Leaves(leaves) => answer_leaves(table, leaves, now)?,
        Request::Give { clock, entries } => {
            let merged = table.merge((leader, clock), entries, now, Durability::Now)?;
            changes = merged.changes;
            Response::Given { held: merged.held }
        }
        Request::Done { leader: theirs, answerer: ours } => {
            table.met(leader, theirs, ours);
            Response::Done
        }
        Request::Inherit { entries } => {
            let merged = table.inherit(entries, now, Durability::Now)?;
            changes = merged.changes;
            Response::Given { held: merged.held }
        }
        Request::Nudge => Response::Done,
    };
    Ok((response, changes))
}

/// Answers a replica that is not of the placement: it may hand over its last writes, and nothing else.
///
/// # Errors
/// As [`answer`].
pub(super) fn answer_stranger(
    table: &mut MstTable,
    request: &[u8],
    now: u64,
) -> Result<(Bytes, Vec<Change>)> {
    match decode(request)? {
        Request::Inherit { entries } => {
            let Merged { changes, held, .. } = table.inherit(entries, now, Durability::Now)?;
            Ok((encode(&Response::Given { held }), changes))
        }
        _ => Err(unfit("the sender is no replica of this shard")),
    }
}

fn compare(table: &MstTable, range: Range, theirs: Fingerprint) -> Result<Verdict> {
    let own = table.fingerprint(&range)?;
    if own == theirs {
        return Ok(Verdict::Same);
    }
    if own.count == 0 {
        return Ok(Verdict::Empty);
    }
    match table.split(&range).filter(|_| own.count > SMALL) {
        None => Ok(Verdict::Few),
        Some(parts) => {
            let parts = parts.into_iter().map(|part| {
                let print = table.fingerprint(&part)?;
                Ok((part.to, print))
            });
            Ok(Verdict::Parts(parts.collect::<Result<_>>()?))
        }
    }
}

fn answer_leaves(table: &mut MstTable, leaves: Vec<Leaf>, now: u64) -> Result<Response> {
    let clock = table.tick(now);
    let (mut bytes, mut entries, mut wanted, mut cut) = (BATCH_BYTES, Vec::new(), Vec::new(), None);
    for (at, leaf) in (0_u32..).zip(leaves) {
        let theirs = Marks::new(&leaf.marks);
        if leaf.compare {
            let own = Marks::new(&table.marks(&leaf.range)?);
            let lacking = (0_u32..).zip(&leaf.marks).filter(|(_, mark)| own.lacks(mark));
            wanted.push(lacking.map(|(at, _)| at).collect());
        } else {
            wanted.push(Vec::new());
        }
        let (more, rest) = table.entries(&leaf.range, &|mark| theirs.lacks(mark), &mut bytes)?;
        entries.extend(more);
        if let Some(rest) = rest {
            // A leaf of which nothing fitted is asked for again as it is.
            cut = Some((at, rest));
            break;
        }
    }
    if let Some((at, rest)) = &cut
        && entries.is_empty()
    {
        return Err(Error::Internal(format!("no entry fits into leaf {at} from {}", rest.escape_ascii())));
    }
    Ok(Response::Entries { clock, entries, wanted, rest: cut })
}
