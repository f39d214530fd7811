//! A client that writes objects of its own, and some that it shares, and knows what must be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use odgm_shard::client::{Acknowledged, ClientError, Consistency, GridClient, Put, PutCondition};
use odgm_shard::object::{CollectionName, ObjectId, ObjectKey, partition_of};
use odgm_shard::protocol::Code;
use odgm_shard::sim::history::{Action, Answer, Operation, Wanted};
use tokio::sync::watch;

use super::Random;
use super::record::{Changed, Incremented, Record, Swapped};
use crate::processes::DEADLINE;

const COUNTERS: u64 = 8;
const REGISTERS: u64 = 4;

/// What all clients of a round know.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) collection: CollectionName,
    pub(super) partitions: u32,
    /// Histories count time from here.
    began: Instant,
    created: watch::Sender<u64>,
    /// The highest acknowledged value of each counter, and revision of each register.
    counters: [AtomicU64; COUNTERS as usize],
    registers: [AtomicU64; REGISTERS as usize],
}

impl Shared {
    pub(super) fn new(collection: CollectionName, partitions: u32) -> Self {
        let (counters, registers) = Default::default();
        let began = Instant::now();
        Shared { collection, partitions, began, created: watch::Sender::new(0), counters, registers }
    }

    /// How many objects were created.
    pub(super) fn created(&self) -> u64 {
        *self.created.borrow()
    }

    /// Waits until so many objects were created.
    pub(super) async fn await_created(&self, count: u64) {
        let mut created = self.created.subscribe();
        let waiting = tokio::time::timeout(DEADLINE, created.wait_for(|created| *created >= count));
        waiting.await.expect("clients that get on").expect("the sender is here");
    }

    pub(super) fn counter(number: u64) -> String {
        format!("counter-{number}")
    }

    pub(super) fn register(number: u64) -> String {
        format!("register-{number}")
    }
}

/// A client.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) number: usize,
    pub(super) client: GridClient,
    pub(super) record: Record,
    /// What it did to the objects that it shares.
    pub(super) history: Vec<Operation>,
    shared: Arc<Shared>,
    random: Random,
    /// Its objects: value, revision and version; `None` of one that it deleted.
    objects: BTreeMap<String, Option<(String, u64, u64)>>,
    written: u64,
}

impl Writer {
    pub(super) fn new(number: usize, client: GridClient, shared: Arc<Shared>, random: Random) -> Self {
        let (record, history, objects) = Default::default();
        Writer { number, client, record, history, shared, random, objects, written: 0 }
    }

    /// The objects that must be there.
    pub(super) fn existing(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().filter(|(_, expected)| expected.is_some()).map(|(name, _)| name.as_str())
    }

    /// Creates an object, until that is acknowledged.
    pub(super) async fn create(&mut self, number: usize) {
        let name = format!("object-{}-{number}", self.number);
        let condition = if self.random.below(2) == 0 { PutCondition::None } else { PutCondition::Absent };
        self.put(&name, condition).await.expect("nobody else creates it");
        self.shared.created.send_modify(|created| *created += 1);
    }

    /// Something else, on an object of its own or on one that others change too.
    pub(super) async fn another(&mut self) {
        let number = self.random.below(self.objects.len() as u64);
        let (name, expected) = self.objects.iter().nth(number as usize).expect("below their number");
        let (name, expected) = (name.clone(), expected.clone());
        let revision = expected.as_ref().map_or(0, |(_, revision, _)| *revision);
        match self.random.below(10) {
            0 => self.put(&name, PutCondition::Revision(revision)).await.expect("it has that revision"),
            1 => {
                let refused = self.put(&name, PutCondition::Revision(revision + 1)).await;
                assert_eq!(refused, Err(Code::Conflict), "{name}, which has revision {revision}");
            }
            2 => {
                let put = self.put(&name, PutCondition::Absent).await;
                assert_eq!(put, if expected.is_some() { Err(Code::Exists) } else { Ok(()) }, "{name}");
            }
            3 => self.delete(&name).await,
            4 | 5 => self.increment().await,
            6 => self.swap().await,
            7 | 8 => self.check(&name).await,
            _ => {}
        }
    }

    /// Reads all its objects.
    pub(super) async fn verify(&self) {
        for name in self.objects.keys() {
            self.check(name).await;
        }
    }

    /// A linearizable read shows the last change that was acknowledged, since nobody else changes it.
    async fn check(&self, name: &str) {
        let found = self.read(name).await;
        let found = found.map(|found| (text(&found.value), found.revision, found.version));
        assert_eq!(found, self.objects[name], "{name}");
    }

    pub(super) async fn read_counter(&self, counter: u64) -> i64 {
        let found = self.read(&Shared::counter(counter)).await;
        found.map_or(0, |found| text(&found.value).parse().unwrap())
    }

    pub(super) async fn read_register(&self, register: u64) -> u64 {
        self.read(&Shared::register(register)).await.map_or(0, |found| found.revision)
    }

