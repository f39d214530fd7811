//! A stopped node's directory is looked at, mended, and its log moved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use odgm_storage::Error;
use odgm_storage::composite::{CompositeOptions, CompositeStorage, DataBackend, LogBackend, LogLayer};
use odgm_storage::data::CheckpointRequest;
use odgm_storage::disk::RealDisk;
use odgm_storage::doctor::{Doctor, Finding, Part, Remedy, Report, Severity};
use odgm_storage::log::{GroupId, LogPosition, LogState, wait_durable};

use crate::composite::{append, open_at, own, put, snapshot, value};
use crate::data_fjall::copy_tree;

const GROUPS: [GroupId; 3] = [GroupId(0), GroupId(7), GroupId(8)];
pub(crate) const HIT: GroupId = GroupId(7);

pub(crate) fn options(log: LogBackend) -> CompositeOptions {
    let mut options = own();
    options.log.backend = log;
    options.data.backend = DataBackend::Fjall;
    options.data.options.write_buffer_bytes = 8 << 20;
    options.data.options.cache_bytes = 1 << 20;
    options
}

pub(crate) fn open(dir: &Path, log: LogBackend) -> odgm_storage::Result<Arc<CompositeStorage>> {
    open_at(Arc::new(RealDisk), dir, options(log))
}

/// A copy of the directory of a node that was stopped: every kind of file is in it.
pub(crate) fn stopped(log: LogBackend) -> tempfile::TempDir {
    static MADE: [OnceLock<tempfile::TempDir>; 2] = [const { OnceLock::new() }; 2];
    let made = MADE[usize::from(log == LogBackend::Fjall)].get_or_init(|| made(log));
    let dir = tempfile::tempdir().unwrap();
    copy_tree(made.path(), dir.path());
    dir
}

fn made(log: LogBackend) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), log).unwrap();
    for group in GROUPS {
        let shard = storage.shard(group, 1).unwrap();
        wait_durable(|durable| shard.log().save_vote(format!("vote {}", group.0).into(), durable)).unwrap();
        append(&shard, 0..20).unwrap();
        put(&shard, "old");
        snapshot(&shard, 6).unwrap();
        shard.data().flush().unwrap();
        put(&shard, "kept");
        let target = shard.checkpoints().join("checkpoint-x");
        std::fs::create_dir_all(shard.checkpoints()).unwrap();
        shard.data().checkpoint_as(&target, &CheckpointRequest::default()).unwrap();
        put(&shard, "newest");
        shard.log().save_committed(Some(LogPosition { term: 3, index: 12 })).unwrap();
    }
    storage.close().unwrap();
    drop(storage);
    // Journals are holes of 64 MiB: without them everything here is quick.
    let short = |path: &&PathBuf| {
        path.extension().is_some_and(|end| end == "jnl") && !path.to_string_lossy().contains("checkpoints")
    };
    for path in files(dir.path()).keys().filter(short) {
        let path = dir.path().join(path);
        let used = used(&path);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(used as u64 + 64).unwrap();
    }
    dir
}

/// The bytes of a file up to the zeroes at its end.
fn used(path: &Path) -> usize {
    std::fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

/// All files below a directory with their content, by path below it.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, into);
            } else {
                into.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    found
}

pub(crate) fn doctor<T>(dir: &Path, ask: impl FnOnce(&Doctor) -> T) -> T {
    let scratch = tempfile::tempdir().unwrap();
    let answer = ask(&Doctor::open(dir, scratch.path()).unwrap());
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "copies are removed");
    answer
}

/// Checks, and holds every byte of the directory against what it was.
pub(crate) fn check(dir: &Path) -> Report {
    let before = files(dir);
    let report = doctor(dir, |doctor| doctor.check().unwrap());
    assert!(before == files(dir), "a check changed the directory");
    report
}

pub(crate) fn small() -> LogLayer {
    own().log
}

/// The last file whose path, below the directory, holds all parts: of versions, the one that serves.
pub(crate) fn file(dir: &Path, parts: &[&str]) -> PathBuf {
    let all = files(dir);
    let fits = |path: &&PathBuf| parts.iter().all(|part| path.to_string_lossy().contains(part));
    dir.join(all.keys().rfind(fits).unwrap_or_else(|| panic!("no {parts:?} in {:?}", all.keys())))
}

pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    // Written anew: a checkpoint may hold the same file by another name.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// The worst thing that was found.
fn worst(report: &Report) -> &Finding {
    report.findings.first().expect("something was found")
}

#[test]
fn a_directory_without_fault_is_healthy_and_all_of_it_was_read() {
    for log in [LogBackend::AppendLog, LogBackend::Fjall] {
        let dir = stopped(log);
        let report = check(dir.path());
        assert!(report.is_healthy() && report.findings.is_empty(), "{report:?}");
        let checked = report.checked;
        assert_eq!((checked.groups, checked.replicas, checked.snapshots, checked.checkpoints), (3, 3, 3, 3));
        assert!(checked.rows >= 3 && (checked.segments > 0) == (log == LogBackend::AppendLog), "{checked:?}");
        assert_eq!(report.layers.map(|layers| layers.log), Some(log));
    }
}

