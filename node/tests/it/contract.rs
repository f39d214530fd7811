//! The contract's sections 1 to 7 as a stranger with a stock zenoh session meets them, on a node of its
//! own in a process of its own.

use odgm_shard::protocol::attachment::Attachment;
use serde_json::Value;
use zenoh::sample::{Sample, SampleKind};

use crate::cli_node::Node;
use crate::stranger::{answered, ask, until};

fn numbers(sample: &Sample) -> Attachment {
    Attachment::decode(&sample.attachment().unwrap().to_bytes().into_owned().into()).unwrap()
}

fn text(sample: &Sample) -> String {
    String::from_utf8(sample.payload().to_bytes().into_owned()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_comes_back_as_it_was_put_with_numbers_and_commit_time() {
    let node = Node::start();
    let session = answered(&node.endpoint).await;
    let put = ask(&session, "odgm/@cmd/default/*/alice?op=put", Some(b"hello")).await.one();
    assert_eq!(put.key_expr().as_str(), "odgm/@cmd/default/3/alice");
    for key in ["odgm/default/*/alice", "odgm/default/3/alice", "odgm/@near/default/3/alice"] {
        let got = ask(&session, key, None).await.one();
        assert_eq!(got.key_expr().as_str(), key.replace('*', "3"));
        assert_eq!(
            (text(&got).as_str(), got.encoding().to_string().as_str()),
            ("hello", "text/plain;charset")
        );
        let numbers = numbers(&got);
        assert_eq!((numbers.revision, numbers.created_revision, numbers.version), (1, 1, 1));
        assert_eq!((&numbers.user[..], numbers.expires_unix_ms), (&b"mine"[..], 0));
        assert!(got.timestamp().is_some());
    }
    for id in ["ü", "日本", "a b", "a%20b", &"x".repeat(255), &"ü".repeat(127)] {
        ask(&session, &format!("odgm/@cmd/default/*/{id}?op=put"), Some(id.as_bytes())).await.one();
        assert_eq!(text(&ask(&session, &format!("odgm/default/*/{id}"), None).await.one()), id);
    }
    let meta = ask(&session, "odgm/@meta/default", None).await.one();
    let meta: Value = serde_json::from_str(&text(&meta)).unwrap();
    assert_eq!((&meta["partitions"], &meta["hash"]), (&4.into(), &"crc32".into()));
    assert_eq!(meta["shards"][3]["serving"], "odgm-0");
    ask(&session, "odgm/@meta/nothing", None).await.refused("NO_COLLECTION");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_end_and_events_follow_the_revisions() {
    let node = Node::start();
    let session = answered(&node.endpoint).await;
    let events = session.declare_subscriber("odgm/@ev/**").await.unwrap();
    // Behind the subscription on the same link.
    ask(&session, "odgm/@meta/default", None).await.one();
    for (key, op) in [("alice", "put"), ("alice/b", "put"), ("alice/a", "put"), ("alice", "delete")] {
        let payload = (op == "put").then_some(&b"x"[..]);
        if op == "delete" {
            let values = ask(&session, "odgm/default/3/alice/**?end=1", None).await;
            let keys = ["odgm/default/3/alice", "odgm/default/3/alice/a", "odgm/default/3/alice/b"];
            assert_eq!(values.keys(), keys);
            assert!(values.ended && values.codes() == ["END"], "{values:?}");
            let end = &values.errors[0];
            assert_eq!((&end["revision"], &end["count"], &end["next"]), (&3.into(), &3.into(), &Value::Null));
            let page = ask(&session, "odgm/default/3/alice/*?end=1;limit=1;keys=1", None).await;
            assert_eq!((page.keys(), text(&page.samples[0])), (vec![keys[1]], String::new()));
            let next = page.errors[0]["next"].as_str().unwrap();
            let rest = format!("odgm/default/3/alice/*?end=1;limit=1;cursor={next}");
            assert_eq!(ask(&session, &rest, None).await.keys(), [keys[2]]);
            assert_eq!(ask(&session, "odgm/default/*/*/*?count=1", None).await.codes(), ["END"; 4]);
        }
        ask(&session, &format!("odgm/@cmd/default/*/{key}?op={op}"), payload).await.one();
    }
    let mut seen = Vec::new();
    let mut last = None;
    for _ in 0..6 {
        let event = events.recv_async().await.unwrap();
        let time = event.timestamp().copied();
        assert!(time > last, "{event:?}");
        last = time;
        let is_put = event.kind() == SampleKind::Put;
        seen.push((event.key_expr().as_str().to_owned(), is_put, numbers(&event).revision));
    }
    let key = |key: &str| format!("odgm/@ev/default/3/{key}");
    let expected = [
        (key("alice"), true, 1),
        (key("alice/b"), true, 2),
        (key("alice/a"), true, 3),
        (key("alice/a"), false, 4),
        (key("alice/b"), false, 5),
        (key("alice"), false, 6),
    ];
    assert_eq!(seen, expected);
    assert_eq!(ask(&session, "odgm/default/3/alice", None).await.refused("NOT_FOUND")["entries"], 0);
    assert!(ask(&session, "odgm/default/*/alice/**", None).await.keys().is_empty());
    let silent = ask(&session, "odgm/default/3/alice?missing=empty", None).await;
    assert!(silent.samples.is_empty() && silent.errors.is_empty(), "{silent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_repeated_with_its_rid_is_the_same_to_the_byte() {
    let node = Node::start();
    let session = answered(&node.endpoint).await;
    let refused = "odgm/@cmd/default/*/alice?op=put;if_present=1;rid=r1";
    let first = ask(&session, refused, Some(b"x")).await.refused("NOT_FOUND").clone();
    ask(&session, "odgm/@cmd/default/*/alice?op=put", Some(b"x")).await.one();
    assert_eq!(*ask(&session, refused, Some(b"x")).await.refused("NOT_FOUND"), first);
    ask(&session, "odgm/@cmd/default/*/alice?op=put;rid=r1", Some(b"x")).await.refused("INVALID_PARAMETER");
}

#[tokio::test(flavor = "multi_thread")]
async fn liveliness_tells_of_the_node_and_of_each_served_shard() {
    let node = Node::start();
    let session = answered(&node.endpoint).await;
    let mut tokens = Vec::new();
    let replies = session.liveliness().get("odgm/@live/**").await.unwrap();
    while let Ok(reply) = replies.recv_async().await {
        tokens.push(reply.result().unwrap().key_expr().as_str().to_owned());
    }
    tokens.sort();
    let mut expected: Vec<_> = (0..4).map(|n| format!("odgm/@live/shard/default/{n}")).collect();
    expected.insert(0, "odgm/@live/node/odgm-0".to_owned());
    assert_eq!(tokens, expected);
    // A subscription to the data key sees what is put plainly, and no commands.
    let puts = session.declare_subscriber("odgm/**").await.unwrap();
    ask(&session, "odgm/@cmd/default/*/bob?op=put", Some(b"x")).await.one();
    session.put("odgm/default/0/bob", "plain").await.unwrap();
    assert_eq!(puts.recv_async().await.unwrap().key_expr().as_str(), "odgm/default/0/bob");
    until(&session, "odgm/default/0/bob", |answers| {
        answers.samples.first().is_some_and(|sample| text(sample) == "plain")
    })
    .await;
}
