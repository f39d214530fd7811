//! Calls and who serves them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{DEADLINE, Mesh, Seen, answer, call, key, ok, sample, samples};
use crate::session::{Call, ErrorReply, Query, Sample, Timestamp};

/// What a caller sends is what the server sees.
pub async fn a_call_carries_parameters_payload_encoding_and_attachment(mesh: Mesh) {
    let seen = Seen::new();
    let log = seen.clone();
    let _server = ok(mesh.sessions[0].serve(
        &key("c/**"),
        false,
        Arc::new(move |query: Query| {
            log.push((
                query.key.to_string(),
                query.parameters.clone(),
                query.payload.clone(),
                query.encoding.clone(),
                query.attachment.clone(),
            ));
            query.respond(Ok(sample("c/a", b"done")));
        }),
    ));
    let full = Call {
        parameters: "op=put;rid=7".into(),
        payload: Some(Bytes::from_static(b"value")),
        encoding: "text/plain".into(),
        attachment: Some(Bytes::from_static(b"more")),
        ..call("c/a")
    };
    mesh.ask_until(1, full, 1).await;
    let expected = (
        "c/a".to_owned(),
        "op=put;rid=7".to_owned(),
        Some(Bytes::from_static(b"value")),
        "text/plain".to_owned(),
        Some(Bytes::from_static(b"more")),
    );
    assert_eq!(seen.take(), [expected]);
    mesh.ask_until(1, call("c/a"), 1).await;
    let bare = ("c/a".to_owned(), String::new(), None, String::new(), None);
    assert_eq!(seen.take(), [bare]);
}

/// What a server answers is what the caller sees.
pub async fn a_reply_carries_key_payload_encoding_attachment_and_timestamp(mesh: Mesh) {
    let full = Sample {
        key: key("c/a"),
        payload: Some(Bytes::from_static(b"value")),
        encoding: "application/json".into(),
        attachment: Some(Bytes::from_static(b"more")),
        timestamp: Some(Timestamp { time: 7 << 32 | 5, clock: *b"0123456789abcdef" }),
    };
    let _server = ok(mesh.sessions[0].serve(&key("c/**"), false, answer(full.clone())));
    assert_eq!(samples(mesh.ask_until(1, call("c/a"), 1).await), [full]);
}

/// The key of a reply is the server's choice among what was asked.
pub async fn a_wildcard_is_answered_on_concrete_keys(mesh: Mesh) {
    let both = Arc::new(|query: Query| {
        let stream = query.stream();
        ok(stream.send(Ok(sample("c/1/a", b"1"))));
        ok(stream.send(Ok(sample("c/2/a", b"2"))));
    });
    let _server = ok(mesh.sessions[0].serve(&key("c/**"), false, both));
    let replies = samples(mesh.ask_until(1, call("c/*/a"), 2).await);
    let keys: Vec<_> = replies.iter().map(|reply| reply.key.as_str()).collect();
    assert_eq!(keys, ["c/1/a", "c/2/a"]);
}

/// A server may answer that something was deleted.
pub async fn a_delete_is_a_reply(mesh: Mesh) {
    let gone = Sample {
        payload: None,
        attachment: Some(Bytes::from_static(b"revision")),
        timestamp: Some(Timestamp { time: 9, clock: *b"0123456789abcdef" }),
        ..sample("c/a", b"")
    };
    let _server = ok(mesh.sessions[0].serve(&key("c/a"), false, answer(gone.clone())));
    assert_eq!(samples(mesh.ask_until(1, call("c/a"), 1).await), [gone]);
}

/// An error is an answer too.
pub async fn an_error_reply_arrives_with_its_encoding(mesh: Mesh) {
    let error = ErrorReply {
        payload: Bytes::from_static(b"{\"code\":\"BUSY\"}"),
        encoding: "application/json".into(),
    };
    let refuse = error.clone();
    let handler = Arc::new(move |query: Query| query.respond(Err(refuse.clone())));
    let _server = ok(mesh.sessions[0].serve(&key("c/a"), false, handler));
    assert_eq!(mesh.ask_until(1, call("c/a"), 1).await, [Err(error)]);
}

/// A server that stays silent does not make its caller wait.
pub async fn a_query_ends_when_it_is_dropped(mesh: Mesh) {
    let seen = Seen::new();
    let log = seen.clone();
    let silent = Arc::new(move |query: Query| log.push(query.key.to_string()));
    let _server = ok(mesh.sessions[0].serve(&key("c/a"), false, silent));
    // The call would wait for longer than `ask` does.
    let patient = Call { timeout: 3 * DEADLINE, ..call("c/a") };
    let start = mesh.timer.now();
    while seen.len() == 0 {
        assert_eq!(mesh.ask(1, patient.clone()).await, []);
        assert!(mesh.timer.now() - start < DEADLINE, "the server was never asked");
    }
}

/// Nobody to wait for.
pub async fn a_call_that_nobody_serves_ends_at_once(mesh: Mesh) {
    let _other = ok(mesh.sessions[0].serve(&key("other"), false, answer(sample("other", b""))));
    let patient = Call { timeout: 3 * DEADLINE, ..call("c/a") };
    assert_eq!(mesh.ask(1, patient).await, []);
}

