//! Whatever comes in, parsing it gives an answer and never a panic.

use bytes::Bytes;
use odgm_shard::protocol::{Body, Keys, Plane, cursor, parameters, reply, request};
use odgm_transport::session::ErrorReply;
use proptest::prelude::*;

use super::{keys, shard};

fn any_parameters() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "op",
        "rid",
        "ttl",
        "if_revision",
        "if_absent",
        "by",
        "cons",
        "limit",
        "cursor",
        "keys",
        "end",
        "timeout",
        "incarnation",
        "index",
        "from",
        "x",
        "",
    ]);
    let value =
        prop_oneof!["put|delete|increment|touch|txn", "[0-9]{0,25}(ms|s|d)?", ".{0,12}", "%[0-9a-g]{0,3}ü?"];
    let pairs = prop::collection::vec((name, value), 0..5);
    prop_oneof![
        pairs.prop_map(|pairs| {
            pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";")
        }),
        ".{0,40}",
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    let chunk = prop_oneof![
        prop::sample::select(vec![
            "odgm", "@cmd", "@ev", "@near", "users", "3", "*", "**", "$*", "alice", "@", ""
        ]),
        Just("é"),
    ];
    let chunks = prop::collection::vec(chunk, 0..8).prop_map(|chunks| chunks.join("/"));
    prop_oneof![chunks, ".{0,40}"]
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let json = r#"\{"(if|then|else)":\[\{"(put|delete|increment)":\{"object":".{0,3}","value":("."|\{"base64":".."\}|7)\}\}\]\}"#;
    prop_oneof![prop::collection::vec(any::<u8>(), 0..60), json.prop_map(String::into_bytes)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_parser_panics(key in any_key(), parameters in any_parameters(), payload in any_payload()) {
        let (keys, shard) = (keys(), shard(3));
        let body = || Body { payload: Some(payload.clone().into()), ..Body::default() };
        for plane in [Plane::Data, Plane::Near, Plane::Event, Plane::Command] {
            let _ = keys.data_query(plane, &key, &shard);
            let _ = keys.command_target(plane, &key, &shard);
            let _ = keys.parse(plane, &key);
            let _ = keys.matching(plane, &shard.collection, shard.partition, &key);
        }
        let _ = request::read(&keys, Plane::Data, &shard, &key, &parameters);
        let _ = request::read(&keys, Plane::Data, &shard, "odgm/users/3/**", &parameters);
        let _ = request::replay(&keys, &shard, "odgm/@ev/users/3/**", &parameters);
        let _ = request::plain(&keys, &shard, 16, &key, body());
        let _ = request::command(&keys, &shard, 16, &key, &parameters, body());
        let _ = request::command(&keys, &shard, 16, "odgm/@cmd/users/3/alice", &parameters, body());
        let _ = request::command(&keys, &shard, 16, "odgm/@cmd/users/3", "op=txn", body());
        let _ = cursor::decode(&parameters);
        let _ = Keys::new(&key);
        let _ = reply::decode(Err(ErrorReply { payload: Bytes::from(payload), encoding: String::new() }));
    }

    #[test]
    fn percent_encoding_goes_both_ways(text in ".{0,40}") {
        let encoded = parameters::percent_encode(&text);
        prop_assert!(encoded.is_ascii() && !encoded.contains([';', '=', '&', '?']));
        prop_assert_eq!(parameters::percent_decode(&encoded), Some(text));
    }
}
