//! A client that changes and reads the objects on stage, and writes down what it is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use odgm_shard::client::{Acknowledged, ClientError, Consistency, GridClient, Put, PutCondition};
use odgm_shard::protocol::{Code, Effect};
use odgm_shard::sim::history::{Action, Answer, Operation, Wanted};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::door::Door;
use crate::record::Record;
use crate::stage::{COUNTERS, REGISTERS, Stage, key};

/// When an operation is given up. The window in which a repeat gets the first answer is 60 s, and the last repeat
/// takes its time.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the clients of a run share.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) stage: Stage,
    pub(crate) record: Record,
    /// The workers are to come to an end.
    pub(crate) stop: AtomicBool,
    /// They have.
    pub(crate) gone: AtomicBool,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Worker {
    number: usize,
    door: Door,
    around: Arc<Surroundings>,
    random: StdRng,
    count: u64,
    /// The revisions that it saw, of the objects of this act.
    seen: HashMap<String, u64>,
    act: u64,
    /// Between two operations, at most.
    pause: Duration,
}

impl Worker {
    pub(crate) fn new(
        number: usize,
        door: Door,
        around: Arc<Surroundings>,
        seed: u64,
        pause: Duration,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seen = HashMap::new();
        Worker { number, door, around, random, count: 0, seen, act: 0, pause }
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(mut self) {
        while !self.around.stop.load(Ordering::SeqCst) {
            let act = self.around.stage.enter(self.number);
            if act != self.act {
                (self.act, self.seen) = (act, HashMap::new());
            }
            let (object, action) = self.draw(act);
            self.operate(object, action).await;
            self.around.stage.leave(self.number);
            let pause = self.random.random_range(self.pause / 4..=self.pause);
            tokio::time::sleep(pause).await;
        }
        self.door.close().await;
    }

    fn draw(&mut self, act: u64) -> (String, Action) {
        let stage = &self.around.stage;
        if self.random.random_ratio(3, 10) {
            let object = stage.counter(act, self.random.random_range(0..COUNTERS));
            let read = self.random.random_ratio(1, 3);
            let by = self.random.random_range(1..=9);
            return (object, if read { Action::Read } else { Action::Increment { by } });
        }
        let object = stage.register(act, self.random.random_range(0..REGISTERS));
        let revision = self.seen.get(&object).copied().unwrap_or(0);
        let condition = match self.random.random_range(0..100) {
            0..35 => return (object, Action::Read),
            35..43 => return (object, Action::Delete { if_revision: None }),
            43..48 => return (object, Action::Delete { if_revision: Some(revision) }),
            48..64 => Wanted::Revision(revision),
            64..72 => Wanted::Absent,
            72..78 => Wanted::Present,
            _ => Wanted::Nothing,
        };
        self.count += 1;
        (object, Action::Put { value: format!("{}-{}", self.number, self.count), condition })
    }

    /// Repeats an operation until it is decided, and writes down what came of it.
    async fn operate(&mut self, object: String, action: Action) {
        self.count += 1;
        let rid = format!("t{}-{}", self.number, self.count);
        let began = Instant::now();
        let (mut called, mut unsure) = (began, false);
        let answer = loop {
            // Before it has a session nothing can have happened.
            if let Some(client) = self.door.client().await {
                let told = ask(client, &self.around, &object, &action, &rid).await;
                match told {
                    Told::Answer(answer) => break answer,
                    Told::NotNow => {}
                    Told::Unsure => {
                        unsure = true;
                        self.door.reopen().await;
                    }
                }
            }
            if began.elapsed() > PATIENCE {
                break if unsure { Answer::Unknown } else { Answer::Refused };
            }
            if action == Action::Read {
                // A read that was not answered is as if it never was.
                called = Instant::now();
            }
        };
        match &answer {
            Answer::Done { revision, .. }
            | Answer::Value { revision, .. }
            | Answer::Conflict { revision }
            | Answer::Exists { revision } => {
                self.seen.insert(object.clone(), *revision);
            }
            _ => {}
        }
        let stage = &self.around.stage;
        let (called, answered) = (stage.nanos(called), stage.nanos(Instant::now()));
        let partition = stage.partition(&object);
        let client = self.number as u64;
        self.around.record.add(partition, Operation { client, object, action, called, answered, answer });
    }
}

/// How one round ended.
enum Told {
    Answer(Answer),
    /// Nothing happened.
    NotNow,
    /// It may have happened.
    Unsure,
}

async fn ask(client: &GridClient, around: &Surroundings, object: &str, action: &Action, rid: &str) -> Told {
    let (collection, key, rid) = (&around.stage.collection, key(object), Some(rid));
    let told = match action {
        Action::Read => {
            return match client.get(collection, &key, Consistency::Linearizable).await {
                Ok(found) => {
                    let (value, revision) = (text(&found.value), found.revision);
                    Told::Answer(Answer::Value { value, revision })
                }
                Err(error) => refused(around, object, error),
            };
        }
        Action::Put { value, condition } => {
            let condition = match condition {
                Wanted::Nothing => PutCondition::None,
                Wanted::Revision(revision) => PutCondition::Revision(*revision),
                Wanted::Absent => PutCondition::Absent,
                Wanted::Present => PutCondition::Present,
            };
            let put = Put { condition, ..Put::value(value.clone()) };
            client.put(collection, &key, put, rid).await
        }
        Action::Delete { if_revision } => client.delete(collection, &key, *if_revision, rid).await,
        Action::Increment { by } => client.increment(collection, &key, *by, rid).await,
    };
    match told {
        Ok(Acknowledged { revision, value, .. }) => {
            let value = matches!(action, Action::Increment { .. }).then(|| text(&value));
            Told::Answer(Answer::Done { revision, value })
        }
        Err(error) => refused(around, object, error),
    }
}

fn refused(around: &Surroundings, object: &str, error: ClientError) -> Told {
    let ClientError::Refused(refused) = error else {
        if matches!(error, ClientError::Invalid(_) | ClientError::Malformed(_)) {
            around.record.violated(format!("{object}: {error}"));
        }
        return Told::Unsure;
    };
    let revision = refused.facts.get("revision").and_then(serde_json::Value::as_u64).unwrap_or(0);
    match refused.code {
        Code::NotFound => Told::Answer(Answer::Absent),
        Code::Conflict => Told::Answer(Answer::Conflict { revision }),
        Code::Exists => Told::Answer(Answer::Exists { revision }),
        Code::NotLeader | Code::Busy | Code::ReadOnly => Told::NotNow,
        code if code.applied() == Effect::Unknown => Told::Unsure,
        _ => {
            around.record.violated(format!("{object}: refused for no reason: {refused}"));
            Told::NotNow
        }
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
