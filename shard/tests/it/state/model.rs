//! The table against a plain model, and against itself with the same commands split otherwise.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::Unbounded;
use std::sync::Arc;

use bytes::Bytes;
use odgm_shard::object::{ObjectId, ObjectKey};
use odgm_shard::state::{
    Batch, Change, ChangeKind, Check, CheckKind, Command, Condition, Due, Input, ObjectTable, Operation,
    Outcome, Position, Refusal, Retain, Selection, Settings, Step, Upkeep,
};
use odgm_storage::data::{ApplicationDataStorage, Direction, Keyspace};
use proptest::prelude::*;

use super::{NOW, SECOND, increment, key, put, storage, value};

#[derive(Default, Clone)]
struct ModelObject {
    /// Payloads by key.
    values: BTreeMap<ObjectKey, Bytes>,
    /// The deadlines of those that have one, Unix milliseconds.
    deadlines: BTreeMap<ObjectKey, u64>,
    revision: u64,
    created: u64,
    version: u64,
}

/// The contract, as plainly as it can be said.
#[derive(Default, Clone)]
struct Model {
    objects: BTreeMap<ObjectId, ModelObject>,
    revision: u64,
    log_time: u64,
    rids: HashMap<Bytes, (Operation, Outcome, u64)>,
    changes: Vec<(ObjectKey, Option<Bytes>, u64, u64, u64)>,
}

/// What the model knows of an outcome: its numbers and an increment's value, or why not.
#[derive(Debug, PartialEq)]
enum Told {
    Done(u64, u64, u64, Option<Bytes>),
    Txn(bool, u64, Vec<(u64, u64, u64, Option<Bytes>)>),
    Refused(std::mem::Discriminant<Refusal>, u64),
}

fn told(outcome: &Outcome) -> Told {
    let numbers = |done: &odgm_shard::state::Done| {
        (done.revision, done.created_revision, done.version, done.value.clone())
    };
    match outcome {
        Outcome::Done(done) => {
            let (revision, created, version, value) = numbers(done);
            Told::Done(revision, created, version, value)
        }
        Outcome::Txn(done) => {
            let results = done.results.iter().map(|step| numbers(&step.done)).collect();
            Told::Txn(done.then, done.revision, results)
        }
        Outcome::Refused(refusal) => {
            let fact = match refusal {
                Refusal::NotFound { entries } => *entries,
                Refusal::Exists { revision } | Refusal::Conflict { revision } => *revision,
                Refusal::BadIncrement { .. } | Refusal::RidReused => 0,
            };
            Told::Refused(std::mem::discriminant(refusal), fact)
        }
    }
}

type Numbers = (u64, u64, u64, Option<Bytes>);

impl Model {
    fn value(&self, key: &ObjectKey) -> Option<&Bytes> {
        self.objects.get(&key.object)?.values.get(key)
    }

    fn object_revision(&self, key: &ObjectKey) -> u64 {
        self.objects.get(&key.object).map_or(0, |object| object.revision)
    }

    fn deadline(&self, key: &ObjectKey) -> u64 {
        self.objects.get(&key.object).and_then(|object| object.deadlines.get(key)).copied().unwrap_or(0)
    }

    fn expires(&self, ttl_ms: Option<u64>) -> u64 {
        ttl_ms.map_or(0, |ttl_ms| (self.log_time >> 32) * 1000 + ttl_ms)
    }

    fn set(&mut self, key: &ObjectKey, payload: Option<Bytes>) -> Numbers {
        let deadline = if payload.is_some() { self.deadline(key) } else { 0 };
        self.set_until(key, payload, deadline)
    }

    fn set_until(&mut self, key: &ObjectKey, payload: Option<Bytes>, deadline: u64) -> Numbers {
        self.revision += 1;
        let object = self.objects.entry(key.object.clone()).or_default();
        object.revision = self.revision;
        object.version += 1;
        if object.version == 1 {
            object.created = self.revision;
        }
        let numbers = (object.revision, object.created, object.version, None);
        match payload.clone() {
            Some(payload) => object.values.insert(key.clone(), payload),
            None => object.values.remove(key),
        };
        match deadline {
            0 => object.deadlines.remove(key),
            deadline => object.deadlines.insert(key.clone(), deadline),
        };
        if object.values.is_empty() {
            self.objects.remove(&key.object);
        }
        self.changes.push((key.clone(), payload, numbers.0, numbers.1, numbers.2));
        numbers
    }

