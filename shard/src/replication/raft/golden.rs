//! The bytes of `docs/formats/raft.md`, pinned; and that no bytes make a decoder panic.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use proptest::prelude::*;
use uuid::Uuid;

use super::encode::{
    decode_batch, decode_membership, decode_vote, encode_batch, encode_membership, encode_vote,
};
use super::message::{self, Header, Install, InstallState, Kind, Pull};
use super::types::{
    Entry, EntryPayload, LogId, Member, Membership, Payload, SnapshotMeta, StoredMembership, Term, Types,
    Vote,
};
use crate::object::{GroupId, ObjectId, ObjectKey};
use crate::runtime::TokioRuntime;
use crate::state::{Batch, Command, Operation};

type Rt = TokioRuntime;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn at(term: u64, index: u64) -> LogId {
    LogId { leader_id: Term::new(term), index }
}

fn header(kind: Kind) -> Header {
    Header { kind, group: GroupId(2), target: 3, sender: 4 }
}

fn membership() -> StoredMembership {
    let members = BTreeMap::from([(1, Member { node: 11 }), (2, Member { node: 12 })]);
    let membership = Membership::new(vec![BTreeSet::from([1])], members).unwrap();
    StoredMembership::new(Some(at(5, 6)), membership)
}

#[test]
fn what_is_kept_has_these_bytes() {
    let vote = Vote::new_committed(7, 9);
    assert_eq!(hex(&encode_vote(&vote)), "010700000000000000090000000000000001");
    assert_eq!(decode_vote(encode_vote(&vote)).unwrap(), vote);

    let stored = membership();
    assert_eq!(hex(&encode_membership(&stored)), "0101050601010102010b020c");
    assert_eq!(decode_membership(&encode_membership(&stored)).unwrap(), stored);

    let key = ObjectKey { object: ObjectId::parse("a").unwrap(), entry: None };
    let delete = Command { rid: None, operation: Operation::Delete { key, if_revision: None } };
    let batch = Batch { time: 1, rid_window_ms: 2, commands: vec![delete] };
    assert_eq!(hex(&encode_batch(&batch).0), "01010201000101610000");
    assert_eq!(decode_batch(&encode_batch(&batch)).unwrap(), batch);
}

#[test]
fn an_append_has_these_bytes_and_comes_out_as_it_went_in() {
    let entries = vec![
        Entry { log_id: at(5, 7), payload: EntryPayload::Normal(Payload(Bytes::from_static(b"xy"))) },
        Entry { log_id: at(5, 8), payload: EntryPayload::Blank },
        Entry { log_id: at(5, 9), payload: EntryPayload::Membership(membership().membership().clone()) },
    ];
    let request = AppendEntriesRequest::<Types<Rt>> {
        vote: Vote::new_committed(5, 4),
        prev_log_id: Some(at(4, 6)),
        entries: entries.clone(),
        leader_commit: None,
    };
    let bytes = message::encode_append(header(Kind::Append), 1, request);
    let expected = [
        "010101",
        "0200000000000000",
        "0300000000000000",
        "0400000000000000",
        "0100000000000000",
        "0500000000000000040000000000000001",
        "0104000000000000000600000000000000",
        "00",
        "03000000",
        "05000000000000000700000000000000",
        "00",
        "02000000",
        "7879",
        "05000000000000000800000000000000",
        "02",
        "00000000",
        "05000000000000000900000000000000",
        "01",
        "0a000000",
        "010001010102010b020c",
    ];
    assert_eq!(hex(&bytes), expected.concat());
    let (decoded, body) = Header::decode(bytes).unwrap();
    assert_eq!(decoded, header(Kind::Append));
    let (stream, request) = message::decode_append::<Rt>(body).unwrap();
    assert_eq!((stream, request.entries), (1, entries));
    assert_eq!((request.prev_log_id, request.leader_commit), (Some(at(4, 6)), None));
}

#[test]
fn the_other_messages_come_out_as_they_went_in() {
    let vote = VoteRequest::<Types<Rt>> {
        vote: Vote::new(3, 1),
        last_log_id: Some(at(2, 9)),
        leadership_transfer: true,
    };
    let (_, body) = Header::decode(message::encode_vote_request(header(Kind::Vote), &vote)).unwrap();
    assert_eq!(message::decode_vote_request::<Rt>(body).unwrap(), vote);

    let meta = SnapshotMeta { last_log_id: Some(at(2, 9)), last_membership: membership() };
    let install = Install { vote: Vote::new_committed(3, 1), id: Uuid::from_u128(8), stored_bytes: 5, meta };
    let (_, body) = Header::decode(message::encode_install(header(Kind::Install), &install)).unwrap();
    let decoded = message::decode_install(body).unwrap();
    assert_eq!((decoded.vote, decoded.id, decoded.stored_bytes), (install.vote, install.id, 5));
    assert_eq!(decoded.meta, install.meta);

    for state in [
        InstallState::Working(9),
        InstallState::Done(Vote::new_committed(3, 1)),
        InstallState::Failed("full".to_owned()),
    ] {
        assert_eq!(message::decode_install_state(message::encode_install_state(&state)).unwrap(), state);
    }
    let pull = Pull { id: Uuid::from_u128(8), offset: 7, len: 6 };
    let (_, body) = Header::decode(message::encode_pull(header(Kind::Pull), pull)).unwrap();
    assert_eq!(message::decode_pull(body).unwrap(), pull);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(kind in 1u8..8, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![1, 1, kind];
        bytes.extend([0; 24]);
        bytes.extend(&body);
        let reader = || Header::decode(Bytes::from(bytes.clone())).unwrap().1;
        let body = || Bytes::from(body.clone());
        // Whatever they say, they return.
        let _ = message::decode_append::<Rt>(reader());
        let _ = message::decode_vote_request::<Rt>(reader());
        let _ = message::decode_transfer::<Rt>(reader());
        let _ = message::decode_install(reader()).map(drop);
        let _ = message::decode_pull(reader()).map(drop);
        let _ = message::decode_append_result::<Rt>(body());
        let _ = message::split_clock(body()).map(drop);
        let _ = message::decode_vote_response::<Rt>(body());
        let _ = message::decode_transfer_result::<Rt>(body());
        let _ = message::decode_install_state(body()).map(drop);
        let _ = decode_vote(body());
        let _ = decode_membership(&body());
        let _ = decode_batch(&Payload(body()));
        let _ = Header::decode(body()).map(drop);
    }
}
