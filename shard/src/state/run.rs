//! What each operation does to the objects: conditions, numbers, changes.

use bytes::Bytes;
use odgm_storage::data::Keyspace;

use super::expiry;
use super::index::Held;
use super::layout::{self, Counters, Head, Stored};
use super::overlay::Overlay;
use crate::Result;
use crate::object::{ObjectId, ObjectKey, Value};
use crate::runtime::unix_ms;
use crate::state::{
    Change, ChangeKind, Check, CheckKind, Condition, Done, Due, Operation, Outcome, Refusal, Step, StepDone,
    TxnDone, Upkeep,
};

/// Runs commands over an overlay, taking revisions and commit times from the counters.
pub(crate) struct Run<'run, 'view> {
    pub(crate) overlay: &'run mut Overlay<'view>,
    pub(crate) counters: &'run mut Counters,
    pub(crate) held: &'run mut Held,
    pub(crate) changes: &'run mut Vec<Change>,
}

/// Done, or refused without a change.
type Tried<T> = Result<std::result::Result<T, Refusal>>;

impl Run<'_, '_> {
    /// Runs one command.
    pub(crate) fn command(&mut self, operation: Operation) -> Result<Outcome> {
        let tried = match operation {
            Operation::Put { key, value, ttl_ms, condition } => match self.refuse_put(&key, &condition)? {
                Some(refusal) => Err(refusal),
                None => Ok(self.put(key, value, ttl_ms)?),
            },
            Operation::Delete { key, if_revision } => {
                match self.refuse_revision(&key.object, if_revision)? {
                    Some(refusal) => Err(refusal),
                    None => Ok(self.delete(key)?),
                }
            }
            Operation::Increment { key, by } => self.increment(key, by)?,
            Operation::Touch { key, ttl_ms } => self.touch(key, ttl_ms)?,
            Operation::Upkeep(upkeep) => Ok(self.upkeep(upkeep)?),
            Operation::Txn { checks, then, otherwise } => {
                return Ok(match self.transaction(&checks, then, otherwise)? {
                    Ok(done) => Outcome::Txn(done),
                    Err(refusal) => Outcome::Refused(refusal),
                });
            }
        };
        Ok(match tried {
            Ok(done) => Outcome::Done(done),
            Err(refusal) => Outcome::Refused(refusal),
        })
    }

    fn refuse_revision(&mut self, object: &ObjectId, wanted: Option<u64>) -> Result<Option<Refusal>> {
        let Some(wanted) = wanted else { return Ok(None) };
        let revision = self.overlay.head(object)?.map_or(0, |head| head.revision);
        Ok((revision != wanted).then_some(Refusal::Conflict { revision }))
    }

    fn refuse_put(&mut self, key: &ObjectKey, condition: &Condition) -> Result<Option<Refusal>> {
        match condition {
            Condition::None => Ok(None),
            Condition::Revision(wanted) => self.refuse_revision(&key.object, Some(*wanted)),
            Condition::Absent if self.has_value(key)? => {
                let revision = self.overlay.head(&key.object)?.map_or(0, |head| head.revision);
                Ok(Some(Refusal::Exists { revision }))
            }
            Condition::Present if !self.has_value(key)? => {
                let entries = self.overlay.head(&key.object)?.map_or(0, |head| head.entries);
                Ok(Some(Refusal::NotFound { entries }))
            }
            Condition::Absent | Condition::Present => Ok(None),
        }
    }

    /// Whether a key has a value: an object's head says it for its own value, without reading it.
    fn has_value(&mut self, key: &ObjectKey) -> Result<bool> {
        match (self.overlay.head(&key.object)?, &key.entry) {
            (None, _) => Ok(false),
            (Some(head), None) => Ok(head.has_value),
            (Some(head), Some(_)) if head.entries == 0 => Ok(false),
            (Some(_), Some(_)) => Ok(self.overlay.value(key)?.is_some()),
        }
    }

    /// The deadline of a key, 0 for none; an entry is read for it only where one of its object has one.
    fn deadline(&mut self, key: &ObjectKey) -> Result<u64> {
        Ok(match (self.overlay.head(&key.object)?, &key.entry) {
            (None, _) => 0,
            (Some(head), None) => head.expires_unix_ms,
            (Some(head), Some(_)) if head.expiring_entries == 0 => 0,
            (Some(_), Some(_)) => self.overlay.value(key)?.map_or(0, |stored| stored.expires_unix_ms),
        })
    }

    /// The deadline that a time to live means now, by log time.
    fn expires(&self, ttl_ms: Option<u64>) -> u64 {
        ttl_ms.map_or(0, |ttl_ms| unix_ms(self.counters.log_time).saturating_add(ttl_ms))
    }

    fn put(&mut self, key: ObjectKey, value: Value, ttl_ms: Option<u64>) -> Result<Done> {
        self.set(key, value, self.expires(ttl_ms))
    }

