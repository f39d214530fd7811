//! Two zenoh sessions that dial each other, over wires that break on one end only.

use std::sync::Arc;
use std::time::Duration;

use odgm_transport::options::SessionOptions;
use odgm_transport::session::{Call, Declaration, Query, Sample};
use odgm_transport::zenoh::ZenohSession;
use odgm_transport::{KeyExpr, Session};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Carries,
    /// Takes nothing new.
    Refuses,
    /// What is open is closed towards who was dialed; who dialed hears nothing of it.
    HalfOpen,
}

/// A port that leads to another one.
struct Wire {
    port: u16,
    state: watch::Sender<State>,
}

impl Wire {
    async fn to(port: u16, state: State) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("its address").port();
        let state = watch::Sender::new(state);
        let states = state.subscribe();
        tokio::spawn(async move {
            while let Ok((dialer, _)) = listener.accept().await {
                if *states.borrow() == State::Carries {
                    tokio::spawn(carry(dialer, port, states.clone()));
                }
            }
        });
        Wire { port: own, state }
    }

    fn endpoint(&self) -> String {
        format!("tcp/127.0.0.1:{}", self.port)
    }
}

async fn carry(mut dialer: TcpStream, port: u16, mut states: watch::Receiver<State>) {
    let Ok(mut dialed) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let broken = async { states.wait_for(|state| *state == State::HalfOpen).await.is_ok() };
    let broken = tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut dialer, &mut dialed) => false,
        broken = broken => broken,
    };
    drop(dialed);
    if broken {
        let _ = states.wait_for(|state| *state == State::Refuses).await;
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A peer that dials over a wire and finds nobody in any other way. It would wait long for a silent link.
async fn peer(port: u16, connect: &Wire) -> Arc<ZenohSession> {
    let mut options =
        SessionOptions::cluster(vec![format!("tcp/127.0.0.1:{port}")], vec![connect.endpoint()]);
    for (key, value) in [
        ("scouting", json!({"gossip": {"enabled": false}})),
        ("transport", json!({"link": {"tx": {"lease": 20_000}}})),
    ] {
        options.config.insert(key.to_owned(), value);
    }
    ZenohSession::open(&options, "test").await.expect("a session opens")
}

fn key(name: &str) -> KeyExpr<'static> {
    KeyExpr::try_from(format!("links/{name}")).expect("a key")
}

/// Answers with its own name.
fn serve(session: &ZenohSession, name: &'static str) -> Box<dyn Declaration> {
    let handler = move |query: Query| {
        query.respond(Ok(Sample {
            key: key(name),
            payload: Some(name.into()),
            encoding: String::new(),
            attachment: None,
            timestamp: None,
        }));
    };
    session.serve(&key(name), true, Arc::new(handler)).expect("it is served")
}

/// Who answers.
async fn ask(session: &ZenohSession, name: &str) -> Option<String> {
    let mut replies = session.call(Call::new(key(name), Duration::from_millis(500))).expect("it is asked");
    let payload = replies.next().await?.expect("no error").payload.expect("a value");
    Some(String::from_utf8_lossy(&payload).into_owned())
}

/// Asks until the right one answers; a wrong one never may.
async fn answers(session: &ZenohSession, name: &str) {
    let asking = async {
        loop {
            match ask(session, name).await {
                Some(answer) => {
                    assert_eq!(answer, name);
                    return;
                }
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asking)
        .await
        .unwrap_or_else(|_| panic!("{name}: no answer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_dials_again_finds_no_old_numbers() {
    let (port_one, port_two) = (free_port(), free_port());
    let forth = Wire::to(port_two, State::Carries).await;
    let back = Wire::to(port_one, State::Refuses).await;
    let two = peer(port_two, &back).await;
    let one = peer(port_one, &forth).await;

    // The numbers of these are the first.
    let mut served = Vec::new();
    for name in ["a", "b", "c", "d"] {
        served.push(serve(&two, name));
        answers(&one, name).await;
    }
    // The next transport will number what is left from the start.
    drop(served.drain(..2));
    tokio::time::sleep(Duration::from_secs(2)).await;

    let _one = serve(&one, "one");
    // Asked all the time, whatever way there is: no answer is no fault, a wrong one is.
    let asking: Vec<_> = ["c", "d"]
        .repeat(8)
        .into_iter()
        .map(|name| {
            let one = one.clone();
            tokio::spawn(async move {
                loop {
                    if let Some(answer) = ask(&one, name).await {
                        assert_eq!(answer, name);
                    }
                }
            })
        })
        .collect();
    forth.state.send_replace(State::HalfOpen);
    back.state.send_replace(State::Carries);
    // By the new way: there is no other.
    answers(&two, "one").await;
    forth.state.send_replace(State::Carries);
    for task in asking {
        task.abort();
        assert!(task.await.is_err_and(|ended| ended.is_cancelled()), "a wrong one answered");
    }
    for _ in 0..20 {
        answers(&one, "c").await;
        answers(&one, "d").await;
    }
    forth.state.send_replace(State::Refuses);
}
