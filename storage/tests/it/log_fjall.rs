//! What only the Fjall log promises: damage that Fjall does not tell of is found, and what it finds is named.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use odgm_storage::Error;
use odgm_storage::disk::{Fault, RealDisk, SimDisk};
use odgm_storage::log::suite::entry;
use odgm_storage::log::{AppendOnlyLogStorage, FjallLog, FjallLogOptions, GroupId, SyncPolicy, wait_durable};

use crate::log_script::{Model, State, call, held, listed, script};

fn open(dir: &Path) -> odgm_storage::Result<Arc<FjallLog>> {
    let options = FjallLogOptions { memtable_bytes: 1 << 20, cache_bytes: 0, sync: SyncPolicy::Batch };
    FjallLog::open(Arc::new(RealDisk), dir, options)
}

/// A closed log with rows in tables and in the journal, and what it holds.
fn written(dir: &Path) -> State {
    let log = open(dir).unwrap();
    let mut state = State::new();
    for next in script(11, 250) {
        call(&*log, &mut state, &next, Box::new(|outcome| outcome.unwrap())).unwrap();
    }
    // Enough to fill the memtables, so that tables are written.
    let group = log.group(GroupId(9)).unwrap();
    for index in 0..600 {
        let noise: Vec<u8> = (0..2500).map(|n: u64| (n.wrapping_mul(index + 77) >> 3) as u8).collect();
        let new = vec![entry(1, index, &noise)];
        state.entry(9).or_default().entries.extend(new.clone());
        wait_durable(|durable| group.append(new, durable)).unwrap();
    }
    for next in script(12, 60) {
        call(&*log, &mut state, &next, Box::new(|outcome| outcome.unwrap())).unwrap();
    }
    assert_eq!(held(&*log), listed(&state));
    log.close().unwrap();
    state
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for one in fs::read_dir(dir).unwrap() {
        let path = one.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

/// Bytes of a file without the zeroes at its end, which Fjall allocates ahead.
fn content(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
    bytes
}

/// A directory that can be made as it was.
struct Original(BTreeMap<PathBuf, (Vec<u8>, u64)>);

impl Original {
    fn of(dir: &Path) -> Original {
        let mut all = Vec::new();
        files(dir, &mut all);
        let one = |path: PathBuf| {
            let file = (content(&path), fs::metadata(&path).unwrap().len());
            (path.strip_prefix(dir).unwrap().to_owned(), file)
        };
        Original(all.into_iter().map(one).collect())
    }

    fn copy(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, (bytes, len)) in &self.0 {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut file = fs::File::create(path).unwrap();
            file.write_all(bytes).unwrap();
            file.set_len(*len).unwrap();
        }
        dir
    }

    fn kind(path: &Path) -> String {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.extension() {
            Some(extension) => format!("*.{}", extension.to_string_lossy()),
            None if path.to_string_lossy().contains("tables") => "table".to_owned(),
            None if name.starts_with('v') => "version".to_owned(),
            None => name,
        }
    }
}

/// Opens what was damaged: refused, one group damaged, or nothing is missing. Else acknowledged bytes are
/// gone silently, or others are served.
fn outcome(dir: &Path, state: &State, context: &str) -> &'static str {
    let log = match open(dir) {
        Ok(log) => log,
        Err(Error::Corrupt { what, .. }) if what.contains("are missing") => return "found by the mark",
        Err(_) => return "refused",
    };
    let damaged: Vec<u64> = log.damaged().iter().map(|(id, _)| id.0).collect();
    let mut unreadable = false;
    for (id, model) in listed(state) {
        if damaged.contains(&id) {
            assert!(log.group(GroupId(id)).is_err());
            continue;
        }
        let group = log.group(GroupId(id)).unwrap();
        match group.read(0, u64::MAX, u64::MAX) {
            Err(_) => unreadable = true,
            Ok(entries) => {
                let found = Model { purged: group.state().purged, entries, vote: group.vote() };
                assert_eq!(found, model, "{context}: group {id}");
            }
        }
    }
    match (damaged.is_empty(), unreadable) {
        (false, _) => "damaged",
        (true, true) => "found on read",
        (true, false) => "harmless",
    }
}

