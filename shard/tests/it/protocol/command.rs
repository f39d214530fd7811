//! Commands and plain writes: section 4 of the contract.

use std::time::Duration;

use bytes::Bytes;
use odgm_shard::object::Value;
use odgm_shard::protocol::{Body, Code, CommandTarget, request};
use odgm_shard::state::{Command, Condition, Operation};

use super::{code, command, key, keys, shard, text};

fn operation(parameters: &str, body: Body) -> Operation {
    command("users/3/alice", parameters, body).unwrap().unwrap().command.operation
}

#[test]
fn a_put_carries_payload_encoding_attachment_and_one_condition() {
    for (parameters, expected) in [
        ("op=put", Condition::None),
        ("op=put;if_revision=7", Condition::Revision(7)),
        ("op=put;if_absent=1", Condition::Absent),
        ("op=put;if_present=1;if_absent=0", Condition::Present),
    ] {
        let body = Body { attachment: Some("tag".into()), ..text("v") };
        let Operation::Put { key: put, value, ttl_ms, condition } = operation(parameters, body) else {
            panic!("{parameters}")
        };
        assert_eq!((put, condition, ttl_ms), (key("alice", None), expected, None));
        let attachment = Some("tag".into());
        assert_eq!(value, Value { payload: "v".into(), encoding: "text/plain".into(), attachment });
    }
}

#[test]
fn the_other_commands_are_read() {
    let alice = || key("alice", None);
    assert_eq!(
        operation("op=delete", Body::default()),
        Operation::Delete { key: alice(), if_revision: None }
    );
    let conditional = operation("op=delete;if_revision=3", Body::default());
    assert_eq!(conditional, Operation::Delete { key: alice(), if_revision: Some(3) });
    assert_eq!(operation("op=increment", Body::default()), Operation::Increment { key: alice(), by: 1 });
    assert_eq!(
        operation("op=increment;by=-5", Body::default()),
        Operation::Increment { key: alice(), by: -5 }
    );
}

#[test]
fn a_rid_has_1_to_64_bytes_and_is_percent_decoded() {
    let rid = |rid: &str| command("users/3/alice", &format!("op=delete;rid={rid}"), Body::default());
    let read = rid("a%3Bb").unwrap().unwrap().command.rid;
    assert_eq!(read, Some(Bytes::from("a;b")));
    rid(&"x".repeat(64)).unwrap();
    assert_eq!(code(rid("")), Code::InvalidParameter);
    assert_eq!(code(rid(&"x".repeat(65))), Code::InvalidParameter);
    assert_eq!(code(rid(&"ü".repeat(33))), Code::InvalidParameter);
}

#[test]
fn wrong_commands_are_refused() {
    for parameters in [
        "",
        "op=",
        "op=erase",
        "op=put;op=put",
        "op=put;by=1",
        "op=put;colour=red",
        "op=delete;if_absent=1",
        "op=put;if_revision=x",
        "op=put;if_revision=1;if_absent=1",
        "op=put;if_absent=1;if_present=1",
        "op=put;if_absent=true",
        "op=increment;by=1.5",
        "op=increment;by=9223372036854775808",
        "op=put;ttl=soon",
        "op=put;ttl=none",
        "op=put;ttl=0s",
        "op=touch",
        "op=touch;ttl=1",
        "op=delete;limit=1",
        "op=put;rid=a;rid=a",
        "op=put;cons=local",
    ] {
        let refused = command("users/3/alice", parameters, Body::default());
        assert_eq!(code(refused), Code::InvalidParameter, "{parameters}");
    }
    for parameters in ["op=delete", "op=increment"] {
        assert_eq!(code(command("users/3/alice", parameters, text("x"))), Code::InvalidParameter);
    }
}

#[test]
fn an_op_must_fit_its_key() {
    assert_eq!(code(command("users/3", "op=put", text("x"))), Code::InvalidKey);
    assert_eq!(code(command("users/3/alice", "op=txn", text("{}"))), Code::InvalidKey);
    assert_eq!(code(command("users/*", "op=txn", text("{}"))), Code::InvalidKey);
    let request = command("users/3", "op=txn;timeout=1s", text("{}")).unwrap().unwrap();
    assert_eq!((request.target, request.timeout), (CommandTarget::Partition, Some(Duration::from_secs(1))));
}

