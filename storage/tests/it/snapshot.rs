//! Every snapshot store keeps the promises of the suite; files keep theirs through damage and crashes.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use odgm_storage::Error;
use odgm_storage::disk::{Disk, Fault, RealDisk, SimDisk};
use odgm_storage::snapshot::file::FileSnapshots;
use odgm_storage::snapshot::memory::MemorySnapshots;
use odgm_storage::snapshot::suite::{content, meta, read, write};
use odgm_storage::snapshot::{Compression, FRAME_BYTES, RaftSnapshotStorage, SnapshotOptions};

const DIR: &str = "/snapshots";

fn open(disk: &SimDisk) -> Arc<FileSnapshots> {
    FileSnapshots::open(Arc::new(disk.clone()), Path::new(DIR), SnapshotOptions::default()).unwrap()
}

fn packed_by(compression: Compression, level: i32) -> Arc<dyn RaftSnapshotStorage> {
    let options = SnapshotOptions { compression, level };
    FileSnapshots::open(Arc::new(SimDisk::new(1)), Path::new(DIR), options).unwrap()
}

fn uncompressed() -> Arc<dyn RaftSnapshotStorage> {
    packed_by(Compression::None, 1)
}

fn lz4() -> Arc<dyn RaftSnapshotStorage> {
    packed_by(Compression::Lz4, 1)
}

fn gzip() -> Arc<dyn RaftSnapshotStorage> {
    packed_by(Compression::Gzip, 1)
}

fn simulated() -> Arc<dyn RaftSnapshotStorage> {
    open(&SimDisk::new(1))
}

fn memory() -> Arc<dyn RaftSnapshotStorage> {
    MemorySnapshots::new(SnapshotOptions::default()).unwrap()
}

