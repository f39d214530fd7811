//! A collection as its creator describes it.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tombstones::TombstonesSpec;
use crate::object::{CollectionName, EntryName};
use crate::quantity::{Period, Size};
use crate::state::{IndexSource, IndexSpec, Retain, Settings};

/// How a collection's partitions are replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replication {
    /// Consensus: acknowledged means fsynced on a majority and applied.
    #[default]
    Raft,
    /// Merkle-search-tree anti-entropy.
    Mst,
    /// Sent to the others once, repaired on meeting.
    Eventual,
    /// One copy.
    None,
}

/// Whether changes are published, and how many are kept to be replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsSpec {
    /// Publish every committed change, and keep it.
    pub enabled: bool,
    /// For how long.
    pub retain: RetainSpec,
}

impl Default for EventsSpec {
    fn default() -> Self {
        EventsSpec { enabled: true, retain: RetainSpec::default() }
    }
}

/// How much history each partition keeps: the newest changes that are within all three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetainSpec {
    /// Changes, at least 1.
    pub count: u64,
    /// Bytes, at least 1; the last change is kept however large.
    pub bytes: Size,
    /// Age, at least 1s.
    pub age: Period,
}

impl Default for RetainSpec {
    fn default() -> Self {
        let Retain { count, bytes, age_ms } = Retain::default();
        RetainSpec { count, bytes: Size(bytes), age: Period::from_millis(age_ms) }
    }
}

impl RetainSpec {
    fn validate(&self) -> Result<(), SpecError> {
        let wrong = |what: &str| Err(SpecError::Invalid(format!("events.retain.{what}")));
        if self.count == 0 {
            return wrong("count is 0, must be at least 1");
        }
        if self.bytes.bytes() == 0 {
            return wrong("bytes is 0, must be at least 1");
        }
        let age = self.age.duration();
        if age < Duration::from_secs(1) || age > MAX_AGE {
            return wrong(&format!("age is {}, must be 1s to 36500d", self.age));
        }
        Ok(())
    }
}

/// The longest age that history can be kept for.
pub(super) const MAX_AGE: Duration = Duration::from_secs(36_500 * 86_400);
/// Partitions of a collection when its creator names no number.
pub const DEFAULT_PARTITIONS: u32 = 4;
/// The most partitions a collection can have.
pub const MAX_PARTITIONS: u32 = 1024;
/// The most indexes a collection can have.
pub const MAX_INDEXES: usize = 16;
/// The most replicas a partition can have.
pub const MAX_REPLICAS: u32 = 7;

/// A secondary index: `{name, path}` or `{name, entry}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexRecord {
    /// What queries call it: `[a-z0-9][a-z0-9_-]{0,62}`.
    pub name: String,
    /// A JSON pointer (RFC 6901) into the object's own value, such as `/age`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The entry whose value the object is found by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

impl IndexRecord {
    fn spec(&self) -> Result<IndexSpec, SpecError> {
        let wrong = |what: String| SpecError::Invalid(format!("index {:?} {what}", self.name));
        CollectionName::parse(&self.name).map_err(|_| wrong("must match [a-z0-9][a-z0-9_-]{0,62}".into()))?;
        let source = match (&self.path, &self.entry) {
            (Some(path), None) if is_pointer(path) => IndexSource::Path(path.clone()),
            (Some(path), None) => {
                return Err(wrong(format!("has path {path:?}, must be a JSON pointer such as /age")));
            }
            (None, Some(entry)) => {
                IndexSource::Entry(EntryName::parse(entry).map_err(|error| wrong(format!("has: {error}")))?)
            }
            _ => return Err(wrong("must have one of path, entry".into())),
        };
        Ok(IndexSpec { name: self.name.clone(), source })
    }
}

/// RFC 6901: empty, or behind each `/` a name, in which `~` begins `~0` or `~1`.
fn is_pointer(path: &str) -> bool {
    let escapes = path.split('~').skip(1).all(|behind| behind.starts_with(['0', '1']));
    escapes && (path.is_empty() || path.starts_with('/'))
}