    fn delete(&mut self, key: &ObjectKey) -> Numbers {
        let before = self.objects.get(&key.object).cloned().unwrap_or_default();
        let mut gone: Vec<ObjectKey> = match key.entry {
            None => before.values.keys().cloned().collect(),
            Some(_) => before.values.keys().filter(|known| *known == key).cloned().collect(),
        };
        gone.sort_by_key(|key| (key.entry.is_none(), key.entry.clone()));
        let revision = if before.version > 0 { self.object_revision(key) } else { self.revision };
        let mut numbers = (revision, before.created, before.version, None);
        for key in gone {
            numbers = self.set(&key, None);
        }
        numbers
    }

    fn increment(&mut self, key: &ObjectKey, by: i64) -> Result<Numbers, Refusal> {
        let bad = || Refusal::BadIncrement { reason: String::new() };
        let present = self.value(key).map_or(Ok(0), |value| {
            std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)
        })?;
        let sum = Bytes::from(i64::checked_add(present, by).ok_or_else(bad)?.to_string());
        let numbers = self.set(key, Some(sum.clone()));
        Ok((numbers.0, numbers.1, numbers.2, Some(sum)))
    }

    fn step(&mut self, step: &Step) -> Result<Numbers, Refusal> {
        match step {
            Step::Put { key, value, ttl_ms } => {
                Ok(self.set_until(key, Some(value.payload.clone()), self.expires(*ttl_ms)))
            }
            Step::Delete { key } => Ok(self.delete(key)),
            Step::Increment { key, by } => self.increment(key, *by),
        }
    }

    fn entries(&self, key: &ObjectKey) -> u64 {
        let object = self.objects.get(&key.object);
        object.map_or(0, |object| object.values.keys().filter(|key| key.entry.is_some()).count() as u64)
    }

    fn conflict(&self, key: &ObjectKey, wanted: u64) -> Result<(), Refusal> {
        let revision = self.object_revision(key);
        if revision == wanted { Ok(()) } else { Err(Refusal::Conflict { revision }) }
    }

    fn holds(&self, check: &Check) -> bool {
        let is_there = match check.key.entry {
            None => self.objects.contains_key(&check.key.object),
            Some(_) => self.value(&check.key).is_some(),
        };
        match &check.kind {
            CheckKind::Revision(revision) => self.object_revision(&check.key) == *revision,
            CheckKind::Absent => !is_there,
            CheckKind::Present => is_there,
            CheckKind::Value(payload) => self.value(&check.key) == Some(payload),
        }
    }

    fn operation(&mut self, operation: &Operation) -> Result<Told, Refusal> {
        let (revision, created, version, value) = match operation {
            Operation::Touch { key, ttl_ms } => {
                let payload = self
                    .value(key)
                    .cloned()
                    .ok_or_else(|| Refusal::NotFound { entries: self.entries(key) })?;
                self.set_until(key, Some(payload), self.expires(*ttl_ms))
            }
            Operation::Upkeep(Upkeep::Expire(due)) => {
                for Due { key, expires_unix_ms } in due {
                    let over = *expires_unix_ms <= (self.log_time >> 32) * 1000;
                    if *expires_unix_ms > 0 && over && self.deadline(key) == *expires_unix_ms {
                        self.delete(key);
                    }
                }
                (self.revision, 0, 0, None)
            }
            Operation::Upkeep(_) => (self.revision, 0, 0, None),
            Operation::Put { key, value, condition, ttl_ms } => {
                let revision = self.object_revision(key);
                let entries = self.entries(key);
                match (condition, self.value(key)) {
                    (Condition::Revision(wanted), _) => self.conflict(key, *wanted)?,
                    (Condition::Absent, Some(_)) => return Err(Refusal::Exists { revision }),
                    (Condition::Present, None) => return Err(Refusal::NotFound { entries }),
                    _ => {}
                }
                self.set_until(key, Some(value.payload.clone()), self.expires(*ttl_ms))
            }
            Operation::Delete { key, if_revision } => {
                if_revision.map_or(Ok(()), |wanted| self.conflict(key, wanted))?;
                self.delete(key)
            }
            Operation::Increment { key, by } => self.increment(key, *by)?,
            Operation::Txn { checks, then, otherwise } => {
                let holds = checks.iter().all(|check| self.holds(check));
                let before = self.clone();
                let mut results = Vec::new();
                for step in if holds { then } else { otherwise } {
                    match self.step(step) {
                        Ok(numbers) => results.push(numbers),
                        Err(refusal) => {
                            *self = before;
                            return Err(refusal);
                        }
                    }
                }
                return Ok(Told::Txn(holds, self.revision, results));
            }
        };
        Ok(Told::Done(revision, created, version, value))
    }

    fn run(&mut self, command: &Command, real: &Outcome, window_ms: u64) -> Told {
        let cutoff = self.log_time.saturating_sub(window_ms / 1000 * SECOND);
        if let Some(rid) = &command.rid
            && let Some((operation, outcome, time)) = self.rids.get(rid)
            && *time >= cutoff
        {
            let reused = Outcome::Refused(Refusal::RidReused);
            return told(if *operation == command.operation { outcome } else { &reused });
        }
        let result = self.operation(&command.operation);
        if let Some(rid) = &command.rid {
            self.rids.insert(rid.clone(), (command.operation.clone(), real.clone(), self.log_time));
        }
        result.unwrap_or_else(|refusal| told(&Outcome::Refused(refusal)))
    }
}

