//! The messages between replicas, and their bytes. See `docs/formats/raft.md`.
//!
//! A message is a header (what it is, for which replica of which group, from which) and a body. The payload
//! of an entry is copied into a frame and sliced out of it, never encoded again.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use uuid::Uuid;

use super::encode::{
    Malformed, Reader, decode_membership, encode_membership, get_entry, put_bytes, put_entry, put_log_id,
    put_optional_log_id, put_vote,
};
use super::router::RAFT_MESSAGE;
use super::types::{LogId, SnapshotMeta, Types, Vote};
use crate::object::GroupId;
use crate::runtime::Runtime;

/// The version of the messages.
const VERSION: u8 = 1;
/// Bytes of a header.
const HEADER_BYTES: usize = 27;

/// What a message asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Append entries, in order within a stream of one leader.
    Append = 1,
    /// Append nothing: the leader lives.
    Heartbeat = 2,
    Vote = 3,
    PreVote = 4,
    Transfer = 5,
    /// Take over a snapshot, by pulling it from the sender.
    Install = 6,
    /// Bytes of a snapshot.
    Pull = 7,
}

/// For whom a message is, and from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) group: GroupId,
    pub(crate) target: u64,
    pub(crate) sender: u64,
}

impl Header {
    fn start(self, body_bytes: usize) -> BytesMut {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + body_bytes);
        bytes.put_u8(RAFT_MESSAGE);
        bytes.put_u8(VERSION);
        bytes.put_u8(self.kind as u8);
        bytes.put_u64_le(self.group.0);
        bytes.put_u64_le(self.target);
        bytes.put_u64_le(self.sender);
        bytes
    }

    /// Takes the header off a message; the body is left.
    pub(crate) fn decode(message: Bytes) -> Result<(Header, Reader), Malformed> {
        let mut reader = Reader(message);
        if reader.u8()? != RAFT_MESSAGE || reader.u8()? != VERSION {
            return Err(Malformed("version of a message"));
        }
        let kind = match reader.u8()? {
            1 => Kind::Append,
            2 => Kind::Heartbeat,
            3 => Kind::Vote,
            4 => Kind::PreVote,
            5 => Kind::Transfer,
            6 => Kind::Install,
            7 => Kind::Pull,
            _ => return Err(Malformed("kind of message")),
        };
        let group = GroupId(reader.u64()?);
        Ok((Header { kind, group, target: reader.u64()?, sender: reader.u64()? }, reader))
    }
}

/// Entries, or none, behind a stream id.
pub(crate) fn encode_append<R: Runtime>(
    header: Header,
    stream: u64,
    request: AppendEntriesRequest<Types<R>>,
) -> Bytes {
    let size: usize = request
        .entries
        .iter()
        .map(|entry| match &entry.payload {
            super::types::EntryPayload::Normal(payload) => payload.0.len() + 21,
            _ => 256,
        })
        .sum();
    let mut bytes = header.start(size + 80);
    bytes.put_u64_le(stream);
    put_vote(&mut bytes, &request.vote);
    put_optional_log_id(&mut bytes, request.prev_log_id.as_ref());
    put_optional_log_id(&mut bytes, request.leader_commit.as_ref());
    bytes.put_u32_le(u32::try_from(request.entries.len()).expect("openraft bounds the entries of a request"));
    for entry in request.entries {
        put_entry(&mut bytes, entry);
    }
    bytes.freeze()
}

pub(crate) fn decode_append<R: Runtime>(
    mut body: Reader,
) -> Result<(u64, AppendEntriesRequest<Types<R>>), Malformed> {
    let stream = body.u64()?;
    let vote = body.vote()?;
    let prev_log_id = body.optional_log_id()?;
    let leader_commit = body.optional_log_id()?;
    let count = body.u32()?;
    // Never trust a count with memory.
    let mut entries = Vec::with_capacity(count.min(1024) as usize);
    for _ in 0..count {
        entries.push(get_entry(&mut body)?);
    }
    body.finish()?;
    Ok((stream, AppendEntriesRequest { vote, prev_log_id, entries, leader_commit }))
}

