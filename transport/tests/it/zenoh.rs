//! Real zenoh sessions on the loopback.

use std::sync::Arc;

use odgm_transport::options::SessionOptions;
use odgm_transport::suite::Mesh;
use odgm_transport::timer::TokioTimer;
use odgm_transport::zenoh::ZenohSession;
use odgm_transport::{Error, Session};

fn any_port() -> Vec<String> {
    vec!["tcp/127.0.0.1:0".into()]
}

async fn open(connect: Vec<String>) -> Arc<ZenohSession> {
    ZenohSession::open(&SessionOptions::cluster(any_port(), connect), "test").await.expect("a session opens")
}

/// A full mesh of three nodes.
async fn mesh() -> Mesh {
    let one = open(Vec::new()).await;
    let two = open(one.locators()).await;
    let three = open([one.locators(), two.locators()].concat()).await;
    let timer = Arc::new(TokioTimer::current().expect("within a test's runtime"));
    Mesh { sessions: [one, two, three], timer }
}

odgm_transport::transport_conformance!(
    [#[tokio::test(flavor = "multi_thread", worker_threads = 2)]],
    super::mesh
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_an_error_at_open() {
    let one = open(Vec::new()).await;
    let error = ZenohSession::open(&SessionOptions::cluster(one.locators(), Vec::new()), "test").await;
    assert!(matches!(error, Err(Error::Session(_))), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reaches_nobody_fails_in_time() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = SessionOptions::client(vec![format!("tcp/{closed}")]);
    options.connect_timeout = Some(std::time::Duration::from_millis(300));
    let opened =
        tokio::time::timeout(std::time::Duration::from_secs(10), ZenohSession::open(&options, "test"));
    assert!(matches!(opened.await.expect("it gives up"), Err(Error::Session(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_opens_before_its_peers_and_finds_them_later() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let early = open(vec![format!("tcp/{port}")]).await;
    let token = odgm_transport::KeyExpr::try_from("late/here").unwrap();
    let seen = Arc::new(tokio::sync::Notify::new());
    let notify = seen.clone();
    let _watch = early
        .watch(
            &token,
            Arc::new(move |_, alive| {
                if alive {
                    notify.notify_one()
                }
            }),
        )
        .unwrap();
    let late =
        ZenohSession::open(&SessionOptions::cluster(vec![format!("tcp/{port}")], Vec::new()), "test").await;
    let late = late.unwrap();
    let _token = late.announce(&token).unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(20), seen.notified()).await.unwrap();
}
