//! The links between nodes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use uuid::Uuid;

use super::{DEADLINE, Mesh, Seen, key, ok};
use crate::Error;
use crate::link::{Class, Incoming, LinkOptions, Links, PeerId, ReplyToken};
use crate::session::{Congestion, Priority};

fn options(node: usize) -> LinkOptions {
    LinkOptions::new("test", PeerId(node as u64), format!("node-{node}"), 1_000 + node as u64)
}

fn open(mesh: &Mesh, node: usize, options: LinkOptions) -> Arc<Links> {
    ok(Links::open(mesh.sessions[node].clone(), mesh.timer.clone(), options))
}

/// The links of the first two nodes, which know each other.
pub(super) async fn pair(mesh: &Mesh) -> (Arc<Links>, Arc<Links>) {
    let pair = (open(mesh, 0, options(0)), open(mesh, 1, options(1)));
    meet(mesh, &pair.0, &pair.1).await;
    pair
}

async fn meet(mesh: &Mesh, one: &Links, other: &Links) {
    mesh.until("two nodes that know each other", || {
        one.peers().contains_key(&other.me()) && other.peers().contains_key(&one.me())
    })
    .await;
}

fn echo() -> Arc<dyn Fn(Incoming) + Send + Sync> {
    Arc::new(|incoming| {
        if let Some(reply) = incoming.reply {
            reply.send(incoming.payload);
        }
    })
}

fn hold(held: &Arc<Mutex<Vec<ReplyToken>>>) -> Arc<dyn Fn(Incoming) + Send + Sync> {
    let held = held.clone();
    Arc::new(move |incoming| held.lock().expect("no test panics with it").extend(incoming.reply))
}

/// Presence carries the name, and never this node itself.
pub async fn peers_know_each_other_by_name(mesh: Mesh) {
    let (one, other) = pair(&mesh).await;
    assert_eq!(one.peers().into_iter().collect::<Vec<_>>(), [(PeerId(1), "node-1".to_owned())]);
    let mut watch = one.watch();
    watch.mark_unchanged();
    other.close();
    ok(mesh.within("the change", watch.changed()).await.map_err(|_| Error::Full));
    assert!(one.peers().is_empty());
}

/// Per peer and class, whatever the other classes do.
pub async fn messages_of_a_class_arrive_in_order(mesh: Mesh) {
    const COUNT: u32 = 3_000;
    let (one, other) = pair(&mesh).await;
    let seen = Seen::new();
    let log = seen.clone();
    other.serve(Arc::new(move |incoming| {
        let number = u32::from_le_bytes(incoming.payload[..].try_into().expect("four bytes"));
        log.push((incoming.class, number));
    }));
    for number in 0..COUNT {
        for class in [Class::Control, Class::Log, Class::Bulk] {
            ok(one.send(PeerId(1), class, Bytes::copy_from_slice(&number.to_le_bytes())));
        }
    }
    mesh.until("all messages", || seen.len() >= 3 * COUNT as usize).await;
    for class in [Class::Control, Class::Log, Class::Bulk] {
        let numbers: Vec<u32> =
            seen.all().into_iter().filter(|entry| entry.0 == class).map(|entry| entry.1).collect();
        assert!(numbers == (0..COUNT).collect::<Vec<_>>(), "{class:?} is out of order");
    }
    let stats = one.stats();
    assert!(stats.frames_sent < stats.messages_sent, "nothing was coalesced: {stats:?}");
}

/// A response finds its request.
pub async fn many_requests_are_answered_in_any_order(mesh: Mesh) {
    const COUNT: u32 = 200;
    let (one, other) = pair(&mesh).await;
    let waiting = Arc::new(Mutex::new(Vec::new()));
    other.serve(Arc::new(move |incoming| {
        let mut waiting = waiting.lock().expect("no test panics with it");
        waiting.push((incoming.payload, incoming.reply.expect("a request")));
        if waiting.len() == COUNT as usize {
            for (payload, reply) in waiting.drain(..).rev() {
                reply.send(payload);
            }
        }
    }));
    let requests = (0..COUNT).map(|number| {
        let payload = Bytes::copy_from_slice(&number.to_le_bytes());
        one.request(PeerId(1), Class::Log, payload, DEADLINE)
    });
    let responses = mesh.within("all responses", join_all(requests)).await;
    for (number, response) in (0..COUNT).zip(responses) {
        assert_eq!(ok(response)[..], number.to_le_bytes());
    }
}