/// Set in a child: the directory that is damaged, and which of the flips to begin with.
const FLIP: &str = "ODGM_FLIP";

/// Flips spread over the files of each kind.
fn flips(original: &Original) -> Vec<(PathBuf, usize)> {
    let samples = if std::env::var_os("ODGM_TEST_FULL").is_some() { 400 } else { 8 };
    let mut kinds: BTreeMap<String, Vec<(&PathBuf, usize)>> = BTreeMap::new();
    for (path, (bytes, _)) in original.0.iter().filter(|(_, (bytes, _))| !bytes.is_empty()) {
        kinds.entry(Original::kind(path)).or_default().push((path, bytes.len()));
    }
    let spread = |n: usize, files: &[(&PathBuf, usize)]| {
        let (path, len) = files[n % files.len()];
        (path.clone(), (n * len / samples + n * 7) % len)
    };
    kinds.values().flat_map(|files| (0..samples).map(|n| spread(n, files))).collect()
}

/// Fjall may end the process on a damaged length, so a child tries the flips, and another goes on after it.
fn try_flips(dir: &Path, from: usize) {
    let original = Original::of(dir);
    let state = held(&*open(original.copy().path()).unwrap());
    for (path, offset) in &flips(&original)[from..] {
        let context = format!("{} at {offset}", path.display());
        let copy = original.copy();
        let file = fs::File::options().write(true).open(copy.path().join(path)).unwrap();
        let byte = original.0[path].0[*offset];
        file.write_all_at(&[byte ^ 1 << (offset % 8)], *offset as u64).unwrap();
        drop(file);
        let outcome = outcome(copy.path(), &state, &context);
        std::io::stdout().lock().write_all(format!("\n#{outcome}\n").as_bytes()).unwrap();
    }
}

