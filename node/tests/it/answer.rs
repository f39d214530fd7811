//! What a stock client gets for one question to one node: a value, a refusal, or nothing.

use std::time::Duration;

use bytes::Bytes;
use odgm_transport::KeyExpr;
use odgm_transport::Session;
use odgm_transport::options::SessionOptions;
use odgm_transport::session::Call;
use odgm_transport::zenoh::ZenohSession;
use serde_json::Value;
use std::sync::Arc;

/// The answer that decides: a value before any refusal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// The value.
    Value(Bytes),
    /// The code of the refusal.
    Refused(String),
    /// Nobody answered: unknown.
    Silence,
}

impl Answer {
    /// The value as a number.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Answer::Value(value) => std::str::from_utf8(value).ok()?.parse().ok(),
            _ => None,
        }
    }

    /// Whether there is a value.
    pub(crate) fn is_value(&self) -> bool {
        matches!(self, Answer::Value(_))
    }
}

/// A client of one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    session: Arc<ZenohSession>,
}

impl Client {
    pub(crate) async fn connect(endpoint: String) -> Self {
        let options = SessionOptions {
            connect_timeout: Some(Duration::from_secs(30)),
            ..SessionOptions::client(vec![endpoint])
        };
        Client { session: ZenohSession::open(&options, "test").await.unwrap() }
    }

    /// Asks once, for `timeout` at most.
    pub(crate) async fn ask(
        &self,
        key: &str,
        parameters: &str,
        payload: Option<Bytes>,
        timeout: Duration,
    ) -> Answer {
        let mut call = Call::new(KeyExpr::try_from(key.to_owned()).unwrap(), timeout);
        call.parameters = parameters.to_owned();
        call.payload = payload;
        let session = self.session.clone();
        let Ok(Ok(mut replies)) = tokio::task::spawn_blocking(move || session.call(call)).await else {
            return Answer::Silence;
        };
        let mut answer = Answer::Silence;
        while let Some(reply) = replies.next().await {
            match reply {
                Ok(sample) => answer = Answer::Value(sample.payload.unwrap_or_default()),
                Err(_) if answer.is_value() => {}
                Err(refusal) => {
                    let refusal: Value = serde_json::from_slice(&refusal.payload).unwrap();
                    answer = Answer::Refused(refusal["code"].as_str().unwrap().to_owned());
                }
            }
        }
        answer
    }

    /// Reads a key of partition 0 of `default`, linearizably.
    pub(crate) async fn get(&self, key: &str) -> Answer {
        self.ask(&format!("odgm/default/0/{key}"), "", None, Duration::from_secs(5)).await
    }

    /// Puts until it is acknowledged; the refusals and silences on the way.
    pub(crate) async fn put(&self, key: &str, rid: &str, value: impl Into<Bytes>) -> u32 {
        let (key, parameters) = (format!("odgm/@cmd/default/0/{key}"), format!("op=put;rid={rid}"));
        let value = value.into();
        let mut repeats = 0;
        while !self.ask(&key, &parameters, Some(value.clone()), Duration::from_secs(3)).await.is_value() {
            repeats += 1;
            assert!(repeats < 10_000, "{key} is never acknowledged");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        repeats
    }
}

/// A number of the environment, for runs of another size.
pub(crate) fn sized(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}
