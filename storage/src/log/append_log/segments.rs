//! The segment files: those in use, those prepared ahead, and those that wait to be used again.
//!
//! A file is zero-filled once. Used again it keeps its old bytes: a new random nonce in its header
//! makes them foreign. A file carries a segment's name only after its header is durable.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use super::frame::{Place, SegmentHeader};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::log::options::{LogOptions, SyncPolicy};
use crate::{Error, Result};

/// Ends the name of a segment; before it stands the sequence in 16 hex digits.
const SEGMENT: &str = ".log";
/// Ends the name of a file to be used again; before it stands what makes it unique.
const SPARE: &str = ".spare";
const ZEROES: usize = 1 << 20;

/// A segment in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub sequence: u64,
    pub nonce: u64,
    pub bytes: u64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
}

impl Segment {
    /// Writes what it holds between two places of the log as it is read, so that a sync takes it to the disk.
    pub(super) fn write_again(&self, from: Place, to: Place) -> Result<()> {
        let mut at = match self.sequence.cmp(&from.sequence) {
            std::cmp::Ordering::Less => return Ok(()),
            std::cmp::Ordering::Equal => from.offset,
            std::cmp::Ordering::Greater => 0,
        };
        let end = if self.sequence == to.sequence { to.offset } else { self.bytes };
        let mut bytes = vec![0; ZEROES.min(usize::try_from(end.saturating_sub(at)).unwrap_or(ZEROES))];
        while at < end {
            let wanted = bytes.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let read = self.file.read_at(&mut bytes[..wanted], at)?;
            if read == 0 {
                break;
            }
            self.file.write_at(&bytes[..read], at)?;
            at += read as u64;
        }
        Ok(())
    }
}

/// All segment files of a log.
#[derive(Debug)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// How the one that is written is open.
    mode: OpenMode,
    bytes: u64,
    reserve: usize,
    /// Retired files that are kept beyond what the reserve needs.
    spare: usize,
    /// By sequence, the active one last.
    used: RwLock<BTreeMap<u64, Arc<Segment>>>,
    pool: Mutex<Pool>,
    ready: Condvar,
    /// Held by whoever prepares.
    preparing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Pool {
    ready: VecDeque<Arc<Segment>>,
    spares: Vec<PathBuf>,
    /// Already named as spares, but someone may still read them.
    retired: Vec<(Arc<Segment>, PathBuf)>,
    next_sequence: u64,
    /// The last attempt to prepare a segment met a full disk.
    full: bool,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By sequence.
    pub segments: BTreeMap<u64, PathBuf>,
    pub spares: Vec<PathBuf>,
}

/// Lists the files of a log; others are left alone.
pub(super) fn find(disk: &dyn Disk, dir: &Path) -> Result<Found> {
    let mut found = Found::default();
    for name in disk.list(dir)? {
        let Some(name) = name.to_str() else { continue };
        if let Some(sequence) = name.strip_suffix(SEGMENT).and_then(|s| u64::from_str_radix(s, 16).ok()) {
            found.segments.insert(sequence, dir.join(name));
        } else if name.ends_with(SPARE) {
            found.spares.push(dir.join(name));
        }
    }
    Ok(found)
}

fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

