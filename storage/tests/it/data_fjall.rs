//! What only the Fjall store promises: restarts, crashes of an import, checkpoints under load, memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use odgm_storage::Error;
use odgm_storage::data::fjall::{FjallData, FjallEngine};
use odgm_storage::data::{ApplicationDataStorage, DataOptions, DataView, Durability, Keyspace, WriteBatch};

use crate::data::engine;

pub(crate) fn put(store: &FjallData, key: &str, value: &str) {
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, key.to_owned(), value.to_owned());
    store.write(batch, Durability::Now).unwrap();
}

pub(crate) fn get(store: &FjallData, key: &str) -> Option<String> {
    value(&*store.view(), key)
}

pub(crate) fn value(view: &dyn DataView, key: &str) -> Option<String> {
    let value = view.get(Keyspace::Data, key.as_bytes()).unwrap()?;
    Some(String::from_utf8(value.to_vec()).unwrap())
}

fn stream_of(key: &str, value: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let store = engine().open(dir.path()).unwrap();
    put(&store, key, value);
    let mut stream = Vec::new();
    store.view().export(&mut stream).unwrap();
    stream
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Waits for a state that another thread brings about.
pub(crate) fn wait_until(what: &str, state: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !state() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Copies a directory that may be in use: what is removed meanwhile is left out.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), target) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

#[test]
fn a_store_is_found_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = engine().open(dir.path()).unwrap();
    put(&store, "k", "before");
    drop(store);
    let store = engine().open(dir.path()).unwrap();
    assert_eq!(get(&store, "k").as_deref(), Some("before"));
    put(&store, "k", "after");
    store.close().unwrap();
    assert_eq!(get(&engine().open(dir.path()).unwrap(), "k").as_deref(), Some("after"));
}

#[test]
fn a_process_that_was_killed_loses_no_batch_and_splits_none() {
    let dir = tempfile::tempdir().unwrap();
    let (live, killed) = (dir.path().join("live"), dir.path().join("killed"));
    let store = engine().open(&live).unwrap();
    for n in 0..200_u64 {
        let mut batch = WriteBatch::default();
        for keyspace in Keyspace::ALL {
            batch.put(keyspace, "n", n.to_be_bytes().to_vec());
        }
        store.write(batch, Durability::Later).unwrap();
    }
    // What a killed process leaves is what the files hold now, without a close.
    copy_tree(&live, &killed);
    let view = engine().open(&killed).unwrap().view();
    for keyspace in Keyspace::ALL {
        assert_eq!(view.get(keyspace, b"n").unwrap().unwrap(), &199_u64.to_be_bytes()[..]);
    }
}

#[test]
fn one_directory_serves_one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = engine().open(dir.path()).unwrap();
    put(&store, "k", "v");
    assert!(matches!(engine().open(dir.path()), Err(Error::Locked { .. })));
    assert_eq!(get(&store, "k").as_deref(), Some("v"));
}

#[test]
fn an_installed_generation_survives_a_restart_and_the_old_one_goes_with_its_last_view() {
    let dir = tempfile::tempdir().unwrap();
    let store = engine().open(dir.path()).unwrap();
    put(&store, "k", "old");
    let view = store.view();
    let mut import = store.import().unwrap();
    import.read(&mut &stream_of("k", "new")[..]).unwrap();
    import.finish().unwrap();
    assert_eq!(get(&store, "k").as_deref(), Some("new"));
    assert_eq!(value(&*view, "k").as_deref(), Some("old"));
    assert_eq!(names(dir.path()), ["1", "2", "current"]);
    drop(view);
    wait_until("the replaced generation is removed", || names(dir.path()) == ["2", "current"]);
    drop(store);
    assert_eq!(get(&engine().open(dir.path()).unwrap(), "k").as_deref(), Some("new"));
}

#[test]
fn a_crash_at_any_step_of_an_import_leaves_the_old_data_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = engine().open(&live).unwrap();
    put(&store, "k", "old");
    let mut crashes = Vec::new();
    let mut crash = |name: &str, expected| {
        copy_tree(&live, &dir.path().join(name));
        crashes.push((name.to_owned(), expected));
    };
    let mut import = store.import().unwrap();
    crash("begun", "old");
    import.read(&mut &stream_of("k", "new")[..]).unwrap();
    crash("read", "old");
    std::fs::write(live.join("current.partial"), "odgm-da").unwrap();
    crash("switching", "old");
    let view = store.view();
    import.finish().unwrap();
    crash("finished", "new");
    drop(view);
    for (name, expected) in crashes {
        let found = dir.path().join(&name);
        let store = engine().open(&found).unwrap();
        assert_eq!(get(&store, "k").as_deref(), Some(expected), "{name}");
        let generations = names(&found).into_iter().filter(|name| !name.starts_with("current")).count();
        assert_eq!(generations, 1, "{name} leaves nothing behind");
        put(&store, "k", "written after the crash");
    }
}