    async fn read(&self, name: &str) -> Option<odgm_shard::client::Found> {
        let key = key(name);
        let found = self.client.find(&self.shared.collection, &key, Consistency::Linearizable).await;
        found.unwrap_or_else(|error| panic!("reading {name}: {error}"))
    }

    async fn put(&mut self, name: &str, condition: PutCondition) -> Result<(), Code> {
        self.written += 1;
        let value = format!("{}-{}", self.number, self.written);
        let put = Put { condition, ..Put::value(value.clone()) };
        let put = self.client.put(&self.shared.collection, &key(name), put, None).await;
        let done = self.decided(name, put)?;
        let before = self.objects.get(name).cloned().flatten();
        let version = before.map_or(1, |(_, _, version)| version + 1);
        assert_eq!(done.version, version, "{name}");
        self.objects.insert(name.to_owned(), Some((value, done.revision, done.version)));
        self.changed(name, done.revision);
        Ok(())
    }

    async fn delete(&mut self, name: &str) {
        let deleted = self.client.delete(&self.shared.collection, &key(name), None, None).await;
        let done = self.decided(name, deleted).expect("a delete has no condition");
        // To delete what is absent is no change.
        if self.objects.insert(name.to_owned(), None).flatten().is_some() {
            self.changed(name, done.revision);
        }
    }

    async fn increment(&mut self) {
        let (counter, by) = (self.random.below(COUNTERS), 1 + self.random.below(5));
        let name = Shared::counter(counter);
        let known = &self.shared.clone().counters[counter as usize];
        let before = known.load(Ordering::SeqCst);
        let by = i64::try_from(by).unwrap();
        let rid = format!("{}-{}", self.number, self.record.increments.len());
        let called = Instant::now();
        let incremented = self.client.increment(&self.shared.collection, &key(&name), by, Some(&rid)).await;
        let done = self.decided(&name, incremented).expect("an increment has no condition");
        let value: i64 = text(&done.value).parse().unwrap();
        assert!(value.unsigned_abs() > before, "{name}: {value} came after {before}");
        known.fetch_max(value.unsigned_abs(), Ordering::SeqCst);
        let told = Answer::Done { revision: done.revision, value: Some(value.to_string()) };
        self.note(&name, Action::Increment { by }, called, told);
        self.record.increments.push(Incremented { counter, by, value });
        self.changed(&name, done.revision);
    }

    /// Reads what others change too, and changes it if nobody did meanwhile.
    async fn swap(&mut self) {
        let register = self.random.below(REGISTERS);
        let name = Shared::register(register);
        let known = &self.shared.clone().registers[register as usize];
        let before = known.load(Ordering::SeqCst);
        let called = Instant::now();
        let found = self.read(&name).await;
        let from = found.as_ref().map_or(0, |found| found.revision);
        assert!(from >= before, "{name}: revision {from} was read after {before} was acknowledged");
        let seen = found.map_or(Answer::Absent, |found| Answer::Value {
            value: text(&found.value),
            revision: found.revision,
        });
        self.note(&name, Action::Read, called, seen);
        self.written += 1;
        let value = format!("{}-{}", self.number, self.written);
        let put = Put { condition: PutCondition::Revision(from), ..Put::value(value.clone()) };
        let (called, action) = (Instant::now(), Action::Put { value, condition: Wanted::Revision(from) });
        let put = self.client.put(&self.shared.collection, &key(&name), put, None).await;
        match self.decided(&name, put) {
            Ok(done) => {
                self.note(&name, action, called, Answer::Done { revision: done.revision, value: None });
                known.fetch_max(done.revision, Ordering::SeqCst);
                self.record.swaps.push(Swapped { register, from, to: done.revision });
                self.changed(&name, done.revision);
            }
            Err(code) => assert_eq!(code, Code::Conflict, "{name}"),
        }
    }

    fn note(&mut self, object: &str, action: Action, called: Instant, answer: Answer) {
        let nanos = |at: Instant| u64::try_from((at - self.shared.began).as_nanos()).unwrap();
        let (called, answered) = (nanos(called), nanos(Instant::now()));
        let client = self.number as u64;
        self.history.push(Operation { client, object: object.to_owned(), action, called, answered, answer });
    }

    /// Acknowledged or refused: repeats must end with one of them.
    fn decided(&mut self, name: &str, told: Result<Acknowledged, ClientError>) -> Result<Acknowledged, Code> {
        match told {
            Ok(done) => Ok(done),
            Err(ClientError::Refused(refused)) => {
                self.record.refused += 1;
                Err(refused.code)
            }
            Err(undecided) => panic!("{name}: {undecided}"),
        }
    }

    fn changed(&mut self, name: &str, revision: u64) {
        let partition = partition_of(&ObjectId::parse(name).unwrap(), self.shared.partitions).0;
        self.record.changes.push(Changed { at: Instant::now(), partition, revision });
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { object: ObjectId::parse(name).unwrap(), entry: None }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
