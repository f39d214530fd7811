//! What every snapshot store promises, one function per promise.
//!
//! A store's tests call each of them with a way to make an empty store.

mod transfer;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

pub use transfer::*;

use super::{FRAME_BYTES, RaftSnapshotStorage, RetainPolicy, SnapshotInfo, SnapshotMeta};
use crate::Error;
use crate::log::LogPosition;

/// Makes an empty store.
pub type Make<'a> = &'a dyn Fn() -> Arc<dyn RaftSnapshotStorage>;

/// Content that compresses in its first half and does not in its second.
pub fn content(bytes: usize) -> Vec<u8> {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let byte = |at: usize| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        if at < bytes / 2 { (at / 100) as u8 } else { noise as u8 }
    };
    (0..bytes).map(byte).collect()
}

/// What an owner says of a snapshot at an index.
pub fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        id: Uuid::from_u128(0xabcd_0000 + u128::from(index)),
        position: Some(LogPosition { term: 3, index }),
        membership: Bytes::from_static(b"members"),
    }
}

/// Writes a snapshot whole.
pub fn write(store: &dyn RaftSnapshotStorage, meta: SnapshotMeta, content: &[u8]) -> SnapshotInfo {
    let mut writer = store.create(meta, 1_700_000_000_000).expect("create");
    for piece in content.chunks(300_001) {
        writer.write_all(piece).expect("write");
    }
    writer.finish().expect("finish")
}

/// Reads a snapshot whole.
pub fn read(store: &dyn RaftSnapshotStorage, id: Uuid) -> Vec<u8> {
    let mut found = Vec::new();
    store.read(id).expect("open").read_to_end(&mut found).expect("read");
    found
}

/// The stored form of a snapshot, read in pieces.
pub fn stored(store: &dyn RaftSnapshotStorage, info: &SnapshotInfo) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let piece = store.read_stored(info.meta.id, all.len() as u64, 700_001).expect("read");
        if piece.is_empty() {
            return all;
        }
        all.extend_from_slice(&piece);
    }
}

/// Of every size around a frame's, and the manifest says what was said.
pub fn a_snapshot_is_what_was_written(make: Make<'_>) {
    let store = make();
    for (n, bytes) in
        [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 7 * FRAME_BYTES / 2].into_iter().enumerate()
    {
        let (meta, content) = (meta(n as u64), content(bytes));
        let info = write(&*store, meta.clone(), &content);
        assert_eq!(info.meta, meta);
        assert_eq!(info.content_bytes, bytes as u64);
        assert_eq!(info.content_hash, xxhash_rust::xxh3::xxh3_128(&content));
        assert!(read(&*store, meta.id) == content, "{bytes} bytes");
        assert_eq!(store.verify(meta.id).expect("verify"), info);
        assert_eq!(stored(&*store, &info).len() as u64, info.stored_bytes);
    }
}

/// A snapshot exists when `finish` returned, and then in the order of positions.
pub fn a_snapshot_is_listed_from_its_finish_on(make: Make<'_>) {
    let store = make();
    let mut writer = store.create(meta(9), 5).expect("create");
    writer.write_all(&content(10)).expect("write");
    assert!(store.list().expect("list").is_empty());
    assert!(matches!(store.read(meta(9).id).map(drop), Err(Error::NotFound { .. })));
    let nine = writer.finish().expect("finish");
    let two = write(&*store, meta(2), b"two");
    let none = write(&*store, SnapshotMeta { position: None, ..meta(50) }, b"none");
    assert_eq!(store.list().expect("list"), [none, two, nine]);
}

/// A writer that was dropped leaves nothing, and its id can be used again.
pub fn an_unfinished_snapshot_leaves_nothing(make: Make<'_>) {
    let store = make();
    for _ in 0..2 {
        let mut writer = store.create(meta(1), 5).expect("create");
        writer.write_all(&content(3 * FRAME_BYTES)).expect("write");
        drop(writer);
        assert!(store.list().expect("list").is_empty());
    }
    write(&*store, meta(1), b"done");
}

/// An id names one snapshot, and has one writer.
pub fn an_id_is_used_once(make: Make<'_>) {
    let store = make();
    let writer = store.create(meta(1), 5).expect("create");
    assert!(matches!(store.create(meta(1), 5).map(drop), Err(Error::Locked { .. })));
    assert!(matches!(store.receive(meta(1).id, 10).map(drop), Err(Error::Locked { .. })));
    writer.finish().expect("finish");
    assert!(store.create(meta(1), 5).is_err());
}

/// Removed is gone, for those who come later; a reader that is on it reads to the end.
pub fn a_deleted_snapshot_is_gone(make: Make<'_>) {
    let store = make();
    let content = content(3 * FRAME_BYTES);
    write(&*store, meta(1), &content);
    let mut reader = store.read(meta(1).id).expect("open");
    store.delete(meta(1).id).expect("delete");
    store.delete(meta(1).id).expect("absent is fine");
    assert!(store.list().expect("list").is_empty());
    assert!(matches!(store.verify(meta(1).id), Err(Error::NotFound { .. })));
    assert!(matches!(store.read_stored(meta(1).id, 0, 10), Err(Error::NotFound { .. })));
    let mut found = Vec::new();
    reader.read_to_end(&mut found).expect("read");
    assert!(found == content);
    write(&*store, meta(1), b"again");
}