/// A server that holds its query does not hold its caller.
pub async fn a_call_ends_at_its_deadline(mesh: Mesh) {
    let held = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hold = held.clone();
    let handler = Arc::new(move |query: Query| hold.lock().expect("no test panics with it").push(query));
    let _server = ok(mesh.sessions[0].serve(&key("c/a"), false, handler));
    let timeout = Duration::from_millis(200);
    let mut waited = Duration::ZERO;
    let start = mesh.timer.now();
    while held.lock().expect("no test panics with it").is_empty() {
        let began = mesh.timer.now();
        assert_eq!(mesh.ask(1, Call { timeout, ..call("c/a") }).await, []);
        waited = mesh.timer.now() - began;
        assert!(began - start < DEADLINE, "the server was never asked");
    }
    // zenoh's clock ticks in milliseconds.
    assert!(waited + Duration::from_millis(5) >= timeout, "{waited:?}");
}

/// Without a complete server, each that matches.
pub async fn all_servers_that_match_are_asked(mesh: Mesh) {
    let _one = ok(mesh.sessions[0].serve(&key("c/**"), false, answer(sample("c/a", b"0"))));
    let _two = ok(mesh.sessions[1].serve(&key("c/*"), false, answer(sample("c/a", b"1"))));
    let _other = ok(mesh.sessions[1].serve(&key("d/*"), false, answer(sample("d/a", b"d"))));
    let mut payloads: Vec<_> =
        samples(mesh.ask_until(2, call("c/a"), 2).await).into_iter().map(|reply| reply.payload).collect();
    payloads.sort();
    assert_eq!(payloads, [Some(Bytes::from_static(b"0")), Some(Bytes::from_static(b"1"))]);
}

/// With complete servers one alone, the same each time; all of them only on demand.
pub async fn one_of_the_complete_servers_answers_alone(mesh: Mesh) {
    let _one = ok(mesh.sessions[0].serve(&key("c/**"), true, answer(sample("c/a", b"0"))));
    let _two = ok(mesh.sessions[1].serve(&key("c/**"), true, answer(sample("c/a", b"1"))));
    mesh.ask_until(2, Call { all: true, ..call("c/a") }, 2).await;
    let first = mesh.ask(2, call("c/a")).await;
    assert_eq!(first.len(), 1);
    for _ in 0..10 {
        assert_eq!(mesh.ask(2, call("c/a")).await, first);
    }
}

/// Complete means: for all of what was asked.
pub async fn a_server_that_covers_only_a_part_is_not_complete(mesh: Mesh) {
    let _one = ok(mesh.sessions[0].serve(&key("c/1/*"), true, answer(sample("c/1/a", b"0"))));
    let _two = ok(mesh.sessions[1].serve(&key("c/2/*"), true, answer(sample("c/2/a", b"1"))));
    mesh.ask_until(2, call("c/*/a"), 2).await;
    mesh.ask_until(2, call("c/1/a"), 1).await;
}

/// Not even replies of one key are merged.
pub async fn streamed_replies_keep_their_order_and_are_not_consolidated(mesh: Mesh) {
    const COUNT: u32 = 2_000;
    let many = Arc::new(|query: Query| {
        let stream = query.stream();
        // For a thread that may block, as the contract says.
        std::thread::spawn(move || {
            for number in 0..COUNT {
                let payload = Some(Bytes::copy_from_slice(&number.to_le_bytes()));
                ok(stream.send(Ok(Sample { payload, ..sample("c/a", b"") })));
            }
        })
        .join()
        .expect("the stream is sent");
    });
    let _server = ok(mesh.sessions[0].serve(&key("c/a"), false, many));
    let replies = samples(mesh.ask_until(1, call("c/a"), COUNT as usize).await);
    for (number, reply) in (0..COUNT).zip(replies) {
        assert_eq!(reply.payload.as_deref(), Some(number.to_le_bytes().as_slice()));
    }
}

/// As large as a value may be, both ways.
pub async fn large_payloads_arrive_whole(mesh: Mesh) {
    let echo = Arc::new(|query: Query| {
        let payload = query.payload.clone();
        query.respond(Ok(Sample { payload, ..sample("c/a", b"") }));
    });
    let _server = ok(mesh.sessions[0].serve(&key("c/a"), false, echo));
    for size in [0, 1, 65_535, 65_536, 8 << 20] {
        let payload: Bytes = (0..size).map(|at: usize| (at % 251) as u8).collect();
        let request = Call { payload: Some(payload.clone()), ..call("c/a") };
        let replies = samples(mesh.ask_until(1, request, 1).await);
        assert!(replies[0].payload.as_ref() == Some(&payload), "{size} bytes came back different");
    }
}

/// A declaration ends with its value.
pub async fn an_undeclared_server_is_asked_no_more(mesh: Mesh) {
    let server = ok(mesh.sessions[0].serve(&key("c/a"), false, answer(sample("c/a", b"0"))));
    mesh.ask_until(1, call("c/a"), 1).await;
    drop(server);
    mesh.ask_until(1, call("c/a"), 0).await;
}
