//! `@admin` as a stranger asks it: repeats, lists, and what is refused.

use serde_json::Value;

use crate::cli_node::Node;
use crate::stranger::{Answers, answered, ask};

fn json(answers: Answers) -> Value {
    serde_json::from_slice(&answers.one().payload().to_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_answer_and_does_nothing() {
    let mut node = Node::start();
    let session = answered(&node.endpoint).await;
    let create = "odgm/@admin/collections/users?op=create;rid=a";
    let one = Some(&b"partitions: 1"[..]);
    let first = json(ask(&session, create, one).await)["incarnation"].clone();
    assert_eq!(json(ask(&session, create, one).await)["incarnation"], first);
    ask(&session, create, Some(b"partitions: 2")).await.refused("INVALID_PARAMETER");
    ask(&session, "odgm/@admin/collections/users?op=create", one).await.refused("EXISTS");
    let delete = "odgm/@admin/collections/users?op=delete;rid=b";
    let deleted = json(ask(&session, delete, None).await);
    assert_eq!(deleted["deleted"], "users");
    assert_eq!(json(ask(&session, delete, None).await), deleted);
    // What is repeated late neither creates nor deletes, on a node that was started anew, too.
    node.kill();
    node.restart(&[]);
    let session = answered(&node.endpoint).await;
    assert_eq!(json(ask(&session, create, one).await)["incarnation"], first);
    ask(&session, "odgm/@meta/users", None).await.refused("NO_COLLECTION");
    let again = json(ask(&session, "odgm/@admin/collections/users?op=create;rid=c", one).await);
    assert_ne!(again["incarnation"], first);
    assert_eq!(json(ask(&session, delete, None).await), deleted);
    assert_eq!(json(ask(&session, "odgm/@meta/users", None).await)["incarnation"], again["incarnation"]);
    let gone = "odgm/@admin/collections/nobody?op=delete;rid=d";
    let refused = ask(&session, gone, None).await.refused("NO_COLLECTION").clone();
    ask(&session, "odgm/@admin/collections/nobody?op=create", one).await.one();
    assert_eq!(*ask(&session, gone, None).await.refused("NO_COLLECTION"), refused);
    let long = format!("odgm/@admin/collections/users?op=delete;rid={}", "x".repeat(65));
    ask(&session, &long, None).await.refused("INVALID_PARAMETER");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_can_be_asked_for_and_what_is_wrong_is_refused() {
    let node = Node::start();
    let session = answered(&node.endpoint).await;
    for part in ["collections", "nodes"] {
        let plain = json(ask(&session, &format!("odgm/@admin/{part}"), None).await);
        assert_eq!(json(ask(&session, &format!("odgm/@admin/{part}?op=list"), None).await), plain);
        let name = plain[0]["name"].as_str().unwrap();
        assert_eq!(json(ask(&session, &format!("odgm/@admin/{part}/{name}"), None).await), plain[0]);
    }
    ask(&session, "odgm/@admin/nodes/nobody", None).await.refused("NOT_FOUND");
    ask(&session, "odgm/@admin/nodes/nobody?op=replace", None).await.refused("NOT_FOUND");
    let transfer = "odgm/@admin/shards/default/3?op=transfer;to=odgm-0";
    assert_eq!(json(ask(&session, transfer, None).await)["serving"], "odgm-0");
    for wrong in [
        "partitions: 1\npartitions: 2",
        r#"{"partitions":1,"partitions":2}"#,
        "indexes: [{name: a, path: /a~2}]",
        "partitions: 1.5",
        "[]",
        "a: *b",
    ] {
        let refused = ask(&session, "odgm/@admin/collections/users?op=create", Some(wrong.as_bytes())).await;
        refused.refused("INVALID_PARAMETER");
    }
    ask(&session, "odgm/@meta/users", None).await.refused("NO_COLLECTION");
}
