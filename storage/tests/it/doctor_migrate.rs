//! The log of a stopped node moves to another backend, and an interrupted move loses nothing.

use std::collections::BTreeMap;
use std::path::Path;

use odgm_storage::Error;
use odgm_storage::composite::LogBackend;
use odgm_storage::log::{GroupId, LogEntry, LogPosition, LogState};

use crate::composite::append;
use crate::doctor::{HIT, check, doctor, file, files, flip, open, small, stopped};

/// All that a log says of its groups.
type Held = BTreeMap<u64, (LogState, Option<bytes::Bytes>, Option<LogPosition>, Vec<LogEntry>)>;

fn held(dir: &Path, backend: LogBackend) -> Held {
    let storage = open(dir, backend).unwrap();
    let groups = storage.log().groups();
    let of = |id: &GroupId| {
        let log = storage.log().group(*id).unwrap();
        let entries = log.read(0, u64::MAX, u64::MAX).unwrap();
        (id.0, (log.state(), log.vote(), log.committed(), entries))
    };
    let held = groups.iter().map(of).collect();
    storage.close().unwrap();
    held
}

#[test]
fn a_log_moves_there_and_back_with_all_it_holds() {
    let dir = stopped(LogBackend::AppendLog);
    let before = held(dir.path(), LogBackend::AppendLog);
    assert_eq!(before.len(), 3);
    assert!(before.values().all(|(state, vote, committed, entries)| {
        state.purged.is_some() && vote.is_some() && committed.is_some() && entries.len() == 13
    }));
    let mut from = LogBackend::AppendLog;
    for to in [LogBackend::Fjall, LogBackend::AppendLog] {
        let moved = doctor(dir.path(), |doctor| doctor.migrate_log(to, &small()).unwrap());
        assert_eq!((moved.from, moved.to, moved.groups, moved.entries), (from, to, 3, 39));
        let refused = open(dir.path(), from).unwrap_err();
        assert!(matches!(refused, Error::Options { .. }), "{refused}");
        assert_eq!(held(dir.path(), to), before);
        let report = check(dir.path());
        assert_eq!(report.findings, [], "nothing of the old log is left");
        from = to;
    }
}

#[test]
fn an_interrupted_move_leaves_the_log_that_was_and_can_be_run_again() {
    let dir = stopped(LogBackend::AppendLog);
    let before = held(dir.path(), LogBackend::AppendLog);
    let (list, log) = (dir.path().join("storage"), dir.path().join("log"));
    let named = std::fs::read(&list).unwrap();
    let segments: Vec<_> = files(&log).into_iter().filter(|(path, _)| path.extension().is_some()).collect();
    doctor(dir.path(), |doctor| doctor.migrate_log(LogBackend::Fjall, &small()).unwrap());
    let moved = std::fs::read(&list).unwrap();

    // Just after the list was replaced.
    for (path, bytes) in &segments {
        std::fs::write(log.join(path), bytes).unwrap();
    }
    let report = check(dir.path());
    assert!(report.is_healthy() && report.findings.len() == segments.len(), "{report:?}");
    doctor(dir.path(), |doctor| doctor.migrate_log(LogBackend::Fjall, &small()).unwrap());
    assert_eq!(check(dir.path()).findings, []);
    assert_eq!(held(dir.path(), LogBackend::Fjall), before);

    // Just before: the list still names the old log, and half of a new one lies beside it.
    for (path, bytes) in &segments {
        std::fs::write(log.join(path), bytes).unwrap();
    }
    std::fs::write(&list, &named).unwrap();
    flip(&file(&log, &["db/", ".jnl"]), 40);
    assert!(check(dir.path()).is_healthy());
    assert_eq!(held(dir.path(), LogBackend::AppendLog), before);
    doctor(dir.path(), |doctor| doctor.migrate_log(LogBackend::Fjall, &small()).unwrap());
    assert_eq!(std::fs::read(&list).unwrap(), moved);
    assert_eq!(held(dir.path(), LogBackend::Fjall), before);
}

#[test]
fn a_log_that_is_damaged_or_was_not_closed_is_not_moved() {
    let dir = stopped(LogBackend::AppendLog);
    let refuse = |dir: &Path, to| {
        let before = files(dir);
        let refused = doctor(dir, |doctor| doctor.migrate_log(to, &small()).unwrap_err());
        assert!(matches!(refused, Error::Refused { .. }), "{refused}");
        let changed: Vec<_> =
            files(dir).into_iter().filter(|(path, bytes)| before.get(path) != Some(bytes)).collect();
        assert!(
            changed
                .iter()
                .all(|(path, _)| path.extension().is_some_and(|end| end == "spare" || end == "log"))
        );
        refused.to_string()
    };
    assert!(refuse(dir.path(), LogBackend::MemoryLog).contains("memory_log"));
    let path = file(dir.path(), &["log/0000000000000001.log"]);
    let at = std::fs::read(&path).unwrap().windows(6).position(|window| window == b"vote 7").unwrap();
    flip(&path, at);
    assert!(refuse(dir.path(), LogBackend::Fjall).contains("damaged"));
    flip(&path, at);
    drop(open(dir.path(), LogBackend::AppendLog).unwrap());
    let storage = open(dir.path(), LogBackend::AppendLog).unwrap();
    append(&storage.shard(HIT, 1).unwrap(), 20..21).unwrap();
    drop(storage);
    assert!(refuse(dir.path(), LogBackend::Fjall).contains("not closed cleanly"));
}
