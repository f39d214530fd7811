//! A client that knows zenoh and nothing of ours: selectors go out, samples and JSON come back.

use std::time::{Duration, Instant};

use serde_json::Value;
use zenoh::Session;
use zenoh::query::ConsolidationMode;
use zenoh::sample::Sample;

/// How long anything may take on a machine that does something else.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a query brought, in the order of arrival of each kind.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) samples: Vec<Sample>,
    /// JSON of the error replies.
    pub(crate) errors: Vec<Value>,
    /// Whether the last reply was an error reply.
    pub(crate) ended: bool,
}

impl Answers {
    pub(crate) fn codes(&self) -> Vec<&str> {
        self.errors.iter().map(|error| error["code"].as_str().unwrap()).collect()
    }

    pub(crate) fn keys(&self) -> Vec<&str> {
        self.samples.iter().map(|sample| sample.key_expr().as_str()).collect()
    }

    /// The one sample, without an error.
    #[track_caller]
    pub(crate) fn one(mut self) -> Sample {
        assert!(self.samples.len() == 1 && self.errors.is_empty(), "{self:?}");
        self.samples.remove(0)
    }

    /// The one refusal, held to its form.
    #[track_caller]
    pub(crate) fn refused(&self, code: &str) -> &Value {
        assert!(self.samples.is_empty() && self.errors.len() == 1, "{code}: {self:?}");
        let refused = &self.errors[0];
        assert_eq!(refused["code"], code, "{refused}");
        let (applied, retry) = match code {
            "UNAVAILABLE" | "TIMEOUT" => ("unknown", true),
            "INTERNAL" => ("unknown", false),
            "NOT_LEADER" | "BUSY" | "READ_ONLY" | "QUOTA" => ("no", true),
            _ => ("no", false),
        };
        assert_eq!((&refused["applied"], &refused["retry"]), (&applied.into(), &retry.into()), "{refused}");
        for words in ["message", "id"] {
            assert!(refused[words].as_str().is_some_and(|words| !words.is_empty()), "{refused}");
        }
        refused
    }
}

/// A session of its own, as `mode: client`.
pub(crate) async fn session(endpoint: &str) -> Session {
    let mut config = zenoh::Config::default();
    config.insert_json5("mode", "\"client\"").unwrap();
    config.insert_json5("connect/endpoints", &format!("[{endpoint:?}]")).unwrap();
    config.insert_json5("scouting/multicast/enabled", "false").unwrap();
    zenoh::open(config).await.unwrap()
}

/// A session that the node answers on: what it declares may be on its way to clients still.
pub(crate) async fn answered(endpoint: &str) -> Session {
    let session = session(endpoint).await;
    until(&session, "odgm/default/*/*?count=1", |answers| answers.errors.len() == 4).await;
    session
}

/// Asks once.
pub(crate) async fn ask(session: &Session, selector: &str, payload: Option<&[u8]>) -> Answers {
    let mut get = session.get(selector).consolidation(ConsolidationMode::None).timeout(DEADLINE);
    if let Some(payload) = payload {
        get = get.payload(payload.to_vec()).encoding("text/plain;charset").attachment("mine");
    }
    let replies = get.await.unwrap();
    let mut answers = Answers::default();
    while let Ok(reply) = replies.recv_async().await {
        answers.ended = reply.result().is_err();
        match reply.into_result() {
            Ok(sample) => answers.samples.push(sample),
            Err(error) => {
                assert_eq!(error.encoding().to_string(), "application/json", "{selector}");
                answers.errors.push(serde_json::from_slice(&error.payload().to_bytes()).unwrap());
            }
        }
    }
    answers
}

/// Asks until there is what is waited for.
pub(crate) async fn until(session: &Session, selector: &str, is: impl Fn(&Answers) -> bool) -> Answers {
    let start = Instant::now();
    loop {
        let answers = ask(session, selector, None).await;
        if is(&answers) {
            return answers;
        }
        assert!(start.elapsed() < DEADLINE, "{selector}: {answers:?}");
        tokio::task::yield_now().await;
    }
}
