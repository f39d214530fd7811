//! openraft's own conformance suite, on each log with each kind of data.

use std::sync::Arc;

use odgm_storage::data::DataOptions;
use odgm_storage::data::FjallEngine;
use odgm_storage::data::memory::MemoryData;
use odgm_storage::disk::RealDisk;
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, FjallLog, FjallLogOptions, GroupId, LogOptions, LogPosition, MemoryLog,
};
use odgm_storage::snapshot::file::FileSnapshots;
use odgm_storage::snapshot::{RetainPolicy, SnapshotOptions};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft_rt::{AsyncRuntime, Instant};
use tempfile::TempDir;

use super::ReplicaData;
use super::log::Log;
use super::snapshot::{DurablePosition, SnapshotSet};
use super::state_machine::{Growth, ReplicaState, StateMachine};
use super::types::Types;
use crate::runtime::TokioRuntime;

type Rt = TokioRuntime;

#[derive(Clone, Copy)]
enum LogKind {
    Append,
    Fjall,
    Memory,
}

#[derive(Clone, Copy)]
enum DataKind {
    Fjall,
    Memory,
}

struct Builder(LogKind, DataKind);

/// What must live as long as the stores.
struct Guard {
    log: Arc<dyn AppendOnlyLogStorage>,
    _dir: TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.log.close().unwrap();
    }
}

impl StoreBuilder<Types<Rt>, Log<Rt>, StateMachine<Rt>, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, Log<Rt>, StateMachine<Rt>), StorageError<Types<Rt>>> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk);
        let log: Arc<dyn AppendOnlyLogStorage> = match self.0 {
            LogKind::Memory => MemoryLog::new(1 << 20),
            LogKind::Append => {
                let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
                AppendLog::open(disk.clone(), &dir.path().join("log"), options).unwrap()
            }
            LogKind::Fjall => {
                FjallLog::open(disk.clone(), &dir.path().join("log"), FjallLogOptions::default()).unwrap()
            }
        };
        let data = match self.1 {
            DataKind::Memory => ReplicaData::Exported(Arc::new(MemoryData::new(64 << 20))),
            DataKind::Fjall => {
                let engine = FjallEngine::new(&DataOptions::default()).unwrap();
                ReplicaData::Checkpointed(engine.open(&dir.path().join("data")).unwrap())
            }
        };
        let snapshots =
            FileSnapshots::open(disk, &dir.path().join("snapshots"), SnapshotOptions::default()).unwrap();
        let set = Arc::new(
            SnapshotSet::open(
                dir.path().join("checkpoints"),
                data,
                snapshots,
                RetainPolicy::Latest { count: 1 },
            )
            .unwrap(),
        );
        let state = Arc::new(ReplicaState::open(set, Growth::new(u64::MAX, u64::MAX)).unwrap());
        let machine = StateMachine::new(state, Arc::new(|_| {}), <Rt as AsyncRuntime>::Instant::now());
        // The suite purges logs whose entries were never applied.
        let restorable = DurablePosition::default();
        restorable.set(Some(LogPosition { term: u64::MAX, index: u64::MAX }));
        let group = Log::new(log.group(GroupId(1)).unwrap(), restorable);
        Ok((Guard { log, _dir: dir }, group, machine))
    }
}

fn run(log: LogKind, data: DataKind) {
    let mut runtime = Rt::new(2);
    runtime.block_on(Suite::test_all(Builder(log, data))).unwrap();
}

#[test]
fn openraft_accepts_the_memory_log_with_data_in_memory() {
    run(LogKind::Memory, DataKind::Memory);
}

#[test]
fn openraft_accepts_the_memory_log_with_data_on_fjall() {
    run(LogKind::Memory, DataKind::Fjall);
}

#[test]
fn openraft_accepts_the_append_log_with_data_in_memory() {
    run(LogKind::Append, DataKind::Memory);
}

#[test]
fn openraft_accepts_the_append_log_with_data_on_fjall() {
    run(LogKind::Append, DataKind::Fjall);
}

#[test]
fn openraft_accepts_the_log_on_fjall_with_data_in_memory() {
    run(LogKind::Fjall, DataKind::Memory);
}

#[test]
fn openraft_accepts_the_log_on_fjall_with_data_on_fjall() {
    run(LogKind::Fjall, DataKind::Fjall);
}