/// A collection as described at its creation. Partitions never change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectionSpec {
    /// The name.
    pub name: String,
    /// How many partitions, 1..=1024.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
    /// How many replicas a partition has, 1..=7 and no more than there are nodes. Absent: 3, or as
    /// many as there are nodes; 1 for replication `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// How they are replicated.
    #[serde(default)]
    pub replication: Replication,
    /// Events of changes.
    #[serde(default)]
    pub events: EventsSpec,
    /// Secondary indexes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<IndexRecord>,
    /// What is remembered of deletions; for replication `eventual` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstones: Option<TombstonesSpec>,
    /// Limits of the collection; not supported yet, so none may be given.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub limits: serde_json::Map<String, serde_json::Value>,
}

fn default_partitions() -> u32 {
    DEFAULT_PARTITIONS
}

/// What of a collection is to change; what is not given stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectionUpdate {
    /// Its name, if given at all.
    pub name: Option<String>,
    /// Fixed at creation: only what it is may be given.
    pub partitions: Option<u32>,
    /// Only what it is may be given yet.
    pub replicas: Option<u32>,
    /// Fixed at creation: only what it is may be given.
    pub replication: Option<Replication>,
    /// Events, whole.
    pub events: Option<EventsSpec>,
    /// Indexes, all of them: what is not among them is dropped.
    pub indexes: Option<Vec<IndexRecord>>,
    /// What is remembered of deletions, whole.
    pub tombstones: Option<TombstonesSpec>,
    /// Limits of the collection; not supported yet, so none may be given.
    pub limits: Option<serde_json::Map<String, serde_json::Value>>,
}

impl CollectionUpdate {
    /// The description of a collection after it.
    ///
    /// # Errors
    /// Says what can't change, or which value is wrong.
    pub fn apply(self, to: &CollectionSpec) -> Result<CollectionSpec, SpecError> {
        if self.name.as_ref().is_some_and(|name| *name != to.name) {
            return Err(SpecError::Invalid(format!("the name of collection {} can't change", to.name)));
        }
        if self.partitions.is_some_and(|partitions| partitions != to.partitions) {
            return Err(SpecError::Invalid(format!(
                "partitions are fixed at creation, to {}",
                to.partitions
            )));
        }
        if self.replication.is_some_and(|replication| replication != to.replication) {
            return Err(SpecError::Invalid("replication is fixed at creation".into()));
        }
        if self.replicas.is_some_and(|replicas| Some(replicas) != to.replicas) {
            return Err(SpecError::Unsupported("another number of replicas"));
        }
        let after = CollectionSpec {
            events: self.events.unwrap_or_else(|| to.events.clone()),
            indexes: self.indexes.unwrap_or_else(|| to.indexes.clone()),
            tombstones: self.tombstones.or_else(|| to.tombstones.clone()),
            limits: self.limits.unwrap_or_else(|| to.limits.clone()),
            ..to.clone()
        };
        after.validate()?;
        Ok(after)
    }
}

/// Why a description was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A value is impossible.
    #[error("{0}")]
    Invalid(String),
    /// A later version will take it.
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
}