/// The requester learns why.
pub async fn a_refusal_carries_its_reason(mesh: Mesh) {
    let (one, other) = pair(&mesh).await;
    other.serve(Arc::new(|incoming| incoming.reply.expect("a request").refuse("no".into())));
    let answer = one.request(PeerId(1), Class::Control, Bytes::new(), DEADLINE).await;
    assert_eq!(answer, Err(Error::Refused("no".into())));
}

/// Nobody waits for what was thrown away.
pub async fn a_dropped_request_is_refused(mesh: Mesh) {
    let (one, other) = pair(&mesh).await;
    other.serve(Arc::new(drop));
    let answer = one.request(PeerId(1), Class::Bulk, Bytes::new(), 3 * DEADLINE);
    assert!(matches!(mesh.within("the refusal", answer).await, Err(Error::Refused(_))));
}

/// An answer that does not come, and one that comes late, which changes nothing.
pub async fn a_request_ends_at_its_deadline(mesh: Mesh) {
    let (one, other) = pair(&mesh).await;
    let held = Arc::default();
    other.serve(hold(&held));
    let timeout = Duration::from_millis(50);
    let answer = mesh.within("the deadline", one.request(PeerId(1), Class::Log, Bytes::new(), timeout)).await;
    assert_eq!(answer, Err(Error::Timeout(timeout)));
    mesh.until("the request at the other", || !held.lock().expect("no test panics with it").is_empty()).await;
    let late = held.lock().expect("no test panics with it").pop().expect("it is there");
    late.send(Bytes::from_static(b"late"));
    let next = one.request(PeerId(1), Class::Log, Bytes::new(), DEADLINE);
    mesh.until("the next request", || !held.lock().expect("no test panics with it").is_empty()).await;
    let token = held.lock().expect("no test panics with it").pop().expect("it is there");
    token.send(Bytes::from_static(b"next"));
    assert_eq!(mesh.within("the next answer", next).await, Ok(Bytes::from_static(b"next")));
}

/// Larger than a frame, both ways, with small ones around it.
pub async fn a_large_message_arrives_whole(mesh: Mesh) {
    let (one, other) = pair(&mesh).await;
    other.serve(echo());
    let large: Bytes = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
    let requests = [Bytes::from_static(b"before"), large, Bytes::from_static(b"after")].map(|payload| {
        let answer = one.request(PeerId(1), Class::Log, payload.clone(), DEADLINE);
        async move { ok(answer.await) == payload }
    });
    assert_eq!(mesh.within("all three", join_all(requests)).await, [true, true, true]);
}

/// Before anything is sent.
pub async fn a_message_over_the_limit_is_refused_at_once(mesh: Mesh) {
    let small = LinkOptions { max_message_bytes: 10, ..options(0) };
    let one = open(&mesh, 0, small);
    let answer = one.send(PeerId(1), Class::Log, Bytes::from_static(b"eleven bytes"));
    assert_eq!(answer, Err(Error::TooLarge { found: 12, limit: 10 }));
    let answer = one.request(PeerId(1), Class::Log, Bytes::from_static(b"eleven more"), DEADLINE);
    assert!(answer.await.is_err());
}

/// There is nobody to wait for.
pub async fn an_unknown_peer_is_unreachable_at_once(mesh: Mesh) {
    let (one, _other) = pair(&mesh).await;
    assert_eq!(one.send(PeerId(9), Class::Log, Bytes::new()), Err(Error::Unreachable(9)));
    let answer = one.request(PeerId(9), Class::Log, Bytes::new(), 3 * DEADLINE);
    assert_eq!(mesh.within("the answer", answer).await, Err(Error::Unreachable(9)));
}

