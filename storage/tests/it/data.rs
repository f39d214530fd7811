//! Every data store keeps the promises of the suite, and behaves as an ordered map of its rows.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use odgm_storage::Error;
use odgm_storage::data::fjall::FjallEngine;
use odgm_storage::data::memory::MemoryData;
use odgm_storage::data::stream::StreamWriter;
use odgm_storage::data::{
    ApplicationDataStorage, DataOptions, Direction, Durability, Keyspace, SnapshotCapableStorage, WriteBatch,
};
use proptest::prelude::*;

pub(crate) fn engine() -> Arc<FjallEngine> {
    let options = DataOptions { cache_bytes: 1 << 20, write_buffer_bytes: 8 << 20, ..DataOptions::default() };
    FjallEngine::new(&options).unwrap()
}

fn memory(_: &Path) -> Arc<dyn SnapshotCapableStorage> {
    Arc::new(MemoryData::new(512 << 20))
}

fn fjall(dir: &Path) -> Arc<dyn SnapshotCapableStorage> {
    engine().open(dir).unwrap()
}

macro_rules! suite {
    ($part:ident in $at:path: $($promise:ident),* $(,)?) => {
        mod $part {
            use $at as promises;

            mod memory_keeps {
                $(#[test] fn $promise() { super::promises::$promise(&crate::data::memory); })*
            }
            mod fjall_keeps {
                $(#[test] fn $promise() { super::promises::$promise(&crate::data::fjall); })*
            }
        }
    };
}

suite!(stores in odgm_storage::data::suite:
    the_last_operation_on_a_key_in_a_batch_wins,
    keyspaces_do_not_mix,
    a_view_stands_still,
    readers_see_whole_batches,
    scans_keep_to_their_bounds,
    reads_take_keys_of_any_length,
    a_key_out_of_bounds_refuses_the_whole_batch,
    an_import_replaces_everything,
    an_unfinished_import_changes_nothing,
    a_damaged_stream_is_refused,
    a_checkpoint_is_the_state_of_its_moment,
    a_checkpoint_can_be_installed_elsewhere,
    size_follows_the_data,
    a_closed_store_refuses,
);

suite!(transactions in odgm_storage::data::suite::transactions:
    a_transaction_reads_its_own_writes,
    what_is_not_committed_leaves_nothing,
    one_writer_at_a_time,
    counters_are_exact_or_refused,
    a_swap_compares_first,
    a_commit_after_close_is_refused,
    a_writer_belongs_to_its_store,
    statistics_follow_and_upkeep_changes_nothing,
);

suite!(queries in odgm_storage::data::suite::queries:
    pages_cover_a_selection_once,
    rows_expire_in_order_and_are_swept_whole,
    an_index_keeps_the_order_of_values,
    an_index_is_filled_kept_and_dropped,
    an_unfinished_index_is_completed_later,
    indexes_and_deadlines_travel,
);

suite!(checkpoints in odgm_storage::data::suite::checkpoints:
    a_manifest_says_what_is_in_a_checkpoint,
    a_restore_goes_back,
    a_damaged_checkpoint_is_named_and_not_restored,
);

#[test]
fn an_export_of_one_store_is_an_import_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (fjall(&dir.path().join("a")), memory(dir.path()));
    let mut batch = WriteBatch::default();
    for i in 0..500_u32 {
        batch.put(Keyspace::ALL[i as usize % 4], i.to_be_bytes().to_vec(), vec![i as u8; i as usize]);
    }
    a.write(batch, Durability::Later).unwrap();
    let mut stream = Vec::new();
    a.view().export(&mut stream).unwrap();
    let mut import = b.import().unwrap();
    import.read(&mut &stream[..]).unwrap();
    import.finish().unwrap();
    let mut again = Vec::new();
    b.view().export(&mut again).unwrap();
    assert!(stream == again);
}

#[test]
fn memory_over_its_limit_refuses_a_batch_whole_and_takes_one_that_shrinks_it() {
    let store = MemoryData::new(10_000);
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, "a", vec![1; 4000]);
    batch.put(Keyspace::Data, "b", vec![1; 4000]);
    store.write(batch, Durability::Later).unwrap();
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, "a", "small");
    batch.put(Keyspace::Data, "c", vec![1; 8000]);
    assert!(matches!(store.write(batch, Durability::Later), Err(Error::TooLarge { .. })));
    assert_eq!(store.view().get(Keyspace::Data, b"a").unwrap().unwrap().len(), 4000);
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, "b", vec![1; 3000]);
    batch.put(Keyspace::Data, "a", vec![1; 4500]);
    store.write(batch, Durability::Later).unwrap();
    let mut batch = WriteBatch::default();
    batch.delete(Keyspace::Data, "a");
    batch.delete(Keyspace::Data, "b");
    store.write(batch, Durability::Later).unwrap();
    assert_eq!(store.size_bytes(), 0);
}

#[test]
fn options_are_refused_by_name() {
    let bad = DataOptions { write_buffer_bytes: 1, ..DataOptions::default() };
    assert!(matches!(bad.validate(), Err(Error::Options { option: "write_buffer_bytes", .. })));
    assert!(DataOptions::default().validate().is_ok());
}

