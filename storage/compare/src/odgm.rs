//! The log of odgm: the caller waits for each append, or goes on from the callback of the one before.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use bytes::Bytes;
use odgm_storage::disk::RealDisk;
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, EntryKind, GroupId, LogEntry, LogOptions, LogPosition, RaftLogStorage,
    wait_durable,
};

use crate::{KEPT, Log, SEGMENT};

pub(crate) struct Odgm {
    log: Arc<AppendLog>,
    group: Arc<dyn RaftLogStorage>,
    chained: bool,
    next: u64,
    payload: Bytes,
}

impl Odgm {
    pub(crate) fn open(dir: &Path, chained: bool) -> anyhow::Result<Self> {
        let options = LogOptions { segment_bytes: SEGMENT, ..LogOptions::default() };
        let log = AppendLog::open(Arc::new(RealDisk), dir, options)?;
        let group = log.group(GroupId(1))?;
        Ok(Odgm { log, group, chained, next: 1, payload: crate::payload().into() })
    }
}

fn entries(payload: &Bytes, first: u64, count: usize) -> Vec<LogEntry> {
    (first..first + count as u64)
        .map(|index| LogEntry {
            position: LogPosition { term: 1, index },
            kind: EntryKind::Normal,
            payload: payload.clone(),
        })
        .collect()
}

/// Appends, and again from the callback of that; tells the number of appends at the end.
fn chain(link: Arc<Link>, first: u64, appends: u64) {
    let entries = entries(&link.payload, first, link.count);
    let next = link.clone();
    let queued = link.group.append(
        entries,
        Box::new(move |outcome| match outcome {
            Ok(()) if Instant::now() < next.until => {
                let first = first + next.count as u64;
                chain(next, first, appends + 1);
            }
            // The receiver waits as long as the chain goes on.
            outcome => drop(next.done.send(outcome.map(|()| appends + 1))),
        }),
    );
    if let Err(error) = queued {
        drop(link.done.send(Err(error)));
    }
}

struct Link {
    group: Arc<dyn RaftLogStorage>,
    payload: Bytes,
    count: usize,
    until: Instant,
    done: mpsc::SyncSender<odgm_storage::Result<u64>>,
}

impl Log for Odgm {
    fn name(&self) -> &'static str {
        if self.chained { "odgm, next append from the callback" } else { "odgm" }
    }

    fn append(&mut self, count: usize) -> anyhow::Result<()> {
        let entries = entries(&self.payload, self.next, count);
        self.next += count as u64;
        Ok(wait_durable(|durable| self.group.append(entries, durable))?)
    }

    fn run(&mut self, count: usize, until: Instant) -> anyhow::Result<u64> {
        if !self.chained {
            let mut appends = 0;
            while Instant::now() < until {
                self.append(count)?;
                appends += 1;
            }
            return Ok(appends);
        }
        let (done, ended) = mpsc::sync_channel(1);
        let (group, payload) = (self.group.clone(), self.payload.clone());
        chain(Arc::new(Link { group, payload, count, until, done }), self.next, 0);
        let appends = ended.recv()??;
        self.next += appends * count as u64;
        Ok(appends)
    }

    fn purge(&mut self) -> anyhow::Result<()> {
        let index = (self.next - 1).saturating_sub(KEPT);
        Ok(self.group.purge(LogPosition { term: 1, index })?)
    }
}

impl Drop for Odgm {
    fn drop(&mut self) {
        if let Err(error) = self.log.close() {
            eprintln!("closing the log: {error}");
        }
    }
}