    fn touch(&mut self, key: ObjectKey, ttl_ms: Option<u64>) -> Tried<Done> {
        let Some(stored) = self.overlay.value(&key)? else {
            let entries = self.overlay.head(&key.object)?.map_or(0, |head| head.entries);
            return Ok(Err(Refusal::NotFound { entries }));
        };
        let value = stored.value.clone();
        Ok(Ok(self.set(key, value, self.expires(ttl_ms))?))
    }

    fn upkeep(&mut self, upkeep: Upkeep) -> Result<Done> {
        match upkeep {
            // The history does it, as it does a little with every command.
            Upkeep::Sweep => {}
            Upkeep::Published(revision) => {
                let published = revision.min(self.counters.revision);
                self.counters.history.published = published.max(self.counters.history.published);
            }
            Upkeep::Configure(settings) => {
                self.held.configure(settings);
                self.hold();
            }
            Upkeep::IndexStep => {
                if !self.held.is_settled() {
                    self.held.step(self.overlay)?;
                    self.hold();
                }
            }
            Upkeep::Expire(due) => {
                let now_ms = unix_ms(self.counters.log_time);
                for Due { key, expires_unix_ms } in due {
                    let is_due = (1..=now_ms).contains(&expires_unix_ms);
                    if is_due && self.deadline(&key)? == expires_unix_ms {
                        self.delete(key)?;
                    }
                }
            }
        }
        Ok(self.nothing_done(None))
    }

    fn hold(&mut self) {
        let row = layout::encode_record(&*self.held);
        self.overlay.derived().put(Keyspace::Meta, layout::SETTINGS, row);
    }

    /// Keeps the indexes that a key is in; before its value is set. Where there is none, nothing is read.
    fn follow(&mut self, key: &ObjectKey, after: Option<&Stored>) -> Result<()> {
        if !self.held.indexes.iter().any(|index| index.spec.source.concerns(key)) {
            return Ok(());
        }
        let before = if self.has_value(key)? { self.overlay.value(key)?.cloned() } else { None };
        for index in self.held.indexes.iter().filter(|index| index.spec.source.concerns(key)) {
            index.follow(self.overlay.derived(), key, before.as_ref(), after)?;
        }
        Ok(())
    }

    fn set(&mut self, key: ObjectKey, value: Value, expires_unix_ms: u64) -> Result<Done> {
        let is_new = !self.has_value(&key)?;
        let deadline = self.deadline(&key)?;
        let (revision, time) = self.next();
        let mut head = next_head(self.overlay.head(&key.object)?, revision);
        match key.entry {
            None => (head.has_value, head.expires_unix_ms) = (true, expires_unix_ms),
            Some(_) => {
                head.entries += u64::from(is_new);
                head.expiring_entries += u64::from(expires_unix_ms > 0);
                head.expiring_entries -= u64::from(deadline > 0);
            }
        }
        expiry::change(self.overlay.derived(), &key, deadline, expires_unix_ms)?;
        let stored = Stored { value: value.clone(), expires_unix_ms, time };
        self.follow(&key, Some(&stored))?;
        self.overlay.set_head(&key.object, Some(head));
        self.overlay.set_value(&key, Some(stored));
        self.change(key, &head, expires_unix_ms, time, ChangeKind::Put(value));
        Ok(done(&head, expires_unix_ms, time))
    }

    fn delete(&mut self, key: ObjectKey) -> Result<Done> {
        let before = self.overlay.head(&key.object)?;
        let mut last = None;
        match (before, &key.entry) {
            (None, _) => {}
            (Some(_), Some(_)) => {
                if self.has_value(&key)? {
                    last = Some(self.remove(key)?);
                }
            }
            (Some(head), None) => {
                if head.entries > 0 {
                    for entry in self.overlay.entries(&key.object)? {
                        let entry = ObjectKey { object: key.object.clone(), entry: Some(entry) };
                        last = Some(self.remove(entry)?);
                    }
                }
                if head.has_value {
                    last = Some(self.remove(key)?);
                }
            }
        }
        Ok(last.unwrap_or_else(|| self.nothing_done(before)))
    }

    /// The numbers of a command that changed nothing: the object's, or the partition's revision when
    /// there is no object.
    fn nothing_done(&self, head: Option<Head>) -> Done {
        Done {
            revision: head.map_or(self.counters.revision, |head| head.revision),
            created_revision: head.map_or(0, |head| head.created_revision),
            version: head.map_or(0, |head| head.version),
            expires_unix_ms: 0,
            time: self.counters.commit_time.max(self.counters.log_time),
            value: None,
        }
    }