/// Keeps a real directory for as long as its store.
#[derive(Debug)]
struct InDirectory(Arc<FileSnapshots>, #[allow(dead_code, reason = "removed on drop")] tempfile::TempDir);

macro_rules! suite {
    ($($promise:ident),* $(,)?) => {
        mod zstd_files_keep {
            $(#[test] fn $promise() { odgm_storage::snapshot::suite::$promise(&super::simulated); })*
        }
        mod raw_files_keep {
            $(#[test] fn $promise() { odgm_storage::snapshot::suite::$promise(&super::uncompressed); })*
        }
        mod lz4_files_keep {
            $(#[test] fn $promise() { odgm_storage::snapshot::suite::$promise(&super::lz4); })*
        }
        mod gzip_files_keep {
            $(#[test] fn $promise() { odgm_storage::snapshot::suite::$promise(&super::gzip); })*
        }
        mod memory_keeps {
            $(#[test] fn $promise() { odgm_storage::snapshot::suite::$promise(&super::memory); })*
        }
    };
}

suite!(
    a_snapshot_is_what_was_written,
    a_snapshot_is_listed_from_its_finish_on,
    an_unfinished_snapshot_leaves_nothing,
    an_id_is_used_once,
    a_deleted_snapshot_is_gone,
    a_snapshot_can_be_sent,
    a_broken_transfer_is_taken_up,
    a_damaged_transfer_is_refused,
    a_snapshot_is_read_from_any_offset,
    a_snapshot_says_its_entries_and_its_codec,
    the_latest_is_the_last_of_the_list,
    what_is_retained_follows_the_policy,
    a_snapshot_in_use_is_retained,
    a_snapshot_is_installed_from_a_stream,
);

fn on_real_disk() -> InDirectory {
    let dir = tempfile::tempdir().unwrap();
    let options = SnapshotOptions::default();
    let store = FileSnapshots::open(Arc::new(RealDisk), &dir.path().join("snapshots"), options).unwrap();
    InDirectory(store, dir)
}

#[test]
fn a_real_disk_holds_a_snapshot_in_half_of_its_bytes_and_gives_it_back() {
    let store = on_real_disk();
    let bytes = content(4 * FRAME_BYTES);
    let info = write(&*store.0, meta(1), &bytes);
    assert!(info.stored_bytes < 5 * FRAME_BYTES as u64 / 2, "{}", info.stored_bytes);
    assert!(read(&*store.0, meta(1).id) == bytes);
}

#[test]
fn a_flipped_byte_of_any_kind_is_found_and_named() {
    let disk = SimDisk::new(7);
    let store = open(&disk);
    let info = write(&*store, meta(1), &content(2 * FRAME_BYTES + 100));
    drop(store);
    let path = Path::new(DIR).join(format!("{}.snapshot", meta(1).id));
    let bytes = disk.bytes(&path).unwrap();
    let length = bytes.len() as u64;
    assert_eq!(length, info.stored_bytes);
    let word = |at: u64| u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap());
    let manifest = word(length - 32);
    let second = 40 + 24 + u64::from(u32::from_le_bytes(bytes[52..56].try_into().unwrap()));
    let kinds = [
        (0..40, "header", 0),
        (40..64, "frame 0", 40),
        (64..second, "frame 0", 40),
        (second..second + 24, "frame 1", second),
        (manifest - 1..manifest, "frame 2", 0),
        (manifest..length - 32, "manifest", manifest),
        (length - 32..length, "trailer", length - 32),
    ];
    for (range, named, at) in kinds {
        let step = ((range.end - range.start) / 10).max(1) as usize;
        for offset in range.step_by(step) {
            let damaged = disk.fork();
            damaged.flip(&path, offset, 1 << (offset % 8));
            let store = open(&damaged);
            let found = store.verify(meta(1).id);
            let Err(Error::Corrupt { path: place, what, offset: found_at }) = &found else {
                panic!("byte {offset} of {named}: {found:?}");
            };
            assert!(what.starts_with(named), "byte {offset}: {what}, not {named}");
            assert!(*found_at == at || at == 0, "byte {offset}: at {found_at}, not {at}");
            assert_eq!(place, &path);
            let opened = store.read(meta(1).id);
            let handed_out = opened.map(|mut reader| reader.read_to_end(&mut Vec::new()));
            assert!(!matches!(handed_out, Ok(Ok(_))), "byte {offset} was read over");
        }
    }
}

#[test]
fn a_file_that_is_cut_or_renamed_is_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let reopen = || FileSnapshots::open(Arc::new(RealDisk), dir.path(), SnapshotOptions::default()).unwrap();
    write(&*reopen(), meta(1), &content(FRAME_BYTES * 2));
    let path = dir.path().join(format!("{}.snapshot", meta(1).id));
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 10, 40, 70, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let store = reopen();
        assert!(store.list().unwrap().is_empty(), "{length} bytes");
        assert!(matches!(store.verify(meta(1).id), Err(Error::Corrupt { .. })), "{length} bytes");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(dir.path().join(format!("{}.snapshot", meta(2).id)), &bytes).unwrap();
    assert!(matches!(reopen().verify(meta(2).id), Err(Error::Corrupt { .. })));
}

#[test]
fn another_version_is_refused_as_such() {
    let disk = SimDisk::new(7);
    write(&*open(&disk), meta(1), b"content");
    let path = Path::new(DIR).join(format!("{}.snapshot", meta(1).id));
    let mut bytes = disk.bytes(&path).unwrap();
    bytes[8] = 3;
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..32]);
    bytes[32..40].copy_from_slice(&sum.to_le_bytes());
    disk.open(&path, odgm_storage::disk::OpenMode::Write).unwrap().write_at(&bytes, 0).unwrap();
    let refused = open(&disk).read(meta(1).id).map(drop);
    assert!(matches!(&refused, Err(Error::Format { found, .. }) if found == "3"), "{refused:?}");
}

#[test]
fn what_was_finished_survives_a_crash_and_what_was_not_is_gone() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let store = open(&disk);
        let bytes = content(FRAME_BYTES + 5);
        let info = write(&*store, meta(1), &bytes);
        let mut writer = store.create(meta(2), 1).unwrap();
        writer.write_all(&bytes).unwrap();
        // The process dies with the machine: nothing of it is dropped in order.
        std::mem::forget(writer);
        disk.crash();
        let store = open(&disk);
        assert_eq!(store.list().unwrap(), [info], "seed {seed}");
        assert!(read(&*store, meta(1).id) == bytes, "seed {seed}");
        let names = disk.list(Path::new(DIR)).unwrap();
        assert_eq!(names.len(), 1, "seed {seed}: {names:?}");
    }
}

#[test]
fn a_transfer_broken_by_a_crash_goes_on_with_sound_bytes() {
    let here = simulated();
    let bytes = content(3 * FRAME_BYTES);
    let info = write(&*here, meta(1), &bytes);
    let stored = here.read_stored(meta(1).id, 0, usize::MAX).unwrap();
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let store = open(&disk);
        let mut receiver = store.receive(meta(1).id, info.stored_bytes).unwrap();
        receiver.write(&stored[..stored.len() * 2 / 3]).unwrap();
        std::mem::forget(receiver);
        disk.crash();
        let store = open(&disk);
        let mut receiver = store.receive(meta(1).id, info.stored_bytes).unwrap();
        let offset = receiver.offset() as usize;
        receiver.write(&stored[offset..]).unwrap();
        assert_eq!(receiver.finish().unwrap(), info, "seed {seed}");
        assert!(read(&*store, meta(1).id) == bytes, "seed {seed}");
    }
}

