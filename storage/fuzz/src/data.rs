//! What the data layer reads: export streams, the manifest of a checkpoint, the pointer to a generation.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use odgm_storage::data::{
    ApplicationDataStorage, DataOptions, Durability, FjallData, FjallEngine, Keyspace, MemoryData,
    SnapshotCapableStorage, WriteBatch,
};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_128;

use super::{file_in, put};

/// An export stream, imported.
pub fn data_stream(input: &[u8]) {
    let Some(stream) = file_in(input, seal_stream) else { return };
    let store = MemoryData::new(1 << 20);
    let mut import = store.import().expect("an open store");
    if import.read(&mut &stream[..]).is_err() {
        return;
    }
    import.finish().expect("what was read is taken");
    let mut exported = Vec::new();
    store.view().export(&mut exported).expect("memory");
    let copy = MemoryData::new(1 << 20);
    let mut import = copy.import().expect("an open store");
    import.read(&mut &exported[..]).expect("an export can be imported");
    import.finish().expect("what was read is taken");
    let mut again = Vec::new();
    copy.view().export(&mut again).expect("memory");
    assert!(exported == again, "the same rows make the same bytes");
}

fn seal_stream(stream: &mut [u8]) {
    if let Some(at) = stream.len().checked_sub(16) {
        let sum = xxh3_128(&stream[..at]);
        put(stream, at, &sum.to_le_bytes());
    }
}

/// A store with a checkpoint, made once; the files under test are replaced in it.
struct Frozen {
    dir: TempDir,
    engine: Arc<FjallEngine>,
    store: Arc<FjallData>,
    checkpoint: PathBuf,
}

/// Where files cost nothing.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

static FROZEN: LazyLock<Mutex<Frozen>> = LazyLock::new(|| {
    let dir = scratch();
    let engine = FjallEngine::new(&DataOptions::default()).expect("options");
    let store = engine.open(&dir.path().join("live")).expect("a new store");
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, "key", "value");
    store.write(batch, Durability::Now).expect("a write");
    let checkpoint = dir.path().join("frozen");
    store.checkpoint(&checkpoint).expect("a checkpoint");
    drop(engine.open(&dir.path().join("pointed")).expect("a new store"));
    Mutex::new(Frozen { dir, engine, store, checkpoint })
});

/// The manifest of a checkpoint.
pub fn checkpoint_manifest(input: &[u8]) {
    let Some(manifest) = file_in(input, |_| ()) else { return };
    let frozen = FROZEN.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::write(frozen.checkpoint.join("MANIFEST.odgm"), manifest).expect("a file");
    if let Ok(view) = frozen.store.open_checkpoint(&frozen.checkpoint) {
        assert_eq!(view.get(Keyspace::Data, b"key").expect("a read").as_deref(), Some(&b"value"[..]));
    }
}

/// The pointer to the generation that serves.
pub fn data_pointer(input: &[u8]) {
    let Some(pointer) = file_in(input, seal_pointer) else { return };
    let frozen = FROZEN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = frozen.dir.path().join("pointed");
    std::fs::write(dir.join("current"), pointer).expect("a file");
    let opened = frozen.engine.open(&dir);
    assert!(dir.join("1").is_dir(), "a pointer removes no data: {opened:?}");
}

/// Makes the last word of a line the sum of what is before it.
fn seal_pointer(text: &mut [u8]) {
    if let Some(at) = text.len().checked_sub(10) {
        let sum = format!(" {:08x}\n", crc32fast::hash(&text[..at]));
        put(text, at, sum.as_bytes());
    }
}
