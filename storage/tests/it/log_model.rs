//! Any script, with crashes and clean closes in between, leaves what the plain model says.

use std::sync::Arc;

use odgm_storage::disk::{RealDisk, SimDisk};
use odgm_storage::log::{
    AppendOnlyLogStorage, FjallLog, FjallLogOptions, GroupId, MemoryLog, SyncPolicy, wait_durable,
};
use proptest::prelude::*;

use crate::log_script::{Call, State, call, held, listed, open, settle};

fn any_call() -> impl Strategy<Value = Call> {
    let group = 0..4u64;
    prop_oneof![
        6 => (group.clone(), 1..5u64, 0..600usize, any::<u8>())
            .prop_map(|(group, count, bytes, fill)| Call::Append { group, count, bytes, fill }),
        1 => (group.clone(), any::<u8>()).prop_map(|(group, vote)| Call::Vote { group, vote }),
        1 => (group.clone(), 0..5u64).prop_map(|(group, drop)| Call::Truncate { group, drop }),
        2 => (group.clone(), 1..9u64).prop_map(|(group, count)| Call::Purge { group, count }),
        1 => group.clone().prop_map(|group| Call::Committed { group }),
        1 => group.prop_map(|group| Call::Remove { group }),
        2 => Just(Call::Step),
    ]
}

/// Calls, and whether the log is closed after them or dropped.
type Life = (Vec<Call>, bool);

fn lives() -> impl Strategy<Value = Vec<Life>> {
    proptest::collection::vec((proptest::collection::vec(any_call(), 0..60), any::<bool>()), 1..5)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Makes the calls of a life, on a log that holds `state` at first.
fn live(
    log: &dyn AppendOnlyLogStorage,
    step: impl Fn(),
    calls: &[Call],
    state: &mut State,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(held(log), listed(state));
    for next in calls {
        call(log, state, next, Box::new(|outcome| outcome.unwrap())).unwrap();
        if matches!(next, Call::Step) {
            step();
        }
    }
    prop_assert_eq!(held(log), listed(state));
    for (id, model) in listed(state) {
        let group = log.group(GroupId(id)).unwrap();
        let found = group.statistics();
        prop_assert_eq!(found.first_index, model.entries.first().map(|entry| entry.position.index));
        prop_assert_eq!(found.last_index, model.entries.last().map(|entry| entry.position.index));
        prop_assert_eq!(found.entries, model.entries.len() as u64);
        let bytes: usize = model.entries.iter().map(|entry| entry.payload.len()).sum();
        prop_assert_eq!(found.payload_bytes, bytes as u64);
        for entry in &model.entries {
            let one = group.get(entry.position.index).unwrap();
            prop_assert_eq!(one.as_ref(), Some(entry));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn append_log_holds_what_a_plain_model_holds(lives in lives(), seed in any::<u64>()) {
        let disk = SimDisk::new(seed);
        let mut state = State::new();
        for (calls, closes) in lives {
            let log = open(&disk, SyncPolicy::Batch).unwrap();
            live(&*log, || { log.step(); }, &calls, &mut state)?;
            settle(&log);
            prop_assert_eq!(held(&*log), listed(&state));
            if closes {
                log.close().unwrap();
            }
            drop(log);
            disk.crash();
        }
        prop_assert_eq!(held(&*open(&disk, SyncPolicy::Batch).unwrap()), listed(&state));
    }

    #[test]
    fn memory_log_holds_what_a_plain_model_holds(lives in lives()) {
        let mut state = State::new();
        let log = MemoryLog::new(1 << 20);
        for (calls, _) in lives {
            live(&*log, || (), &calls, &mut state)?;
        }
    }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn fjall_log_holds_what_a_plain_model_holds(lives in lives()) {
        let dir = tempfile::tempdir().unwrap();
        // No cache and tiny memtables: rows are read back, and from tables.
        let options = FjallLogOptions { cache_bytes: 0, memtable_bytes: 1 << 20, sync: SyncPolicy::None };
        let mut state = State::new();
        for (calls, closes) in lives {
            let log = FjallLog::open(Arc::new(RealDisk), dir.path(), options.clone()).unwrap();
            live(&*log, || (), &calls, &mut state)?;
            // Purges and committed positions have no callback: what follows them waits for them.
            let group = log.group(GroupId(0)).unwrap();
            wait_durable(|durable| group.sync(durable)).unwrap();
            prop_assert_eq!(held(&*log), listed(&state));
            if closes {
                log.close().unwrap();
            }
        }
        let log = FjallLog::open(Arc::new(RealDisk), dir.path(), options).unwrap();
        prop_assert_eq!(held(&*log), listed(&state));
    }
}