#[allow(clippy::print_stdout, reason = "what was tried, for whoever runs it with --nocapture")]
#[test]
fn a_flipped_bit_in_any_file_is_found_or_changes_nothing() {
    if let Ok(flip) = std::env::var(FLIP) {
        let (from, dir) = flip.split_once(' ').unwrap();
        return try_flips(Path::new(dir), from.parse().unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let state = written(dir.path());
    let original = Original::of(dir.path());
    let flips = flips(&original);
    let mut seen: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let mut next = 0;
    while next < flips.len() {
        let name = "log_fjall::a_flipped_bit_in_any_file_is_found_or_changes_nothing";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(FLIP, format!("{next} {}", dir.path().display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        let mut outcomes: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix('#')).collect();
        if outcomes.len() < flips.len() - next {
            let complaint = String::from_utf8_lossy(&child.stderr).into_owned();
            // An assertion of ours is a failure, an end that Fjall brings about is damage that was found.
            let (path, offset) = &flips[next + outcomes.len()];
            assert!(!complaint.contains("storage/tests"), "{} at {offset}: {complaint}", path.display());
            outcomes.push("process ended");
        }
        for outcome in outcomes {
            let kind = Original::kind(&flips[next].0);
            *seen.entry(kind).or_default().entry(outcome.to_owned()).or_default() += 1;
            next += 1;
        }
    }
    println!("{} flips: {seen:#?}", flips.len());
    assert_eq!(held(&*open(dir.path()).unwrap()), listed(&state));
    assert!(seen["mark"].keys().all(|outcome| outcome == "harmless"), "the other slot serves: {seen:?}");
}

/// A directory with a hundred entries, closed.
fn hundred() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let group = log.group(GroupId(1)).unwrap();
    for index in 0..100 {
        wait_durable(|durable| group.append(vec![entry(1, index, &[3; 100])], durable)).unwrap();
    }
    log.close().unwrap();
    dir
}

#[test]
fn a_journal_that_lost_its_end_is_refused_and_stays_refused() {
    let dir = hundred();
    let mut all = Vec::new();
    files(dir.path(), &mut all);
    let journal = all.iter().find(|path| path.extension().is_some_and(|e| e == "jnl")).unwrap();
    let len = content(journal).len() as u64;
    // A whole number of batches is no matter: what is left is whole.
    fs::File::options().write(true).open(journal).unwrap().set_len(len / 2).unwrap();
    for _ in 0..2 {
        let refused = open(dir.path());
        let Err(Error::Corrupt { path, what, .. }) = &refused else { panic!("{refused:?}") };
        assert!(path.ends_with("db") && what.contains("to 100 are missing, groups: all"), "{what}");
    }
}

#[test]
fn damage_at_which_fjall_cuts_its_journal_without_a_word_is_found_by_the_mark() {
    let dir = hundred();
    let original = Original::of(dir.path());
    let is_journal = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "jnl");
    let journal = original.0.keys().find(is_journal).unwrap();
    let bytes = &original.0[journal].0;
    // Behind each trailer begins a batch, with a tag that no checksum covers.
    let trailers = bytes.windows(4).enumerate().filter(|(_, window)| *window == b"FJL\x03");
    let tags: Vec<usize> = trailers.map(|(at, _)| at + 4).filter(|at| *at < bytes.len()).collect();
    assert!(tags.len() >= 99, "{}", tags.len());
    for at in tags.iter().skip(5).step_by(20) {
        let copy = original.copy();
        let file = fs::File::options().write(true).open(copy.path().join(journal)).unwrap();
        file.write_all_at(&[bytes[*at] ^ 0x40], *at as u64).unwrap();
        let refused = open(copy.path());
        assert!(
            matches!(&refused, Err(Error::Corrupt { what, .. }) if what.contains("to 100 are missing, groups: all")),
            "{refused:?}"
        );
    }
}

#[test]
fn a_group_whose_rows_are_not_what_its_own_row_says_is_damaged_and_can_be_removed() {
    let key = |index: u64| [2u64.to_be_bytes(), index.to_be_bytes()].concat();
    for (index, insert) in [(0, false), (4, false), (9, false), (10, true)] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path()).unwrap();
        for id in 1..4 {
            let group = log.group(GroupId(id)).unwrap();
            let new = (0..10).map(|index| entry(1, index, b"x")).collect();
            wait_durable(|durable| group.append(new, durable)).unwrap();
        }
        log.close().unwrap();
        drop(log);
        {
            let db = fjall::Database::builder(dir.path().join("db")).open().unwrap();
            let rows = db.keyspace("entries", fjall::KeyspaceCreateOptions::default).unwrap();
            if insert {
                rows.insert(key(index), [1, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
            } else {
                rows.remove(key(index)).unwrap();
            }
            db.persist(fjall::PersistMode::SyncAll).unwrap();
        }
        let log = open(dir.path()).unwrap();
        let damaged = log.damaged();
        assert_eq!(damaged.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [2]);
        assert!(
            matches!(&damaged[0].1, Error::Corrupt { what, .. } if what.ends_with("of group 2")),
            "{damaged:?}"
        );
        assert!(log.group(GroupId(2)).is_err());
        assert_eq!(log.group(GroupId(3)).unwrap().statistics().entries, 10);
        wait_durable(|durable| {
            log.remove_group(GroupId(2), durable);
            Ok(())
        })
        .unwrap();
        let group = log.group(GroupId(2)).unwrap();
        wait_durable(|durable| group.append(vec![entry(1, 5, b"new")], durable)).unwrap();
        drop((group, log));
        let log = open(dir.path()).unwrap();
        assert_eq!(log.damaged().len(), 0);
        assert_eq!(log.group(GroupId(2)).unwrap().read(0, 99, u64::MAX).unwrap(), [entry(1, 5, b"new")]);
    }
}

#[test]
fn a_log_without_its_database_or_without_its_mark_is_refused() {
    let dir = hundred();
    fs::rename(dir.path().join("mark"), dir.path().join("elsewhere")).unwrap();
    let refused = open(dir.path());
    assert!(matches!(&refused, Err(Error::Corrupt { path, .. }) if path.ends_with("mark")), "{refused:?}");
    fs::rename(dir.path().join("elsewhere"), dir.path().join("mark")).unwrap();
    fs::rename(dir.path().join("db"), dir.path().join("elsewhere")).unwrap();
    let refused = open(dir.path());
    assert!(matches!(&refused, Err(Error::Corrupt { path, .. }) if path.ends_with("db")), "{refused:?}");
    assert!(!dir.path().join("db").exists(), "a refusal changes nothing");
    fs::rename(dir.path().join("elsewhere"), dir.path().join("db")).unwrap();
    assert_eq!(open(dir.path()).unwrap().group(GroupId(1)).unwrap().statistics().entries, 100);
}

#[test]
fn a_second_process_is_refused_and_a_clean_close_is_known_until_something_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    assert_eq!(log.was_closed_cleanly(), None);
    let again = open(dir.path());
    assert!(matches!(again, Err(Error::Locked { .. })), "{again:?}");
    let append = |log: &FjallLog, index: u64| {
        let group = log.group(GroupId(1)).unwrap();
        wait_durable(|durable| group.append(vec![entry(1, index, b"x")], durable)).unwrap();
    };
    append(&log, 0);
    log.close().unwrap();
    drop(log);
    for _ in 0..2 {
        assert_eq!(open(dir.path()).unwrap().was_closed_cleanly(), Some(true));
    }
    append(&open(dir.path()).unwrap(), 1);
    let log = open(dir.path()).unwrap();
    assert_eq!(log.was_closed_cleanly(), Some(false));
    assert_eq!(log.group(GroupId(1)).unwrap().statistics().entries, 2);
}

