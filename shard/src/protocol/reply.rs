//! Replies and events: samples with their attachment and commit time, and END records.

use bytes::Bytes;
use odgm_transport::session::{ErrorReply, Reply, Sample, Timestamp};
use serde::{Deserialize, Serialize};

use super::attachment::Attachment;
use super::keys::{CommandTarget, Keys, Plane, ShardAddress, partition_clock};
use super::refusal::{JSON, Refusal};
use super::txn;
use crate::object::{ObjectKey, Value};
use crate::state::{Change, ChangeKind, Done, Outcome, Record, TxnDone};

/// Encodes what one incarnation of a shard says.
#[derive(Debug, Clone)]
pub struct Voice {
    keys: Keys,
    shard: ShardAddress,
    incarnation: [u8; 16],
    clock: [u8; 16],
}

impl Voice {
    /// The voice of a shard whose collection has this incarnation.
    pub fn new(keys: Keys, shard: ShardAddress, incarnation: [u8; 16]) -> Self {
        let clock = partition_clock(incarnation, shard.partition);
        Voice { keys, shard, incarnation, clock }
    }

    /// The keys that it speaks on.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The shard.
    pub fn shard(&self) -> &ShardAddress {
        &self.shard
    }

    /// The incarnation.
    pub fn incarnation(&self) -> [u8; 16] {
        self.incarnation
    }

    /// The id of its clock.
    pub fn clock(&self) -> [u8; 16] {
        self.clock
    }

    fn sample(&self, plane: Plane, key: &ObjectKey, time: u64) -> Sample {
        Sample {
            key: self.keys.object(plane, &self.shard.collection, self.shard.partition, key),
            payload: Some(Bytes::new()),
            encoding: String::new(),
            attachment: None,
            timestamp: Some(Timestamp { time, clock: self.clock }),
        }
    }

    fn attachment(&self, numbers: [u64; 4], user: Option<Bytes>) -> Option<Bytes> {
        let [revision, created_revision, version, expires_unix_ms] = numbers;
        let incarnation = self.incarnation;
        let user = user.unwrap_or_default();
        let attachment =
            Attachment { revision, created_revision, version, expires_unix_ms, incarnation, user };
        Some(attachment.encode())
    }

    /// The reply to a read: the stored value with its encoding.
    pub fn record(&self, plane: Plane, key: &ObjectKey, record: Record) -> Sample {
        let Record { value, revision, created_revision, version, expires_unix_ms, time } = record;
        let numbers = [revision, created_revision, version, expires_unix_ms];
        Sample {
            payload: Some(value.payload),
            encoding: value.encoding,
            attachment: self.attachment(numbers, value.attachment),
            ..self.sample(plane, key, time)
        }
    }

    /// The reply to a read that asked for no payloads.
    pub fn record_key(&self, plane: Plane, key: &ObjectKey, record: Record) -> Sample {
        Sample { payload: Some(Bytes::new()), ..self.record(plane, key, record) }
    }

    /// The event of a committed change.
    pub fn event(&self, change: Change) -> Sample {
        let Change { key, revision, created_revision, version, expires_unix_ms, time, kind } = change;
        let numbers = [revision, created_revision, version, expires_unix_ms];
        let sample = self.sample(Plane::Event, &key, time);
        match kind {
            ChangeKind::Put(value) => Sample {
                payload: Some(value.payload),
                encoding: value.encoding,
                attachment: self.attachment(numbers, value.attachment),
                ..sample
            },
            ChangeKind::Delete => {
                Sample { payload: None, attachment: self.attachment(numbers, None), ..sample }
            }
        }
    }

    /// The reply to a command.
    ///
    /// # Errors
    /// The refusal, when the state machine refused.
    pub fn outcome(&self, target: &CommandTarget, outcome: Outcome) -> Result<Sample, Refusal> {
        match (outcome, target) {
            (Outcome::Refused(refusal), _) => Err(refusal.into()),
            (Outcome::Done(done), CommandTarget::Key(key)) => Ok(self.done(key, done)),
            (Outcome::Txn(done), CommandTarget::Partition) => Ok(self.txn_done(&done)),
            (Outcome::Done(_), CommandTarget::Partition) | (Outcome::Txn(_), CommandTarget::Key(_)) => {
                Err(crate::Error::Internal("an outcome of another kind of command".to_owned()).into())
            }
        }
    }

