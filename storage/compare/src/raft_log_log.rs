//! The crate raft-log: appends are buffered, a flush syncs them in a thread of its own and calls back.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::Context;
use raft_log::api::raft_log_writer::RaftLogWriter;
use raft_log::{Config, RaftLog, Types};

use crate::{KEPT, Log, SEGMENT};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Kinds;

impl Types for Kinds {
    type LogId = (u64, u64);
    type LogPayload = String;
    type Vote = (u64, u64);
    type Callback = SyncSender<io::Result<()>>;
    type UserData = String;

    fn log_index(log_id: &Self::LogId) -> u64 {
        log_id.1
    }

    fn payload_size(payload: &Self::LogPayload) -> u64 {
        payload.len() as u64
    }
}

pub(crate) struct RaftLogLog {
    log: RaftLog<Kinds>,
    next: u64,
    payload: String,
}

impl RaftLogLog {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut config = Config::new(dir.to_str().context("a path in UTF-8")?);
        config.wal.chunk_max_size = Some(SEGMENT as usize);
        config.wal.chunk_max_records = Some(usize::MAX);
        config.log_cache_capacity = Some(64 << 20);
        let log = RaftLog::open(Arc::new(config))?;
        Ok(RaftLogLog { log, next: 1, payload: crate::payload() })
    }
}

impl Log for RaftLogLog {
    fn name(&self) -> &'static str {
        "raft-log"
    }

    fn append(&mut self, count: usize) -> anyhow::Result<()> {
        let first = self.next;
        self.next += count as u64;
        let payload = &self.payload;
        self.log.append((first..self.next).map(|index| ((1, index), payload.clone())))?;
        let (done, durable) = sync_channel(1);
        self.log.flush(true, Some(done))?;
        Ok(durable.recv()??)
    }

    fn purge(&mut self) -> anyhow::Result<()> {
        let index = (self.next - 1).saturating_sub(KEPT);
        if index > 0 {
            self.log.purge((1, index))?;
        }
        Ok(())
    }
}
