//! Parameters of reads: section 3 of the contract.

use std::ops::Bound;
use std::time::Duration;

use odgm_shard::protocol::{
    Code, Consistency, DataQuery, Plane, ReadParameters, ReadRequest, Refusal, cursor, request,
};

use odgm_shard::state::IndexQuery;
use odgm_storage::data::index::IndexValue;

use super::{code, key, keys, shard};

fn read(path: &str, parameters: &str) -> Result<ReadRequest, Refusal> {
    let read = request::read(&keys(), Plane::Data, &shard(3), &format!("odgm/users/{path}"), parameters);
    read.map(|request| request.expect("owned"))
}

#[test]
fn every_parameter_is_read_and_written_back_the_same() {
    let after = Some(key("ü %;=", Some("e+f")));
    let all = ReadParameters {
        consistency: Some(Consistency::Local),
        limit: Some(7),
        after,
        find: None,
        keys_only: true,
        count_only: true,
        end: true,
        missing_empty: true,
        timeout: Some(Duration::from_millis(2500)),
        incarnation: Some([0xab; 16]),
    };
    assert_eq!(read("3/**", &all.encode()).unwrap().parameters, all);
    assert_eq!(read("3/**", "").unwrap().parameters, ReadParameters::default());
    assert_eq!(read("3/alice", "_anyke").unwrap().query, DataQuery::Concrete(key("alice", None)));
    let text = "cons=linearizable;timeout=2s;keys=0";
    let parsed = read("3/**", text).unwrap().parameters;
    assert_eq!((parsed.consistency, parsed.keys_only), (Some(Consistency::Linearizable), false));
    assert_eq!(parsed.timeout, Some(Duration::from_secs(2)));
}

#[test]
fn unknown_doubled_and_wrong_parameters_are_refused_with_what_is_allowed() {
    for (parameters, word) in [
        ("colour=red", "allowed are cons"),
        ("op=put", "no parameter of a read"),
        ("limit=1;limit=1", "given twice"),
        ("cons=strong", "linearizable or local"),
        ("cons=", "linearizable or local"),
        ("limit=0", "from 1"),
        ("limit=-1", "from 1"),
        ("limit=+1", "from 1"),
        ("limit=99999999999999999999", "from 1"),
        ("limit", "from 1"),
        ("keys=yes", "1 or 0"),
        ("end=", "1 or 0"),
        ("count=2", "1 or 0"),
        ("missing=null", "empty"),
        ("timeout=2", "100ms"),
        ("timeout=0s", "100ms"),
        ("timeout=2h", "to 1h"),
        ("cursor=garbage", "END"),
        ("incarnation=xyz", "32 hex digits"),
        ("incarnation=+0000000000000000000000000000001", "32 hex digits"),
        ("limit=%zz", "percent"),
        ("limit=%f", "percent"),
        ("limit=%ff", "percent"),
        ("=1", "no name"),
        ("eq=1", "need an index"),
        ("_time=[now(-1h)..]", "no parameter"),
    ] {
        let refusal = read("3/**", parameters).unwrap_err();
        assert_eq!(refusal.code, Code::InvalidParameter, "{parameters}");
        assert!(refusal.message.contains(word), "{parameters}: {}", refusal.message);
    }
}

#[test]
fn values_are_percent_encoded() {
    assert_eq!(read("3/**", "cons=%6coc%61l").unwrap().parameters.consistency, Some(Consistency::Local));
}

