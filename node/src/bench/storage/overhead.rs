//! What the log writes beside the payloads.

use std::path::Path;
use std::sync::Arc;

use odgm_storage::log::{AppendLog, AppendOnlyLogStorage, LogOptions};

use super::Bench;
use super::counted::CountedDisk;
use super::log::Growing;
use crate::bench::report::Row;

const ENTRY: usize = 256;
const KIB: usize = 1024;
const BATCH: usize = 16;
const APPENDS: u64 = 200;
/// Bytes of a segment that all of these fit into: the next one must not be begun while they count.
const ONE_SEGMENT: u64 = 8 << 20;
/// Bytes of a segment where segments are recycled. Small ones have more overhead than those of a node.
const RECYCLED_SEGMENT: u64 = 16 << 20;
/// Segments that are filled before what is written counts, and while it does.
const SEGMENTS: (u64, u64) = (4, 6);

pub(super) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    bench.progress.step("log: overhead");
    encoding(bench)?;
    recycled(bench)
}

fn open(dir: &Path, segment_bytes: u64) -> anyhow::Result<(Arc<CountedDisk>, Arc<AppendLog>)> {
    let disk = Arc::<CountedDisk>::default();
    let options = LogOptions { segment_bytes, ..LogOptions::default() };
    let log = AppendLog::open(disk.clone(), dir, options)?;
    Ok((disk, log))
}

fn encoding(bench: &mut Bench) -> anyhow::Result<()> {
    let dir = bench.place("overhead");
    let (disk, log) = open(&dir, ONE_SEGMENT)?;
    let mut group = Growing::new(&*log, 1, ENTRY)?;
    // Segments that are filled ahead must not be counted.
    while log.reserve_segments() < LogOptions::default().reserve_segments {
        group.append(BATCH)?;
    }
    let mut written = |count: usize| -> anyhow::Result<u64> {
        let before = disk.written();
        group.append(count)?;
        Ok(disk.written() - before)
    };
    let percent = |written: u64, payload: usize| (written as f64 / payload as f64 - 1.0) * 100.0;
    // Two frames of one append each: what the bigger one has more is records alone, but for a block.
    let (small, big) = (written(1024)?, written(3072)?);
    let record = percent(big - small, 2048 * ENTRY);
    let mut file = 0;
    for _ in 0..APPENDS {
        file += written(BATCH)?;
    }
    let file = percent(file, ENTRY * BATCH * APPENDS as usize);
    bench.add(
        Row::new("log: encoding of a record of 256 B", record, "% over payload").at_most(20.0).limit(0.0),
    );
    let name = "log: file in batches of 16 records of 256 B";
    bench.add(Row::new(name, file, "% over payload").at_most(20.0).limit(0.0));
    log.close()?;
    Ok(std::fs::remove_dir_all(&dir)?)
}

/// Everything that is written, headers, marks and new files too, while the log is purged behind itself.
fn recycled(bench: &mut Bench) -> anyhow::Result<()> {
    let dir = bench.place("recycled");
    let segment_bytes = RECYCLED_SEGMENT.min(bench.scale.segment_bytes);
    let (disk, log) = open(&dir, segment_bytes)?;
    let mut group = Growing::new(&*log, 1, KIB)?;
    let appends = segment_bytes / (BATCH * KIB) as u64;
    let mut fill = |segments: u64| -> anyhow::Result<f64> {
        let before = disk.written();
        let appends = segments * appends;
        for append in 0..appends {
            group.append(BATCH)?;
            if append.is_multiple_of(64) {
                group.group.purge(group.last())?;
            }
        }
        Ok((disk.written() - before) as f64 / (appends as usize * BATCH * KIB) as f64)
    };
    fill(SEGMENTS.0)?;
    let amplification = fill(SEGMENTS.1)?;
    let name = "log: bytes written per payload byte, 16 of 1 KiB, recycled segments";
    bench.add(Row::new(name, amplification, "ratio").at_most(1.3).limit(1.0));
    log.close()?;
    Ok(std::fs::remove_dir_all(&dir)?)
}