#[test]
fn a_received_part_outlives_a_restart_until_another_transfer_begins() {
    let here = simulated();
    let info = write(&*here, meta(1), &content(3 * FRAME_BYTES));
    let stored = here.read_stored(meta(1).id, 0, usize::MAX).unwrap();
    let disk = SimDisk::new(3);
    let store = open(&disk);
    store.receive(meta(1).id, info.stored_bytes).unwrap().write(&stored[..stored.len() - 50]).unwrap();
    drop(store);
    let store = open(&disk);
    assert!(store.receive(meta(1).id, info.stored_bytes).unwrap().offset() > FRAME_BYTES as u64);
    let _other = store.receive(meta(2).id, 100).unwrap();
    assert_eq!(store.receive(meta(1).id, info.stored_bytes).unwrap().offset(), 0);
}

#[test]
fn a_disk_that_fails_at_any_call_yields_an_error_and_no_snapshot() {
    let bytes = content(FRAME_BYTES * 2);
    let calls = {
        let disk = SimDisk::new(5);
        let store = open(&disk);
        let before = disk.calls();
        write(&*store, meta(1), &bytes);
        disk.calls() - before
    };
    assert!(calls > 5, "{calls}");
    for call in 1..=calls {
        let disk = SimDisk::new(5);
        let store = open(&disk);
        disk.fail_at(disk.calls() + call, Fault::Io);
        let finished = store.create(meta(1), 1).and_then(|mut writer| {
            writer.write_all(&bytes).map_err(|error| Error::io("write", DIR, error))?;
            writer.finish()
        });
        match finished {
            Err(_) => assert!(store.list().unwrap().is_empty(), "call {call}"),
            // The one call that only cleans up.
            Ok(info) => assert_eq!(store.list().unwrap(), [info], "call {call}"),
        }
        let store = open(&disk);
        for info in store.list().unwrap() {
            assert_eq!(store.verify(info.meta.id).unwrap(), info, "call {call}");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_snapshot_of_version_2_keeps_its_bytes() {
    let store = uncompressed();
    let mut writer = store.create(meta(1), 1_700_000_000_000).unwrap();
    writer.write_all(b"content").unwrap();
    writer.set_entries(3);
    let info = writer.finish().unwrap();
    assert_eq!(hex(&store.read_stored(info.meta.id, 0, usize::MAX).unwrap()), GOLDEN_2);
}

#[test]
fn a_snapshot_of_version_1_is_read() {
    let bytes: Vec<u8> = (0..GOLDEN.len() / 2)
        .map(|at| u8::from_str_radix(&GOLDEN[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let store = simulated();
    let info = store.install(bytes.len() as u64, &mut &bytes[..]).unwrap();
    assert_eq!((info.meta, info.created_unix_ms), (meta(1), 1_700_000_000_000));
    assert_eq!((info.compression, info.entries), (None, None));
    assert_eq!(read(&*store, meta(1).id), b"content");
}

const GOLDEN_2: &str = "6f64676d736e61700200000000000000000000000000000000000000abcd0001f55f1ec9c184e9f2\
    0001000000000000070000000700000085dfa820ab2e644d636f6e74656e7400020000010000003d\
    0000003d000000ad22ecc0f2143ab110000000000000000000000000abcd0001010301076d656d62\
    657273fd0068e5cf8b01000007fe8c56d988232d7ab295c14f2774127e9101280100010347000000\
    00000000bc00000000000000d046a9ecdf14844f6f64676d2d656e64";

const GOLDEN: &str = "6f64676d736e61700100000000000000000000000000000000000000abcd0001f96170d901fb0abf\
    0001000000000000070000000700000085dfa820ab2e644d636f6e74656e74000200000100000039\
    00000039000000448d39b0c41e3f6610000000000000000000000000abcd0001010301076d656d62\
    657273fd0068e5cf8b01000007fe8c56d988232d7ab295c14f2774127e9101284700000000000000\
    b8000000000000005400915a7e2a0fd16f64676d2d656e64";

#[test]
fn options_that_this_build_cannot_keep_are_refused() {
    let options = |compression, level| SnapshotOptions { compression, level };
    for (bad, field) in [
        (options(Compression::Gzip, 0), "level"),
        (options(Compression::Gzip, 10), "level"),
        (options(Compression::Zstd, 0), "level"),
        (options(Compression::Zstd, 20), "level"),
    ] {
        let refused = MemorySnapshots::new(bad).map(drop);
        assert!(matches!(refused, Err(Error::Options { option, .. }) if option == field), "{refused:?}");
    }
    for without_levels in [Compression::None, Compression::Lz4] {
        assert!(options(without_levels, 0).validate().is_ok());
    }
}
