//! A script of calls for a log, and the plain model of what the log must hold after each of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use odgm_storage::disk::SimDisk;
use odgm_storage::log::suite::entry;
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, Durable, GroupId, LogEntry, LogOptions, LogPosition, SyncPolicy,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) const DIR: &str = "/data/log";

pub(crate) fn options(sync: SyncPolicy) -> LogOptions {
    LogOptions { sync, segment_bytes: 16 << 10, reserve_segments: 1, spare_segments: 1, cache_bytes: 4 << 10 }
}

pub(crate) fn open(disk: &SimDisk, sync: SyncPolicy) -> odgm_storage::Result<Arc<AppendLog>> {
    AppendLog::open_stepped(Arc::new(disk.clone()), Path::new(DIR), options(sync))
}

/// One call. Indexes follow from the model, so that every call is valid.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Append {
        group: u64,
        count: u64,
        bytes: usize,
        fill: u8,
    },
    Vote {
        group: u64,
        vote: u8,
    },
    /// Drops this many of the newest entries.
    Truncate {
        group: u64,
        drop: u64,
    },
    /// Purges up to this many entries above the purge point, or beyond the last one.
    Purge {
        group: u64,
        count: u64,
    },
    Committed {
        group: u64,
    },
    Remove {
        group: u64,
    },
    Step,
}

/// What a group must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    pub purged: Option<LogPosition>,
    pub entries: Vec<LogEntry>,
    pub vote: Option<Bytes>,
}

pub(crate) type State = BTreeMap<u64, Model>;

impl Model {
    fn next(&self) -> u64 {
        let last = self.entries.last().map(|e| e.position).or(self.purged);
        last.map_or(0, |last| last.index + 1)
    }
}

/// A random script.
pub(crate) fn script(seed: u64, calls: usize) -> Vec<Call> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..calls)
        .map(|_| {
            let group = rng.random_range(0..4);
            match rng.random_range(0..100) {
                0..45 => Call::Append {
                    // Group 0 is written rarely: it pins old segments.
                    group: if rng.random_ratio(1, 20) { 0 } else { rng.random_range(1..4) },
                    count: rng.random_range(1..6),
                    bytes: rng.random_range(0..300),
                    fill: rng.random(),
                },
                45..52 => Call::Vote { group, vote: rng.random() },
                52..58 => Call::Truncate { group: rng.random_range(1..4), drop: rng.random_range(0..4) },
                58..66 => Call::Purge { group: rng.random_range(1..4), count: rng.random_range(1..12) },
                66..70 => Call::Committed { group },
                70..71 => Call::Remove { group: 3 },
                _ => Call::Step,
            }
        })
        .collect()
}

/// Makes the call on a log and in the model, which stays as it was when the log refuses. The callback goes to `durable`.
pub(crate) fn call(
    log: &dyn AppendOnlyLogStorage,
    state: &mut State,
    call: &Call,
    durable: Durable,
) -> odgm_storage::Result<()> {
    let group = |id: u64| log.group(GroupId(id));
    match *call {
        Call::Append { group: id, count, bytes, fill } => {
            let model = state.entry(id).or_default();
            let first = model.next();
            let term = u64::from(fill) + 1;
            let new: Vec<LogEntry> = (first..first + count)
                .map(|index| entry(term, index, &vec![fill.wrapping_add(index as u8); bytes]))
                .collect();
            group(id)?.append(new.clone(), durable)?;
            model.entries.extend(new);
        }
        Call::Vote { group: id, vote } => {
            let vote = Bytes::from(vec![vote; 9]);
            group(id)?.save_vote(vote.clone(), durable)?;
            state.entry(id).or_default().vote = Some(vote);
        }
        Call::Truncate { group: id, drop } => {
            let model = state.entry(id).or_default();
            let keep = model.entries.len().saturating_sub(drop as usize);
            let last = model.entries[..keep].last().map(|e| e.position).or(model.purged);
            group(id)?.truncate_after(last.map(|last| last.index), durable)?;
            model.entries.truncate(keep);
        }
        Call::Purge { group: id, count } => {
            let model = state.entry(id).or_default();
            let first = model.purged.map_or(0, |purged| purged.index + 1);
            let index = first + count - 1;
            let term =
                model.entries.iter().find(|e| e.position.index == index).map_or(1, |e| e.position.term);
            let upto = LogPosition { term, index };
            group(id)?.purge(upto)?;
            model.entries.retain(|e| e.position.index > index);
            model.purged = Some(upto);
        }
        Call::Committed { group: id } => {
            let committed = state.entry(id).or_default().entries.last().map(|e| e.position);
            group(id)?.save_committed(committed)?;
        }
        Call::Remove { group: id } => {
            log.remove_group(GroupId(id), durable);
            state.remove(&id);
        }
        // Whoever has a log that is stepped does it.
        Call::Step => {}
    }
    Ok(())
}

