//! Writes the seeds of the corpus: small sound files of each kind, as this build makes them.
//!
//! `cargo run --example seed` in `storage/fuzz`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use odgm_storage::data::{ApplicationDataStorage, Durability, Keyspace, MemoryData, WriteBatch};
use odgm_storage::disk::SimDisk;
use odgm_storage::log::suite::entry;
use odgm_storage::log::{AppendLog, AppendOnlyLogStorage, GroupId, LogOptions, LogPosition};
use odgm_storage::snapshot::suite::{meta, stored};
use odgm_storage::snapshot::{Compression, FileSnapshots, RaftSnapshotStorage, SnapshotOptions};

fn main() {
    for (name, compression) in [
        ("none", Compression::None),
        ("zstd", Compression::Zstd),
        ("lz4", Compression::Lz4),
        ("gzip", Compression::Gzip),
    ] {
        seed("snapshot_file", name, &snapshot(compression, &[7; 300]));
    }
    seed("snapshot_file", "empty", &snapshot(Compression::Zstd, b""));
    seed("data_stream", "rows", &stream(5));
    seed("data_stream", "empty", &stream(0));
    seed("log_segment", "one", &log(6));
    seed("log_segment", "two", &log(18));
    seed("data_pointer", "first", b"odgm-data 1 1 2c7a1d3e\n");
    seed("data_pointer", "second", b"odgm-data 1 2 00000000\n");
    let layers = "odgm-storage 1\nlog append_log\nsnapshot compressed_file\ndata fjall\ncrc32 00000000\n";
    seed("storage_layers", "first", layers.as_bytes());
    seed("checkpoint_manifest", "first", b"odgm-checkpoint 1\n");
}

fn seed(target: &str, name: &str, file: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&dir).expect("a directory");
    for (mode, kind) in [(0, "as-is"), (1, "sealed")] {
        std::fs::write(dir.join(format!("{name}-{kind}")), [&[mode], file].concat()).expect("a file");
    }
}

fn snapshot(compression: Compression, content: &[u8]) -> Vec<u8> {
    let options = SnapshotOptions { compression, ..SnapshotOptions::default() };
    let store = FileSnapshots::open(Arc::new(SimDisk::new(1)), Path::new("/s"), options).expect("a store");
    let mut writer = store.create(meta(1), 5).expect("a writer");
    writer.write_all(content).expect("a write");
    writer.set_entries(3);
    stored(&*store, &writer.finish().expect("a snapshot"))
}

fn stream(rows: u8) -> Vec<u8> {
    let store = MemoryData::new(1 << 20);
    let mut batch = WriteBatch::default();
    for n in 0..rows {
        for keyspace in Keyspace::ALL {
            batch.put(keyspace, vec![b'k', n], vec![n; 3]);
        }
    }
    store.write(batch, Durability::Later).expect("memory");
    let mut out = Vec::new();
    store.view().export(&mut out).expect("memory");
    out
}

/// Segments of 16 KiB, the zeroes at the end left out.
fn log(calls: u64) -> Vec<u8> {
    let disk = SimDisk::new(1);
    let options = LogOptions { segment_bytes: 16 << 10, reserve_segments: 1, ..LogOptions::default() };
    let dir = Path::new("/l");
    let log = AppendLog::open_stepped(Arc::new(disk.clone()), dir, options).expect("a log");
    let group = log.group(GroupId(1)).expect("a group");
    for index in 0..calls {
        group.append(vec![entry(1, index, &[3; 400])], Box::new(drop)).expect("an append");
        group.save_vote(vec![index as u8].into(), Box::new(drop)).expect("a vote");
        if index % 4 == 3 {
            group.truncate_after(Some(index - 1), Box::new(drop)).expect("a truncation");
            group.append(vec![entry(2, index, b"again")], Box::new(drop)).expect("an append");
            group.save_committed(Some(LogPosition { term: 1, index })).expect("a hint");
        }
        while log.step() {}
    }
    group.purge(LogPosition { term: 1, index: 2 }).expect("a purge");
    while log.step() {}
    let mut all = Vec::new();
    for sequence in 0..8 {
        all.extend(disk.bytes(&dir.join(format!("{sequence:016x}.log"))).unwrap_or_default());
    }
    all.truncate(all.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).next_multiple_of(512));
    all
}