#[test]
fn a_flipped_bit_in_every_kind_of_file_is_named_with_what_helps() {
    type Case = (LogBackend, &'static [&'static str], fn(&Path) -> usize, Part, Severity, Remedy);
    use LogBackend::{AppendLog, Fjall};
    use Remedy::{Refill, ReplaceNode, SetAside, WriteLayers};
    use Severity::{Damage, Warning};
    let (first, middle, end) = (|_: &Path| 0, |path: &Path| used(path) / 2, |path: &Path| used(path) - 3);
    let payload = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(6).position(|window| window == b"vote 7").unwrap()
    };
    let cases: [Case; 19] = [
        (AppendLog, &["storage"], middle, Part::Node, Damage, WriteLayers),
        (AppendLog, &["log/0000000000000001.log"], |_| 3, Part::Log, Damage, ReplaceNode),
        (AppendLog, &["log/0000000000000001.log"], |_| 520, Part::Log, Damage, ReplaceNode),
        (AppendLog, &["log/0000000000000001.log"], payload, Part::Log, Damage, Refill),
        (AppendLog, &["log/0000000000000001.log"], |_| 1023, Part::Log, Warning, Remedy::None),
        (Fjall, &["log/mark"], |_| 30, Part::Log, Warning, Remedy::None),
        (Fjall, &["log/db", ".jnl"], middle, Part::Log, Damage, ReplaceNode),
        (Fjall, &["log/db", ".jnl"], first, Part::Log, Damage, ReplaceNode),
        (Fjall, &["log/db/keyspaces/1/current"], first, Part::Log, Damage, ReplaceNode),
        (AppendLog, &["shards/7-1/data/current"], middle, Part::Data, Damage, Refill),
        (AppendLog, &["shards/7-1/data/closed"], middle, Part::Data, Damage, Refill),
        (AppendLog, &["shards/7-1/data/1/", ".jnl"], middle, Part::Data, Damage, Refill),
        (AppendLog, &["shards/7-1/data/1/keyspaces/1/tables/"], middle, Part::Data, Damage, Refill),
        (AppendLog, &["shards/7-1/data/1/keyspaces/1/current"], first, Part::Data, Damage, Refill),
        (AppendLog, &["shards/7-1/data/1/keyspaces/1/v"], middle, Part::Data, Damage, Refill),
        (AppendLog, &["shards/0-1/data/current"], middle, Part::Data, Damage, ReplaceNode),
        (AppendLog, &["shards/7-1/checkpoints/", "MANIFEST"], middle, Part::Checkpoint, Damage, SetAside),
        (AppendLog, &["shards/7-1/checkpoints/", "tables/"], middle, Part::Checkpoint, Damage, SetAside),
        (AppendLog, &["shards/7-1/snapshots/"], end, Part::Snapshot, Damage, SetAside),
    ];
    for (log, parts, at, part, severity, remedy) in cases {
        let dir = stopped(log);
        let path = file(dir.path(), parts);
        flip(&path, at(&path));
        let report = check(dir.path());
        assert!(!report.findings.is_empty(), "nothing was found in {}", path.display());
        let found = worst(&report);
        let told = (found.part, found.severity, found.remedy);
        assert_eq!(told, (part, severity, remedy), "{}: {report:?}", path.display());
        let near = found.path == path || path.ancestors().any(|above| above == found.path);
        assert!(near, "{} is named as {}", path.display(), found.path.display());
        assert_eq!(report.is_healthy(), severity == Warning, "{report:?}");
        let group = found.group.map(|group| group.0);
        assert!(remedy != Refill || group == Some(7), "{}: {found:?}", path.display());
    }
}

#[test]
fn a_running_node_and_a_directory_of_somebody_else_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes"), "mine").unwrap();
    assert!(matches!(Doctor::open(dir.path(), scratch.path()), Err(Error::NotFound { .. })));
    assert_eq!(files(dir.path()).len(), 1);
    let data = dir.path().join("data");
    let storage = open(&data, LogBackend::AppendLog).unwrap();
    assert!(matches!(Doctor::open(&data, scratch.path()), Err(Error::Locked { .. })));
    drop(storage);
    Doctor::open(&data, scratch.path()).unwrap();
}

#[test]
fn what_a_crash_left_is_no_damage_and_a_repair_removes_it() {
    let dir = stopped(LogBackend::AppendLog);
    let left = [
        "storage.partial",
        "shards/7-1/data/9/x",
        "shards/7-1/data/current.partial",
        "shards/7-1/checkpoints/checkpoint-y.partial/x",
        "shards/7-1/snapshots/0.partial",
        "log/mark",
    ]
    .map(|name| dir.path().join(name));
    for path in &left {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "left").unwrap();
    }
    let report = check(dir.path());
    assert!(report.is_healthy(), "{report:?}");
    assert_eq!(report.findings.len(), left.len(), "{report:?}");
    assert!(report.findings.iter().all(|f| f.severity == Severity::Leftover && f.remedy == Remedy::Remove));
    let repair = doctor(dir.path(), |doctor| doctor.repair(&small()).unwrap());
    assert_eq!(repair.done.len(), left.len());
    assert_eq!(repair.report.findings, []);
    assert!(left.iter().all(|path| !path.exists()));
}

