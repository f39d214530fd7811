//! The inputs that fuzzing found, and its seeds, are replayed: none of them may panic or be half believed.

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is the root of a crate of its own, too")]
mod fuzz;

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|input| input.unwrap().path()).collect();
    inputs.sort();
    assert!(inputs.len() >= 2, "{} has seeds", dir.display());
    for input in inputs {
        let bytes = std::fs::read(&input).unwrap();
        let replayed = std::panic::catch_unwind(|| run(&bytes));
        assert!(replayed.is_ok(), "{}", input.display());
    }
}

#[test]
fn segments_of_the_log() {
    replay("log_segment", fuzz::log_segment);
}

#[test]
fn snapshot_files() {
    replay("snapshot_file", fuzz::snapshot_file);
}

#[test]
fn export_streams() {
    replay("data_stream", fuzz::data_stream);
}

#[test]
fn manifests_of_checkpoints() {
    replay("checkpoint_manifest", fuzz::checkpoint_manifest);
}

#[test]
fn pointers_to_generations() {
    replay("data_pointer", fuzz::data_pointer);
}

#[test]
fn lists_of_layers() {
    replay("storage_layers", fuzz::storage_layers);
}
