//! The crate raft-engine: a write returns when it is durable, in the caller's thread.

use std::path::Path;

use anyhow::Context;
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::{ENTRY, KEPT, Log, SEGMENT};

const REGION: u64 = 1;

/// Entries are bytes that begin with their index.
#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |index| u64::from_le_bytes(*index))
    }
}

pub(crate) struct RaftEngineLog {
    engine: Engine,
    next: u64,
    payload: Vec<u8>,
}

impl RaftEngineLog {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let config = Config {
            dir: dir.to_str().context("a path in UTF-8")?.to_owned(),
            target_file_size: ReadableSize(SEGMENT),
            purge_threshold: ReadableSize(2 * SEGMENT),
            // The payloads are noise: compressing them would be lost time.
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        };
        Ok(RaftEngineLog { engine: Engine::open(config)?, next: 1, payload: crate::payload().into_bytes() })
    }
}

impl Log for RaftEngineLog {
    fn name(&self) -> &'static str {
        "raft-engine"
    }

    fn append(&mut self, count: usize) -> anyhow::Result<()> {
        let first = self.next;
        self.next += count as u64;
        let entries: Vec<BytesValue> = (first..self.next)
            .map(|index| {
                let mut entry = BytesValue::new();
                entry.value.reserve(ENTRY);
                entry.value.extend_from_slice(&index.to_le_bytes());
                entry.value.extend_from_slice(&self.payload[8..]);
                entry
            })
            .collect();
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Entries>(REGION, &entries)?;
        self.engine.write(&mut batch, true)?;
        Ok(())
    }

    fn purge(&mut self) -> anyhow::Result<()> {
        let index = self.next.saturating_sub(KEPT);
        self.engine.compact_to(REGION, index);
        self.engine.purge_expired_files()?;
        Ok(())
    }
}
