//! One flipped bit anywhere in a small snapshot, of any codec: found, named, and never served.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use odgm_storage::Error;
use odgm_storage::disk::SimDisk;
use odgm_storage::snapshot::suite::{meta, write};
use odgm_storage::snapshot::{Compression, FileSnapshots, RaftSnapshotStorage, SnapshotOptions};

const DIR: &str = "/snapshots";

fn open(disk: &SimDisk, compression: Compression) -> Arc<FileSnapshots> {
    let options = SnapshotOptions { compression, ..SnapshotOptions::default() };
    FileSnapshots::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap()
}

#[test]
fn every_flipped_bit_is_found_by_verify_and_by_every_read() {
    for compression in [Compression::Zstd, Compression::Lz4, Compression::Gzip, Compression::None] {
        let disk = SimDisk::new(1);
        let info = write(&*open(&disk, compression), meta(1), &[7; 100]);
        let path = Path::new(DIR).join(format!("{}.snapshot", meta(1).id));
        let bytes = disk.bytes(&path).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let manifest = word(bytes.len() - 32);
        for offset in 0..bytes.len() as u64 {
            // Header, frame, manifest, trailer: where each begins.
            let trailer = bytes.len() as u64 - 32;
            let place = *[0, 40, manifest, trailer].iter().rfind(|place| offset >= **place).unwrap();
            for bit in 0..8 {
                let context = format!("{compression:?}: bit {bit} of byte {offset}");
                let damaged = disk.fork();
                damaged.flip(&path, offset, 1 << bit);
                let store = open(&damaged, compression);
                for found in [store.verify(meta(1).id).map(drop), read_all(&store, 0), read_all(&store, 50)] {
                    let Err(Error::Corrupt { path: named, offset: at, .. }) = found else {
                        panic!("{context}: {found:?}");
                    };
                    assert_eq!((named.as_path(), at), (path.as_path(), place), "{context}");
                }
                // At open, unless it is in the content: that is only known when it is read.
                let listed = store.list().unwrap();
                if place == 40 {
                    assert_eq!(listed, std::slice::from_ref(&info), "{context}");
                } else {
                    assert!(listed.is_empty() && store.damaged().len() == 1, "{context}");
                }
            }
        }
    }
}

fn read_all(store: &FileSnapshots, from: u64) -> odgm_storage::Result<()> {
    let mut found = Vec::new();
    let outcome = store.read_from(meta(1).id, from)?.read_to_end(&mut found);
    assert!(found.is_empty(), "damaged bytes are served");
    outcome.map(drop).map_err(|error| Error::io("read", DIR, error))
}
