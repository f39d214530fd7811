//! Snapshots of JSON with every codec: write, read from disk, and what is saved.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use odgm_storage::disk::RealDisk;
use odgm_storage::snapshot::{
    Compression, FRAME_BYTES, FileSnapshots, RaftSnapshotStorage, SnapshotMeta, SnapshotOptions,
};

use super::limits::forget;
use super::{Bench, corpus, megabytes_per_second};
use crate::bench::load::Measured;
use crate::bench::report::Row;

/// Different frames of content; after them it begins again, which a codec that works by frame does not see.
const FRAMES: usize = 16;
/// What is asked in seconds, for so many bytes.
const LONG: (f64, f64) = (10.0, 1e9);

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let longest = usize::try_from(bench.scale.long_snapshot_bytes)?;
    let content = corpus::json((FRAMES * FRAME_BYTES).min(longest));
    for (codec, compression) in [
        ("zstd", Compression::Zstd),
        ("lz4", Compression::Lz4),
        ("gzip", Compression::Gzip),
        ("none", Compression::None),
    ] {
        // The targets are those of the codec that is used unless another one is chosen.
        let asked = compression == SnapshotOptions::default().compression;
        let bytes = if asked { bench.scale.long_snapshot_bytes } else { bench.scale.snapshot_bytes };
        bench.progress.step(format!("snapshot: {codec}"));
        let run = run(bench, &content, compression, bytes)?;
        let target = |row: Row, target: f64| if asked { row.at_least(target) } else { row };
        let write = megabytes_per_second(bytes, run.write.elapsed());
        let row = Row::new(format!("snapshot {codec}: write"), write, "MB/s").latencies(&run.write);
        bench.add(target(row, 100.0).limit(bench.limits.write));
        let read = megabytes_per_second(bytes, run.read.elapsed());
        let row = Row::new(format!("snapshot {codec}: read from disk"), read, "MB/s").latencies(&run.read);
        bench.add(target(row, 200.0).limit(bench.limits.read));
        let saved = (1.0 - run.stored_bytes as f64 / bytes as f64) * 100.0;
        bench.add(target(Row::new(format!("snapshot {codec}: saved of JSON"), saved, "%"), 60.0));
        if asked {
            let name = format!("snapshot {codec}: written and durable, {bytes} B");
            let (seconds, of) = LONG;
            let row = Row::new(name, run.write.elapsed().as_secs_f64(), "s");
            let bytes = bytes as f64;
            bench.add(row.at_most(seconds * bytes / of).limit(bytes / 1e6 / bench.limits.write));
        }
    }
    Ok(())
}

struct Run {
    /// By frame; the time is that of all, up to durable.
    write: Measured,
    /// By frame.
    read: Measured,
    stored_bytes: u64,
}

fn run(bench: &Bench, content: &Bytes, compression: Compression, bytes: u64) -> anyhow::Result<Run> {
    let dir = bench.place("snapshots");
    let options = SnapshotOptions { compression, ..SnapshotOptions::default() };
    let store = FileSnapshots::open(Arc::new(RealDisk), &dir, options)?;
    let meta = SnapshotMeta { id: uuid::Uuid::new_v4(), position: None, membership: Bytes::new() };
    let id = meta.id;
    let frames = usize::try_from(bytes)? / FRAME_BYTES;

    let start = Instant::now();
    let mut writer = store.create(meta, 0)?;
    let mut write = Measured::default();
    for frame in 0..frames {
        let at = frame % (content.len() / FRAME_BYTES) * FRAME_BYTES;
        let begun = Instant::now();
        writer.write_all(&content[at..at + FRAME_BYTES])?;
        write.record(begun.elapsed());
    }
    let info = writer.finish()?;
    write.took(start.elapsed());

    forget(&dir)?;
    let mut frame = vec![0; FRAME_BYTES];
    let start = Instant::now();
    let mut reader = store.read(id)?;
    let mut read = Measured::default();
    for _ in 0..frames {
        let begun = Instant::now();
        reader.read_exact(&mut frame)?;
        read.record(begun.elapsed());
    }
    anyhow::ensure!(reader.read(&mut frame)? == 0, "the snapshot is longer than what was written");
    read.took(start.elapsed().max(Duration::from_nanos(1)));
    drop(reader);
    store.delete(id)?;
    Ok(Run { write, read, stored_bytes: info.stored_bytes })
}
