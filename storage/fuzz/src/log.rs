//! Segments of the log.

use std::path::Path;
use std::sync::Arc;

use odgm_storage::disk::{Disk, OpenMode, SimDisk};
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, GroupId, LogEntry, LogOptions, LogState, SyncPolicy,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{file_in, put, u32_at};

const DIR: &str = "/log";
const SEGMENT_BYTES: usize = 16 << 10;
const BLOCK: usize = 512;
const FRAME_HEADER: usize = 96;
const SLOT: usize = 16;
const RECORD_HEADER: usize = 20;

/// Recovery of a log from segments of 16 KiB, cut from the input one after the other.
pub fn log_segment(input: &[u8]) {
    let Some(mut file) = file_in(input, |_| ()) else { return };
    file.truncate(4 * SEGMENT_BYTES);
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new(DIR)).expect("a simulated disk");
    for segment in file.chunks_mut(SEGMENT_BYTES) {
        if input[0] % 2 == 1 {
            seal(segment);
        }
        let sequence = segment.get(16..24).map_or(1, |b| u64::from_le_bytes(b.try_into().expect("eight")));
        let path = Path::new(DIR).join(format!("{sequence:016x}.log"));
        let file = disk.open(&path, OpenMode::Create).expect("a simulated disk");
        file.write_at(segment, 0).expect("a simulated disk");
        if segment.len() < SEGMENT_BYTES {
            file.set_len(SEGMENT_BYTES as u64).expect("a simulated disk");
        }
        file.sync_all().expect("a simulated disk");
    }
    let Ok(log) = open(&disk) else { return };
    let served = all(&log);
    drop(log);
    // What was served once is served again, and the log goes on.
    let log = open(&disk).expect("what opened opens again");
    assert_eq!(all(&log), served);
    for (id, state, _, _) in served {
        let index = state.last.map_or(0, |last| last.index.saturating_add(1));
        let position = odgm_storage::log::LogPosition { term: 1, index };
        let entry = LogEntry { position, kind: odgm_storage::log::EntryKind::Normal, payload: "x".into() };
        let group = log.group(id).expect("it was served");
        let _ = group.append(vec![entry], Box::new(drop));
        let _ = group.truncate_after(None, Box::new(drop));
    }
    while log.step() {}
}

fn open(disk: &SimDisk) -> odgm_storage::Result<Arc<AppendLog>> {
    let options = LogOptions {
        sync: SyncPolicy::Batch,
        segment_bytes: SEGMENT_BYTES as u64,
        reserve_segments: 1,
        spare_segments: 1,
        cache_bytes: 4 << 10,
    };
    AppendLog::open_stepped(Arc::new(disk.clone()), Path::new(DIR), options)
}

type Served = (GroupId, LogState, Option<Vec<u8>>, Vec<LogEntry>);

fn all(log: &AppendLog) -> Vec<Served> {
    let sound = log.groups().into_iter().filter_map(|id| Some((id, log.group(id).ok()?)));
    sound
        .map(|(id, group)| {
            let entries = group.read(0, u64::MAX, u64::MAX).expect("what was recovered can be read");
            (id, group.state(), group.vote().map(|vote| vote.to_vec()), entries)
        })
        .collect()
}

/// Makes the checksums of header, frames and records right, and each frame name the one before.
fn seal(segment: &mut [u8]) {
    if segment.len() < BLOCK {
        return;
    }
    let sum = xxh3_64(&segment[..BLOCK - 8]);
    put(segment, BLOCK - 8, &sum.to_le_bytes());
    let (mut at, mut previous) = (BLOCK, None);
    while let Some(next) = seal_frame(segment, at, &mut previous) {
        at = next;
    }
}

fn seal_frame(segment: &mut [u8], at: usize, previous: &mut Option<u64>) -> Option<usize> {
    if segment.get(at..at + 8)? != b"odgmfrm2" {
        return None;
    }
    let (body_bytes, slots) = (u32_at(segment, at + 80)?, u32_at(segment, at + 88)?);
    let body = at.checked_add(FRAME_HEADER)?.checked_add(slots.checked_mul(SLOT)?)?;
    let end = body.checked_add(body_bytes)?;
    segment.get(body..end)?;
    let (mut record, mut sums) = (body, Vec::new());
    while let Some(length) = u32_at(segment, record) {
        let Some(stop) = record.checked_add(RECORD_HEADER).and_then(|p| p.checked_add(length)) else { break };
        let slot = u32_at(segment, record + 8).filter(|_| stop <= end).map(|slot| slot & 0xff_ffff);
        let Some(slot) = slot.filter(|slot| *slot < slots) else { break };
        let slot = at + FRAME_HEADER + SLOT * slot;
        let sum = xxh3_64(&segment[record + 8..stop]) ^ xxh3_64(&segment[slot..slot + SLOT]);
        put(segment, record + 4, &(sum as u32).to_le_bytes());
        sums.extend_from_slice(&sum.to_le_bytes());
        record = stop;
    }
    let sum = xxh3_64(&sums);
    put(segment, at + 72, &sum.to_le_bytes());
    if let Some(previous) = previous {
        put(segment, at + 40, &previous.to_le_bytes());
    }
    let sum = xxh3_64(&segment[at + 16..body]);
    put(segment, at + 8, &sum.to_le_bytes());
    *previous = Some(sum);
    Some(end.next_multiple_of(BLOCK))
}
