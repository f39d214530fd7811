//! Snapshot files, complete or received in part.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use odgm_storage::disk::{Disk, OpenMode, SimDisk};
use odgm_storage::snapshot::{FileSnapshots, RaftSnapshotStorage, SnapshotOptions};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{file_in, put, u32_at};

const DIR: &str = "/snapshots";
const HEADER: usize = 40;
const FRAME_HEADER: usize = 24;
const TRAILER: usize = 32;
/// The id in its 16 bytes of the header, and in the name.
const ID: &str = "00000000-0000-0000-0000-0000abcd0001";

/// A file as a complete snapshot, and as what a transfer left.
pub fn snapshot_file(input: &[u8]) {
    let Some(file) = file_in(input, seal) else { return };
    complete(&file);
    received(&file);
}

fn store(file: &[u8], kind: &str) -> Arc<FileSnapshots> {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIR)).expect("a simulated disk");
    let path = Path::new(DIR).join(format!("{ID}.{kind}"));
    let written = disk.open(&path, OpenMode::Create).expect("a simulated disk");
    written.write_at(file, 0).expect("a simulated disk");
    FileSnapshots::open(Arc::new(disk), Path::new(DIR), SnapshotOptions::default())
        .expect("damage does not keep a store from opening")
}

fn complete(file: &[u8]) {
    let store = store(file, "snapshot");
    let listed = store.list().expect("a list");
    let id = ID.parse().expect("an id");
    assert_eq!(listed.len() + store.damaged().len(), 1);
    let Ok(info) = store.verify(id) else {
        // Then a reader finds it, too, and before the end.
        let read = store.read(id).map(|mut reader| std::io::copy(&mut reader, &mut std::io::sink()));
        assert!(!matches!(read, Ok(Ok(_))));
        return;
    };
    assert_eq!(listed, std::slice::from_ref(&info));
    let mut content = Vec::new();
    store.read(id).expect("verified").read_to_end(&mut content).expect("verified");
    assert_eq!((content.len() as u64, xxh3_128(&content)), (info.content_bytes, info.content_hash));
    let middle = content.len() / 2;
    let mut rest = Vec::new();
    store.read_from(id, middle as u64).expect("verified").read_to_end(&mut rest).expect("verified");
    assert!(rest == content[middle..]);
}

fn received(file: &[u8]) {
    let store = store(file, "received");
    let total = file.len() as u64;
    let Ok(mut receiver) = store.receive(ID.parse().expect("an id"), total) else { return };
    let offset = receiver.offset();
    assert!(offset <= total);
    receiver.write(&file[offset as usize..]).expect("a simulated disk");
    if let Ok(info) = receiver.finish() {
        assert_eq!(store.list().expect("a list"), [info]);
    } else {
        assert!(store.list().expect("a list").is_empty());
    }
}

/// Makes header, frames, manifest and trailer right, as far as they can be found.
fn seal(file: &mut [u8]) {
    let Some(trailer) = file.len().checked_sub(TRAILER).filter(|at| *at >= HEADER) else { return };
    let sum = xxh3_64(&file[..32]);
    put(file, 32, &sum.to_le_bytes());
    let mut at = HEADER;
    while let Some(stored) = u32_at(file, at + 12).filter(|_| at + FRAME_HEADER <= trailer) {
        let Some(end) = (at + FRAME_HEADER).checked_add(stored).filter(|end| *end <= trailer) else { break };
        let sum = xxh3_64(&file[at..at + 16]) ^ xxh3_64(&file[at + FRAME_HEADER..end]).rotate_left(1);
        put(file, at + 16, &sum.to_le_bytes());
        if end == trailer {
            put(file, trailer, &(at as u64).to_le_bytes());
        }
        at = end;
    }
    let total = file.len() as u64;
    put(file, trailer + 8, &total.to_le_bytes());
    let sum = xxh3_64(&file[trailer..trailer + 16]);
    put(file, trailer + 16, &sum.to_le_bytes());
    put(file, trailer + 24, b"odgm-end");
}