impl CollectionSpec {
    /// Checks everything that does not depend on the cluster; gives the parsed name.
    ///
    /// # Errors
    /// Says which value is wrong and what is allowed.
    pub fn validate(&self) -> Result<CollectionName, SpecError> {
        let name =
            CollectionName::parse(&self.name).map_err(|refused| SpecError::Invalid(refused.to_string()))?;
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            return Err(SpecError::Invalid(format!(
                "partitions is {}, must be 1 to {MAX_PARTITIONS}",
                self.partitions
            )));
        }
        if let Some(replicas) = self.replicas
            && !(1..=MAX_REPLICAS).contains(&replicas)
        {
            return Err(SpecError::Invalid(format!("replicas is {replicas}, must be 1 to {MAX_REPLICAS}")));
        }
        if let (Replication::None, Some(replicas @ 2..)) = (self.replication, self.replicas) {
            return Err(SpecError::Invalid(format!(
                "replicas is {replicas}, a collection of replication none has 1"
            )));
        }
        self.events.retain.validate()?;
        if let Some(tombstones) = &self.tombstones {
            tombstones.validate(self.replication)?;
        }
        if self.indexes.len() > MAX_INDEXES {
            let count = self.indexes.len();
            return Err(SpecError::Invalid(format!("indexes are {count}, must be at most {MAX_INDEXES}")));
        }
        let mut names = HashSet::new();
        for index in &self.indexes {
            let name = index.spec()?.name;
            if !names.insert(name.clone()) {
                return Err(SpecError::Invalid(format!("index {name:?} is given twice")));
            }
        }
        if !self.limits.is_empty() {
            return Err(SpecError::Unsupported("limits of a collection"));
        }
        Ok(name)
    }

    /// What it means for the state of each partition.
    pub fn settings(&self) -> Settings {
        let RetainSpec { count, bytes, age } = &self.events.retain;
        let age_ms = u64::try_from(age.duration().as_millis()).unwrap_or(u64::MAX);
        let retain = Retain { count: *count, bytes: bytes.bytes(), age_ms };
        let indexes = self.indexes.iter().filter_map(|index| index.spec().ok()).collect();
        Settings { history: self.events.enabled.then_some(retain), indexes }
    }

    /// What is remembered of deletions, said or not; `None` where time does not decide it.
    pub fn tombstones(&self) -> Option<TombstonesSpec> {
        let is_eventual = self.replication == Replication::Eventual;
        is_eventual.then(|| self.tombstones.clone().unwrap_or_default())
    }

    /// The replicas a partition gets on so many nodes.
    ///
    /// # Errors
    /// When more are asked for than there are nodes.
    pub fn replicas_on(&self, nodes: usize) -> Result<usize, SpecError> {
        let usual = if self.replication == Replication::None { 1 } else { 3 };
        let replicas = self.replicas.map_or_else(|| nodes.min(usual), |asked| asked as usize);
        if replicas == 0 || replicas > nodes {
            return Err(SpecError::Invalid(format!("replicas is {replicas}, the cluster has {nodes} nodes")));
        }
        Ok(replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Result<CollectionSpec, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_alone_is_enough() {
        let users = spec(r#"{"name":"users"}"#).unwrap();
        assert_eq!(users.validate().unwrap().as_str(), "users");
        assert_eq!((users.partitions, users.replicas_on(5)), (4, Ok(3)));
        assert_eq!(users.replicas_on(1), Ok(1));
    }

    #[test]
    fn wrong_values_are_named() {
        for (json, expected) in [
            (r#"{"name":"Users"}"#, "must match"),
            (r#"{"name":"u","partitions":0}"#, "partitions is 0"),
            (r#"{"name":"u","partitions":4096}"#, "1 to 1024"),
            (r#"{"name":"u","replicas":9}"#, "replicas is 9"),
            (r#"{"name":"u","replication":"none","replicas":2}"#, "of replication none has 1"),
            (r#"{"name":"u","events":{"retain":{"count":0}}}"#, "events.retain.count is 0"),
            (r#"{"name":"u","events":{"retain":{"age":"10ms"}}}"#, "events.retain.age is 10ms"),
            (
                r#"{"name":"u","replication":"eventual","tombstones":{"retain":"10ms"}}"#,
                "tombstones.retain is 10ms",
            ),
            (r#"{"name":"u","replication":"mst","tombstones":{}}"#, "until every replica has seen it"),
            (r#"{"name":"u","tombstones":{"retain":"2d"}}"#, "those of eventual"),
            (r#"{"name":"u","indexes":[{"name":"a"}]}"#, "one of path, entry"),
            (r#"{"name":"u","indexes":[{"name":"a","path":"/a","entry":"a"}]}"#, "one of path, entry"),
            (r#"{"name":"u","indexes":[{"name":"a","path":"a"}]}"#, "JSON pointer"),
            (r#"{"name":"u","indexes":[{"name":"a","path":"/a~2"}]}"#, "JSON pointer"),
            (r#"{"name":"u","indexes":[{"name":"a","path":"/a~"}]}"#, "JSON pointer"),
            (r#"{"name":"u","indexes":[{"name":"a","entry":"*"}]}"#, "must not contain"),
            (r#"{"name":"u","indexes":[{"name":"A","path":"/a"}]}"#, "must match"),
            (r#"{"name":"u","indexes":[{"name":"a","path":"/a"},{"name":"a","path":"/b"}]}"#, "given twice"),
        ] {
            let error = spec(json).unwrap().validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
        assert!(spec(r#"{"name":"u","size":1}"#).unwrap_err().contains("size"));
        assert!(spec(r#"{"name":"u","replication":"paxos"}"#).unwrap_err().contains("paxos"));
    }

    #[test]
    fn retention_is_given_as_people_write_it_and_told_to_the_state() {
        let kept =
            spec(r#"{"name":"u","events":{"retain":{"count":10,"bytes":"1MiB","age":"90s"}}}"#).unwrap();
        kept.validate().unwrap();
        let retain = Retain { count: 10, bytes: 1 << 20, age_ms: 90_000 };
        assert_eq!(kept.settings(), Settings { history: Some(retain), indexes: vec![] });
        let again = serde_json::to_string(&kept).unwrap();
        assert_eq!(spec(&again).unwrap(), kept);
        let off = spec(r#"{"name":"u","events":{"enabled":false}}"#).unwrap();
        assert_eq!(off.settings().history, None);
        assert!(spec(r#"{"name":"u","events":{"retain":{"bytes":"many"}}}"#).unwrap_err().contains("size"));
    }

    #[test]
    fn deletions_are_remembered_for_a_day_or_as_long_as_is_said_where_time_decides_it() {
        let retain = |json: &str| spec(json).unwrap().tombstones().map(|tombstones| tombstones.retain);
        assert_eq!(retain(r#"{"name":"u","replication":"eventual"}"#), Some(Period::from_secs(86_400)));
        assert_eq!(retain(r#"{"name":"u","replication":"mst"}"#), None);
        let before = spec(r#"{"name":"u","replication":"eventual","tombstones":{"retain":"2d"}}"#).unwrap();
        before.validate().unwrap();
        let again = serde_json::to_string(&before).unwrap();
        assert_eq!(
            (spec(&again).unwrap(), retain(&again)),
            (before.clone(), Some(Period::from_secs(172_800)))
        );
        let update = |json: &str| serde_json::from_str::<CollectionUpdate>(json).unwrap().apply(&before);
        assert_eq!(update(r#"{"events":{}}"#).unwrap().tombstones, before.tombstones);
        let after = update(r#"{"tombstones":{"retain":"1h"}}"#).unwrap();
        assert_eq!(after.tombstones().unwrap().retain, Period::from_secs(3600));
        assert!(update(r#"{"tombstones":{"retain":"0s"}}"#).is_err());
    }

    #[test]
    fn an_update_changes_what_it_names_and_nothing_that_is_fixed() {
        let before = spec(r#"{"name":"u","replicas":1,"indexes":[{"name":"a","path":"/a"}]}"#).unwrap();
        let update = |json: &str| serde_json::from_str::<CollectionUpdate>(json).unwrap().apply(&before);
        assert_eq!(update("{}").unwrap(), before);
        let after = update(r#"{"events":{"enabled":false},"partitions":4}"#).unwrap();
        assert_eq!((after.events.enabled, &after.indexes), (false, &before.indexes));
        let after = update(r#"{"indexes":[{"name":"b","entry":"b"}]}"#).unwrap();
        let source = IndexSource::Entry(EntryName::parse("b").unwrap());
        assert_eq!(after.settings().indexes, [IndexSpec { name: "b".into(), source }]);
        for (json, expected) in [
            (r#"{"partitions":8}"#, "fixed at creation"),
            (r#"{"replication":"none"}"#, "fixed at creation"),
            (r#"{"replicas":3}"#, "not supported yet"),
            (r#"{"name":"v"}"#, "can't change"),
            (r#"{"indexes":[{"name":"b"}]}"#, "one of path, entry"),
        ] {
            let error = update(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn more_replicas_than_nodes_are_refused() {
        let three = spec(r#"{"name":"u","replicas":3}"#).unwrap();
        assert!(three.replicas_on(2).unwrap_err().to_string().contains("2 nodes"));
    }
}