fn any_key() -> impl Strategy<Value = ObjectKey> {
    prop::sample::select(vec!["a", "a/e", "a/f", "ab", "ab/e", "c", "c/z"]).prop_map(key)
}

fn any_text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1", "x", "9223372036854775807", ""])
}

fn any_ttl() -> impl Strategy<Value = Option<u64>> {
    prop::sample::select(vec![None, None, Some(1_000), Some(3_000)])
}

fn any_due() -> impl Strategy<Value = Vec<Due>> {
    let due = (any_key(), 0..40_u64).prop_map(|(key, after)| Due {
        key,
        expires_unix_ms: if after == 0 { 0 } else { NOW / SECOND * 1000 + after * 1000 },
    });
    prop::collection::vec(due, 0..40)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any_key(), any_text(), any_ttl()).prop_map(|(key, text, ttl_ms)| Step::Put {
            key,
            value: value(text),
            ttl_ms
        }),
        any_key().prop_map(|key| Step::Delete { key }),
        (any_key(), -2..3_i64).prop_map(|(key, by)| Step::Increment { key, by }),
    ]
}

fn any_check() -> impl Strategy<Value = Check> {
    let kind = prop_oneof![
        (0..12_u64).prop_map(CheckKind::Revision),
        Just(CheckKind::Absent),
        Just(CheckKind::Present),
        any_text().prop_map(|text| CheckKind::Value(text.into())),
    ];
    (any_key(), kind).prop_map(|(key, kind)| Check { key, kind })
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let condition = prop_oneof![
        4 => Just(Condition::None),
        1 => (0..12_u64).prop_map(Condition::Revision),
        1 => Just(Condition::Absent),
        1 => Just(Condition::Present),
    ];
    prop_oneof![
        4 => (any_key(), any_text(), condition, any_ttl()).prop_map(|(key, text, condition, ttl_ms)| {
            Operation::Put { key, value: value(text), ttl_ms, condition }
        }),
        1 => (any_key(), any_ttl()).prop_map(|(key, ttl_ms)| Operation::Touch { key, ttl_ms }),
        2 => any_due().prop_map(|due| Operation::Upkeep(Upkeep::Expire(due))),
        1 => Just(Operation::Upkeep(Upkeep::Sweep)),
        1 => (0..12_u64).prop_map(|revision| Operation::Upkeep(Upkeep::Published(revision))),
        1 => prop::option::weighted(0.8, (1..9_u64, 200..2000_u64, 1..20_u64)).prop_map(|retain| {
            let history = retain.map(|(count, bytes, seconds)| Retain { count, bytes, age_ms: seconds * 1000 });
            Operation::Upkeep(Upkeep::Configure(Settings { history, indexes: vec![] }))
        }),
        2 => (any_key(), prop::option::weighted(0.3, 0..12_u64))
            .prop_map(|(key, if_revision)| Operation::Delete { key, if_revision }),
        2 => (any_key(), -2..3_i64).prop_map(|(key, by)| Operation::Increment { key, by }),
        2 => (
            prop::collection::vec(any_check(), 0..3),
            prop::collection::vec(any_step(), 0..4),
            prop::collection::vec(any_step(), 0..4),
        )
            .prop_map(|(checks, then, otherwise)| Operation::Txn { checks, then, otherwise }),
    ]
}