    fn done(&self, key: &ObjectKey, done: Done) -> Sample {
        let numbers = [done.revision, done.created_revision, done.version, done.expires_unix_ms];
        let encoding = if done.value.is_some() { "text/plain".to_owned() } else { String::new() };
        Sample {
            payload: Some(done.value.unwrap_or_default()),
            encoding,
            attachment: self.attachment(numbers, None),
            ..self.sample(Plane::Command, key, done.time)
        }
    }

    fn txn_done(&self, done: &TxnDone) -> Sample {
        let ShardAddress { collection, partition, .. } = &self.shard;
        Sample {
            key: self.keys.partition(Plane::Command, collection, *partition),
            payload: Some(txn::encode_done(done)),
            encoding: JSON.to_owned(),
            attachment: self.attachment([done.revision, 0, 0, 0], None),
            timestamp: Some(Timestamp { time: done.time, clock: self.clock }),
        }
    }

    /// The END record that closes a list of this partition; `next` is the cursor of the page that
    /// follows; of a replay, the next `from`.
    pub fn end(&self, revision: u64, count: u64, next: Option<String>) -> ErrorReply {
        let end = End {
            code: END.to_owned(),
            collection: self.shard.collection.as_str().to_owned(),
            partition: self.shard.partition.0,
            partitions: self.shard.partitions,
            incarnation: format!("{:032x}", u128::from_be_bytes(self.incarnation)),
            revision,
            count,
            next,
        };
        let payload = serde_json::to_vec(&end).expect("strings and numbers are JSON");
        ErrorReply { payload: payload.into(), encoding: JSON.to_owned() }
    }
}

const END: &str = "END";

/// The END record of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    code: String,
    /// The collection.
    pub collection: String,
    /// The partition that is complete.
    pub partition: u32,
    /// How many there are.
    pub partitions: u32,
    /// 32 hex digits.
    pub incarnation: String,
    /// The revision of the view.
    pub revision: u64,
    /// How many keys the list has.
    pub count: u64,
    /// The cursor of the next page; of a replay, the next `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A reply as a client reads it.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A key's value, or what became of a command.
    Sample(Sample),
    /// A partition's list is complete.
    End(End),
    /// The request was refused.
    Refused(Refusal),
    /// An error reply that is none of ours, such as zenoh's own for a timeout.
    Foreign(ErrorReply),
}

/// Reads a reply.
pub fn decode(reply: Reply) -> Answer {
    let error = match reply {
        Ok(sample) => return Answer::Sample(sample),
        Err(error) => error,
    };
    if let Some(end) = serde_json::from_slice::<End>(&error.payload).ok().filter(|end| end.code == END) {
        return Answer::End(end);
    }
    match Refusal::decode(&error) {
        Some(refusal) => Answer::Refused(refusal),
        None => Answer::Foreign(error),
    }
}

/// Reads a stored value with its numbers from the reply to a read; `None` when it has no attachment
/// of ours.
pub fn decode_record(sample: &Sample) -> Option<Record> {
    let attachment = Attachment::decode(sample.attachment.as_ref()?)?;
    Some(Record {
        value: Value {
            payload: sample.payload.clone().unwrap_or_default(),
            encoding: sample.encoding.clone(),
            attachment: (!attachment.user.is_empty()).then_some(attachment.user),
        },
        revision: attachment.revision,
        created_revision: attachment.created_revision,
        version: attachment.version,
        expires_unix_ms: attachment.expires_unix_ms,
        time: sample.timestamp.map_or(0, |timestamp| timestamp.time),
    })
}

/// Reads the numbers of a successful command; `None` when it has no attachment of ours.
pub fn decode_done(sample: &Sample) -> Option<Done> {
    let record = decode_record(sample)?;
    let value = Some(record.value.payload).filter(|payload| !payload.is_empty());
    let Record { revision, created_revision, version, expires_unix_ms, time, .. } = record;
    Some(Done { revision, created_revision, version, expires_unix_ms, time, value })
}

/// Reads what a transaction did.
pub fn decode_txn(sample: &Sample) -> Option<TxnDone> {
    let time = sample.timestamp.map_or(0, |timestamp| timestamp.time);
    txn::decode_done(sample.payload.as_deref()?, time)
}
