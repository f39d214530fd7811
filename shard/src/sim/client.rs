//! The clients: what they do at random, what they are told, and what they make of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odgm_transport::Session;
use odgm_transport::session::{Call, Declaration};
use openraft_rt::AsyncRuntime;

use super::cluster::Cluster;
use super::history::{Action, Answer, Operation, Wanted, text_of};
use super::replica::{SERVER_PATIENCE, partition};
use super::runtime::SimulatedRuntime;
use super::watch::{Seen, Spot};
use super::world;
use crate::cluster::Replication;
use crate::object::{ObjectId, ObjectKey, Value, partition_of};
use crate::protocol::reply::{self, decode, decode_done, decode_record};
use crate::protocol::{Attachment, Code, Consistency, Effect, Keys, Plane, ReadParameters, encode_command};
use crate::state::{Command, Condition, Operation as Change};

/// How long one attempt waits: longer than a server works.
const ATTEMPT: Duration = Duration::from_millis(1_100);
/// How long an operation is repeated.
const PATIENCE: Duration = Duration::from_secs(6);

/// A client of one group.
pub(crate) struct Client {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) number: u64,
    pub(crate) group: u64,
    pub(crate) session: Arc<dyn Session>,
    keys: Keys,
    count: u64,
    /// Revisions that were seen, for conditions.
    known: BTreeMap<String, u64>,
    /// Since when nobody answers, by object.
    silent: BTreeMap<String, Duration>,
}

/// How one attempt ended.
enum Attempt {
    /// With the stamp of what was written or read, if there is one.
    Decided(Answer, u64),
    /// Told that nothing happened, this time.
    NotNow,
    /// Told that nobody knows.
    Unsure,
    Silence,
}

/// The registers of a group, then its counters.
pub(crate) fn objects(cluster: &Cluster, group: u64) -> (Vec<String>, Vec<String>) {
    let plan = &cluster.around.plan;
    let partitions = u32::try_from(plan.shards).unwrap_or(1);
    let of_group = |kind: &'static str| {
        let names = (0..).map(move |number| format!("{kind}{number}"));
        let ours = names.filter(|name| {
            ObjectId::parse(name).is_ok_and(|id| partition_of(&id, partitions) == partition(group))
        });
        ours.take(usize::try_from(plan.objects).unwrap_or(1)).collect()
    };
    (of_group("register"), of_group("number"))
}

impl Client {
    pub(crate) fn new(cluster: Arc<Cluster>, group: u64, number: u64) -> Self {
        let session = cluster.around.front.session(&format!("client-{group}-{number}"));
        let keys = Keys::new("odgm").expect("one concrete chunk is a root");
        Client {
            cluster,
            number,
            group,
            session,
            keys,
            count: 0,
            known: BTreeMap::new(),
            silent: BTreeMap::new(),
        }
    }

    fn at(&self) -> Spot {
        Spot { node: 0, group: self.group }
    }

    /// Whether the replicas of the group may differ: then nothing can be conditional.
    fn diverges(&self) -> bool {
        matches!(self.cluster.around.plan.kind, Replication::Mst | Replication::Eventual)
    }

    /// Does something, again and again, until the moment.
    pub(crate) async fn run(mut self, until: Duration) -> Self {
        let (registers, numbers) = objects(&self.cluster, self.group);
        let diverges = self.diverges();
        while world::now() < until {
            let pause = if world::one_in(4) { world::between(0, 200) } else { world::between(0, 20) };
            SimulatedRuntime::sleep(Duration::from_millis(pause)).await;
            let counts = !diverges && world::one_in(3);
            let from = if counts { &numbers } else { &registers };
            let object = from[usize::try_from(world::below(from.len() as u64)).unwrap_or(0)].clone();
            if !diverges && world::one_in(10) {
                self.read_locally(&object).await;
                continue;
            }
            let action = self.choose(&object, counts);
            self.operate(&object, action).await;
        }
        self
    }

    /// Reads every object.
    pub(crate) async fn read_all(&mut self) {
        let (registers, numbers) = objects(&self.cluster, self.group);
        for object in registers.into_iter().chain(numbers) {
            self.operate(&object, Action::Read).await;
        }
    }

