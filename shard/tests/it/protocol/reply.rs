//! Replies, events, END records and refusals, as a client reads them.

use odgm_shard::Error;
use odgm_shard::object::Value;
use odgm_shard::protocol::{
    Answer, Attachment, Code, CommandTarget, Effect, Plane, Refusal, Voice, cursor, partition_clock, reply,
};
use odgm_shard::state::{Change, ChangeKind, Done, Outcome, Record, Refusal as Refused, StepDone, TxnDone};
use odgm_transport::session::ErrorReply;

use super::{key, keys, shard};

fn voice() -> Voice {
    Voice::new(keys(), shard(3), [0xab; 16])
}

fn record() -> Record {
    let value = Value { payload: "v".into(), encoding: "a/b".into(), attachment: Some("tag".into()) };
    Record { value, revision: 9, created_revision: 2, version: 4, expires_unix_ms: 0, time: 77 }
}

#[test]
fn a_reply_to_a_read_is_the_stored_value_on_the_concrete_key_of_its_plane() {
    for (plane, expected) in
        [(Plane::Data, "odgm/users/3/alice/e"), (Plane::Near, "odgm/@near/users/3/alice/e")]
    {
        let sample = voice().record(plane, &key("alice", Some("e")), record());
        assert_eq!(sample.key.as_str(), expected);
        assert_eq!((sample.payload.as_deref(), sample.encoding.as_str()), (Some(&b"v"[..]), "a/b"));
        let timestamp = sample.timestamp.unwrap();
        assert_eq!((timestamp.time, timestamp.clock), (77, partition_clock([0xab; 16], shard(3).partition)));
        assert_eq!(reply::decode_record(&sample), Some(record()));
    }
    let bare = voice().record_key(Plane::Data, &key("alice", None), record());
    assert_eq!(bare.payload.as_deref(), Some(&b""[..]));
    assert_eq!(Attachment::decode(bare.attachment.as_ref().unwrap()).unwrap().revision, 9);
}

#[test]
fn an_event_is_a_put_or_a_delete_with_its_own_revision() {
    let change = |kind| Change {
        key: key("alice", None),
        revision: 5,
        created_revision: 1,
        version: 2,
        expires_unix_ms: 0,
        time: 6,
        kind,
    };
    let put = voice().event(change(ChangeKind::Put(record().value)));
    assert_eq!((put.key.as_str(), put.payload.as_deref()), ("odgm/@ev/users/3/alice", Some(&b"v"[..])));
    let delete = voice().event(change(ChangeKind::Delete));
    assert_eq!(delete.payload, None);
    for event in [put, delete] {
        assert_eq!(Attachment::decode(event.attachment.as_ref().unwrap()).unwrap().revision, 5);
    }
}

#[test]
fn a_commands_reply_carries_its_numbers_and_an_increments_value() {
    let done = Done {
        revision: 3,
        created_revision: 1,
        version: 2,
        value: Some("42".into()),
        time: 8,
        ..Done::default()
    };
    let target = CommandTarget::Key(key("alice", None));
    let sample = voice().outcome(&target, Outcome::Done(done.clone())).unwrap();
    assert_eq!(sample.key.as_str(), "odgm/@cmd/users/3/alice");
    assert_eq!(sample.payload.as_deref(), Some(&b"42"[..]));
    assert_eq!(reply::decode_done(&sample), Some(done));
}

#[test]
fn a_transactions_reply_is_json_on_the_partitions_key() {
    let step = Done {
        revision: 3,
        created_revision: 1,
        version: 2,
        value: Some("42".into()),
        time: 8,
        ..Done::default()
    };
    let results = vec![StepDone { object: key("alice", None).object, done: step }];
    let done = TxnDone { then: true, revision: 3, time: 8, results };
    let sample = voice().outcome(&CommandTarget::Partition, Outcome::Txn(done.clone())).unwrap();
    assert_eq!((sample.key.as_str(), sample.encoding.as_str()), ("odgm/@cmd/users/3", "application/json"));
    let json: serde_json::Value = serde_json::from_slice(sample.payload.as_deref().unwrap()).unwrap();
    assert_eq!(
        (&json["branch"], &json["revision"], &json["results"][0]["value"]),
        (&"then".into(), &3.into(), &"42".into())
    );
    assert_eq!(reply::decode_txn(&sample), Some(done));
}

