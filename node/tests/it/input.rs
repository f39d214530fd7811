//! Wrong input from a stranger: each gets its error, and the node goes on.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use crate::cli_node::Node;
use crate::stranger::{answered, ask, until};

/// Bytes and choices that are the same in each run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    fn choose<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.next() as usize % from.len()]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_with_its_code_and_writes_nothing() {
    let node = Node::start();
    let session = answered(&node.endpoint).await;
    ask(&session, "odgm/@cmd/default/*/alice?op=put", Some(b"x")).await.one();
    let long = "x".repeat(256);
    for (selector, code) in [
        ("odgm/default/2/alice", "WRONG_PARTITION"),
        ("odgm/default/3/alice?foo=1", "INVALID_PARAMETER"),
        ("odgm/default/3/alice?limit=1;limit=1", "INVALID_PARAMETER"),
        ("odgm/default/3/alice?limit=0", "INVALID_PARAMETER"),
        ("odgm/default/3/alice?cons=%zz", "INVALID_PARAMETER"),
        ("odgm/default/3/alice?cursor=%21", "INVALID_PARAMETER"),
        ("odgm/default/3/alice?index=a;eq=1", "INVALID_PARAMETER"),
        ("odgm/default/3/*?index=a;eq=1", "INVALID_PARAMETER"),
        ("odgm/default/3/*?index=a;eq=1;lt=2", "INVALID_PARAMETER"),
        ("odgm/default/3/a\u{1}b", "INVALID_KEY"),
        ("odgm/default/3/alice/a/b", "INVALID_KEY"),
        (&format!("odgm/default/3/{long}"), "INVALID_KEY"),
        (&format!("odgm/default/3/alice/{long}"), "INVALID_KEY"),
        ("odgm/@ev/default/3/**?from=x", "INVALID_PARAMETER"),
        ("odgm/@meta/nothing", "NO_COLLECTION"),
        ("odgm/@meta/default?x=1", "INVALID_PARAMETER"),
        ("odgm/@admin/collections/nothing", "NO_COLLECTION"),
        ("odgm/@admin/collections/X?op=create", "INVALID_PARAMETER"),
        ("odgm/@admin/nodes/odgm-0?op=drain", "UNSUPPORTED"),
        ("odgm/@admin/shards/default/3?op=transfer", "INVALID_PARAMETER"),
        ("odgm/@cmd/default/3/alice", "INVALID_PARAMETER"),
        ("odgm/@cmd/default/3/alice?op=frob", "INVALID_PARAMETER"),
        ("odgm/@cmd/default/2/alice?op=delete", "WRONG_PARTITION"),
        ("odgm/@cmd/default/3/alice?op=delete;if_absent=1", "INVALID_PARAMETER"),
        ("odgm/@cmd/default/3/nobody?op=touch;ttl=1s", "NOT_FOUND"),
        ("odgm/@cmd/default/3/alice?op=touch;ttl=-1s", "INVALID_PARAMETER"),
        ("odgm/@cmd/default/3/*?op=delete", "INVALID_KEY"),
        ("odgm/@cmd/default/3/al$*?op=delete", "INVALID_KEY"),
        ("odgm/@cmd/default/3/alice/**?op=delete", "INVALID_KEY"),
        ("odgm/@cmd/default/3?op=txn", "INVALID_PARAMETER"),
    ] {
        ask(&session, selector, None).await.refused(code);
    }
    let large = vec![0; (8 << 20) + 1];
    let refused = ask(&session, "odgm/@cmd/default/3/alice?op=put", Some(&large)).await;
    assert_eq!(refused.refused("TOO_LARGE")["limit"], 8 << 20);
    ask(&session, "odgm/@cmd/default/3/alice?op=put;ttl=1", Some(b"y")).await.refused("INVALID_PARAMETER");
    for wild in ["odgm/default/3/*", "odgm/default/3/alice/**", "odgm/**", "**"] {
        session.put(wild, "y").await.unwrap();
        session.delete(wild).await.unwrap();
    }
    // On the same link behind them.
    session.put("odgm/default/3/alice/last", "z").await.unwrap();
    until(&session, "odgm/default/3/alice/last", |answers| !answers.samples.is_empty()).await;
    let left = ask(&session, "odgm/default/*/**", None).await;
    assert_eq!(left.keys(), ["odgm/default/3/alice", "odgm/default/3/alice/last"]);
    assert_eq!(left.samples[0].payload().to_bytes(), &b"x"[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_half_open_connections_on_every_port_stop_nobody() {
    let node = Node::start();
    let mut noise = Noise(0x5eed);
    let mut held = Vec::new();
    let clients = node.endpoint.trim_start_matches("tcp/");
    for port in [clients, &node.cluster, &node.http] {
        for n in 0..40 {
            let mut stream = TcpStream::connect(port).unwrap();
            // The other side may have hung up already.
            let _ = match n % 4 {
                0 => Ok(()),
                1 => stream.write_all(&noise.bytes(2000)),
                2 => stream.write_all(&[0xff, 0xff, 1]).and_then(|()| stream.shutdown(Shutdown::Write)),
                _ => stream.write_all(b"GET /livez HTTP/1.1\r\nX: "),
            };
            held.push(stream);
        }
    }
    let session = answered(&node.endpoint).await;
    ask(&session, "odgm/@cmd/default/*/alice?op=put", Some(b"x")).await.one();
    ask(&session, "odgm/default/*/alice", None).await.one();
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        assert!(node.fetch(path).starts_with("HTTP/1.1 200"), "{path}: {}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_without_sense_are_answered_or_met_with_silence() {
    const CHUNKS: [&str; 18] = [
        "default", "nothing", "*", "**", "3", "9", "x", "alice", "a b", "@x", "@cmd", "@ev", "@meta",
        "@admin", "@near", "al$*", "ü", "shards",
    ];
    const PARAMETERS: [&str; 16] = [
        "",
        "op=put",
        "op=",
        "=",
        ";;",
        "op=put;op=put",
        "limit=99999999999999999999",
        "cursor=AAAA",
        "end=1",
        "count=1",
        "rid=%ff",
        "_anyke",
        "timeout=0s",
        "incarnation=zz",
        "%6fp=put",
        "index=a;ge=1;lt=2",
    ];
    let node = Node::start();
    let session = answered(&node.endpoint).await;
    let mut noise = Noise(0xf00d);
    for _ in 0..400 {
        let count = 1 + noise.next() % 5;
        let chunks: Vec<_> = (0..count).map(|_| noise.choose(&CHUNKS)).collect();
        let Ok(key) = zenoh::key_expr::KeyExpr::autocanonize(format!("odgm/{}", chunks.join("/"))) else {
            continue;
        };
        let selector = format!("{key}?{}", noise.choose(&PARAMETERS));
        let payload = noise.bytes(20);
        let answers = ask(&session, &selector, (noise.next() & 1 == 0).then_some(&payload[..])).await;
        assert!(!answers.codes().contains(&"INTERNAL"), "{selector}: {answers:?}");
    }
    ask(&session, "odgm/@cmd/default/*/bob?op=put", Some(b"x")).await.one();
    assert!(node.fetch("/readyz").starts_with("HTTP/1.1 200"), "{}", node.log());
}