    fn choose(&mut self, object: &str, counts: bool) -> Action {
        let revision = self.known.get(object).copied().unwrap_or(0);
        match world::below(10) {
            4 if self.diverges() => Action::Delete { if_revision: None },
            0..=3 => Action::Read,
            4 if counts && world::one_in(4) => Action::Delete { if_revision: None },
            _ if counts => Action::Increment { by: i64::try_from(world::between(1, 9)).unwrap_or(1) },
            4 => Action::Delete { if_revision: world::one_in(2).then_some(revision).filter(|r| *r > 0) },
            choice => {
                self.count += 1;
                let value = format!("c{}-{}", self.number, self.count);
                let condition = match choice {
                    _ if self.diverges() => Wanted::Nothing,
                    5 => Wanted::Absent,
                    6 => Wanted::Present,
                    7 => Wanted::Revision(revision),
                    _ => Wanted::Nothing,
                };
                Action::Put { value, condition }
            }
        }
    }

    /// Repeats an operation until it is decided, as clients are told to, and tells what came of it.
    async fn operate(&mut self, object: &str, action: Action) {
        self.count += 1;
        let rid = format!("rid-{}-{}", self.number, self.count);
        let began = world::now();
        let (mut called, mut unsure) = (began, false);
        let (answer, time) = loop {
            let attempt = self.attempt(object, &action, &rid).await;
            match attempt {
                Attempt::Decided(answer, time) => break (answer, time),
                Attempt::NotNow => {}
                Attempt::Unsure | Attempt::Silence => unsure = true,
            }
            if world::now() > began + PATIENCE {
                break (if unsure { Answer::Unknown } else { Answer::Refused }, 0);
            }
            SimulatedRuntime::sleep(Duration::from_millis(world::between(5, 150))).await;
            if action == Action::Read {
                // A read that was not answered is as if it never was.
                called = world::now();
            }
        };
        match &answer {
            Answer::Done { revision, .. } | Answer::Value { revision, .. } => {
                self.known.insert(object.to_owned(), *revision);
            }
            Answer::Conflict { revision } | Answer::Exists { revision } => {
                self.known.insert(object.to_owned(), *revision);
            }
            _ => {}
        }
        let operation = self.operation(object, action, called, answer);
        let seen = match self.diverges() {
            true => Seen::Stamped { operation, time },
            false => Seen::Answered { operation },
        };
        self.cluster.around.watch.see(self.at(), seen);
    }

    fn operation(&self, object: &str, action: Action, called: Duration, answer: Answer) -> Operation {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Operation {
            client: self.number,
            object: object.to_owned(),
            action,
            called: nanos(called),
            answered: nanos(world::now()),
            answer,
        }
    }

    async fn attempt(&mut self, object: &str, action: &Action, rid: &str) -> Attempt {
        let since = world::now();
        let consistency = if self.diverges() { Consistency::Local } else { Consistency::Linearizable };
        let (answered, attempt) = self.ask(self.call(object, action, rid, consistency)).await;
        if answered {
            self.silent.remove(object);
        } else {
            let since = *self.silent.entry(object.to_owned()).or_insert(since);
            let serving = self.cluster.serving_since(self.group);
            let reachable = serving.is_some_and(|serving| serving <= since);
            // Silence counts from where somebody began to serve, when that was later.
            let waited = world::now() - serving.map_or(since, |serving| serving.max(since));
            let object = object.to_owned();
            if serving.is_some() && waited >= Duration::from_secs(3) && !reachable {
                self.silent.insert(object.clone(), world::now());
            }
            self.cluster.around.watch.see(self.at(), Seen::Unanswered { object, waited, reachable });
        }
        attempt
    }

    async fn read_locally(&mut self, object: &str) {
        let called = world::now();
        let (_, attempt) = self.ask(self.call(object, &Action::Read, "", Consistency::Local)).await;
        if let Attempt::Decided(answer, _) = attempt {
            let operation = self.operation(object, Action::Read, called, answer);
            self.cluster.around.watch.see(self.at(), Seen::ReadLocally { operation });
        }
    }

