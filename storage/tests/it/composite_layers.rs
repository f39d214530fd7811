//! The file that says which backends a data directory has, and the refusal of others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use odgm_storage::Error;
use odgm_storage::composite::{DataBackend, Layers, LogBackend, SnapshotBackend};
use odgm_storage::disk::{Disk, Fault, OpenMode, SimDisk};

use crate::composite::{DIR, open, open_at, own};

fn file() -> PathBuf {
    Path::new(DIR).join("storage")
}

fn opened() -> SimDisk {
    let disk = SimDisk::new(1);
    open(&disk).unwrap().close().unwrap();
    disk
}

#[test]
fn another_backend_is_refused_with_what_is_there_what_was_asked_and_what_to_do() {
    let disk = opened();
    let before = disk.bytes(&file());
    let mut options = own();
    options.log.backend = LogBackend::MemoryLog;
    options.data.backend = DataBackend::Fjall;
    let refused = open_at(Arc::new(disk.clone()), Path::new(DIR), options).map(drop).unwrap_err().to_string();
    for part in [
        "the log in /data is append_log, asked for is memory_log",
        "the data in /data is memory, asked for is fjall",
        "odgm doctor --migrate",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    assert!(!refused.contains("snapshot"), "what agrees is not named: {refused}");
    assert_eq!(disk.bytes(&file()), before);
    open(&disk).unwrap();
}

#[test]
fn a_directory_from_before_the_list_has_the_first_backends() {
    let disk = opened();
    disk.remove(&file()).unwrap();
    let refused = open(&disk).map(drop).unwrap_err().to_string();
    assert!(refused.contains("the data in /data is fjall, asked for is memory"), "{refused}");
    assert_eq!(disk.bytes(&file()), None);
}

#[test]
fn the_list_keeps_its_bytes() {
    let found = String::from_utf8(opened().bytes(&file()).unwrap()).unwrap();
    let expected = "odgm-storage 1\nlog append_log\nsnapshot compressed_file\ndata memory\ncrc32 cfcfb10c\n";
    assert_eq!(found, expected);
}

#[test]
fn every_list_is_read_as_it_was_written() {
    let disk = opened();
    for log in [LogBackend::AppendLog, LogBackend::MemoryLog] {
        for snapshot in [SnapshotBackend::CompressedFile, SnapshotBackend::MemorySnapshot] {
            for data in [DataBackend::Fjall, DataBackend::Memory] {
                let layers = Layers { log, snapshot, data };
                layers.write(&disk, Path::new(DIR)).unwrap();
                assert_eq!(Layers::read(&disk, Path::new(DIR)).unwrap(), Some(layers));
            }
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_list_is_found_and_named() {
    let disk = opened();
    for offset in 0..disk.bytes(&file()).unwrap().len() as u64 {
        for bit in 0..8 {
            let fork = disk.fork();
            fork.flip(&file(), offset, 1 << bit);
            let refused = open(&fork).map(drop);
            assert!(matches!(&refused, Err(Error::Corrupt { path, .. }) if *path == file()), "{refused:?}");
        }
    }
}

#[test]
fn a_list_of_another_version_or_with_an_unknown_backend_is_refused_as_such() {
    for body in [
        "odgm-storage 2\nlog append_log\nsnapshot compressed_file\ndata memory\n",
        "odgm-storage 1\nlog tape\nsnapshot compressed_file\ndata memory\n",
    ] {
        let disk = opened();
        let text = format!("{body}crc32 {:08x}\n", crc32fast::hash(body.as_bytes()));
        let written = disk.open(&file(), OpenMode::Write).unwrap();
        written.set_len(0).unwrap();
        written.write_at(text.as_bytes(), 0).unwrap();
        let refused = open(&disk).map(drop);
        assert!(matches!(&refused, Err(Error::Format { .. })), "{refused:?}");
    }
}

#[test]
fn a_loss_of_power_at_any_call_of_the_first_start_leaves_a_directory_that_opens() {
    for fault in [Fault::PowerLoss, Fault::Io, Fault::Full] {
        for at in 1..12 {
            let disk = SimDisk::new(at);
            disk.fail_at(at, fault);
            if let Ok(storage) = open(&disk) {
                let _ = storage.close();
            }
            disk.crash();
            open(&disk).unwrap_or_else(|error| panic!("{fault:?} at call {at}: {error}")).close().unwrap();
        }
    }
}