#[test]
fn a_ttl_is_a_duration_or_for_touch_none() {
    let ttl_of = |parameters: &str, body| match command("users/3/alice", parameters, body) {
        Ok(Some(request)) => match request.command.operation {
            Operation::Put { ttl_ms, .. } | Operation::Touch { ttl_ms, .. } => ttl_ms,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(ttl_of("op=put;ttl=30s", text("x")), Some(30_000));
    assert_eq!(ttl_of("op=put", text("x")), None);
    assert_eq!(ttl_of("op=touch;ttl=250ms", Body::default()), Some(250));
    assert_eq!(ttl_of("op=touch;ttl=none", Body::default()), None);
    for wrong in ["op=touch", "op=touch;ttl=0s", "op=put;ttl=none", "op=put;ttl=1", "op=upkeep"] {
        assert_eq!(code(command("users/3/alice", wrong, Body::default())), Code::InvalidParameter, "{wrong}");
    }
    assert_eq!(code(command("users/3/alice", "op=touch;ttl=1s", text("x"))), Code::InvalidParameter);
}

#[test]
fn a_value_over_the_limit_is_too_large_and_the_limit_is_told() {
    operation("op=put", text("sixteen bytes ok"));
    let refusal = command("users/3/alice", "op=put", text("seventeen bytes !")).unwrap_err();
    assert_eq!(refusal.code, Code::TooLarge);
    assert_eq!(refusal.facts["limit"], 16);
    let attached = Body { attachment: Some("seventeen bytes !".into()), ..text("x") };
    assert_eq!(code(command("users/3/alice", "op=put", attached)), Code::TooLarge);
    let plain = request::plain(&keys(), &shard(3), 16, "odgm/users/3/alice", text("seventeen bytes !"));
    assert_eq!(code(plain), Code::TooLarge);
}

#[test]
fn plain_puts_and_deletes_become_commands_of_the_owner() {
    let plain = |key: &str, body| request::plain(&keys(), &shard(3), 16, key, body);
    let put = plain("odgm/users/3/alice/e", text("x")).unwrap().unwrap();
    assert!(matches!(put.operation, Operation::Put { condition: Condition::None, .. }));
    let deleted = plain("odgm/users/*/alice", Body::default()).unwrap().unwrap();
    assert_eq!(
        deleted,
        Command { rid: None, operation: Operation::Delete { key: key("alice", None), if_revision: None } }
    );
    assert_eq!(plain("odgm/users/*/bob", text("x")).unwrap(), None);
    assert_eq!(code(plain("odgm/users/3/bob", text("x"))), Code::WrongPartition);
    for path in ["odgm/users/3/*", "odgm/users/**", "odgm/**", "odgm/users/3"] {
        assert_eq!(code(plain(path, Body::default())), Code::InvalidKey, "{path}");
    }
}

#[test]
fn what_a_client_encodes_is_what_the_server_reads() {
    let put = |condition| Operation::Put {
        key: key("alice", None),
        value: Value { payload: "v".into(), encoding: "a/b;c".into(), attachment: Some("t".into()) },
        ttl_ms: None,
        condition,
    };
    for operation in [
        put(Condition::None),
        put(Condition::Revision(u64::MAX)),
        put(Condition::Absent),
        put(Condition::Present),
        Operation::Delete { key: key("alice", None), if_revision: Some(0) },
        Operation::Increment { key: key("alice", None), by: i64::MIN },
    ] {
        let sent = Command { rid: Some("r;=% ü".into()), operation };
        let encoded = request::encode_command(&sent, Some(Duration::from_millis(1500)));
        let read = command("users/3/alice", &encoded.parameters, encoded.body).unwrap().unwrap();
        assert_eq!((read.command, read.timeout), (sent, Some(Duration::from_millis(1500))));
    }
}
