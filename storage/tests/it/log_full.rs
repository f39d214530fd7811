//! The logs on a real file system that is full: a small one, mounted in a name space of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use odgm_storage::Error;
use odgm_storage::disk::RealDisk;
use odgm_storage::log::suite::entry;
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, FjallLog, FjallLogOptions, GroupId, LogOptions, LogSpace,
    RaftLogStorage, wait_durable,
};

/// Set in the child: where the small file system is.
const DIR: &str = "ODGM_SMALL_DIR";
const FILLER: &str = "filler";

/// Runs `test` again on a file system of 96 MiB. Where none can be mounted it says so.
#[allow(clippy::print_stdout, reason = "a test that could not run must not look as if it had")]
fn on_a_small_disk(test: &str, child: fn(&Path)) {
    if let Some(dir) = std::env::var_os(DIR) {
        return child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=96m none \"$ODGM_SMALL_DIR\" || exit 77\nexec \"$@\"";
    let process = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir.path())
        .output();
    match process {
        Ok(process) if process.status.success() => {}
        Ok(process) if process.status.code() == Some(101) => {
            panic!("{}{}", String::from_utf8_lossy(&process.stdout), String::from_utf8_lossy(&process.stderr))
        }
        other => println!("NOT RUN, no file system can be mounted here: {other:?}"),
    }
}

/// Fills what is free, so that a later removal makes room.
fn fill(dir: &Path) {
    let chunk = vec![1; 64 << 10];
    let mut file = fs::File::create(dir.join(FILLER)).unwrap();
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
}

fn held(group: &dyn RaftLogStorage) -> u64 {
    let found = group.read(0, u64::MAX, u64::MAX).unwrap();
    for (index, one) in found.iter().enumerate() {
        assert_eq!(*one, entry(1, index as u64, &payload(index as u64)));
    }
    found.len() as u64
}

fn payload(index: u64) -> Vec<u8> {
    (0..3000u64).map(|n| (n.wrapping_mul(index + 77) >> 3) as u8).collect()
}

/// Appends until the log refuses or nothing is acknowledged any more; says how many were.
fn append_until_full(log: &dyn AppendOnlyLogStorage, group: &dyn RaftLogStorage) -> (u64, u64, Error) {
    let durable = Arc::new(AtomicU64::new(0));
    let mut index = group.state().last.map_or(0, |last| last.index + 1);
    let before = index;
    let refused = loop {
        let durable = Arc::clone(&durable);
        let count = move |outcome: odgm_storage::Result<()>| {
            durable.fetch_add(u64::from(outcome.is_ok()), Ordering::SeqCst);
        };
        match group.append(vec![entry(1, index, &payload(index))], Box::new(count)) {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
        assert!(index < 100_000, "the disk is never full: {:?}", log.space());
        if index.is_multiple_of(16) && log.space() == LogSpace::Ample {
            // At the pace of the disk, as long as it has one.
            let _ = wait_durable(|durable| group.sync(durable));
        }
    };
    (before + durable.load(Ordering::SeqCst), index, refused)
}

fn append_log_on(dir: &Path) {
    let at = dir.join("log");
    let options = LogOptions { segment_bytes: 4 << 20, ..LogOptions::default() };
    let log = AppendLog::open(Arc::new(RealDisk), &at, options.clone()).unwrap();
    let group = log.group(GroupId(1)).unwrap();
    wait_durable(|durable| group.append(vec![entry(1, 0, &payload(0))], durable)).unwrap();
    fill(dir);
    let (durable, taken, refused) = append_until_full(&*log, &*group);
    assert!(matches!(refused, Error::Full { .. }), "{refused:?}");
    assert_eq!((log.space(), log.poisoned().is_none()), (LogSpace::Exhausted, true));
    assert!(durable > 1 && durable < taken, "the reserve was used: {durable} of {taken}");
    fs::remove_file(dir.join(FILLER)).unwrap();
    // What was taken becomes durable, and the log goes on.
    wait_durable(|durable| group.sync(durable)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while log.space() != LogSpace::Ample {
        assert!(Instant::now() < deadline, "{:?}", log.space());
        std::thread::yield_now();
    }
    wait_durable(|durable| group.append(vec![entry(1, taken, &payload(taken))], durable)).unwrap();
    log.close().unwrap();
    drop((group, log));
    let log = AppendLog::open(Arc::new(RealDisk), &at, options).unwrap();
    assert_eq!(held(&*log.group(GroupId(1)).unwrap()), taken + 1);
}

fn fjall_log_on(dir: &Path) {
    let at = dir.join("log");
    let options = FjallLogOptions { memtable_bytes: 1 << 20, ..FjallLogOptions::default() };
    let open = || FjallLog::open(Arc::new(RealDisk), &at, options.clone());
    let log = open().unwrap();
    let group = log.group(GroupId(1)).unwrap();
    wait_durable(|durable| group.append(vec![entry(1, 0, &payload(0))], durable)).unwrap();
    fill(dir);
    let (durable, _, refused) = append_until_full(&*log, &*group);
    assert!(matches!(refused, Error::Poisoned { .. }), "{refused:?}");
    assert!(log.poisoned().is_some() && log.close().is_err());
    drop((group, log));
    fs::remove_file(dir.join(FILLER)).unwrap();
    let log = open().unwrap();
    let group = log.group(GroupId(1)).unwrap();
    let found = held(&*group);
    assert!(found >= durable, "{found} of {durable}");
    wait_durable(|durable| group.append(vec![entry(1, found, &payload(found))], durable)).unwrap();
}

#[test]
fn append_log_lives_on_its_reserve_and_goes_on_when_a_real_disk_has_room_again() {
    let test = "log_full::append_log_lives_on_its_reserve_and_goes_on_when_a_real_disk_has_room_again";
    on_a_small_disk(test, append_log_on);
}

#[test]
fn fjall_log_stops_on_a_full_real_disk_and_opens_with_all_it_acknowledged() {
    let test = "log_full::fjall_log_stops_on_a_full_real_disk_and_opens_with_all_it_acknowledged";
    on_a_small_disk(test, fjall_log_on);
}