/// Commands with the seconds by which the proposer's clock moved before them, back too.
fn any_commands() -> impl Strategy<Value = Vec<(Command, i64)>> {
    let rid = prop::option::of("[a-d]").prop_map(|rid| rid.map(Bytes::from));
    let command = (rid, any_operation()).prop_map(|(rid, operation)| Command { rid, operation });
    prop::collection::vec((command, -3..8_i64), 1..60)
}

/// A window that the test's clock leaves now and then.
const WINDOW_MS: u64 = 10_000;

fn input(command: Command, time: u64) -> Input {
    Input::Batch(Batch { time, rid_window_ms: WINDOW_MS, commands: vec![command] })
}

fn inputs(commands: &[(Command, i64)]) -> Vec<(Position, Input)> {
    let mut time = NOW;
    let mut index = 0;
    let timed = commands.iter().map(|(command, moved)| {
        time = time.saturating_add_signed(moved * SECOND as i64);
        index += 1;
        (Position { term: 1, index }, input(command.clone(), time))
    });
    timed.collect()
}

type Rows = Vec<(Bytes, Bytes)>;

fn rows(store: &Arc<dyn ApplicationDataStorage>) -> Vec<Rows> {
    let view = store.view();
    let keyspace = |keyspace| {
        view.scan(keyspace, Unbounded, Unbounded, Direction::Forward).map(Result::unwrap).collect()
    };
    Keyspace::ALL.map(keyspace).to_vec()
}