/// From any byte on comes what a reader from the start would see there; behind the end is refused.
pub fn a_snapshot_is_read_from_any_offset(make: Make<'_>) {
    let store = make();
    for (n, bytes) in [0, 1, FRAME_BYTES, 2 * FRAME_BYTES, 5 * FRAME_BYTES / 2].into_iter().enumerate() {
        let (id, content) = (meta(n as u64).id, content(bytes));
        write(&*store, meta(n as u64), &content);
        let places = [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES, bytes];
        for from in places.into_iter().filter(|from| *from <= bytes) {
            let mut found = Vec::new();
            store.read_from(id, from as u64).expect("open").read_to_end(&mut found).expect("read");
            assert!(found == content[from..], "{bytes} bytes from {from}");
        }
        let behind = store.read_from(id, bytes as u64 + 1).map(drop);
        assert!(matches!(behind, Err(Error::Options { option: "offset", .. })), "{behind:?}");
    }
}

/// What the writer counted is in the manifest, and so is the codec.
pub fn a_snapshot_says_its_entries_and_its_codec(make: Make<'_>) {
    let store = make();
    let mut writer = store.create(meta(1), 5).expect("create");
    writer.set_entries(1);
    writer.write_all(b"content").expect("write");
    writer.set_entries(77);
    let info = writer.finish().expect("finish");
    assert_eq!(info.entries, Some(77));
    assert!(info.compression.is_some());
    assert_eq!(write(&*store, meta(2), b"content").entries, None);
    assert_eq!(store.verify(meta(1).id).expect("verify"), info);
}

/// The latest is the one with the highest position.
pub fn the_latest_is_the_last_of_the_list(make: Make<'_>) {
    let store = make();
    assert_eq!(store.latest().expect("latest"), None);
    for index in [5, 9, 3] {
        write(&*store, meta(index), b"content");
    }
    assert_eq!(store.latest().expect("latest").map(|info| info.meta), Some(meta(9)));
    assert_eq!(store.latest().expect("latest"), store.list().expect("list").pop());
    assert!(store.damaged().is_empty());
}

/// Each policy keeps what it says, counted from the newest, and the newest always.
pub fn what_is_retained_follows_the_policy(make: Make<'_>) {
    let age = |ms| Duration::from_millis(ms);
    // Positions 1 to 4 were created at 1000 to 4000 ms; now is 5000.
    let policies: [(RetainPolicy, &[u64]); 9] = [
        (RetainPolicy::Latest { count: 0 }, &[4]),
        (RetainPolicy::Latest { count: 3 }, &[2, 3, 4]),
        (RetainPolicy::Latest { count: 9 }, &[1, 2, 3, 4]),
        (RetainPolicy::Age { age: age(0) }, &[4]),
        (RetainPolicy::Age { age: age(3000) }, &[2, 3, 4]),
        (RetainPolicy::Both { count: 2, age: age(3000) }, &[3, 4]),
        (RetainPolicy::Both { count: 3, age: age(2999) }, &[3, 4]),
        (RetainPolicy::Size { bytes: 0 }, &[4]),
        (RetainPolicy::Size { bytes: u64::MAX }, &[1, 2, 3, 4]),
    ];
    for (policy, expected) in policies {
        let store = make();
        for index in [3, 1, 4, 2] {
            let mut writer = store.create(meta(index), index * 1000).expect("create");
            writer.write_all(b"content").expect("write");
            writer.finish().expect("finish");
        }
        let removed = store.retain(policy, 5000).expect("retain");
        let kept: Vec<u64> = (1..=4).filter(|index| !removed.contains(&meta(*index).id)).collect();
        assert_eq!(kept, expected, "{policy:?}");
        let listed: Vec<_> = store.list().expect("list").into_iter().map(|info| info.meta).collect();
        assert_eq!(listed, expected.iter().map(|index| meta(*index)).collect::<Vec<_>>(), "{policy:?}");
        assert!(store.retain(policy, 5000).expect("again").is_empty());
    }
    let store = make();
    let sizes: Vec<u64> =
        (1..=4).map(|index| write(&*store, meta(index), &content(1000)).stored_bytes).collect();
    store.retain(RetainPolicy::Size { bytes: sizes[1] + sizes[2] + sizes[3] }, 0).expect("retain");
    assert_eq!(store.list().expect("list").len(), 3, "exactly what fits");
    store.retain(RetainPolicy::Size { bytes: sizes[2] + sizes[3] - 1 }, 0).expect("retain");
    assert_eq!(store.list().expect("list").len(), 1, "not one byte more");
}

/// A snapshot that is read or held is not let go; afterwards it is.
pub fn a_snapshot_in_use_is_retained(make: Make<'_>) {
    let store = make();
    for index in 1..=4 {
        write(&*store, meta(index), b"content");
    }
    let hold = store.hold(meta(1).id).expect("hold");
    let reader = store.read(meta(2).id).expect("open");
    let newest = RetainPolicy::Latest { count: 1 };
    assert_eq!(store.retain(newest, 0).expect("retain"), [meta(3).id]);
    drop((hold.clone(), reader));
    assert_eq!(store.retain(newest, 0).expect("retain"), [meta(2).id]);
    drop(hold);
    assert_eq!(store.retain(newest, 0).expect("retain"), [meta(1).id]);
    assert!(matches!(store.hold(meta(1).id), Err(Error::NotFound { .. })));
}
