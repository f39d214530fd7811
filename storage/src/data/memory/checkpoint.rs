//! Checkpoints of the memory store: an export stream in a file, and the manifest.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{MemoryData, MemoryView, State, load};
use crate::data::checkpoint::{FileStream, describe};
use crate::data::{
    ApplicationDataStorage, CheckpointManifest, CheckpointRequest, DataView, SnapshotCapableStorage,
};
use crate::disk::OpenMode;
use crate::{Error, Result};

/// The one file of a checkpoint, beside its manifest.
const EXPORT_FILE: &str = "export";
/// What manifests call this store.
const ENGINE: &str = "memory";

impl SnapshotCapableStorage for MemoryData {
    fn checkpoint_as(&self, target: &Path, request: &CheckpointRequest) -> Result<CheckpointManifest> {
        self.shared.open()?;
        let disk = &*self.disk;
        if disk.list(target).is_ok_and(|names| names.iter().any(|name| name == EXPORT_FILE)) {
            return Err(Error::Options { option: "target", reason: format!("{} exists", target.display()) });
        }
        disk.create_dir_all(target)?;
        let partial = target.join("export.partial");
        disk.remove(&partial)?;
        let file = disk.open(&partial, OpenMode::CreateNew)?;
        self.view().export(&mut FileStream::new(file.clone()))?;
        file.sync_all()?;
        disk.rename(&partial, &target.join(EXPORT_FILE))?;
        let files = vec![describe(disk, target, EXPORT_FILE)?];
        let manifest = CheckpointManifest::new(ENGINE, 0, request, files);
        manifest.write(disk, target)?;
        target.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))?;
        self.shared.operations.checkpoints.add(1);
        Ok(manifest)
    }

    fn open_checkpoint(&self, target: &Path) -> Result<Box<dyn DataView>> {
        CheckpointManifest::read(&*self.disk, target, ENGINE)?;
        let state = self.read_checkpoint(target, u64::MAX)?;
        Ok(Box::new(MemoryView { state: Some(Arc::new(state)), operations: Arc::default() }))
    }

    fn verify_checkpoint(&self, target: &Path) -> Result<CheckpointManifest> {
        let manifest = CheckpointManifest::read(&*self.disk, target, ENGINE)?;
        manifest.verify(&*self.disk, target)?;
        Ok(manifest)
    }

    fn restore(&self, checkpoint: &Path) -> Result<CheckpointManifest> {
        let manifest = self.verify_checkpoint(checkpoint)?;
        self.shared.replace(self.read_checkpoint(checkpoint, self.shared.max_bytes)?)?;
        Ok(manifest)
    }
}

impl MemoryData {
    fn read_checkpoint(&self, target: &Path, max_bytes: u64) -> Result<State> {
        let path = target.join(EXPORT_FILE);
        let file = FileStream::new(self.disk.open(&path, OpenMode::Read)?);
        load(&mut BufReader::with_capacity(1 << 20, file), max_bytes).map_err(|error| named(error, path))
    }
}

/// Gives damage found in a stream the name of the file it was read from.
fn named(error: Error, path: PathBuf) -> Error {
    match error {
        Error::Corrupt { offset, what, .. } => Error::Corrupt { path, offset, what },
        other => other,
    }
}
