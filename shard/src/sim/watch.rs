//! The watch: what the harness knows of every replica, and the invariants that are asked at every step.
//!
//! It is told what happens where it happens: by the logs, the data layers and the clients. The first
//! violation stops the run.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use odgm_storage::log::LogPosition;
use tokio::sync::oneshot;

use super::history::Operation;
use super::invariant::{self, Invariant};
use super::world;
use crate::replication::raft::Vote;
use crate::state::Change;

/// Lines of the trace that are kept.
const TRACE_LINES: usize = 20_000;

/// A replica by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    pub(crate) node: u64,
    pub(crate) group: u64,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} group {}", self.node, self.group)
    }
}

/// A log entry as invariants compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) term: u64,
    pub(crate) hash: u64,
}

/// Something that happened at a replica.
#[derive(Debug)]
pub(crate) enum Seen {
    /// A replica found this on its disk.
    Started {
        replica: u64,
        vote: Option<Vote>,
        purged: Option<LogPosition>,
        entries: BTreeMap<u64, Stored>,
    },
    /// The replica was rebuilt: its disk is empty, by order.
    Wiped,
    Voted {
        vote: Vote,
    },
    VoteDurable {
        vote: Vote,
    },
    Appended {
        entries: Vec<(u64, Stored)>,
    },
    Durable {
        entries: Vec<(u64, Stored)>,
    },
    Truncated {
        keep: Option<u64>,
    },
    Purged {
        upto: LogPosition,
        /// The newest position that is stored in a snapshot.
        restorable: Option<u64>,
    },
    /// The data layer holds the effect of all entries up to here.
    Applied {
        position: LogPosition,
        state: u64,
        revision: u64,
    },
    /// The changes of a batch, in order.
    Changed {
        changes: Vec<Change>,
    },
    /// A replica without a log opens what its disk holds.
    Opened,
    /// The changes of a batch of a divergent replica, own or merged, in its order.
    Diverged {
        changes: Vec<Change>,
    },
    /// A client's operation on a divergent group ended; the stamp is that of the write, or of what was read.
    Stamped {
        operation: Operation,
        time: u64,
    },
    /// A read barrier passed: what some replica had applied when it began, and what this one has now.
    BarrierPassed {
        committed: Option<u64>,
        applied: Option<u64>,
    },
    /// A client saw an event.
    Event {
        revision: u64,
        object: String,
        value: Option<String>,
    },
    /// A client's operation ended.
    Answered {
        operation: Operation,
    },
    /// A client read without a barrier.
    ReadLocally {
        operation: Operation,
    },
    /// A client has had no answer for this long; says whether the serving replica was in reach all the time.
    Unanswered {
        object: String,
        waited: Duration,
        reachable: bool,
    },
    /// The process ended though nothing was done to it.
    Failed {
        reason: String,
    },
    /// All is healed and has had its time: the state that a replica is in.
    Settled {
        applied: Option<u64>,
        state: u64,
    },
}

/// What the harness knows of a replica.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    pub(crate) replica: u64,
    pub(crate) vote: Option<Vote>,
    pub(crate) durable_vote: Option<Vote>,
    pub(crate) purged: Option<u64>,
    pub(crate) entries: BTreeMap<u64, Stored>,
    pub(crate) durable: BTreeMap<u64, u64>,
}

impl Replica {
    /// Whether it durably holds the entry, or a snapshot that covers it.
    pub(crate) fn holds_durably(&self, index: u64, term: u64) -> bool {
        self.purged.is_some_and(|purged| index <= purged) || self.durable.get(&index) == Some(&term)
    }
}

/// What is known of the whole cluster.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// How many replicas a group has.
    pub(crate) copies: usize,
    pub(crate) replicas: BTreeMap<Spot, Replica>,
    /// By group and index: the term of each entry that some replica applied.
    pub(crate) committed: BTreeMap<u64, BTreeMap<u64, u64>>,
    /// By group and revision.
    pub(crate) ledger: BTreeMap<u64, BTreeMap<u64, Change>>,
    /// Changes that were committed, or that divergent replicas took in.
    pub(crate) changes: u64,
}

impl Facts {
    pub(crate) fn committed_upto(&self, group: u64) -> Option<u64> {
        self.committed.get(&group).and_then(|terms| terms.keys().next_back().copied())
    }