#[test]
fn rows_out_of_order_are_refused_under_a_right_hash() {
    let dir = tempfile::tempdir().unwrap();
    for (at, keys) in [["b", "a"], ["a", "a"]].into_iter().enumerate() {
        let mut stream = Vec::new();
        let mut writer = StreamWriter::new(&mut stream);
        for keyspace in Keyspace::ALL {
            writer.keyspace(keyspace).unwrap();
            for key in keys {
                writer.row(key.as_bytes(), b"value").unwrap();
            }
            writer.end_keyspace().unwrap();
        }
        writer.finish().unwrap();
        for store in [memory(dir.path()), fjall(&dir.path().join(at.to_string()))] {
            let refused = store.import().unwrap().read(&mut &stream[..]);
            assert!(
                matches!(&refused, Err(Error::Corrupt { what, .. }) if what == "order of keys"),
                "{refused:?}"
            );
        }
    }
}

#[test]
fn an_export_of_version_1_keeps_its_bytes() {
    let store = memory(Path::new("unused"));
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, "a", "one");
    batch.put(Keyspace::Data, "b", vec![7; 130]);
    batch.put(Keyspace::Meta, "m", "");
    store.write(batch, Durability::Later).unwrap();
    let mut stream = Vec::new();
    store.view().export(&mut stream).unwrap();
    let hex: String = stream.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex.replace(&"07".repeat(130), "[130 x 07]"), GOLDEN);
}

const GOLDEN: &str = "6f64676d6461746101000000010161036f6e6501628201[130 x 07]000200030004016d0000ff03\
    00000000000000cc8cc0bbd6606671cea249958dfc1aad";

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(usize, u8, Option<u8>)>),
    Scan(usize, u8, u8, bool),
    Reinstall,
    Checkpoint,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let operation = (0..4_usize, 0..24_u8, prop::option::weighted(0.7, any::<u8>()));
    prop::collection::vec(
        prop_oneof![
            8 => prop::collection::vec(operation, 1..12).prop_map(Step::Write),
            4 => (0..4_usize, 0..24_u8, 0..24_u8, any::<bool>()).prop_map(|(k, a, b, f)| Step::Scan(k, a, b, f)),
            1 => Just(Step::Reinstall),
            1 => Just(Step::Checkpoint),
        ],
        1..40,
    )
}

type Model = [BTreeMap<Bytes, Bytes>; 4];

/// Keys of one, two and many bytes, so that prefixes meet.
fn key(n: u8) -> Bytes {
    Bytes::from(vec![n / 3; 1 + usize::from(n % 3) * 20])
}

fn play(store: &dyn SnapshotCapableStorage, dir: &Path, steps: Vec<Step>) {
    let mut model = Model::default();
    for (at, step) in steps.into_iter().enumerate() {
        match step {
            Step::Write(operations) => {
                let mut batch = WriteBatch::default();
                for (slot, k, value) in operations {
                    match value {
                        Some(value) => {
                            let value = vec![value; usize::from(value) * 40];
                            batch.put(Keyspace::ALL[slot], key(k), value.clone());
                            model[slot].insert(key(k), value.into());
                        }
                        None => {
                            batch.delete(Keyspace::ALL[slot], key(k));
                            model[slot].remove(&key(k));
                        }
                    }
                }
                store.write(batch, Durability::Later).unwrap();
            }
            Step::Scan(slot, a, b, forward) => {
                let (from, to) = (key(a.min(b)), key(a.max(b)));
                let (from, to) = (from.clone().min(to.clone()), from.max(to));
                let expected =
                    model[slot].range((Bound::Included(from.clone()), Bound::Included(to.clone())));
                let mut expected: Vec<_> = expected.map(|(k, v)| (k.clone(), v.clone())).collect();
                let direction = if forward { Direction::Forward } else { Direction::Backward };
                if !forward {
                    expected.reverse();
                }
                let view = store.view();
                let (from, to) = (Bound::Included(from), Bound::Included(to));
                let found: Vec<_> =
                    view.scan(Keyspace::ALL[slot], from, to, direction).map(Result::unwrap).collect();
                assert_eq!(found, expected);
            }
            Step::Reinstall => {
                let mut stream = Vec::new();
                store.view().export(&mut stream).unwrap();
                let mut import = store.import().unwrap();
                import.read(&mut &stream[..]).unwrap();
                import.finish().unwrap();
            }
            Step::Checkpoint => {
                let target = dir.join(format!("checkpoint-{at}"));
                store.checkpoint(&target).unwrap();
                check(&*store.open_checkpoint(&target).unwrap(), &model);
            }
        }
    }
    check(&*store.view(), &model);
}

fn check(view: &dyn odgm_storage::data::DataView, model: &Model) {
    for (keyspace, expected) in Keyspace::ALL.into_iter().zip(model) {
        let found: BTreeMap<_, _> = odgm_storage::data::suite::rows(view, keyspace).into_iter().collect();
        assert_eq!(&found, expected);
        for n in 0..24 {
            assert_eq!(view.get(keyspace, &key(n)).unwrap().as_ref(), expected.get(&key(n)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn memory_is_an_ordered_map(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        play(&MemoryData::new(512 << 20), dir.path(), steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(6) })]

    #[test]
    fn fjall_is_an_ordered_map(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let store = engine().open(&dir.path().join("store")).unwrap();
        play(&*store, dir.path(), steps);
    }
}
