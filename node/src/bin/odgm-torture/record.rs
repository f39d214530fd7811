//! What clients did and were told: written to a file as it comes, kept by object until that is checked, and by
//! revision to the end.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use odgm_shard::sim::history::{self, Action, Answer, Operation};

/// For how long acknowledgements are kept by time.
const RECENT: Duration = Duration::from_secs(300);
/// Violations that are told; more are counted.
const TOLD: usize = 50;

/// A change as a number: of its object and value, `None` when it is a delete.
pub(crate) fn change(object: &str, value: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (object, value).hash(&mut hasher);
    // 0 is "not known".
    hasher.finish().max(1)
}

/// Any change of an object.
pub(crate) fn any_change(object: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.hash(&mut hasher);
    hasher.finish()
}

/// What the objects whose history is closed must be: value and revision.
pub(crate) type Last = Option<(String, u64)>;

/// An object whose history is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) last: Last,
    /// Kept when an operation had no answer: it may still take effect.
    pub(crate) open: Option<Vec<Operation>>,
}

/// The changes of a partition that were acknowledged, by revision from 1; 0 where none is known.
pub(crate) type Acknowledged = Vec<u64>;

#[derive(Debug, Default)]
struct Facts {
    pending: HashMap<String, Vec<Operation>>,
    acknowledged: Vec<Acknowledged>,
    /// Changes that may have happened without an answer that says which revision they took.
    possible: HashSet<u64>,
    recent: Vec<VecDeque<Instant>>,
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
    closed: BTreeMap<String, Closed>,
    violations: Vec<String>,
    violated: u64,
    checked: (u64, u64),
}

/// The record of a run.
#[derive(Debug)]
pub(crate) struct Record {
    facts: Mutex<Facts>,
    file: Mutex<BufWriter<File>>,
    dir: PathBuf,
}

impl Record {
    /// Into `history.jsonl` of a directory.
    ///
    /// # Errors
    /// When the file can't be made.
    pub(crate) fn create(dir: &Path, partitions: u32) -> std::io::Result<Self> {
        let file = BufWriter::new(File::create(dir.join("history.jsonl"))?);
        let count = partitions as usize;
        let facts = Facts {
            acknowledged: vec![Vec::new(); count],
            recent: vec![VecDeque::new(); count],
            ..Facts::default()
        };
        Ok(Record { facts: Mutex::new(facts), file: Mutex::new(file), dir: dir.to_owned() })
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation that ended.
    pub(crate) fn add(&self, partition: u32, operation: Operation) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let written = history::write(std::slice::from_ref(&operation), &mut *file);
        drop(file);
        let twice = self.facts().add(partition, operation);
        if let Err(error) = written {
            self.violated(format!("the history can't be written: {error}"));
        }
        if let Some(twice) = twice {
            self.violated(twice);
        }
    }