#[test]
fn an_index_is_asked_for_a_value_or_a_range_of_them() {
    let find = |parameters: &str| read("3/*", parameters).unwrap().parameters.find.unwrap();
    let eq = find("index=age;eq=7").query;
    assert_eq!(
        (eq.name.as_str(), eq.from, eq.to),
        ("age", Bound::Included(7_i64.into()), Bound::Included(7_i64.into()))
    );
    let range = find("index=age;ge=-1.5;lt=%22b%22").query;
    assert_eq!(range.from, Bound::Included(IndexValue::of_f64(-1.5).unwrap()));
    assert_eq!(range.to, Bound::Excluded("b".into()));
    assert_eq!(
        find("index=city;ge=Paris").query,
        IndexQuery { name: "city".into(), from: Bound::Included("Paris".into()), to: Bound::Unbounded }
    );
    let cursor = cursor::encode_hit(&7_i64.into(), &key("alice", Some("name")));
    let page = format!("limit=5;index=age;eq=7;cursor={cursor}");
    assert_eq!(find(&page).after, Some((7_i64.into(), key("alice", Some("name")))));
    assert_eq!(
        read("3/*", &read("3/*", &page).unwrap().parameters.encode()).unwrap(),
        read("3/*", &page).unwrap()
    );
    for wrong in ["index=age", "index=age;eq=1;lt=2", "ge=1", "index=age;eq=7;limit=x"] {
        assert_eq!(code(read("3/*", wrong)), Code::InvalidParameter, "{wrong}");
    }
    assert_eq!(code(read("3/alice", "index=age;eq=7")), Code::InvalidParameter);
    assert_eq!(code(read("*/*", &page)), Code::InvalidParameter);
    let by_key = format!("index=age;eq=7;cursor={}", cursor::encode(&key("alice", None)));
    assert_eq!(code(read("3/*", &by_key)), Code::InvalidParameter);
}

#[test]
fn a_replay_needs_a_concrete_partition_to_begin_at_a_revision() {
    let replay = |key: &str, parameters| request::replay(&keys(), &shard(3), key, parameters);
    let asked = replay("odgm/@ev/users/3/**", "from=7;limit=5;end=1").unwrap().unwrap();
    assert_eq!((asked.from, asked.limit, asked.end), (Some(7), Some(5), true));
    assert_eq!(replay("odgm/@ev/users/*/alice/**", "").unwrap().unwrap().from, None);
    assert_eq!(replay("odgm/@ev/users/*/bob", "").unwrap(), None);
    assert_eq!(code(replay("odgm/@ev/users/3/**", "from=x")), Code::InvalidParameter);
    assert_eq!(code(replay("odgm/@ev/users/3/**", "limit=0")), Code::InvalidParameter);
    assert_eq!(code(replay("odgm/@ev/users/*/**", "from=1")), Code::InvalidParameter);
    assert_eq!(code(replay("odgm/@ev/users/3/bob", "from=1")), Code::WrongPartition);
}

#[test]
fn cursor_and_incarnation_need_a_concrete_partition() {
    let cursor = format!("cursor={}", cursor::encode(&key("alice", None)));
    let incarnation = "incarnation=000102030405060708090a0b0c0d0e0f";
    for parameters in [cursor.as_str(), incarnation] {
        read("3/*", parameters).unwrap();
        for path in ["*/*", "**", "$*/**"] {
            assert_eq!(code(read(path, parameters)), Code::InvalidParameter, "{path}");
        }
    }
    assert_eq!(code(read("3/alice", &cursor)), Code::InvalidParameter);
}

#[test]
fn a_near_read_is_local_and_of_one_partition() {
    let near = |path: &str, parameters| {
        request::read(&keys(), Plane::Near, &shard(3), &format!("odgm/@near/users/{path}"), parameters)
    };
    near("3/alice", "cons=local").unwrap().unwrap();
    assert_eq!(code(near("3/alice", "cons=linearizable")), Code::Unsupported);
    assert_eq!(code(near("*/alice", "")), Code::InvalidKey);
}

#[test]
fn a_cursor_is_safe_in_a_parameter_and_refuses_any_change() {
    for key in [key("a", None), key("a", Some("b")), key("日本 %&;", Some("=+"))] {
        let cursor = cursor::encode(&key);
        assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert_eq!(cursor::decode(&cursor), Some(key));
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(cursor::decode(std::str::from_utf8(&changed).unwrap()), None);
        }
    }
}