#[test]
fn a_torn_tail_is_told_and_cut_by_a_repair() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path(), LogBackend::AppendLog).unwrap();
    let shard = storage.shard(HIT, 1).unwrap();
    append(&shard, 0..3).unwrap();
    let log = file(dir.path(), &["log/0000000000000001.log"]);
    drop((shard, storage));
    // The last frame with records, or a mark behind it.
    let bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(7).rposition(|window| window == b"payload").unwrap();
    let marks = bytes[at..].windows(8).any(|window| window == b"odgmfrm2");
    assert!(!marks, "nothing attests the last frame");
    flip(&log, at);
    let report = check(dir.path());
    assert!(report.is_healthy(), "{report:?}");
    let tail = worst(&report);
    assert_eq!((tail.remedy, &tail.path), (Remedy::CutTail, &log));
    assert!(tail.offset.is_some_and(|offset| offset <= at as u64 && offset % 512 == 0), "{tail:?}");
    let repair = doctor(dir.path(), |doctor| doctor.repair(&small()).unwrap());
    assert!(repair.done[0].contains("cut the tail"), "{repair:?}");
    assert_eq!(repair.report.findings, []);
}

#[test]
fn a_repair_gives_a_damaged_replica_up_and_the_others_go_on() {
    for hit in ["log/0000000000000001.log", "shards/7-1/data/current"] {
        let dir = stopped(LogBackend::AppendLog);
        let path = file(dir.path(), &[hit]);
        let bytes = std::fs::read(&path).unwrap();
        let vote = bytes.windows(6).position(|window| window == b"vote 7");
        flip(&path, vote.unwrap_or(5));
        let repair = doctor(dir.path(), |doctor| doctor.repair(&small()).unwrap());
        assert!(repair.done.iter().any(|done| done.contains("gave up replica 1 of group 7")), "{repair:?}");
        let [lost] = &repair.report.findings[..] else { panic!("{repair:?}") };
        assert_eq!((lost.severity, lost.group), (Severity::Lost, Some(HIT)));
        assert!(!repair.report.is_healthy());
        assert!(dir.path().join("damaged/shards/7-1/data/1").exists(), "nothing is deleted");
        let again = doctor(dir.path(), |doctor| doctor.repair(&small()).unwrap());
        assert_eq!((again.done.len(), again.report.findings.len()), (0, 1), "{again:?}");

        let storage = open(dir.path(), LogBackend::AppendLog).unwrap();
        let refused = storage.shard(HIT, 1).unwrap_err();
        assert!(
            matches!(&refused, Error::Refused { reason, .. } if reason.contains("node replace")),
            "{refused}"
        );
        assert_eq!(value(&storage.shard(GroupId(8), 1).unwrap()).as_deref(), Some("newest"));
        // Its successor begins empty, with an id of its own.
        storage.remove_shard(HIT, 1).unwrap();
        let next = storage.shard(HIT, 2).unwrap();
        assert_eq!((next.log().state(), next.log().vote(), value(&next)), (LogState::default(), None, None));
    }
}

#[test]
fn an_interrupted_repair_goes_on() {
    let dir = stopped(LogBackend::AppendLog);
    // All that was done is the mark, which comes first.
    std::fs::write(dir.path().join("shards/7-1/lost"), "").unwrap();
    let report = check(dir.path());
    assert_eq!((worst(&report).severity, worst(&report).remedy), (Severity::Lost, Remedy::Refill));
    let repair = doctor(dir.path(), |doctor| doctor.repair(&small()).unwrap());
    assert_eq!(worst(&repair.report).remedy, Remedy::ReplaceNode, "{repair:?}");
    assert_eq!(repair.report.checked.groups, 2, "the group left the log");
    assert!(dir.path().join("damaged/shards/7-1/data/1").exists());
}

#[test]
fn a_repair_sets_aside_what_the_next_snapshot_replaces_and_writes_the_list_again() {
    let dir = stopped(LogBackend::AppendLog);
    let [list, manifest, file] = [
        file(dir.path(), &["storage"]),
        file(dir.path(), &["shards/7-1/checkpoints/", "MANIFEST"]),
        file(dir.path(), &["shards/8-1/snapshots/"]),
    ];
    let written = std::fs::read(&list).unwrap();
    for path in [&list, &manifest, &file] {
        flip(path, used(path) / 2);
    }
    let repair = doctor(dir.path(), |doctor| doctor.repair(&small()).unwrap());
    assert_eq!((repair.done.len(), &repair.report.findings[..]), (3, &[][..]), "{repair:?}");
    assert_eq!(std::fs::read(&list).unwrap(), written);
    assert!(dir.path().join("damaged/shards/7-1/checkpoints/checkpoint-x/MANIFEST.odgm").exists());
    assert!(dir.path().join("damaged").join(file.strip_prefix(dir.path()).unwrap()).exists());
    open(dir.path(), LogBackend::AppendLog).unwrap().shard(HIT, 1).unwrap();
}