fn changes_told(changes: &[Change]) -> Vec<(ObjectKey, Option<Bytes>, u64, u64, u64)> {
    let told = |change: &Change| {
        let payload = match &change.kind {
            ChangeKind::Put(value) => Some(value.payload.clone()),
            ChangeKind::Delete => None,
        };
        (change.key.clone(), payload, change.revision, change.created_revision, change.version)
    };
    changes.iter().map(told).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_does_what_the_model_does(commands in any_commands()) {
        let mut table = ObjectTable::open(storage()).unwrap();
        let mut model = Model::default();
        let mut changes = Vec::new();
        let mut retain = Settings::default().history;
        for ((position, input), (command, _)) in inputs(&commands).into_iter().zip(&commands) {
            let Input::Batch(batch) = &input else { unreachable!() };
            model.log_time = model.log_time.max(batch.time);
            let applied = table.apply(vec![(position, input)]).unwrap();
            let real = &applied.outcomes[0][0];
            prop_assert_eq!(told(real), model.run(command, real, WINDOW_MS), "{:?}", command);
            changes.extend(applied.changes);
            if let Operation::Upkeep(Upkeep::Configure(settings)) = &command.operation {
                retain = settings.history;
            }
            let view = table.view();
            let bounds = view.history().unwrap();
            let kept: Vec<_> = view
                .changes(bounds.oldest, u64::MAX, Direction::Forward)
                .collect::<Result<_, _>>()
                .unwrap();
            // What is kept is the newest there was, whole, and no more than asked for.
            prop_assert_eq!(&kept[..], &changes[changes.len() - kept.len()..]);
            prop_assert_eq!(bounds.oldest + kept.len() as u64, bounds.last + 1);
            prop_assert!(kept.len() as u64 <= retain.map_or(0, |retain| retain.count));
            if let Some(retain) = retain {
                let sixteenth = SECOND * retain.age_ms.div_ceil(1000) / 8;
                let cutoff = model.log_time.saturating_sub(retain.age_ms / 1000 * SECOND + sixteenth + SECOND);
                prop_assert!(kept.iter().all(|change| change.time >= cutoff));
            }
        }
        prop_assert_eq!(changes_told(&changes), model.changes);
        for pair in changes.windows(2) {
            prop_assert!(pair[0].time < pair[1].time);
            prop_assert_eq!(pair[0].revision + 1, pair[1].revision);
        }
        let view = table.view();
        prop_assert_eq!(view.revision(), model.revision);
        let all = Selection::all();
        let listed: Vec<_> = view
            .list(&all, None)
            .map(|row| row.map(|(key, record)| {
                (key, record.value.payload, record.revision, record.created_revision, record.version)
            }))
            .collect::<Result<_, _>>()
            .unwrap();
        let expected: Vec<_> = model.objects.values().flat_map(|object| {
            object.values.iter().map(|(key, payload)| {
                (key.clone(), payload.clone(), object.revision, object.created, object.version)
            })
        }).collect();
        prop_assert_eq!(listed, expected);
        let due = view.due(0, u64::MAX, usize::MAX).unwrap();
        let found: BTreeMap<_, _> = due.iter().map(|due| (due.key.clone(), due.expires_unix_ms)).collect();
        prop_assert_eq!(found.len(), due.len());
        prop_assert!(due.is_sorted_by_key(|due| due.expires_unix_ms));
        let deadlines = model.objects.values().flat_map(|object| object.deadlines.clone());
        prop_assert_eq!(found, deadlines.collect::<BTreeMap<_, _>>());
        for (id, object) in &model.objects {
            let head = view.head(id).unwrap().unwrap();
            let entries = object.values.keys().filter(|key| key.entry.is_some()).count() as u64;
            prop_assert_eq!((head.entries, head.has_value), (entries, entries < object.values.len() as u64));
        }
    }

    #[test]
    fn however_inputs_are_split_over_calls_and_reopens_the_rows_are_the_same(
        commands in any_commands(),
        splits in prop::collection::vec((1..9_usize, any::<bool>()), 1..20),
    ) {
        let one_by_one = storage();
        let mut table = ObjectTable::open(one_by_one.clone()).unwrap();
        let mut expected = (Vec::new(), Vec::new());
        for input in inputs(&commands) {
            let applied = table.apply(vec![input]).unwrap();
            expected.0.extend(applied.outcomes);
            expected.1.extend(applied.changes);
        }
        let split = storage();
        let mut table = ObjectTable::open(split.clone()).unwrap();
        let mut found = (Vec::new(), Vec::new());
        let mut left = inputs(&commands);
        for (count, reopen) in splits.into_iter().cycle() {
            if left.is_empty() {
                break;
            }
            if reopen {
                table = ObjectTable::open(split.clone()).unwrap();
            }
            let applied = table.apply(left.drain(..count.min(left.len())).collect()).unwrap();
            found.0.extend(applied.outcomes);
            found.1.extend(applied.changes);
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(rows(&split), rows(&one_by_one));
    }
}

#[test]
fn commands_in_one_batch_or_in_many_of_the_same_time_leave_the_same_rows() {
    let operations = [put("a", "1"), increment("a", 1), put("a/e", "x"), increment("b", 2)];
    let command = |(n, operation): (usize, Operation)| Command {
        rid: Some(Bytes::from(format!("r{}", n % 3))),
        operation,
    };
    let commands: Vec<Command> = operations.into_iter().enumerate().map(command).collect();
    let (one, many) = (storage(), storage());
    let batch = |commands| Input::Batch(Batch { time: NOW, rid_window_ms: WINDOW_MS, commands });
    let at = Position { term: 1, index: 9 };
    let mut table = ObjectTable::open(one.clone()).unwrap();
    table.apply(vec![(at, batch(commands.clone()))]).unwrap();
    let mut table = ObjectTable::open(many.clone()).unwrap();
    for (n, command) in commands.into_iter().enumerate() {
        let at = Position { term: 1, index: 6 + n as u64 };
        table.apply(vec![(at, batch(vec![command]))]).unwrap();
    }
    assert_eq!(rows(&many), rows(&one));
}