#[test]
fn a_crash_at_any_step_of_the_founding_is_founded_again() {
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    engine().open(&done).unwrap();
    // Staged only: no pointer yet.
    let staged = dir.path().join("staged");
    copy_tree(&done.join("1"), &staged.join("1.new"));
    // Half staged.
    let half = dir.path().join("half");
    std::fs::create_dir_all(half.join("1.new")).unwrap();
    std::fs::write(half.join("1.new").join("lock"), "").unwrap();
    // Pointed to, and not named yet.
    let pointed = dir.path().join("pointed");
    copy_tree(&done.join("1"), &pointed.join("1.new"));
    std::fs::copy(done.join("current"), pointed.join("current")).unwrap();
    for crashed in [staged, half, pointed] {
        let store = engine().open(&crashed).unwrap();
        put(&store, "k", "v");
        assert_eq!(names(&crashed), ["1", "current"]);
    }
}

#[test]
fn a_store_without_its_pointer_or_its_generation_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    put(&engine().open(dir.path()).unwrap(), "k", "v");
    let pointer = dir.path().join("current");
    let good = std::fs::read(&pointer).unwrap();
    std::fs::remove_file(&pointer).unwrap();
    assert!(matches!(engine().open(dir.path()), Err(Error::Corrupt { .. })));
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        std::fs::write(&pointer, damaged).unwrap();
        let refused = engine().open(dir.path());
        assert!(matches!(refused, Err(Error::Corrupt { .. } | Error::Format { .. })), "byte {at}");
    }
    std::fs::write(&pointer, good).unwrap();
    std::fs::rename(dir.path().join("1"), dir.path().join("moved")).unwrap();
    assert!(matches!(engine().open(dir.path()), Err(Error::Corrupt { .. })));
    std::fs::rename(dir.path().join("moved"), dir.path().join("1")).unwrap();
    assert_eq!(get(&engine().open(dir.path()).unwrap(), "k").as_deref(), Some("v"));
}

#[test]
fn a_failed_switch_poisons_the_store_until_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = engine().open(dir.path()).unwrap();
    put(&store, "k", "old");
    let mut import = store.import().unwrap();
    import.read(&mut &stream_of("k", "new")[..]).unwrap();
    std::fs::create_dir(dir.path().join("current.partial")).unwrap();
    assert!(import.finish().is_err());
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, "k", "not taken");
    assert!(matches!(store.write(batch, Durability::Later), Err(Error::Poisoned { .. })));
    assert!(matches!(store.sync(), Err(Error::Poisoned { .. })));
    assert_eq!(get(&store, "k").as_deref(), Some("old"), "reads go on");
    std::fs::remove_dir(dir.path().join("current.partial")).unwrap();
    drop(store);
    assert_eq!(get(&engine().open(dir.path()).unwrap(), "k").as_deref(), Some("old"));
}

#[test]
fn memtables_of_many_shards_stay_within_the_budget_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let budget = 8 << 20;
    let options = DataOptions { cache_bytes: 1 << 20, write_buffer_bytes: budget, ..DataOptions::default() };
    let engine = FjallEngine::new(&options).unwrap();
    let shards: Vec<Arc<FjallData>> =
        (0..6).map(|n| engine.open(&dir.path().join(n.to_string())).unwrap()).collect();
    let mut most = 0;
    for n in 0..3600_u32 {
        let mut batch = WriteBatch::default();
        batch.put(Keyspace::ALL[n as usize % 4], n.to_be_bytes().to_vec(), vec![n as u8; 8 << 10]);
        shards[n as usize % 6].write(batch, Durability::Later).unwrap();
        most = most.max(engine.memtable_bytes());
    }
    assert!(most < 3 * budget, "{most} of {budget}");
    wait_until("the budget is kept when writes end", || engine.memtable_bytes() <= budget);
    for (n, shard) in shards.iter().enumerate() {
        let rows: usize = Keyspace::ALL
            .iter()
            .map(|&keyspace| odgm_storage::data::suite::rows(&*shard.view(), keyspace).len())
            .sum();
        assert_eq!(rows, 600, "shard {n}");
    }
}

#[test]
fn views_see_whole_batches_while_memtables_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = engine().open(dir.path()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for n in 0..700_u64 {
                let mut batch = WriteBatch::default();
                for key in 0..50_u8 {
                    batch.put(Keyspace::Data, vec![key], n.to_be_bytes().to_vec());
                    batch.put(Keyspace::Index, vec![key; 1000], n.to_be_bytes().to_vec());
                }
                store.write(batch, Durability::Later).unwrap();
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let view = store.view();
            let first = view.get(Keyspace::Data, &[0]).unwrap();
            let last = view.get(Keyspace::Index, &[49; 1000]).unwrap();
            assert_eq!(first, last);
            let rows = odgm_storage::data::suite::rows(&*view, Keyspace::Data);
            assert!(rows.iter().all(|(_, n)| Some(n) == first.as_ref()));
        }
    });
}
