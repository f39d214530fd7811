//! Damage to the files of a Fjall store: found on open or read, and named; never served.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use odgm_storage::Error;
use odgm_storage::data::fjall::FjallData;
use odgm_storage::data::{ApplicationDataStorage, Durability, Keyspace, Row, WriteBatch};

use crate::data::engine;
use crate::data_fjall::copy_tree;

const BATCHES: u32 = 40;

/// A store with tables in every tree and batches in its journal.
fn written(dir: &Path) -> Vec<Vec<Row>> {
    let store = engine().open(dir).unwrap();
    for n in 0..BATCHES {
        write(&store, n);
        if n == BATCHES / 2 {
            store.flush().unwrap();
        }
    }
    let content = content(&store).unwrap();
    drop(store);
    // A journal is 64 MiB of hole: without it, copies are quick.
    for path in files(dir, Path::new("1")).iter().filter(|path| kind(path) == "journal") {
        let path = dir.join(path);
        let used = std::fs::read(&path).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(used as u64 + 64).unwrap();
    }
    content
}

fn write(store: &Arc<FjallData>, n: u32) {
    let mut batch = WriteBatch::default();
    for keyspace in Keyspace::ALL {
        batch.put(keyspace, format!("{n:03}"), vec![n as u8 + 1; 40 + n as usize * 10]);
    }
    store.write(batch, Durability::Now).unwrap();
}

fn content(store: &FjallData) -> odgm_storage::Result<Vec<Vec<Row>>> {
    use odgm_storage::data::Direction::Forward;
    use std::ops::Bound::Unbounded;
    let view = store.view();
    let rows = |&keyspace| view.scan(keyspace, Unbounded, Unbounded, Forward).collect();
    Keyspace::ALL.iter().map(rows).collect()
}

/// What came of opening and reading everything, a panic included.
fn read(dir: &Path) -> odgm_storage::Result<Vec<Vec<Row>>> {
    content(&*engine().open(dir)?)
}

