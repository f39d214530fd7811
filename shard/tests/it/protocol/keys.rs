//! Keys: section 2 of the contract.

use odgm_shard::object::Partition;
use odgm_shard::protocol::{Code, CommandTarget, DataQuery, Keys, PartitionChunk, Plane, partition_clock};
use odgm_transport::KeyExpr;
use proptest::prelude::*;

use super::{code, key, keys, shard};

fn data(path: &str, partition: u32) -> Result<Option<DataQuery>, odgm_shard::protocol::Refusal> {
    keys().data_query(Plane::Data, &format!("odgm/{path}"), &shard(partition))
}

fn holds(path: &str, object: &str, entry: Option<&str>) -> bool {
    match data(path, 3).unwrap() {
        Some(DataQuery::Wildcard(selection)) => selection.contains(&key(object, entry)),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn keys_of_each_plane_are_built_as_the_contract_says() {
    let (keys, users) = (keys(), shard(3).collection);
    let (alice, partition) = (key("alice", Some("name")), Partition(3));
    let built = |plane| keys.object(plane, &users, partition, &alice).to_string();
    assert_eq!(built(Plane::Data), "odgm/users/3/alice/name");
    assert_eq!(built(Plane::Command), "odgm/@cmd/users/3/alice/name");
    assert_eq!(built(Plane::Near), "odgm/@near/users/3/alice/name");
    assert_eq!(built(Plane::Event), "odgm/@ev/users/3/alice/name");
    let any = keys.object(Plane::Data, &users, PartitionChunk::Any, &key("ü", None));
    assert_eq!(any.as_str(), "odgm/users/*/ü");
    assert_eq!(keys.shard(Plane::Command, &users, partition).as_str(), "odgm/@cmd/users/3/**");
    assert_eq!(keys.partition(Plane::Command, &users, partition).as_str(), "odgm/@cmd/users/3");
    assert_eq!(keys.meta(&users).as_str(), "odgm/@meta/users");
    assert_eq!(keys.live_shard(&users, partition).as_str(), "odgm/@live/shard/users/3");
    assert_eq!(keys.live_node("n").unwrap().as_str(), "odgm/@live/node/n");
    assert_eq!(keys.admin(&["nodes", "n"]).unwrap().as_str(), "odgm/@admin/nodes/n");
    for plane in [Plane::Data, Plane::Command, Plane::Near, Plane::Event] {
        let read = keys.parse(plane, &built(plane));
        assert_eq!(read, Some((users.clone(), partition, alice.clone())));
    }
    assert_eq!(keys.parse(Plane::Data, "odgm/users/03/alice"), None);
    assert_eq!(keys.parse(Plane::Data, "odgm/@cmd/users/3/alice"), None);
}

#[test]
fn a_root_may_have_chunks_but_no_wildcards() {
    let keys = Keys::new("plant/7").unwrap();
    let query = keys.data_query(Plane::Data, "plant/7/users/3/alice", &shard(3)).unwrap();
    assert_eq!(query, Some(DataQuery::Concrete(key("alice", None))));
    for root in ["", "a//b", "/a", "a/", "a/*", "**", "a$*"] {
        assert_eq!(code(Keys::new(root)), Code::InvalidKey, "{root}");
    }
}

#[test]
fn the_owner_answers_a_partition_wildcard_and_the_others_stay_silent() {
    let concrete = Some(DataQuery::Concrete(key("alice", None)));
    assert_eq!(data("users/*/alice", 3).unwrap(), concrete);
    assert_eq!(data("users/$*3/alice", 3).unwrap(), concrete);
    assert_eq!(data("*/*/alice", 3).unwrap(), concrete);
    for partition in 0..3 {
        assert_eq!(data("users/*/alice", partition).unwrap(), None);
    }
    let target = keys().command_target(Plane::Command, "odgm/@cmd/users/*/alice", &shard(0));
    assert_eq!(target.unwrap(), None);
}

#[test]
fn a_wrong_concrete_partition_is_told_the_right_one() {
    let refusal = data("users/0/alice", 0).unwrap_err();
    assert_eq!(refusal.code, Code::WrongPartition);
    assert_eq!(refusal.facts["partition"], 3);
    let command = keys().command_target(Plane::Command, "odgm/@cmd/users/0/alice/e", &shard(0));
    assert_eq!(command.unwrap_err().facts["partition"], 3);
}

#[test]
fn only_the_object_and_entry_chunks_decide_whether_a_key_is_concrete() {
    let own = (("alice", None), ("bob", Some("e")));
    for (path, first, second) in [
        ("**", true, true),
        ("*/*/*", true, false),
        ("users/**", true, true),
        ("users/*/*", true, false),
        ("users/3/**", true, true),
        ("users/3/*/*", false, true),
        ("users/3/$*l$*", true, false),
        ("users/*/alice/**", true, false),
        ("**/alice", true, false),
        ("**/e", false, true),
        ("*/**/3/**/e", false, true),
        ("other/**", false, false),
        ("*/2/**", false, false),
        ("users/3/*/*/*", false, false),
    ] {
        assert_eq!((holds(path, own.0.0, own.0.1), holds(path, own.1.0, own.1.1)), (first, second), "{path}");
    }
}

#[test]
fn a_key_that_no_object_can_have_is_invalid() {
    for path in ["users/3", "users/3/a/b/c", "users/3/@a", "users/3/a/@b", "users/3/a\u{7}"] {
        assert_eq!(code(data(path, 3)), Code::InvalidKey, "{path}");
    }
    let long = format!("users/3/{}", "x".repeat(256));
    assert_eq!(code(data(&long, 3)), Code::InvalidKey);
}

#[test]
fn a_key_that_no_object_can_have_is_refused_by_one_partition_alone() {
    let long = "x".repeat(256);
    for path in [&long, "a\u{7}", "alice/\u{7}", "alice/a/b"] {
        let asked = (0..4).map(|partition| data(&format!("users/*/{path}"), partition));
        let answers: Vec<_> = asked.filter(|answer| !matches!(answer, Ok(None))).collect();
        assert_eq!(answers.len(), 1, "{path:?}: {answers:?}");
        assert_eq!(answers[0].as_ref().unwrap_err().code, Code::InvalidKey, "{path:?}");
    }
}

#[test]
fn a_write_takes_no_wildcard_but_the_partitions_star() {
    let target = |path: &str| keys().command_target(Plane::Command, &format!("odgm/@cmd/{path}"), &shard(3));
    let alice = CommandTarget::Key(key("alice", None));
    assert_eq!(target("users/3/alice").unwrap(), Some(alice.clone()));
    assert_eq!(target("users/*/alice").unwrap(), Some(alice));
    assert_eq!(target("users/3").unwrap(), Some(CommandTarget::Partition));
    for path in [
        "users/3/*",
        "users/3/**",
        "users/3/ali$*",
        "users/3/alice/*",
        "users/3/alice/**",
        "users/$*/alice",
        "users/**",
        "users/**/alice",
        "*/3/alice",
        "**",
        "users/*",
        "users/3/@x",
        "users/3/a/b/c",
    ] {
        assert_eq!(code(target(path)), Code::InvalidKey, "{path}");
    }
}

#[test]
fn a_partitions_clock_is_its_own_and_not_zero() {
    let clocks: Vec<_> = (0..4).map(|partition| partition_clock([7; 16], Partition(partition))).collect();
    assert!(clocks.iter().all(|clock| *clock != [0; 16]));
    assert_ne!(clocks[0], clocks[1]);
    assert_ne!(clocks[0], partition_clock([8; 16], Partition(0)));
    assert_eq!(clocks[0], partition_clock([7; 16], Partition(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_query_holds_the_keys_that_zenoh_intersects(
        chunks in prop::collection::vec(
            prop::sample::select(vec!["odgm", "users", "3", "alice", "e", "*", "**", "$*e", "a$*", "@cmd"]), 1..7,
        ),
        entry in any::<bool>(),
        commands in any::<bool>(),
    ) {
        let Ok(expr) = KeyExpr::autocanonize(chunks.join("/")) else { return Ok(()) };
        let plane = if commands { Plane::Command } else { Plane::Data };
        let alice = key("alice", entry.then_some("e"));
        let full = keys().object(plane, &shard(3).collection, Partition(3), &alice);
        let found = match keys().data_query(plane, expr.as_str(), &shard(3)) {
            Ok(Some(DataQuery::Concrete(found))) => found == alice,
            Ok(Some(DataQuery::Wildcard(selection))) => selection.contains(&alice),
            Ok(None) | Err(_) => false,
        };
        prop_assert_eq!(found, expr.intersects(&full), "{} and {}", expr, full);
    }
}