/// Without waiting for its deadline; what comes after fails too.
pub async fn a_peer_that_goes_fails_what_waits_for_it(mesh: Mesh) {
    let (one, other) = pair(&mesh).await;
    let held = Arc::default();
    other.serve(hold(&held));
    let answer = one.request(PeerId(1), Class::Log, Bytes::new(), 3 * DEADLINE);
    mesh.until("the request at the other", || !held.lock().expect("no test panics with it").is_empty()).await;
    ok(mesh.sessions[1].close());
    assert_eq!(mesh.within("the failure", answer).await, Err(Error::Unreachable(1)));
    assert_eq!(one.send(PeerId(1), Class::Log, Bytes::new()), Err(Error::Unreachable(1)));
}

/// Nothing of another cluster is delivered; its requests fail at once.
pub async fn another_cluster_is_refused(mesh: Mesh) {
    let (one, other) = pair(&mesh).await;
    one.set_cluster(Uuid::from_u128(1));
    other.set_cluster(Uuid::from_u128(2));
    let seen = Seen::new();
    let log = seen.clone();
    other.serve(Arc::new(move |incoming| log.push(incoming.payload)));
    ok(one.send(PeerId(1), Class::Log, Bytes::from_static(b"stray")));
    let answer = one.request(PeerId(1), Class::Log, Bytes::new(), 3 * DEADLINE);
    assert!(matches!(mesh.within("the refusal", answer).await, Err(Error::Refused(_))));
    assert_eq!(seen.len(), 0);
    assert!(other.stats().foreign >= 1);
}

/// Before the founding, and by one who has no cluster yet.
pub async fn a_node_without_a_cluster_is_heard(mesh: Mesh) {
    let (one, other) = pair(&mesh).await;
    other.set_cluster(Uuid::from_u128(2));
    let seen = Seen::new();
    let log = seen.clone();
    other.serve(Arc::new(move |incoming| {
        log.push(incoming.cluster);
        incoming.reply.expect("a request").send(Bytes::new());
    }));
    let ask = || mesh.within("the answer", one.request(PeerId(1), Class::Log, Bytes::new(), DEADLINE));
    ok(ask().await);
    one.set_cluster(Uuid::from_u128(2));
    ok(ask().await);
    assert_eq!(seen.all(), [Uuid::nil(), Uuid::from_u128(2)]);
}

/// Another secret, or none, is nobody; the same one is heard.
pub async fn a_wrong_secret_is_refused(mesh: Mesh) {
    let with = |node, secret: &'static [u8]| LinkOptions { secret: Some(secret.into()), ..options(node) };
    let one = open(&mesh, 0, with(0, b"right"));
    let other = open(&mesh, 1, with(1, b"wrong"));
    let third = open(&mesh, 2, with(2, b"right"));
    one.serve(echo());
    meet(&mesh, &one, &other).await;
    meet(&mesh, &one, &third).await;
    ok(other.send(PeerId(0), Class::Control, Bytes::from_static(b"forged")));
    mesh.until("the refusal", || one.stats().unauthentic == 1).await;
    let answer = third.request(PeerId(0), Class::Control, Bytes::from_static(b"true"), DEADLINE);
    assert_eq!(mesh.within("the answer", answer).await, Ok(Bytes::from_static(b"true")));
    assert_eq!(one.stats().frames_received, 1);
}

/// Whatever is published on an inbox.
pub async fn garbage_is_counted_and_ignored(mesh: Mesh) {
    let (one, other) = pair(&mesh).await;
    other.serve(echo());
    let publisher = ok(mesh.sessions[0].publisher(
        &key("@odgm/test/link/1/log"),
        Priority::InteractiveHigh,
        Congestion::Block,
    ));
    for garbage in [&b""[..], b"garbage", &[1; 200], &[0xff; 48]] {
        ok(publisher.put(Bytes::copy_from_slice(garbage)));
    }
    mesh.until("four refusals", || other.stats().malformed + other.stats().unauthentic >= 4).await;
    let answer = one.request(PeerId(1), Class::Log, Bytes::from_static(b"still"), DEADLINE);
    assert_eq!(mesh.within("the answer", answer).await, Ok(Bytes::from_static(b"still")));
}