fn files(dir: &Path, below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        if dir.join(&path).is_dir() { found.extend(files(dir, &path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The kind of a file, by its path.
fn kind(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    let tables = path.parent().is_some_and(|parent| parent.ends_with("tables"));
    let version = name.strip_prefix('v').is_some_and(|number| number.parse::<u64>().is_ok());
    match name {
        _ if tables => "table".to_owned(),
        _ if version => "version of a tree".to_owned(),
        "current" if path.components().count() == 1 => "pointer to a generation".to_owned(),
        "current" => "pointer to a version".to_owned(),
        _ if name.ends_with(".jnl") => "journal".to_owned(),
        other => other.to_owned(),
    }
}

#[test]
fn a_flipped_bit_in_any_file_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let (good, damaged) = (dir.path().join("good"), dir.path().join("damaged"));
    let expected = written(&good);
    let mut kinds = BTreeSet::new();
    let (mut refused, mut harmless) = (0, 0);
    let paths = files(&good, Path::new(""));
    for path in paths {
        let bytes = std::fs::read(good.join(&path)).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        kinds.insert(kind(&path));
        let step = 1 + used / 8;
        for at in (0..used).step_by(step) {
            let _ = std::fs::remove_dir_all(&damaged);
            copy_tree(&good, &damaged);
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at / step % 8);
            std::fs::write(damaged.join(&path), &bytes).unwrap();
            let place = format!("byte {at} of {used} of {}", path.display());
            match std::panic::catch_unwind(|| read(&damaged)) {
                Ok(Ok(found)) => {
                    assert!(found == expected, "{place}: other rows were served");
                    harmless += 1;
                }
                Ok(Err(Error::Corrupt { .. } | Error::Format { .. })) => refused += 1,
                Ok(Err(error)) => panic!("{place}: {error:?}"),
                Err(_) => panic!("{place}: a panic"),
            }
        }
    }
    println!("{refused} refused, {harmless} harmless");
    assert!(refused > harmless, "{refused} refused, {harmless} harmless");
    let wanted = ["journal", "table", "version of a tree", "pointer to a version", "pointer to a generation"];
    assert!(wanted.iter().all(|kind| kinds.contains(*kind)), "{kinds:?}");
}

/// The active journal of generation 1 and its sound bytes.
fn journal(dir: &Path) -> (PathBuf, Vec<u8>) {
    let journals = files(dir, Path::new("1"));
    let path = journals.into_iter().rfind(|path| path.extension().is_some_and(|end| end == "jnl")).unwrap();
    let bytes = std::fs::read(dir.join(&path)).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (dir.join(&path), bytes[..used].to_vec())
}

/// Where the batches of a journal begin, by the mark at the end of each.
fn starts(journal: &[u8]) -> Vec<usize> {
    let ends = journal.windows(4).enumerate().filter(|(_, window)| *window == b"FJL\x03");
    std::iter::once(0).chain(ends.map(|(at, _)| at + 4)).collect()
}

#[test]
fn every_byte_of_a_batch_that_others_follow_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (good, damaged) = (dir.path().join("good"), dir.path().join("damaged"));
    let expected = written(&good);
    std::fs::remove_file(good.join("closed")).unwrap();
    let (_, bytes) = journal(&good);
    let starts = starts(&bytes);
    let (from, to) = (starts[starts.len() - 4], starts[starts.len() - 3]);
    // fjall alone loses three batches without a word when a byte of the framing is hit.
    for at in (from..from + 60).step_by(3).chain(to - 13..to) {
        let _ = std::fs::remove_dir_all(&damaged);
        copy_tree(&good, &damaged);
        let (path, _) = journal(&damaged);
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        match read(&damaged) {
            Err(Error::Corrupt { path: found, offset, .. }) => {
                assert_eq!((found, offset), (path, from as u64), "byte {at}");
            }
            Ok(found) => assert!(found == expected && at < from + 13 && at > from + 4, "byte {at}"),
            Err(other) => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn what_a_clean_close_left_must_be_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let (good, damaged) = (dir.path().join("good"), dir.path().join("damaged"));
    let expected = written(&good);
    assert_eq!(read(&good).unwrap(), expected);
    copy_tree(&good, &damaged);
    let (path, bytes) = journal(&damaged);
    let last = starts(&bytes)[starts(&bytes).len() - 2];
    std::fs::write(&path, &bytes[..last]).unwrap();
    let refused = read(&damaged);
    assert!(
        matches!(&refused, Err(Error::Corrupt { path: found, offset, .. }) if *found == path && *offset == last as u64),
        "{refused:?}"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(read(&damaged), Err(Error::Corrupt { .. })), "a store without a journal");
    // A process that was killed leaves no mark: then the last batch may be a torn one.
    std::fs::write(&path, &bytes[..last + 20]).unwrap();
    std::fs::remove_file(damaged.join("closed")).unwrap();
    assert_eq!(read(&damaged).unwrap()[0].len(), expected[0].len() - 1);
}

#[test]
fn what_a_loss_of_power_leaves_of_unsynced_pages_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (good, torn) = (dir.path().join("good"), dir.path().join("torn"));
    let expected = written(&good);
    let (_, bytes) = journal(&good);
    let page = bytes.len() / 4096 * 4096 - 4096;
    assert!(page >= 4096, "{} bytes of journal", bytes.len());
    copy_tree(&good, &torn);
    std::fs::remove_file(torn.join("closed")).unwrap();
    let (path, mut bytes) = journal(&torn);
    bytes[page..page + 4096].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    match read(&torn) {
        // A prefix of the batches: in every keyspace the same.
        Ok(found) => {
            let left = found[0].len();
            assert!(left < expected[0].len());
            assert!(found.iter().zip(&expected).all(|(found, all)| found[..] == all[..left]), "half a batch");
        }
        // The hole lies inside a value (facts: fjall checks it before it cuts).
        Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error:?}"),
    }
}
