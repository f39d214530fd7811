//! The bytes of votes, memberships and log entries, on disk and on the wire. See `docs/formats/raft.md`.
//!
//! Integers are little-endian and of fixed width. [`Reader`] never reads past its end and never panics.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use odgm_storage::log::{EntryKind, LogEntry};
use serde::{Deserialize, Serialize};

use super::types::{Entry, EntryPayload, LogId, Member, Membership, Payload, StoredMembership, Term, Vote};
use super::types::{log_id, position};
use crate::codec;
use crate::state::Batch;

/// The version of a vote, a membership and a batch of commands as they are stored.
const VERSION: u8 = 1;

/// Bytes that are not what this version writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Takes fields off the front of a message.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed("message"))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32_le().map_err(|_| Malformed("message"))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64_le().map_err(|_| Malformed("message"))
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.0.try_get_u128_le().map_err(|_| Malformed("message"))
    }

    /// A length and that many bytes, not copied.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()? as usize;
        if length > self.0.len() {
            return Err(Malformed("length"));
        }
        Ok(self.0.split_to(length))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("flag")),
        }
    }

    pub(crate) fn log_id(&mut self) -> Result<LogId, Malformed> {
        Ok(LogId { leader_id: Term::new(self.u64()?), index: self.u64()? })
    }

    pub(crate) fn optional_log_id(&mut self) -> Result<Option<LogId>, Malformed> {
        if self.flag()? { self.log_id().map(Some) } else { Ok(None) }
    }

    pub(crate) fn vote(&mut self) -> Result<Vote, Malformed> {
        let (term, replica, committed) = (self.u64()?, self.u64()?, self.flag()?);
        Ok(if committed { Vote::new_committed(term, replica) } else { Vote::new(term, replica) })
    }

    /// Ends the message.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("end of message")) }
    }
}

pub(crate) fn put_bytes(into: &mut BytesMut, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("messages are far below 4 GiB");
    into.put_u32_le(length);
    into.put_slice(bytes);
}

pub(crate) fn put_log_id(into: &mut BytesMut, id: &LogId) {
    into.put_u64_le(id.leader_id.term);
    into.put_u64_le(id.index);
}

pub(crate) fn put_optional_log_id(into: &mut BytesMut, id: Option<&LogId>) {
    into.put_u8(u8::from(id.is_some()));
    if let Some(id) = id {
        put_log_id(into, id);
    }
}

pub(crate) fn put_vote(into: &mut BytesMut, vote: &Vote) {
    into.put_u64_le(vote.leader_id.term);
    into.put_u64_le(vote.leader_id.voted_for);
    into.put_u8(u8::from(vote.committed));
}

/// A vote as the log keeps it.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut bytes = BytesMut::with_capacity(18);
    bytes.put_u8(VERSION);
    put_vote(&mut bytes, vote);
    bytes.freeze()
}

pub(crate) fn decode_vote(bytes: Bytes) -> Result<Vote, Malformed> {
    let mut reader = Reader(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed("version of a vote"));
    }
    let vote = reader.vote()?;
    reader.finish()?;
    Ok(vote)
}

/// A membership as the log and the data keep it.
#[derive(Serialize, Deserialize)]
struct MembershipRecord {
    /// Where it stands in the log; only in the data.
    position: Option<(u64, u64)>,
    /// One set of voters; two while it changes.
    voters: Vec<BTreeSet<u64>>,
    /// All replicas with their nodes.
    members: BTreeMap<u64, u64>,
}

fn encode_record(position: Option<&LogId>, membership: &Membership) -> Bytes {
    let record = MembershipRecord {
        position: position.map(|id| (id.leader_id.term, id.index)),
        voters: membership.get_joint_config().clone(),
        members: membership.nodes().map(|(replica, member)| (*replica, member.node)).collect(),
    };
    codec::encode_versioned(VERSION, &record).into()
}

fn decode_record(bytes: &[u8]) -> Result<(Option<LogId>, Membership), Malformed> {
    let record: MembershipRecord = codec::decode_versioned(VERSION, bytes).ok_or(Malformed("membership"))?;
    let members: BTreeMap<u64, Member> =
        record.members.into_iter().map(|(replica, node)| (replica, Member { node })).collect();
    let membership = if record.voters.is_empty() && members.is_empty() {
        Membership::default()
    } else {
        Membership::new(record.voters, members).map_err(|_| Malformed("membership"))?
    };
    let position = record.position.map(|(term, index)| LogId { leader_id: Term::new(term), index });
    Ok((position, membership))
}

pub(crate) fn encode_membership(membership: &StoredMembership) -> Bytes {
    encode_record(membership.log_id().as_ref(), membership.membership())
}

pub(crate) fn decode_membership(bytes: &[u8]) -> Result<StoredMembership, Malformed> {
    let (position, membership) = decode_record(bytes)?;
    Ok(StoredMembership::new(position, membership))
}

/// A batch as an entry's payload.
pub(crate) fn encode_batch(batch: &Batch) -> Payload {
    Payload(codec::encode_versioned(VERSION, batch).into())
}

pub(crate) fn decode_batch(payload: &Payload) -> Result<Batch, Malformed> {
    codec::decode_versioned(VERSION, &payload.0).ok_or(Malformed("batch of commands"))
}

/// An entry as the log keeps it.
pub(crate) fn to_log_entry(entry: Entry) -> LogEntry {
    let position = position(&entry.log_id);
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, Bytes::new()),
        EntryPayload::Normal(payload) => (EntryKind::Normal, payload.0),
        EntryPayload::Membership(membership) => (EntryKind::Membership, encode_record(None, &membership)),
    };
    LogEntry { position, kind, payload }
}

pub(crate) fn from_log_entry(entry: LogEntry) -> Result<Entry, Malformed> {
    let payload = match entry.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Normal => EntryPayload::Normal(Payload(entry.payload)),
        EntryKind::Membership => EntryPayload::Membership(decode_record(&entry.payload)?.1),
    };
    Ok(Entry { log_id: log_id(entry.position), payload })
}

pub(crate) fn put_entry(into: &mut BytesMut, entry: Entry) {
    let entry = to_log_entry(entry);
    into.put_u64_le(entry.position.term);
    into.put_u64_le(entry.position.index);
    into.put_u8(entry.kind as u8);
    put_bytes(into, &entry.payload);
}

pub(crate) fn get_entry(reader: &mut Reader) -> Result<Entry, Malformed> {
    let position = position(&reader.log_id()?);
    let kind = match reader.u8()? {
        0 => EntryKind::Normal,
        1 => EntryKind::Membership,
        2 => EntryKind::Blank,
        _ => return Err(Malformed("kind of entry")),
    };
    from_log_entry(LogEntry { position, kind, payload: reader.bytes()? })
}
