//! Any script, with crashes and clean closes in between, leaves what the plain model says.

use odgm_storage::disk::SimDisk;
use odgm_storage::log::{AppendOnlyLogStorage, SyncPolicy};
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_a_plain_model_holds(
        lives in proptest::collection::vec((proptest::collection::vec(any_call(), 0..60), any::<bool>()), 1..5),
        seed in any::<u64>(),
    ) {
        let disk = SimDisk::new(seed);
        let mut state = State::new();
        for (calls, closes) in lives {
            let log = open(&disk, SyncPolicy::Batch).unwrap();
            prop_assert_eq!(held(&log), listed(&state));
            for next in &calls {
                call(&log, &mut state, next, Box::new(|outcome| outcome.unwrap())).unwrap();
            }
            prop_assert_eq!(held(&log), listed(&state));
            settle(&log);
            prop_assert_eq!(held(&log), listed(&state));
            if closes {
                log.close().unwrap();
            }
            drop(log);
            disk.crash();
        }
        prop_assert_eq!(held(&open(&disk, SyncPolicy::Batch).unwrap()), listed(&state));
    }
}