    /// Removes a key that has a value; the object's last one takes the object along.
    fn remove(&mut self, key: ObjectKey) -> Result<Done> {
        let deadline = self.deadline(&key)?;
        let (revision, time) = self.next();
        let mut head = next_head(self.overlay.head(&key.object)?, revision);
        match key.entry {
            None => (head.has_value, head.expires_unix_ms) = (false, 0),
            Some(_) => {
                head.entries = head.entries.saturating_sub(1);
                head.expiring_entries -= u64::from(deadline > 0);
            }
        }
        expiry::change(self.overlay.derived(), &key, deadline, 0)?;
        let exists = head.has_value || head.entries > 0;
        self.follow(&key, None)?;
        self.overlay.set_head(&key.object, exists.then_some(head));
        self.overlay.set_value(&key, None);
        self.change(key, &head, 0, time, ChangeKind::Delete);
        Ok(done(&head, 0, time))
    }

    fn increment(&mut self, key: ObjectKey, by: i64) -> Tried<Done> {
        let present = self.overlay.value(&key)?;
        let (number, encoding, attachment, expires_unix_ms) = match present {
            None => (Some(0), "text/plain".to_owned(), None, 0),
            Some(stored) => {
                let text = std::str::from_utf8(&stored.value.payload).ok();
                let number = text.and_then(|text| text.parse::<i64>().ok());
                let value = &stored.value;
                (number, value.encoding.clone(), value.attachment.clone(), stored.expires_unix_ms)
            }
        };
        let bad = |reason: String| Ok(Err(Refusal::BadIncrement { reason }));
        let Some(number) = number else {
            return bad("the value is not a decimal integer from -2^63 to 2^63-1".to_owned());
        };
        let Some(sum) = number.checked_add(by) else {
            return bad(format!("{number} + {by} is not within -2^63 to 2^63-1"));
        };
        let payload = Bytes::from(sum.to_string());
        let value = Value { payload: payload.clone(), encoding, attachment };
        let done = self.set(key, value, expires_unix_ms)?;
        Ok(Ok(Done { value: Some(payload), ..done }))
    }

    fn transaction(&mut self, checks: &[Check], then: Vec<Step>, otherwise: Vec<Step>) -> Tried<TxnDone> {
        let mut holds = true;
        for check in checks {
            holds = holds && self.check(check)?;
        }
        let before = *self.counters;
        let changes = self.changes.len();
        self.overlay.begin();
        let mut results = Vec::new();
        for step in if holds { then } else { otherwise } {
            match self.step(step)? {
                Ok(done) => results.push(done),
                Err(refusal) => {
                    self.overlay.take_back();
                    self.changes.truncate(changes);
                    *self.counters = before;
                    return Ok(Err(refusal));
                }
            }
        }
        self.overlay.keep();
        let changed = self.counters.revision > before.revision;
        let time = self.counters.commit_time;
        let time = if changed { time } else { time.max(self.counters.log_time) };
        Ok(Ok(TxnDone { then: holds, revision: self.counters.revision, time, results }))
    }

    fn check(&mut self, check: &Check) -> Result<bool> {
        let head = self.overlay.head(&check.key.object)?;
        let is_there = match check.key.entry {
            None => head.is_some(),
            Some(_) => self.has_value(&check.key)?,
        };
        Ok(match &check.kind {
            CheckKind::Revision(wanted) => head.map_or(0, |head| head.revision) == *wanted,
            CheckKind::Absent => !is_there,
            CheckKind::Present => is_there,
            CheckKind::Value(payload) => {
                let stored = self.overlay.value(&check.key)?;
                stored.is_some_and(|stored| stored.value.payload == payload)
            }
        })
    }

    fn step(&mut self, step: Step) -> Tried<StepDone> {
        let (object, tried) = match step {
            Step::Put { key, value, ttl_ms } => (key.object.clone(), Ok(self.put(key, value, ttl_ms)?)),
            Step::Delete { key } => (key.object.clone(), Ok(self.delete(key)?)),
            Step::Increment { key, by } => (key.object.clone(), self.increment(key, by)?),
        };
        Ok(tried.map(|done| StepDone { object, done }))
    }

    /// Takes the next revision and a commit time above all before.
    fn next(&mut self) -> (u64, u64) {
        let counters = &mut *self.counters;
        counters.revision += 1;
        counters.commit_time = counters.log_time.max(counters.commit_time.saturating_add(1));
        (counters.revision, counters.commit_time)
    }

    fn change(&mut self, key: ObjectKey, head: &Head, expires_unix_ms: u64, time: u64, kind: ChangeKind) {
        self.changes.push(Change {
            key,
            revision: head.revision,
            created_revision: head.created_revision,
            version: head.version,
            expires_unix_ms,
            time,
            kind,
        });
    }
}

fn next_head(head: Option<Head>, revision: u64) -> Head {
    let fresh = Head {
        revision,
        created_revision: revision,
        version: 1,
        entries: 0,
        has_value: false,
        expires_unix_ms: 0,
        expiring_entries: 0,
    };
    head.map_or(fresh, |head| Head { revision, version: head.version + 1, ..head })
}

fn done(head: &Head, expires_unix_ms: u64, time: u64) -> Done {
    Done {
        revision: head.revision,
        created_revision: head.created_revision,
        version: head.version,
        expires_unix_ms,
        time,
        value: None,
    }
}