#[test]
fn a_clean_close_is_forgotten_before_the_first_write_that_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let options = FjallLogOptions { sync: SyncPolicy::None, ..FjallLogOptions::default() };
    let open = || FjallLog::open(Arc::new(RealDisk), dir.path(), options.clone()).unwrap();
    let append = |log: &FjallLog, index: u64| {
        let group = log.group(GroupId(1)).unwrap();
        wait_durable(|durable| group.append(vec![entry(1, index, b"x")], durable)).unwrap();
    };
    let log = open();
    append(&log, 0);
    log.close().unwrap();
    drop(log);
    let closed = Original::of(dir.path());
    append(&open(), 1);
    // The power is lost: the database is what it was, the mark was synced.
    let mark = fs::read(dir.path().join("mark")).unwrap();
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    let before = closed.copy();
    fs::rename(before.path().join("db"), dir.path().join("db")).unwrap();
    fs::write(dir.path().join("mark"), mark).unwrap();
    let log = open();
    assert_eq!(log.group(GroupId(1)).unwrap().statistics().entries, 1);
    assert_eq!(log.was_closed_cleanly(), Some(false));
}

#[test]
fn a_failed_mark_poisons_the_log_and_loses_nothing_that_was_acknowledged() {
    // The mark is on a disk that fails, the database is a real one of the same path.
    let dir = tempfile::tempdir().unwrap();
    for at in 1..12 {
        let disk = SimDisk::new(at);
        let here = dir.path().join(at.to_string());
        disk.fail_at(at, Fault::Io);
        let options = FjallLogOptions { memtable_bytes: 1 << 20, ..FjallLogOptions::default() };
        let mut acknowledged = 0;
        if let Ok(log) = FjallLog::open(Arc::new(disk.clone()), &here, options.clone()) {
            let group = log.group(GroupId(1)).unwrap();
            while acknowledged < 20 {
                let new = vec![entry(1, acknowledged, b"x")];
                let done = wait_durable(|durable| group.append(new, durable));
                let Ok(()) = done else {
                    assert!(log.poisoned().is_some() && log.close().is_err());
                    break;
                };
                acknowledged += 1;
            }
        }
        disk.crash();
        let log = FjallLog::open(Arc::new(disk), &here, options).unwrap();
        let found = log.group(GroupId(1)).unwrap().statistics().entries;
        assert!(found >= acknowledged, "fault at {at}: {found} of {acknowledged}");
    }
}
