//! The rules for retries, against a server that answers as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use odgm_transport::session::{Query, Sample};
use odgm_transport::sim::{SimNetwork, SimSession};
use odgm_transport::timer::TokioTimer;
use odgm_transport::{KeyExpr, Session};

use super::{ClientError, ClientOptions, GridClient, Put};
use crate::object::{CollectionName, ObjectId, ObjectKey};
use crate::protocol::{Attachment, Code, Refusal};

/// What the server does with one command.
#[derive(Clone, Copy)]
enum Step {
    Silent,
    Refuse(Code),
    Succeed,
}

struct Grid {
    client: GridClient,
    rids: Arc<Mutex<Vec<String>>>,
    _declared: Vec<Box<dyn odgm_transport::session::Declaration>>,
    _server: Arc<SimSession>,
}

fn sample(query: &Query, payload: Bytes) -> Sample {
    let attachment = Attachment { revision: 7, ..Attachment::default() };
    Sample {
        key: query.key.clone(),
        payload: Some(payload),
        encoding: String::new(),
        attachment: Some(attachment.encode()),
        timestamp: None,
    }
}

/// A collection `users` of one partition whose server takes these steps, the last one for ever.
fn grid(steps: &'static [Step], deadline: Duration) -> Grid {
    let network = SimNetwork::new(1, Arc::new(TokioTimer::current().unwrap()));
    let (server, session) = (network.session("server"), network.session("client"));
    let rids = Arc::new(Mutex::new(Vec::new()));
    let meta = server.serve(
        &KeyExpr::try_from("odgm/@meta/*").unwrap(),
        true,
        Arc::new(|query: Query| {
            if !query.key.as_str().ends_with("/users") {
                return query.respond(Err(Refusal::new(Code::NoCollection, "no collection").encode()));
            }
            let payload = r#"{"collection":"users","partitions":1,"hash":"crc32","replication":"raft","incarnation":"","shards":[]}"#;
            let reply = sample(&query, Bytes::from_static(payload.as_bytes()));
            query.respond(Ok(reply));
        }),
    );
    let heard = rids.clone();
    let commands = server.serve(
        &KeyExpr::try_from("odgm/@cmd/users/0/**").unwrap(),
        false,
        Arc::new(move |query: Query| {
            let mut heard = heard.lock().unwrap();
            let step = steps[heard.len().min(steps.len() - 1)];
            heard.push(query.parameters.clone());
            match step {
                Step::Silent => drop(query),
                Step::Refuse(code) => query.respond(Err(Refusal::new(code, "told to").encode())),
                Step::Succeed => {
                    let reply = sample(&query, Bytes::new());
                    query.respond(Ok(reply));
                }
            }
        }),
    );
    let options = ClientOptions { deadline, ..ClientOptions::default() };
    let client = GridClient::new(session, options);
    Grid { client, rids, _declared: vec![meta.unwrap(), commands.unwrap()], _server: server }
}

impl Grid {
    async fn put(&self, collection: &str) -> Result<u64, ClientError> {
        let key = ObjectKey { object: ObjectId::parse("alice").unwrap(), entry: None };
        let collection = CollectionName::parse(collection).unwrap();
        self.client.put(&collection, &key, Put::value("v"), None).await.map(|done| done.revision)
    }

    fn asked(&self) -> Vec<String> {
        self.rids.lock().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_repeated_with_its_request_id_until_it_is_decided() {
    let steps = &[
        Step::Silent,
        Step::Refuse(Code::Busy),
        Step::Refuse(Code::NotLeader),
        Step::Refuse(Code::Unavailable),
        Step::Refuse(Code::Timeout),
        Step::Succeed,
    ];
    let grid = grid(steps, Duration::from_secs(30));
    assert_eq!(grid.put("users").await, Ok(7));
    let asked = grid.asked();
    assert_eq!(asked.len(), 6);
    assert!(asked[0].contains("rid=") && asked.iter().all(|parameters| *parameters == asked[0]), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_does_not_hold_is_final_at_once() {
    let grid = grid(&[Step::Refuse(Code::Conflict)], Duration::from_secs(30));
    assert_eq!(grid.put("users").await.unwrap_err().code(), Some(Code::Conflict));
    assert_eq!(grid.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_the_outcome_is_unknown_and_never_absent() {
    for step in [&[Step::Silent], &[Step::Refuse(Code::Unavailable)]] {
        let grid = grid(step, Duration::from_millis(600));
        let error = grid.put("users").await.unwrap_err();
        assert!(matches!(error, ClientError::Unknown { rid: Some(_), .. }), "{error}");
        assert!(grid.asked().len() > 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_an_attempt_without_answer_stays_unknown() {
    let grid = grid(&[Step::Silent, Step::Refuse(Code::Busy)], Duration::from_millis(600));
    let error = grid.put("users").await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_always_refused_before_it_was_tried_is_refused() {
    let grid = grid(&[Step::Refuse(Code::Busy)], Duration::from_millis(600));
    assert_eq!(grid.put("users").await.unwrap_err().code(), Some(Code::Busy));
    let quota = self::grid(&[Step::Refuse(Code::Quota)], Duration::from_secs(60));
    assert_eq!(quota.put("users").await.unwrap_err().code(), Some(Code::Quota));
    assert!(quota.asked().len() > 1, "final only after a repeat");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_collection_is_said_by_meta() {
    let grid = grid(&[Step::Succeed], Duration::from_millis(600));
    assert_eq!(grid.put("nothing").await.unwrap_err().code(), Some(Code::NoCollection));
    assert!(grid.asked().is_empty());
}