    /// Writes what is not in the file yet.
    ///
    /// # Errors
    /// What the file answers.
    pub(crate) fn flush(&self) -> std::io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }

    /// Something that must not be.
    pub(crate) fn violated(&self, what: String) {
        eprintln!("VIOLATED {what}");
        let mut facts = self.facts();
        facts.violated += 1;
        if facts.violations.len() < TOLD {
            facts.violations.push(what);
        }
    }

    /// What must not be and was, and how often.
    pub(crate) fn violations(&self) -> (u64, Vec<String>) {
        let facts = self.facts();
        (facts.violated, facts.violations.clone())
    }

    /// Takes the history of an object whose act is over.
    pub(crate) fn take(&self, object: &str) -> Vec<Operation> {
        self.facts().pending.remove(object).unwrap_or_default()
    }

    /// Closes an object after its history was checked.
    pub(crate) fn close(&self, object: String, operations: u64, closed: Closed) {
        let mut facts = self.facts();
        facts.checked.0 += 1;
        facts.checked.1 += operations;
        facts.closed.insert(object, closed);
    }

    /// Keeps a history that holds no water beside the whole one.
    pub(crate) fn keep(&self, object: &str, operations: &[Operation]) -> std::io::Result<PathBuf> {
        let path = self.dir.join(format!("violated-{object}.jsonl"));
        let mut file = BufWriter::new(File::create(&path)?);
        history::write(operations, &mut file)?;
        file.flush()?;
        Ok(path)
    }

    /// Objects and operations that were checked.
    pub(crate) fn checked(&self) -> (u64, u64) {
        self.facts().checked
    }

    pub(crate) fn closed(&self) -> BTreeMap<String, Closed> {
        self.facts().closed.clone()
    }

    /// How often operations of a kind ended how.
    pub(crate) fn outcomes(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.facts().outcomes.clone()
    }

    /// The acknowledged changes of each partition, and what else may have happened.
    pub(crate) fn changes(&self) -> (Vec<Acknowledged>, HashSet<u64>) {
        let facts = self.facts();
        (facts.acknowledged.clone(), facts.possible.clone())
    }

    /// Whether each of these partitions acknowledged something after a moment.
    pub(crate) fn is_served_since(&self, at: Instant, partitions: &[u32]) -> bool {
        let facts = self.facts();
        partitions
            .iter()
            .all(|partition| facts.recent[*partition as usize].back().is_some_and(|last| *last > at))
    }

    /// The longest time without an acknowledged change of a partition, of those that ended after `from`.
    pub(crate) fn longest_gap(&self, partition: u32, from: Instant) -> Duration {
        let facts = self.facts();
        let times: Vec<_> = facts.recent[partition as usize].iter().copied().collect();
        let pairs = times.windows(2).filter(|pair| pair[1] > from);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// The same, of all partitions together.
    pub(crate) fn longest_silence(&self, from: Instant) -> Duration {
        let facts = self.facts();
        let mut times: Vec<_> = facts.recent.iter().flatten().copied().collect();
        times.sort_unstable();
        let pairs = times.windows(2).filter(|pair| pair[1] > from);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Facts {
    /// Gives what is wrong with it at once.
    fn add(&mut self, partition: u32, operation: Operation) -> Option<String> {
        let Operation { object, action, answer, .. } = &operation;
        *self.outcomes.entry((kind(action), outcome(answer))).or_default() += 1;
        let mut twice = None;
        match (action, answer) {
            (Action::Put { value, .. }, Answer::Done { revision, .. }) => {
                twice = self.acknowledge(partition, *revision, object, value);
            }
            (Action::Increment { .. }, Answer::Done { revision, value: Some(value) }) => {
                twice = self.acknowledge(partition, *revision, object, value);
            }
            (Action::Put { value, .. }, Answer::Unknown) => {
                self.possible.insert(change(object, Some(value)));
            }
            (Action::Increment { .. }, Answer::Unknown) => {
                self.possible.insert(any_change(object));
            }
            // What was absent already took no revision, and its answer does not say so.
            (Action::Delete { .. }, Answer::Done { .. } | Answer::Unknown) => {
                self.possible.insert(change(object, None));
                self.note(partition);
            }
            _ => {}
        }
        self.pending.entry(object.clone()).or_default().push(operation);
        twice
    }

    fn acknowledge(&mut self, partition: u32, revision: u64, object: &str, value: &str) -> Option<String> {
        self.note(partition);
        let acknowledged = &mut self.acknowledged[partition as usize];
        let Some(index) = revision.checked_sub(1).map(|index| index as usize) else {
            return Some(format!("{object}: a change took revision 0"));
        };
        if acknowledged.len() <= index {
            acknowledged.resize(index + 1, 0);
        }
        let is = change(object, Some(value));
        let was = std::mem::replace(&mut acknowledged[index], is);
        let twice = || {
            format!("partition {partition}: revision {revision} was given to two changes, one of {object}")
        };
        (was != 0 && was != is).then(twice)
    }

    fn note(&mut self, partition: u32) {
        let now = Instant::now();
        let recent = &mut self.recent[partition as usize];
        recent.push_back(now);
        while recent.front().is_some_and(|first| now - *first > RECENT) {
            recent.pop_front();
        }
    }
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Put { condition: history::Wanted::Nothing, .. } => "put",
        Action::Put { .. } => "put on a condition",
        Action::Delete { .. } => "delete",
        Action::Increment { .. } => "increment",
        Action::Read => "read",
    }
}

fn outcome(answer: &Answer) -> &'static str {
    match answer {
        Answer::Unknown => "unknown",
        Answer::Refused => "refused",
        Answer::Done { .. } => "acknowledged",
        Answer::Value { .. } => "a value",
        Answer::Absent => "absent",
        Answer::Conflict { .. } => "conflict",
        Answer::Exists { .. } => "exists",
    }
}
