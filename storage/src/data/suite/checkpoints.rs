//! What checkpoints promise beyond being exact: their manifest, their checks, going back to them.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::{Make, everything, export, fill, place, put, rows};
use crate::Error;
use crate::data::{CheckpointRequest, Keyspace};
use crate::log::LogPosition;

fn request() -> CheckpointRequest {
    CheckpointRequest {
        id: Uuid::from_u128(7),
        last_included: Some(LogPosition { term: 3, index: 99 }),
        created_unix_ms: 1_700_000_000_000,
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("list").map(|entry| entry.expect("entry").path());
    let mut found: Vec<_> =
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    found.sort();
    found
}

/// The manifest repeats the request and names every file with its size and checksum.
pub fn a_manifest_says_what_is_in_a_checkpoint(make: Make<'_>) {
    let place = place(make);
    fill(&*place.store, 100);
    let target = place.dir.path().join("checkpoint");
    let made = place.store.checkpoint_as(&target, &request()).expect("checkpoint");
    assert_eq!((made.id, made.last_included), (request().id, request().last_included));
    assert_eq!(made.created_unix_ms, request().created_unix_ms);
    place.store.open_checkpoint(&target).expect("open");
    let found = place.store.verify_checkpoint(&target).expect("an open changes nothing");
    assert_eq!(found, made);
    let on_disk = files(&target).into_iter().filter(|path| !path.ends_with("MANIFEST.odgm"));
    let on_disk: Vec<_> =
        on_disk.map(|path| path.strip_prefix(&target).expect("inside").to_owned()).collect();
    assert_eq!(made.files.iter().map(|file| PathBuf::from(&file.path)).collect::<Vec<_>>(), on_disk);
    assert_eq!(made.total_bytes, made.files.iter().map(|file| file.bytes).sum::<u64>());
    put(&*place.store, &[(Keyspace::Data, "more", "rows")]);
    let next = place.store.checkpoint(&place.dir.path().join("next")).expect("checkpoint");
    assert!(next.sequence > made.sequence || made.engine == "memory");
    assert_eq!(place.store.statistics().operations.checkpoints, 2);
}

/// A restore brings back the moment of the checkpoint, as often as wanted; views keep what they saw.
pub fn a_restore_goes_back(make: Make<'_>) {
    let place = place(make);
    fill(&*place.store, 100);
    let target = place.dir.path().join("checkpoint");
    place.store.checkpoint_as(&target, &request()).expect("checkpoint");
    let then = export(&*place.store.view());
    for round in ["first", "second"] {
        put(&*place.store, &[(Keyspace::Data, "000001/Data", round), (Keyspace::Meta, "new", round)]);
        let later = everything(&*place.store.view());
        let view = place.store.view();
        let restored = place.store.restore(&target).expect("restore");
        assert_eq!(restored.last_included, request().last_included);
        assert!(export(&*place.store.view()) == then, "{round}");
        assert_eq!(everything(&*view), later);
    }
    assert_eq!(place.store.statistics().operations.installs, 2);
    put(&*place.store, &[(Keyspace::Data, "000001/Data", "after")]);
    place.store.flush().expect("flush");
    place.store.compact().expect("compact");
    place.store.verify_checkpoint(&target).expect("what the store does now leaves the checkpoint alone");
    let other = super::place(make);
    other.store.restore(&target).expect("restore into another store");
    assert!(export(&*other.store.view()) == then);
}

/// Every file of a checkpoint with a bit changed, a byte too few, or gone is named; nothing is restored.
pub fn a_damaged_checkpoint_is_named_and_not_restored(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(Keyspace::Data, "k", "v"), (Keyspace::Meta, "m", "")]);
    let target = place.dir.path().join("checkpoint");
    place.store.checkpoint_as(&target, &request()).expect("checkpoint");
    put(&*place.store, &[(Keyspace::Data, "k", "later")]);
    let before = everything(&*place.store.view());
    let refused = |path: &Path, what: &str| {
        let outcome = place.store.restore(&target);
        let named = match &outcome {
            Err(Error::Corrupt { path: found, .. } | Error::Format { path: found, .. }) => found == path,
            Err(Error::NotFound { .. }) => path.ends_with("MANIFEST.odgm"),
            _ => false,
        };
        assert!(named, "{what} of {}: {outcome:?}", path.display());
        assert!(place.store.verify_checkpoint(&target).is_err());
    };
    for path in files(&target) {
        let good = std::fs::read(&path).expect("read");
        // A link shares the store's own bytes: damage a copy.
        std::fs::remove_file(&path).expect("remove");
        refused(&path, "absence");
        std::fs::write(&path, [&good[..], b"x"].concat()).expect("write");
        refused(&path, "a byte more");
        for at in (0..good.len()).step_by(1 + good.len() / 40) {
            let mut damaged = good.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(&path, &damaged).expect("write");
            refused(&path, "a flipped bit");
        }
        std::fs::write(&path, &good).expect("write");
        place.store.verify_checkpoint(&target).expect("it is whole again");
    }
    assert_eq!(everything(&*place.store.view()), before, "a refused restore changes nothing");
    place.store.restore(&target).expect("restore");
    assert_eq!(rows(&*place.store.view(), Keyspace::Data)[0].1, "v");
}