/// What came of a run.
pub(crate) struct Run {
    /// Calls that were made, the failing one included.
    pub made: usize,
    /// Calls up to here are durable.
    pub acknowledged: usize,
}

/// Runs a script until its end or the first failure. Acknowledgements count when `counts` says so.
pub(crate) fn run(log: &AppendLog, calls: &[Call], counts: fn(&Call) -> bool) -> Run {
    let mut state = State::new();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let order = Arc::new(Mutex::new(0));
    let mut made = 0;
    for (n, next) in calls.iter().enumerate() {
        let (high, order, counts) = (Arc::clone(&acknowledged), Arc::clone(&order), counts(next));
        let durable: Durable = Box::new(move |outcome: odgm_storage::Result<()>| {
            let mut last = order.lock().unwrap();
            assert!(*last <= n, "callback {n} fired after {last}");
            *last = n;
            if outcome.is_ok() && counts {
                high.store(n + 1, Ordering::SeqCst);
            }
        });
        made = n + 1;
        if matches!(next, Call::Step) {
            log.step();
        }
        if call(log, &mut state, next, durable).is_err() || log.poisoned().is_some() {
            break;
        }
    }
    Run { made, acknowledged: acknowledged.load(Ordering::SeqCst) }
}

/// What is held after each number of calls, nothing first.
pub(crate) fn history(calls: &[Call]) -> Vec<State> {
    let disk = SimDisk::new(0);
    let log = open(&disk, SyncPolicy::Batch).unwrap();
    let mut state = State::new();
    let mut history = vec![state.clone()];
    for (n, next) in calls.iter().enumerate() {
        call(&*log, &mut state, next, Box::new(|_| ())).unwrap();
        if matches!(next, Call::Step) {
            log.step();
        }
        if n % 10 == 9 || n + 1 == calls.len() {
            assert_eq!(held(&*log), listed(&state), "the open log differs from the model after {next:?}");
        }
        history.push(listed(&state));
    }
    history
}

/// What a log holds, read back through its interface.
pub(crate) fn held(log: &dyn AppendOnlyLogStorage) -> State {
    let mut state = State::new();
    for id in log.groups() {
        let group = log.group(id).unwrap();
        let bounds = group.state();
        let entries = group.read(0, u64::MAX, u64::MAX).unwrap();
        let last = entries.last().map(|e| e.position).or(bounds.purged);
        assert_eq!(bounds.last, last, "bounds and entries of group {} differ", id.0);
        state.insert(id.0, Model { purged: bounds.purged, entries, vote: group.vote() });
    }
    listed(&state)
}

/// Without the groups that hold nothing.
pub(crate) fn listed(state: &State) -> State {
    state.iter().filter(|(_, m)| **m != Model::default()).map(|(id, m)| (*id, m.clone())).collect()
}

/// Steps until nothing is left to do.
pub(crate) fn settle(log: &AppendLog) {
    assert!((0..10_000).any(|_| !log.step()), "the log never comes to rest");
}
