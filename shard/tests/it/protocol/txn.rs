//! Transactions as JSON.

use odgm_shard::protocol::{Code, Refusal, request};
use odgm_shard::state::{Check, CheckKind, Command, Operation, Step};

use odgm_transport::link::{LinkOptions, PeerId};

use super::{code, command, key, keys, shard, text};

type Branches = (Vec<Check>, Vec<Step>, Vec<Step>);

fn txn(json: &str) -> Result<Branches, Refusal> {
    match command("users/3", "op=txn", text(json))?.unwrap().command.operation {
        Operation::Txn { checks, then, otherwise } => Ok((checks, then, otherwise)),
        other => panic!("{other:?}"),
    }
}

// Of partition 3 of 4 are: alice, and the ids that `mine` finds.
fn mine(count: usize) -> Vec<String> {
    let ids = (0..).map(|n| format!("o{n}"));
    ids.filter(|id| crc32fast::hash(id.as_bytes()) % 4 == 3).take(count).collect()
}

#[test]
fn the_contracts_example_is_read() {
    let ids = mine(4);
    let (a, b, c, n) = (&ids[0], &ids[1], &ids[2], &ids[3]);
    let json = format!(
        r#"{{"if":[{{"object":"{a}","revision":7}},{{"object":"{b}","absent":true}},{{"object":"{c}","value":"x"}}],
        "then":[{{"put":{{"object":"{a}","entry":"e","value":{{"base64":"/wA="}},"encoding":"text/plain"}}}},
        {{"delete":{{"object":"{b}"}}}},{{"increment":{{"object":"{n}","by":2}}}}],"else":[]}}"#
    );
    let (checks, then, otherwise) = txn(&json).unwrap();
    let kinds: Vec<_> = checks.into_iter().map(|check| check.kind).collect();
    assert_eq!(kinds, [CheckKind::Revision(7), CheckKind::Absent, CheckKind::Value("x".into())]);
    let Step::Put { key: put, value, .. } = &then[0] else { panic!() };
    assert_eq!(
        (put, &value.payload[..], value.encoding.as_str()),
        (&key(a, Some("e")), &[0xff, 0][..], "text/plain")
    );
    assert_eq!(then[1], Step::Delete { key: key(b, None) });
    assert_eq!(then[2], Step::Increment { key: key(n, None), by: 2 });
    assert!(otherwise.is_empty());
    let sent = Command {
        rid: None,
        operation: command("users/3", "op=txn", text(&json)).unwrap().unwrap().command.operation,
    };
    let encoded = request::encode_command(&sent, None);
    assert_eq!(command("users/3", &encoded.parameters, encoded.body).unwrap().unwrap().command, sent);
}

#[test]
fn wrong_json_is_an_invalid_parameter() {
    for json in [
        "",
        "no",
        "[]",
        "null",
        "7",
        r#"{"iff":[]}"#,
        r#"{"then":7}"#,
        r#"{"then":[{}]}"#,
        r#"{"then":[],"then":[]}"#,
        r#"{"then":[{"erase":{"object":"alice"}}]}"#,
        r#"{"then":[{"put":{"object":"alice"}}]}"#,
        r#"{"then":[{"put":{"object":"alice","value":7}}]}"#,
        r#"{"then":[{"put":{"object":"alice","value":{"base64":"!"}}}]}"#,
        r#"{"then":[{"put":{"object":"alice","value":{"base64":"YQ==","text":"a"}}}]}"#,
        r#"{"then":[{"put":{"object":"alice","value":"x","colour":1}}]}"#,
        r#"{"then":[{"put":{"object":"alice","value":"x","ttl":"soon"}}]}"#,
        r#"{"then":[{"put":{"object":"alice","value":"x"},"delete":{"object":"alice","entry":"e"}}]}"#,
        r#"{"then":[{"increment":{"object":"alice","by":1.5}}]}"#,
        r#"{"if":[{"object":"alice"}]}"#,
        r#"{"if":[{"object":"alice","revision":1,"absent":true}]}"#,
        r#"{"if":[{"object":"alice","revision":-1}]}"#,
        r#"{"if":[{"revision":1}]}"#,
        r#"{} x"#,
        r#"[[],[],[]]"#,
        r#"{"if":[["alice",null,1]]}"#,
        r#"{"then":[{"delete":["alice"]}]}"#,
        r#"{"then":[{"put":{"object":"alice","value":["YQ=="]}}]}"#,
    ] {
        assert_eq!(code(txn(json)), Code::InvalidParameter, "{json}");
    }
    let deep = "[".repeat(100_000);
    assert_eq!(code(txn(&deep)), Code::InvalidParameter);
}