pub(crate) fn encode_append_result<R: Runtime>(result: &StreamAppendResult<Types<R>>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(18);
    match result {
        Ok(matched) => {
            bytes.put_u8(0);
            put_optional_log_id(&mut bytes, matched.as_ref());
        }
        Err(StreamAppendError::Conflict(id)) => {
            bytes.put_u8(1);
            put_log_id(&mut bytes, id);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            bytes.put_u8(2);
            put_vote(&mut bytes, vote);
        }
    }
    bytes.freeze()
}

/// An answer behind the wall clock of who gives it, NTP64.
pub(crate) fn with_clock(wall: u64, answer: &Bytes) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + answer.len());
    bytes.put_u64_le(wall);
    bytes.put_slice(answer);
    bytes.freeze()
}

/// The wall clock in front of an answer, and the answer.
pub(crate) fn split_clock(bytes: Bytes) -> Result<(u64, Bytes), Malformed> {
    let mut reader = Reader(bytes);
    Ok((reader.u64()?, reader.0))
}

pub(crate) fn decode_append_result<R: Runtime>(
    bytes: Bytes,
) -> Result<StreamAppendResult<Types<R>>, Malformed> {
    let mut reader = Reader(bytes);
    let result = match reader.u8()? {
        0 => Ok(reader.optional_log_id()?),
        1 => Err(StreamAppendError::Conflict(reader.log_id()?)),
        2 => Err(StreamAppendError::HigherVote(reader.vote()?)),
        _ => return Err(Malformed("answer to an append")),
    };
    reader.finish()?;
    Ok(result)
}

pub(crate) fn encode_vote_request<R: Runtime>(header: Header, request: &VoteRequest<Types<R>>) -> Bytes {
    let mut bytes = header.start(40);
    put_vote(&mut bytes, &request.vote);
    put_optional_log_id(&mut bytes, request.last_log_id.as_ref());
    bytes.put_u8(u8::from(request.leadership_transfer));
    bytes.freeze()
}

pub(crate) fn decode_vote_request<R: Runtime>(mut body: Reader) -> Result<VoteRequest<Types<R>>, Malformed> {
    let request = VoteRequest {
        vote: body.vote()?,
        last_log_id: body.optional_log_id()?,
        leadership_transfer: body.flag()?,
    };
    body.finish()?;
    Ok(request)
}

pub(crate) fn encode_vote_response<R: Runtime>(response: &VoteResponse<Types<R>>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(40);
    put_vote(&mut bytes, &response.vote);
    bytes.put_u8(u8::from(response.vote_granted));
    put_optional_log_id(&mut bytes, response.last_log_id.as_ref());
    bytes.freeze()
}

pub(crate) fn decode_vote_response<R: Runtime>(bytes: Bytes) -> Result<VoteResponse<Types<R>>, Malformed> {
    let mut reader = Reader(bytes);
    let response = VoteResponse {
        vote: reader.vote()?,
        vote_granted: reader.flag()?,
        last_log_id: reader.optional_log_id()?,
    };
    reader.finish()?;
    Ok(response)
}

pub(crate) fn encode_transfer<R: Runtime>(
    header: Header,
    request: &TransferLeaderRequest<Types<R>>,
) -> Bytes {
    let mut bytes = header.start(48);
    put_vote(&mut bytes, request.from_leader());
    bytes.put_u64_le(*request.to_node_id());
    put_optional_log_id(&mut bytes, request.last_log_id());
    bytes.freeze()
}

pub(crate) fn decode_transfer<R: Runtime>(
    mut body: Reader,
) -> Result<TransferLeaderRequest<Types<R>>, Malformed> {
    let (from, to, last) = (body.vote()?, body.u64()?, body.optional_log_id()?);
    body.finish()?;
    Ok(TransferLeaderRequest::new(from, to, last))
}

pub(crate) fn encode_transfer_result<R: Runtime>(result: &TransferLeaderResponse<Types<R>>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(36);
    match result {
        Ok(()) => bytes.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            bytes.put_u8(1);
            put_vote(&mut bytes, expected);
            put_vote(&mut bytes, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            bytes.put_u8(2);
            put_optional_log_id(&mut bytes, expected.as_ref());
            put_optional_log_id(&mut bytes, actual.as_ref());
        }
    }
    bytes.freeze()
}