    fn call(&self, object: &str, action: &Action, rid: &str, consistency: Consistency) -> Call {
        let object = ObjectId::parse(object).expect("its name was made of letters and digits");
        let key = ObjectKey { object, entry: None };
        let (collection, partition) = (&self.cluster.around.collection, partition(self.group));
        let change = match action {
            Action::Read => {
                let key = self.keys.object(Plane::Data, collection, partition, &key);
                let mut call = Call::new(key, ATTEMPT);
                let (consistency, timeout) = (Some(consistency), Some(SERVER_PATIENCE));
                call.parameters =
                    ReadParameters { consistency, timeout, ..ReadParameters::default() }.encode();
                return call;
            }
            Action::Put { value, condition } => {
                let condition = match condition {
                    Wanted::Nothing => Condition::None,
                    Wanted::Revision(revision) => Condition::Revision(*revision),
                    Wanted::Absent => Condition::Absent,
                    Wanted::Present => Condition::Present,
                };
                let value = Value { payload: Bytes::from(value.clone()), ..Value::default() };
                Change::Put { key: key.clone(), value, ttl_ms: None, condition }
            }
            Action::Delete { if_revision } => Change::Delete { key: key.clone(), if_revision: *if_revision },
            Action::Increment { by } => Change::Increment { key: key.clone(), by: *by },
        };
        let command = Command { rid: Some(Bytes::copy_from_slice(rid.as_bytes())), operation: change };
        let encoded = encode_command(&command, Some(SERVER_PATIENCE));
        let mut call = Call::new(self.keys.object(Plane::Command, collection, partition, &key), ATTEMPT);
        call.parameters = encoded.parameters;
        call.payload = encoded.body.payload;
        call.encoding = encoded.body.encoding;
        call
    }

    /// Whether there was any answer, and what the best of them says.
    async fn ask(&self, call: Call) -> (bool, Attempt) {
        let read = !call.key.as_str().contains("@cmd");
        let Ok(mut replies) = self.session.call(call) else { return (false, Attempt::Silence) };
        let (mut answered, mut best) = (false, Attempt::Silence);
        while let Some(reply) = replies.next().await {
            match decode(reply) {
                reply::Answer::Sample(sample) if read => {
                    let Some(record) = decode_record(&sample) else { continue };
                    let value = text_of(&record.value.payload);
                    let answer = Answer::Value { value, revision: record.revision };
                    return (true, Attempt::Decided(answer, record.time));
                }
                reply::Answer::Sample(sample) => {
                    let Some(done) = decode_done(&sample) else { continue };
                    let value = done.value.map(|value| text_of(&value));
                    let answer = Answer::Done { revision: done.revision, value };
                    return (true, Attempt::Decided(answer, done.time));
                }
                reply::Answer::Refused(refused) => {
                    answered = true;
                    let revision =
                        refused.facts.get("revision").and_then(serde_json::Value::as_u64).unwrap_or(0);
                    best = match refused.code {
                        Code::NotFound => Attempt::Decided(Answer::Absent, 0),
                        Code::Conflict => Attempt::Decided(Answer::Conflict { revision }, 0),
                        Code::Exists => Attempt::Decided(Answer::Exists { revision }, 0),
                        code if code.applied() == Effect::Unknown => match best {
                            decided @ Attempt::Decided(..) => decided,
                            _ => Attempt::Unsure,
                        },
                        _ => match best {
                            Attempt::Silence => Attempt::NotNow,
                            best => best,
                        },
                    };
                }
                reply::Answer::End(_) | reply::Answer::Foreign(_) => {}
            }
        }
        (answered, best)
    }

    /// Watches the events of the group for as long as the result lives. Those of divergent replicas, each with an
    /// order of its own, are seen where they are made.
    pub(crate) fn watch_events(&self) -> Option<Box<dyn Declaration>> {
        if self.diverges() {
            return None;
        }
        let key = self.keys.shard(Plane::Event, &self.cluster.around.collection, partition(self.group));
        let (watch, at, keys) = (self.cluster.around.watch.clone(), self.at(), self.keys.clone());
        let handler = Arc::new(move |sample: odgm_transport::session::Sample| {
            let Some((_, _, key)) = keys.parse(Plane::Event, sample.key.as_str()) else { return };
            let Some(numbers) = sample.attachment.as_ref().and_then(Attachment::decode) else { return };
            let value = sample.payload.as_deref().map(text_of);
            let (object, revision) = (key.object.as_str().to_owned(), numbers.revision);
            watch.see(at, Seen::Event { revision, object, value });
        });
        self.session.subscribe(&key, handler).ok()
    }
}