#[test]
fn a_key_touched_twice_in_a_branch_is_refused() {
    let put = r#"{"put":{"object":"alice","value":"x"}}"#;
    let entry = r#"{"put":{"object":"alice","entry":"e","value":"x"}}"#;
    let delete = r#"{"delete":{"object":"alice"}}"#;
    let delete_entry = r#"{"delete":{"object":"alice","entry":"e"}}"#;
    let increment = r#"{"increment":{"object":"alice"}}"#;
    for (first, second) in [
        (put, put),
        (put, increment),
        (put, delete),
        (delete, put),
        (entry, delete),
        (delete, entry),
        (entry, delete_entry),
        (delete, delete),
        (delete_entry, delete),
    ] {
        assert_eq!(code(txn(&format!(r#"{{"then":[{first},{second}]}}"#))), Code::InvalidParameter);
        assert_eq!(code(txn(&format!(r#"{{"else":[{first},{second}]}}"#))), Code::InvalidParameter);
        txn(&format!(r#"{{"then":[{first}],"else":[{second}]}}"#)).unwrap();
    }
    txn(&format!(r#"{{"then":[{put},{entry}]}}"#)).unwrap();
}

#[test]
fn objects_must_be_names_of_this_partition_and_values_within_the_limit() {
    let refusal = txn(r#"{"if":[{"object":"bob","absent":true}]}"#).unwrap_err();
    assert_eq!((refusal.code, &refusal.facts["partition"]), (Code::WrongPartition, &0.into()));
    assert_eq!(refusal.facts["object"], "bob");
    assert_eq!(code(txn(r#"{"then":[{"delete":{"object":"a/b"}}]}"#)), Code::InvalidKey);
    assert_eq!(code(txn(r#"{"then":[{"delete":{"object":"alice","entry":""}}]}"#)), Code::InvalidKey);
    let large = r#"{"then":[{"put":{"object":"alice","value":"seventeen bytes !"}}]}"#;
    assert_eq!(txn(large).unwrap_err().facts["limit"], 16);
    let ttl = r#"{"then":[{"put":{"object":"alice","value":"x","ttl":"30s"}}]}"#;
    let (_, then, _) = txn(ttl).unwrap();
    assert!(matches!(then[..], [Step::Put { ttl_ms: Some(30_000), .. }]), "{then:?}");
}

#[test]
fn a_transaction_is_no_larger_than_what_one_message_brings_to_the_other_replicas() {
    let txn = |values: usize| {
        let puts: Vec<_> = mine(values)
            .iter()
            .map(|id| serde_json::json!({"put": {"object": id, "value": "x".repeat(8 << 20)}}))
            .collect();
        let (then, otherwise) = puts.split_at(values / 2);
        let body = text(&serde_json::json!({"then": then, "else": otherwise}).to_string());
        request::command(&keys(), &shard(3), 8 << 20, "odgm/@cmd/users/3", "op=txn", body)
    };
    assert!(txn(3).is_ok());
    let refusal = txn(4).unwrap_err();
    assert_eq!((refusal.code, &refusal.facts["limit"]), (Code::TooLarge, &(32 << 20).into()));
    let options = LinkOptions::new("odgm", PeerId(1), "odgm-0", 1);
    assert!(32 << 20 <= options.max_message_bytes - (8 << 20), "what is beside it in an entry fits too");
}