#[test]
fn an_end_record_has_the_contracts_fields() {
    let json = |reply: &ErrorReply| serde_json::from_slice::<serde_json::Value>(&reply.payload).unwrap();
    let last = key("alice", None);
    let page = voice().end(17, 5, Some(cursor::encode(&last)));
    let incarnation = "ab".repeat(16);
    assert_eq!(
        json(&page),
        serde_json::json!({
            "code": "END", "collection": "users", "partition": 3, "partitions": 4, "incarnation": incarnation,
            "revision": 17, "count": 5, "next": cursor::encode(&last),
        })
    );
    let whole = voice().end(17, 5, None);
    assert_eq!(json(&whole).get("next"), None);
    let Answer::End(end) = reply::decode(Err(page)) else { panic!() };
    assert_eq!((end.partition, end.count, end.next), (3, 5, Some(cursor::encode(&last))));
}

#[test]
fn refusals_say_what_happened_and_whether_to_repeat() {
    let applied = |code: Code| (code.applied(), code.retry());
    for code in Code::ALL {
        let expected = match code.name() {
            "NOT_LEADER" | "BUSY" | "READ_ONLY" | "QUOTA" => (Effect::No, true),
            "UNAVAILABLE" | "TIMEOUT" => (Effect::Unknown, true),
            "INTERNAL" => (Effect::Unknown, false),
            _ => (Effect::No, false),
        };
        assert_eq!(applied(*code), expected, "{}", code.name());
        assert_eq!(Code::parse(code.name()), Some(*code));
        let refusal = Refusal::new(*code, "why").with("fact", 7).with_id("i");
        let encoded = refusal.encode();
        assert_eq!(encoded.encoding, "application/json");
        assert_eq!(reply::decode(Err(encoded)), Answer::Refused(refusal));
    }
    let conflict = Refusal::from(Refused::Conflict { revision: 9 }).encode();
    let json: serde_json::Value = serde_json::from_slice(&conflict.payload).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "code": "CONFLICT", "message": "the object is at revision 9", "applied": "no", "retry": false, "revision": 9,
        })
    );
}

#[test]
fn state_refusals_and_errors_have_their_codes() {
    for (refused, expected) in [
        (Refused::NotFound { entries: 2 }, Code::NotFound),
        (Refused::Exists { revision: 1 }, Code::Exists),
        (Refused::Conflict { revision: 1 }, Code::Conflict),
        (Refused::BadIncrement { reason: String::new() }, Code::InvalidParameter),
        (Refused::RidReused, Code::InvalidParameter),
    ] {
        assert_eq!(Refusal::from(refused).code, expected);
    }
    assert_eq!(Refusal::from(Refused::NotFound { entries: 2 }).facts["entries"], 2);
    for (error, expected) in [
        (Error::NotLeader { serving: None }, Code::NotLeader),
        (Error::Busy("x"), Code::Busy),
        (Error::Unavailable("x".into()), Code::Unavailable),
        (Error::Timeout(std::time::Duration::from_secs(1)), Code::Timeout),
        (Error::Invalid("x".into()), Code::InvalidParameter),
        (Error::Unsupported("x".into()), Code::Unsupported),
        (Error::Internal("/secret/path".into()), Code::Internal),
    ] {
        let refusal = Refusal::from(error);
        assert_eq!(refusal.code, expected);
        assert!(!refusal.message.contains("secret"));
    }
}

#[test]
fn another_servers_error_is_told_apart() {
    for payload in ["Timeout", "{}", r#"{"code":"MINE","applied":"no","retry":false}"#, ""] {
        let error = ErrorReply { payload: payload.into(), encoding: String::new() };
        assert_eq!(reply::decode(Err(error.clone())), Answer::Foreign(error));
    }
}