impl Segments {
    /// `used` are the segments that an open found in use; files named `spares` are taken as they are
    /// when their size fits, and removed when not.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        options: &LogOptions,
        used: BTreeMap<u64, Arc<Segment>>,
        spares: Vec<PathBuf>,
    ) -> Result<Self> {
        let bytes = options.segment_bytes;
        let next_sequence = used.keys().next_back().map_or(1, |last| last + 1);
        let mut kept = Vec::new();
        for spare in spares {
            if disk.open(&spare, OpenMode::Read)?.len()? == bytes {
                kept.push(spare);
            } else {
                disk.remove(&spare)?;
            }
        }
        Ok(Segments {
            disk,
            dir,
            mode: match options.sync {
                SyncPolicy::Batch | SyncPolicy::Always => OpenMode::WriteDirect,
                // Whoever waits for no disk is better off with the cache.
                SyncPolicy::None => OpenMode::Write,
            },
            bytes,
            reserve: options.reserve_segments,
            spare: options.spare_segments,
            used: RwLock::new(used),
            pool: Mutex::new(Pool { spares: kept, next_sequence, ..Pool::default() }),
            ready: Condvar::new(),
            preparing: Mutex::new(()),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A segment in use.
    pub(super) fn get(&self, sequence: u64) -> Option<Arc<Segment>> {
        self.used.read().unwrap_or_else(|p| p.into_inner()).get(&sequence).cloned()
    }

    /// The oldest and the newest sequence in use.
    pub(super) fn ends(&self) -> (u64, u64) {
        let used = self.used.read().unwrap_or_else(|p| p.into_inner());
        let first = used.keys().next().copied().unwrap_or(0);
        (first, used.keys().next_back().copied().unwrap_or(0))
    }

    pub(super) fn used_count(&self) -> usize {
        self.used.read().unwrap_or_else(|p| p.into_inner()).len()
    }

    pub(super) fn ready_count(&self) -> usize {
        self.pool().ready.len()
    }

    /// Bytes of all files.
    pub(super) fn disk_bytes(&self) -> u64 {
        let used: u64 = self.used.read().unwrap_or_else(|p| p.into_inner()).values().map(|s| s.bytes).sum();
        let pool = self.pool();
        used + (pool.ready.len() + pool.spares.len() + pool.retired.len()) as u64 * self.bytes
    }

    /// Takes the next prepared segment into use.
    pub(super) fn take(&self) -> Option<Arc<Segment>> {
        let segment = self.pool().ready.pop_front()?;
        let mut used = self.used.write().unwrap_or_else(|p| p.into_inner());
        used.insert(segment.sequence, Arc::clone(&segment));
        Some(segment)
    }

    /// Takes a segment into use again that an open found at the end of a closed log.
    pub(super) fn go_on_in(&self, found: &Segment) -> Result<Arc<Segment>> {
        let file = self.disk.open(&found.path, self.mode)?;
        let segment = Arc::new(Segment { path: found.path.clone(), file, ..*found });
        let mut used = self.used.write().unwrap_or_else(|p| p.into_inner());
        used.insert(segment.sequence, Arc::clone(&segment));
        Ok(segment)
    }

    /// Waits a moment for a prepared segment.
    pub(super) fn wait_ready(&self, moment: Duration) {
        let pool = self.pool();
        if pool.ready.is_empty() {
            drop(self.ready.wait_timeout(pool, moment));
        }
    }

    /// Whether the last attempt to prepare a segment met a full disk.
    pub(super) fn disk_is_full(&self) -> bool {
        self.pool().full
    }

    /// Prepares one segment when fewer than the reserve are ready; says whether it did.
    pub(super) fn prepare(&self) -> Result<bool> {
        let _alone = self.preparing.lock().unwrap_or_else(|p| p.into_inner());
        let prepared = self.prepare_next();
        self.pool().full = matches!(prepared, Err(Error::Full { .. }));
        prepared
    }

    fn prepare_next(&self) -> Result<bool> {
        let (sequence, spare) = {
            let mut pool = self.pool();
            if pool.ready.len() >= self.reserve {
                return Ok(false);
            }
            (pool.next_sequence, pool.spares.pop())
        };
        let spare = match spare {
            Some(spare) => spare,
            None => self.fill_new()?,
        };
        let nonce = random();
        let path = self.dir.join(format!("{sequence:016x}{SEGMENT}"));
        let file = self.disk.open(&spare, OpenMode::Write)?;
        file.write_at(&SegmentHeader { sequence, nonce, bytes: self.bytes }.encode(), 0)?;
        file.sync_data()?;
        self.disk.rename(&spare, &path)?;
        self.disk.sync_dir(&self.dir)?;
        let file = self.disk.open(&path, self.mode)?;
        let mut pool = self.pool();
        pool.next_sequence = sequence + 1;
        pool.ready.push_back(Arc::new(Segment { sequence, nonce, bytes: self.bytes, path, file }));
        drop(pool);
        self.ready.notify_all();
        Ok(true)
    }

    /// A new zero-filled file, or nothing when the disk is full.
    fn fill_new(&self) -> Result<PathBuf> {
        let path = self.dir.join(format!("{:016x}{SPARE}", random()));
        let filled = self.fill(&path);
        if filled.is_err() {
            // What is left behind is removed at the next open, because its size is wrong.
            let _ = self.disk.remove(&path);
        }
        filled.map(|()| path)
    }

    fn fill(&self, path: &Path) -> Result<()> {
        let file = self.disk.open(path, OpenMode::CreateNew)?;
        let zeroes = vec![0; ZEROES.min(self.bytes as usize)];
        let mut offset = 0;
        while offset < self.bytes {
            let len = zeroes.len().min((self.bytes - offset) as usize);
            file.write_at(&zeroes[..len], offset)?;
            offset += len as u64;
        }
        file.sync_all()
    }

    /// Takes a segment out of use: its name is durably gone when this returns.
    pub(super) fn retire(&self, sequence: u64) -> Result<()> {
        let segment = self.used.write().unwrap_or_else(|p| p.into_inner()).remove(&sequence);
        let Some(segment) = segment else { return Ok(()) };
        let spare = spare_path(&self.dir);
        self.disk.rename(&segment.path, &spare)?;
        self.disk.sync_dir(&self.dir)?;
        self.pool().retired.push((segment, spare));
        Ok(())
    }

    /// Makes retired files that nobody reads any more ready to be used again; a few are kept, others go.
    pub(super) fn reclaim(&self) -> Result<()> {
        let mut surplus = Vec::new();
        {
            let mut pool = self.pool();
            let (free, read): (Vec<_>, Vec<_>) =
                std::mem::take(&mut pool.retired).into_iter().partition(|(s, _)| Arc::strong_count(s) == 1);
            pool.retired = read;
            for (segment, path) in free {
                let wanted = self.spare + self.reserve.saturating_sub(pool.ready.len());
                if segment.bytes == self.bytes && pool.spares.len() < wanted {
                    pool.spares.push(path);
                } else {
                    surplus.push(path);
                }
            }
        }
        for path in surplus {
            self.disk.remove(&path)?;
        }
        Ok(())
    }
}

/// A name for a file to be used again.
pub(super) fn spare_path(dir: &Path) -> PathBuf {
    dir.join(format!("{:016x}{SPARE}", random()))
}

/// Refuses a file whose header does not say what its name says.
pub(super) fn open_segment(
    disk: &dyn Disk,
    path: &Path,
    sequence: u64,
    into: &mut Vec<u8>,
) -> Result<Segment> {
    use super::frame::{BadSegment, VERSION};
    let corrupt = |what: &str| Error::Corrupt { path: path.to_owned(), offset: 0, what: what.to_owned() };
    let file = disk.open(path, OpenMode::Write)?;
    let len = usize::try_from(file.len()?).map_err(|_| corrupt("segment length"))?;
    into.clear();
    into.resize(len, 0);
    let read = file.read_at(into, 0)?;
    into.truncate(read);
    let header = match SegmentHeader::decode(into) {
        Ok(header) => header,
        Err(BadSegment::Checksum) => return Err(corrupt("segment header, groups: all")),
        Err(BadSegment::Version(found)) => {
            return Err(Error::Format {
                path: path.to_owned(),
                found: found.to_string(),
                supported: VERSION.to_string(),
            });
        }
    };
    if header.sequence != sequence || header.bytes != into.len() as u64 {
        return Err(corrupt("segment name or length, groups: all"));
    }
    Ok(Segment { sequence, nonce: header.nonce, bytes: header.bytes, path: path.to_owned(), file })
}