    fn learn(&mut self, at: Spot, seen: Seen) {
        let replica = self.replicas.entry(at).or_default();
        match seen {
            Seen::Started { replica: id, vote, purged, entries } => {
                let durable = entries.iter().map(|(index, entry)| (*index, entry.term)).collect();
                let purged = purged.map(|at| at.index);
                *replica = Replica { replica: id, vote, durable_vote: vote, purged, entries, durable };
            }
            Seen::Wiped => *replica = Replica::default(),
            Seen::Voted { vote } => replica.vote = Some(vote),
            Seen::VoteDurable { vote } => replica.durable_vote = Some(vote),
            Seen::Appended { entries } => replica.entries.extend(entries),
            Seen::Durable { entries } => {
                for (index, entry) in entries {
                    // It may have been truncated since.
                    if replica.entries.get(&index) == Some(&entry) {
                        replica.durable.insert(index, entry.term);
                    }
                }
            }
            Seen::Truncated { keep } => {
                let from = keep.map_or(0, |keep| keep + 1);
                replica.entries.split_off(&from);
                replica.durable.split_off(&from);
            }
            Seen::Purged { upto, .. } => {
                replica.purged = replica.purged.max(Some(upto.index));
                replica.entries = replica.entries.split_off(&(upto.index + 1));
                replica.durable = replica.durable.split_off(&(upto.index + 1));
            }
            Seen::Applied { position, .. } => {
                let terms = self.committed.entry(at.group).or_default();
                let from = terms.keys().next_back().map_or(0, |last| last + 1);
                for (index, entry) in replica.entries.range(from..).take_while(|(i, _)| **i <= position.index)
                {
                    terms.insert(*index, entry.term);
                }
                terms.insert(position.index, position.term);
            }
            Seen::Changed { changes } => {
                let ledger = self.ledger.entry(at.group).or_default();
                for change in changes {
                    ledger.entry(change.revision).or_insert_with(|| {
                        self.changes += 1;
                        change
                    });
                }
            }
            Seen::Diverged { changes } => self.changes += changes.len() as u64,
            _ => {}
        }
    }
}

/// A property that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// What was seen.
    pub what: String,
    /// Virtual time.
    pub after: Duration,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) after {:?}: {}", self.invariant, self.source, self.after, self.what)
    }
}

/// Sees everything.
pub(crate) struct Watch {
    inner: Mutex<Inner>,
    verbose: bool,
}

struct Inner {
    facts: Facts,
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
    trace: VecDeque<String>,
    /// Who waits for the next vote of a node.
    ambushes: BTreeMap<u64, oneshot::Sender<()>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) fn new(copies: usize, verbose: bool) -> Self {
        let facts = Facts { copies, ..Facts::default() };
        let invariants = invariant::all();
        let inner =
            Inner { facts, invariants, violation: None, trace: VecDeque::new(), ambushes: BTreeMap::new() };
        Watch { inner: Mutex::new(inner), verbose }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every invariant, then takes it into the facts.
    pub(crate) fn see(&self, at: Spot, seen: Seen) {
        let mut inner = self.lock();
        if self.verbose {
            let line = format!("{at}: {seen:?}");
            inner.note(line);
        }
        if inner.violation.is_none() {
            let Inner { facts, invariants, violation, .. } = &mut *inner;
            for invariant in invariants {
                if let Err(what) = invariant.see(facts, at, &seen) {
                    let (name, source) = (invariant.name(), invariant.source());
                    let after = world::now();
                    *violation =
                        Some(Violation { invariant: name, source, what: format!("{at}: {what}"), after });
                    break;
                }
            }
        }
        if matches!(seen, Seen::Voted { .. })
            && let Some(waiting) = inner.ambushes.remove(&at.node)
        {
            // Whoever waited may have given up.
            let _ = waiting.send(());
        }
        inner.facts.learn(at, seen);
    }

    /// Completes when a node queues its next vote.
    pub(crate) fn next_vote(&self, node: u64) -> oneshot::Receiver<()> {
        let (sender, voted) = oneshot::channel();
        self.lock().ambushes.insert(node, sender);
        voted
    }

    /// A line of the trace.
    pub(crate) fn note(&self, line: impl FnOnce() -> String) {
        if self.verbose {
            let line = line();
            self.lock().note(line);
        }
    }

    /// Asks the invariants that need the end.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        let Inner { facts, invariants, violation, .. } = &mut *inner;
        for invariant in invariants {
            if violation.is_some() {
                break;
            }
            if let Err(what) = invariant.end(facts) {
                let (name, source) = (invariant.name(), invariant.source());
                *violation = Some(Violation { invariant: name, source, what, after: world::now() });
            }
        }
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().trace).into()
    }

    pub(crate) fn with_facts<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        look(&self.lock().facts)
    }
}

impl Inner {
    fn note(&mut self, line: String) {
        if self.trace.len() >= TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>12.6} {line}", world::now().as_secs_f64()));
    }
}
