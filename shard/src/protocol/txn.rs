//! Transactions as JSON: the payload of `op=txn`, and of its reply.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::keys::{ShardAddress, wrong_partition};
use super::parameters::{DURATION, duration, shown};
use super::refusal::Refusal;
use super::request::{millis, within};
use crate::object::{EntryName, ObjectId, ObjectKey, Value, partition_of};
use crate::state::{Check, CheckKind, Done, Operation, Step, StepDone, TxnDone};

/// Standard alphabet, padded when written, either way when read.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The most that the names and values of a transaction take together. A command is one entry of a log, which
/// one message brings to the other replicas: a larger one would be taken, and could never be committed.
pub(crate) const TXN_BYTES: u64 = 32 << 20;

/// About what the kind, the lengths and the numbers of a part take.
const PART_BYTES: usize = 32;

/// What must be written as a JSON object: serde's structs would take an array of their fields too.
#[derive(Serialize)]
#[serde(transparent)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TxnJson {
    #[serde(rename = "if", default, skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Object<CheckJson>>,
    #[serde(default)]
    then: Vec<StepJson>,
    #[serde(rename = "else", default, skip_serializing_if = "Vec::is_empty")]
    otherwise: Vec<StepJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckJson {
    object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    absent: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<ValueJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StepJson {
    Put(Object<PutJson>),
    Delete(Object<DeleteJson>),
    Increment(Object<IncrementJson>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutJson {
    object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    value: ValueJson,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    encoding: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteJson {
    object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IncrementJson {
    object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    #[serde(default = "one")]
    by: i64,
}

fn one() -> i64 {
    1
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a value must be a string or {\"base64\": \"…\"}")]
enum ValueJson {
    Text(String),
    Bytes(Object<Base64Json>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64Json {
    base64: String,
}

/// Parses a transaction over objects of one partition.
///
/// # Errors
/// `INVALID_PARAMETER` for what is no such JSON and for a key touched twice in a branch; `INVALID_KEY`,
/// `WRONG_PARTITION`, `TOO_LARGE`.
pub(crate) fn parse(payload: &[u8], shard: &ShardAddress, limit: u64) -> Result<Operation, Refusal> {
    let Object(json): Object<TxnJson> = serde_json::from_slice(payload)
        .map_err(|error| Refusal::parameter(format!("the transaction is not as it must be: {error}")))?;
    let parser = Parser { shard, limit };
    let checks: Vec<Check> =
        json.checks.into_iter().map(|check| parser.check(check.0)).collect::<Result<_, _>>()?;
    let then = parser.branch("then", json.then)?;
    let otherwise = parser.branch("else", json.otherwise)?;
    let steps = then.iter().chain(&otherwise).map(step_bytes);
    let bytes = checks.iter().map(check_bytes).chain(steps).sum();
    within("the transaction", bytes, TXN_BYTES)?;
    Ok(Operation::Txn { checks, then, otherwise })
}

struct Parser<'a> {
    shard: &'a ShardAddress,
    limit: u64,
}

impl Parser<'_> {
    fn key(&self, object: &str, entry: Option<&str>) -> Result<ObjectKey, Refusal> {
        let object = ObjectId::parse(object)?;
        let entry = entry.map(EntryName::parse).transpose()?;
        let owner = partition_of(&object, self.shard.partitions);
        if owner != self.shard.partition {
            return Err(wrong_partition(&object, owner).with("object", object.as_str()));
        }
        Ok(ObjectKey { object, entry })
    }

    fn bytes(&self, value: ValueJson) -> Result<Bytes, Refusal> {
        let bytes = match value {
            ValueJson::Text(text) => Bytes::from(text),
            ValueJson::Bytes(Object(Base64Json { base64 })) => {
                let decoded = BASE64.decode(&base64);
                let refuse = |error| Refusal::parameter(format!("{} is no base64: {error}", shown(&base64)));
                Bytes::from(decoded.map_err(refuse)?)
            }
        };
        within("a value of the transaction", bytes.len(), self.limit)?;
        Ok(bytes)
    }

    fn check(&self, check: CheckJson) -> Result<Check, Refusal> {
        let key = self.key(&check.object, check.entry.as_deref())?;
        let kind = match (check.revision, check.absent, check.value) {
            (Some(revision), None, None) => CheckKind::Revision(revision),
            (None, Some(true), None) => CheckKind::Absent,
            (None, Some(false), None) => CheckKind::Present,
            (None, None, Some(value)) => CheckKind::Value(self.bytes(value)?),
            _ => {
                let object = shown(&check.object);
                let message = format!("the check of {object} must have one of revision, absent, value");
                return Err(Refusal::parameter(message));
            }
        };
        Ok(Check { key, kind })
    }

    fn branch(&self, branch: &str, steps: Vec<StepJson>) -> Result<Vec<Step>, Refusal> {
        let steps = steps.into_iter().map(|step| self.step(step)).collect::<Result<Vec<_>, _>>()?;
        refuse_touched_twice(branch, &steps)?;
        Ok(steps)
    }

    fn step(&self, step: StepJson) -> Result<Step, Refusal> {
        match step {
            StepJson::Put(Object(put)) => {
                let key = self.key(&put.object, put.entry.as_deref())?;
                within("an encoding of the transaction", put.encoding.len(), self.limit)?;
                let payload = self.bytes(put.value)?;
                let ttl = put.ttl.map(|ttl| {
                    let bad = || format!("ttl {} is not allowed, allowed is {DURATION}", shown(&ttl));
                    duration(&ttl).ok_or_else(|| Refusal::parameter(bad()))
                });
                let value = Value { payload, encoding: put.encoding, attachment: None };
                Ok(Step::Put { key, value, ttl_ms: ttl.transpose()?.map(millis) })
            }
            StepJson::Delete(Object(delete)) => {
                Ok(Step::Delete { key: self.key(&delete.object, delete.entry.as_deref())? })
            }
            StepJson::Increment(Object(increment)) => {
                let key = self.key(&increment.object, increment.entry.as_deref())?;
                Ok(Step::Increment { key, by: increment.by })
            }
        }
    }
}

fn key_bytes(key: &ObjectKey) -> usize {
    PART_BYTES + key.object.as_str().len() + key.entry.as_ref().map_or(0, |entry| entry.as_str().len())
}

fn check_bytes(check: &Check) -> usize {
    let value = if let CheckKind::Value(value) = &check.kind { value.len() } else { 0 };
    key_bytes(&check.key) + value
}

fn step_bytes(step: &Step) -> usize {
    match step {
        Step::Put { key, value, .. } => key_bytes(key) + value.payload.len() + value.encoding.len(),
        Step::Delete { key } | Step::Increment { key, .. } => key_bytes(key),
    }
}

/// An object's delete touches its own value and all its entries.
fn refuse_touched_twice(branch: &str, steps: &[Step]) -> Result<(), Refusal> {
    let mut keys = HashSet::new();
    // Of each object: how many steps touch it, and whether one deletes it.
    let mut objects: HashMap<&ObjectId, (usize, bool)> = HashMap::new();
    for step in steps {
        let (key, deletes) = match step {
            Step::Put { key, .. } | Step::Increment { key, .. } => (key, false),
            Step::Delete { key } => (key, key.entry.is_none()),
        };
        let (touched, deleted) = objects.entry(&key.object).or_default();
        *touched += 1;
        *deleted |= deletes;
        if !keys.insert(key) || (*deleted && *touched > 1) {
            let entry =
                key.entry.as_ref().map_or(String::new(), |entry| format!(" entry {:?}", entry.as_str()));
            let object = key.object.as_str();
            let message = format!("{branch} touches a key twice: object {object:?}{entry}");
            return Err(Refusal::parameter(message));
        }
    }
    Ok(())
}

fn value_json(bytes: &Bytes) -> ValueJson {
    match std::str::from_utf8(bytes) {
        Ok(text) => ValueJson::Text(text.to_owned()),
        Err(_) => ValueJson::Bytes(Object(Base64Json { base64: BASE64.encode(bytes) })),
    }
}

fn names(key: &ObjectKey) -> (String, Option<String>) {
    let entry = key.entry.as_ref().map(|entry| entry.as_str().to_owned());
    (key.object.as_str().to_owned(), entry)
}

/// A transaction as a client sends it. Attachments of its puts do not fit the JSON and are left out.
pub(crate) fn encode(checks: &[Check], then: &[Step], otherwise: &[Step]) -> Bytes {
    let check = |check: &Check| {
        let (object, entry) = names(&check.key);
        let mut json = CheckJson { object, entry, revision: None, absent: None, value: None };
        match &check.kind {
            CheckKind::Revision(revision) => json.revision = Some(*revision),
            CheckKind::Absent => json.absent = Some(true),
            CheckKind::Present => json.absent = Some(false),
            CheckKind::Value(value) => json.value = Some(value_json(value)),
        }
        Object(json)
    };
    let step = |step: &Step| match step {
        Step::Put { key, value, ttl_ms } => {
            let (object, entry) = names(key);
            let (encoding, ttl) = (value.encoding.clone(), ttl_ms.map(|ttl| format!("{ttl}ms")));
            StepJson::Put(Object(PutJson { object, entry, value: value_json(&value.payload), encoding, ttl }))
        }
        Step::Delete { key } => {
            let (object, entry) = names(key);
            StepJson::Delete(Object(DeleteJson { object, entry }))
        }
        Step::Increment { key, by } => {
            let (object, entry) = names(key);
            StepJson::Increment(Object(IncrementJson { object, entry, by: *by }))
        }
    };
    let json = TxnJson {
        checks: checks.iter().map(check).collect(),
        then: then.iter().map(step).collect(),
        otherwise: otherwise.iter().map(step).collect(),
    };
    serde_json::to_vec(&json).expect("strings and numbers are JSON").into()
}

#[derive(Serialize, Deserialize)]
struct DoneJson {
    branch: String,
    revision: u64,
    results: Vec<ResultJson>,
}

#[derive(Serialize, Deserialize)]
struct ResultJson {
    object: String,
    revision: u64,
    created_revision: u64,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// The payload of a transaction's reply.
pub(crate) fn encode_done(done: &TxnDone) -> Bytes {
    let result = |step: &StepDone| ResultJson {
        object: step.object.as_str().to_owned(),
        revision: step.done.revision,
        created_revision: step.done.created_revision,
        version: step.done.version,
        value: step.done.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned()),
    };
    let json = DoneJson {
        branch: if done.then { "then" } else { "else" }.to_owned(),
        revision: done.revision,
        results: done.results.iter().map(result).collect(),
    };
    serde_json::to_vec(&json).expect("strings and numbers are JSON").into()
}

/// Reads the payload of a transaction's reply; `time` is the reply's.
pub(crate) fn decode_done(payload: &[u8], time: u64) -> Option<TxnDone> {
    let json: DoneJson = serde_json::from_slice(payload).ok()?;
    let then = match json.branch.as_str() {
        "then" => true,
        "else" => false,
        _ => return None,
    };
    let step = |result: ResultJson| {
        let done = Done {
            revision: result.revision,
            created_revision: result.created_revision,
            version: result.version,
            expires_unix_ms: 0,
            time,
            value: result.value.map(Bytes::from),
        };
        Some(StepDone { object: ObjectId::parse(&result.object).ok()?, done })
    };
    let results = json.results.into_iter().map(step).collect::<Option<_>>()?;
    Some(TxnDone { then, revision: json.revision, time, results })
}
