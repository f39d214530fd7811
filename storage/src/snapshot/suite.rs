//! What every snapshot store promises, one function per promise.
//!
//! A store's tests call each of them with a way to make an empty store.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::{FRAME_BYTES, RaftSnapshotStorage, SnapshotInfo, SnapshotMeta};
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

fn stored(store: &dyn RaftSnapshotStorage, info: &SnapshotInfo) -> Vec<u8> {
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

/// The stored form makes the same snapshot elsewhere, also when it is sent twice.
pub fn a_snapshot_can_be_sent(make: Make<'_>) {
    let (here, there) = (make(), make());
    let content = content(5 * FRAME_BYTES / 2);
    let info = write(&*here, meta(4), &content);
    let mut receiver = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    assert_eq!(receiver.offset(), 0);
    for piece in stored(&*here, &info).chunks(100_000) {
        receiver.write(piece).expect("write");
    }
    assert!(there.list().expect("list").is_empty());
    assert_eq!(receiver.finish().expect("finish"), info);
    assert_eq!(there.list().expect("list"), std::slice::from_ref(&info));
    assert!(read(&*there, info.meta.id) == content);
    let again = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    assert_eq!(again.offset(), info.stored_bytes, "nothing is left to send");
    assert_eq!(again.finish().expect("finish"), info);
}

/// A transfer goes on behind the last sound frame of what came before it broke off.
pub fn a_broken_transfer_is_taken_up(make: Make<'_>) {
    let (here, there) = (make(), make());
    let content = content(4 * FRAME_BYTES);
    let info = write(&*here, meta(4), &content);
    let all = stored(&*here, &info);
    for sent in [10, 100, all.len() / 2, all.len() - 40, all.len()] {
        let mut receiver = there.receive(info.meta.id, info.stored_bytes).expect("receive");
        let offset = receiver.offset() as usize;
        if sent > offset {
            receiver.write(&all[offset..sent]).expect("write");
        }
        drop(receiver);
        let taken_up = there.receive(info.meta.id, info.stored_bytes).expect("receive").offset() as usize;
        assert!(taken_up <= sent.max(offset) && taken_up + FRAME_BYTES + 100 >= sent, "{taken_up} of {sent}");
    }
    let mut receiver = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    assert!(receiver.offset() as usize > FRAME_BYTES);
    let offset = receiver.offset() as usize;
    receiver.write(&all[offset..]).expect("write");
    assert_eq!(receiver.finish().expect("finish"), info);
    assert!(read(&*there, info.meta.id) == content);
}

/// Bytes that are missing, too many or changed make no snapshot; the next transfer starts anew.
pub fn a_damaged_transfer_is_refused(make: Make<'_>) {
    let (here, there) = (make(), make());
    let info = write(&*here, meta(4), &content(2 * FRAME_BYTES));
    let all = stored(&*here, &info);
    let mut short = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    short.write(&all[..all.len() - 1]).expect("write");
    assert!(matches!(short.finish(), Err(Error::Corrupt { .. })));
    let mut long = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    let offset = long.offset() as usize;
    assert!(matches!(long.write(&[&all[offset..], b"x"].concat()), Err(Error::TooLarge { .. })));
    drop(long);
    let mut damaged = all.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let other = Uuid::from_u128(1);
    for (id, bytes) in [(other, &all), (other, &damaged), (info.meta.id, &damaged)] {
        let mut receiver = there.receive(id, info.stored_bytes).expect("receive");
        let offset = receiver.offset() as usize;
        // What a frame before the damage already held is kept, and is sound.
        let bytes = if offset > middle { &all } else { bytes };
        receiver.write(&bytes[offset..]).expect("write");
        let finished = receiver.finish();
        if offset <= middle {
            assert!(matches!(finished, Err(Error::Corrupt { .. })), "{finished:?}");
            assert!(there.list().expect("list").is_empty());
        }
    }
    there.delete(info.meta.id).expect("delete");
    let mut receiver = there.receive(info.meta.id, info.stored_bytes).expect("receive");
    assert_eq!(receiver.offset(), 0, "what failed is not taken up");
    receiver.write(&all).expect("write");
    receiver.finish().expect("finish");
}