pub(crate) fn decode_transfer_result<R: Runtime>(
    bytes: Bytes,
) -> Result<TransferLeaderResponse<Types<R>>, Malformed> {
    let mut reader = Reader(bytes);
    let result = match reader.u8()? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged { expected: reader.vote()?, actual: reader.vote()? }),
        2 => Err(TransferLeaderError::LogNotFlushed {
            expected: reader.optional_log_id()?,
            actual: reader.optional_log_id()?,
        }),
        _ => return Err(Malformed("answer to a transfer")),
    };
    reader.finish()?;
    Ok(result)
}

/// A snapshot that a follower is to pull and take over.
#[derive(Debug, Clone)]
pub(crate) struct Install {
    pub(crate) vote: Vote,
    pub(crate) id: Uuid,
    pub(crate) stored_bytes: u64,
    pub(crate) meta: SnapshotMeta,
}

/// How far the follower is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InstallState {
    /// It has pulled so many bytes.
    Working(u64),
    /// It is done, or refused because it has seen this vote.
    Done(Vote),
    /// It could not; the next request begins again where it stood.
    Failed(String),
}

pub(crate) fn encode_install(header: Header, install: &Install) -> Bytes {
    let membership = encode_membership(&install.meta.last_membership);
    let mut bytes = header.start(64 + membership.len());
    put_vote(&mut bytes, &install.vote);
    bytes.put_u128_le(install.id.as_u128());
    bytes.put_u64_le(install.stored_bytes);
    put_optional_log_id(&mut bytes, install.meta.last_log_id.as_ref());
    put_bytes(&mut bytes, &membership);
    bytes.freeze()
}

pub(crate) fn decode_install(mut body: Reader) -> Result<Install, Malformed> {
    let (vote, id, stored_bytes) = (body.vote()?, Uuid::from_u128(body.u128()?), body.u64()?);
    let last_log_id: Option<LogId> = body.optional_log_id()?;
    let last_membership = decode_membership(&body.bytes()?)?;
    body.finish()?;
    Ok(Install { vote, id, stored_bytes, meta: SnapshotMeta { last_log_id, last_membership } })
}

pub(crate) fn encode_install_state(state: &InstallState) -> Bytes {
    let mut bytes = BytesMut::with_capacity(32);
    match state {
        InstallState::Working(offset) => {
            bytes.put_u8(0);
            bytes.put_u64_le(*offset);
        }
        InstallState::Done(vote) => {
            bytes.put_u8(1);
            put_vote(&mut bytes, vote);
        }
        InstallState::Failed(reason) => {
            bytes.put_u8(2);
            put_bytes(&mut bytes, reason.as_bytes());
        }
    }
    bytes.freeze()
}

pub(crate) fn decode_install_state(bytes: Bytes) -> Result<InstallState, Malformed> {
    let mut reader = Reader(bytes);
    let state = match reader.u8()? {
        0 => InstallState::Working(reader.u64()?),
        1 => InstallState::Done(reader.vote()?),
        2 => InstallState::Failed(String::from_utf8_lossy(&reader.bytes()?).into_owned()),
        _ => return Err(Malformed("answer to an install")),
    };
    reader.finish()?;
    Ok(state)
}

/// A range of a snapshot's stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pull {
    pub(crate) id: Uuid,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

pub(crate) fn encode_pull(header: Header, pull: Pull) -> Bytes {
    let mut bytes = header.start(28);
    bytes.put_u128_le(pull.id.as_u128());
    bytes.put_u64_le(pull.offset);
    bytes.put_u32_le(pull.len);
    bytes.freeze()
}

pub(crate) fn decode_pull(mut body: Reader) -> Result<Pull, Malformed> {
    let pull = Pull { id: Uuid::from_u128(body.u128()?), offset: body.u64()?, len: body.u32()? };
    body.finish()?;
    Ok(pull)
}
