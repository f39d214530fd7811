//! What every data store promises, one function per promise.
//!
//! A store's tests call each of them with a way to make an empty store in a directory.

pub mod checkpoints;
pub mod queries;
pub mod transactions;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::{
    ApplicationDataStorage, DataView, Direction, Durability, Keyspace, MAX_KEY_BYTES, Row,
    SnapshotCapableStorage, WriteBatch,
};
use crate::Error;

/// Makes an empty store in a directory that does not exist yet.
pub type Make<'a> = &'a dyn Fn(&Path) -> Arc<dyn SnapshotCapableStorage>;

struct Place {
    dir: tempfile::TempDir,
    store: Arc<dyn SnapshotCapableStorage>,
}

fn place(make: Make<'_>) -> Place {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let store = make(&dir.path().join("store"));
    Place { dir, store }
}

fn put(store: &dyn SnapshotCapableStorage, rows: &[(Keyspace, &str, &str)]) {
    let mut batch = WriteBatch::default();
    for (keyspace, key, value) in rows {
        batch.put(*keyspace, key.to_string(), value.to_string());
    }
    store.write(batch, Durability::Later).expect("a small batch is taken");
}

fn number(view: &dyn DataView, keyspace: Keyspace, key: &str) -> u64 {
    let value =
        view.get(keyspace, key.as_bytes()).expect("read").unwrap_or_else(|| Bytes::from_static(&[0; 8]));
    u64::from_be_bytes(value[..].try_into().expect("eight bytes were written"))
}

/// All rows of a keyspace, by rising key.
pub fn rows(view: &dyn DataView, keyspace: Keyspace) -> Vec<Row> {
    let all = view.scan(keyspace, Bound::Unbounded, Bound::Unbounded, Direction::Forward);
    all.collect::<crate::Result<_>>().expect("scan")
}

fn everything(view: &dyn DataView) -> Vec<Vec<Row>> {
    Keyspace::ALL.iter().map(|&keyspace| rows(view, keyspace)).collect()
}

/// Fills all keyspaces with rows of many sizes.
fn fill(store: &dyn SnapshotCapableStorage, rows: u32) {
    for keyspace in Keyspace::ALL {
        let mut batch = WriteBatch::default();
        for i in 0..rows {
            let value = vec![i as u8; (i as usize * 37) % 3000];
            batch.put(keyspace, format!("{i:06}/{keyspace:?}"), value);
        }
        batch.put(keyspace, vec![0], "lowest");
        batch.put(keyspace, vec![0xff; MAX_KEY_BYTES], "longest");
        batch.put(keyspace, "empty", "");
        store.write(batch, Durability::Later).expect("write");
    }
}

fn export(view: &dyn DataView) -> Vec<u8> {
    let mut stream = Vec::new();
    view.export(&mut stream).expect("export");
    stream
}

/// The last operation on a key decides, across keyspaces all take effect together.
pub fn the_last_operation_on_a_key_in_a_batch_wins(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(Keyspace::Data, "gone", "old")]);
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, "a", "first");
    batch.put(Keyspace::Data, "gone", "new");
    batch.delete(Keyspace::Data, "a");
    batch.put(Keyspace::Data, "a", "last");
    batch.delete(Keyspace::Data, "gone");
    batch.delete(Keyspace::Meta, "never there");
    place.store.write(batch, Durability::Now).expect("write");
    let view = place.store.view();
    assert_eq!(view.get(Keyspace::Data, b"a").expect("get").expect("present"), "last");
    assert_eq!(view.get(Keyspace::Data, b"gone").expect("get"), None);
    assert_eq!(rows(&*view, Keyspace::Data).len(), 1);
}

/// One key in two keyspaces is two rows.
pub fn keyspaces_do_not_mix(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(Keyspace::Data, "k", "data"), (Keyspace::Meta, "k", "meta")]);
    let view = place.store.view();
    assert_eq!(view.get(Keyspace::Data, b"k").expect("get").expect("present"), "data");
    assert_eq!(view.get(Keyspace::Meta, b"k").expect("get").expect("present"), "meta");
    assert_eq!(view.get(Keyspace::Index, b"k").expect("get"), None);
    assert!(rows(&*view, Keyspace::History).is_empty());
}

/// What is written after a view was taken is not in it.
pub fn a_view_stands_still(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(Keyspace::Data, "a", "1"), (Keyspace::Data, "b", "1")]);
    let view = place.store.view();
    let before = everything(&*view);
    let scan = view.scan(Keyspace::Data, Bound::Unbounded, Bound::Unbounded, Direction::Forward);
    let mut batch = WriteBatch::default();
    batch.delete(Keyspace::Data, "a");
    batch.put(Keyspace::Data, "b", "2");
    batch.put(Keyspace::Data, "c", "2");
    place.store.write(batch, Durability::Later).expect("write");
    assert_eq!(scan.count(), 2);
    assert_eq!(everything(&*view), before);
    assert_eq!(view.get(Keyspace::Data, b"b").expect("get").expect("present"), "1");
    assert_eq!(rows(&*place.store.view(), Keyspace::Data).len(), 2);
}

/// A reader beside the writer sees whole batches only.
pub fn readers_see_whole_batches(make: Make<'_>) {
    let place = place(make);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for n in 1..=2000_u64 {
                let mut batch = WriteBatch::default();
                for keyspace in Keyspace::ALL {
                    batch.put(keyspace, "n", n.to_be_bytes().to_vec());
                }
                place.store.write(batch, Durability::Later).expect("write");
            }
            done.store(true, Ordering::Release);
        });
        let mut last = 0;
        while !done.load(Ordering::Acquire) {
            let view = place.store.view();
            let seen = Keyspace::ALL.map(|keyspace| number(&*view, keyspace, "n"));
            assert!(seen.iter().all(|&n| n == seen[0]), "half a batch: {seen:?}");
            assert!(seen[0] >= last, "a view went back from {last} to {}", seen[0]);
            last = seen[0];
        }
    });
    assert_eq!(number(&*place.store.view(), Keyspace::Meta, "n"), 2000);
}

/// Every bound in both directions, also where nothing can lie between.
pub fn scans_keep_to_their_bounds(make: Make<'_>) {
    let place = place(make);
    let keys = ["b", "d", "dd", "f"];
    put(&*place.store, &keys.map(|key| (Keyspace::Index, key, key)));
    let view = place.store.view();
    let bounds = ["a", "b", "c", "d", "dd", "de", "f", "g"];
    let bound = |key: &str, kind| match kind {
        0 => Bound::Included(Bytes::from(key.to_owned())),
        1 => Bound::Excluded(Bytes::from(key.to_owned())),
        _ => Bound::Unbounded,
    };
    for (from, to) in bounds.iter().flat_map(|from| bounds.iter().map(move |to| (*from, *to))) {
        for (low, high) in (0..3).flat_map(|low| (0..3).map(move |high| (low, high))) {
            let above = |key: &str| low == 2 || key > from || (low == 0 && key == from);
            let below = |key: &str| high == 2 || key < to || (high == 0 && key == to);
            let mut expected: Vec<_> = keys.into_iter().filter(|key| above(key) && below(key)).collect();
            for direction in [Direction::Forward, Direction::Backward] {
                let found = view.scan(Keyspace::Index, bound(from, low), bound(to, high), direction);
                let found: Vec<_> = found.map(|row| row.expect("scan").0).collect();
                assert_eq!(found, expected, "{low} {from} .. {high} {to} {direction:?}");
                expected.reverse();
            }
        }
    }
}

/// Bounds and keys that are longer than any key are fine to ask for.
pub fn reads_take_keys_of_any_length(make: Make<'_>) {
    let place = place(make);
    let longest = vec![7; MAX_KEY_BYTES];
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, longest.clone(), "value");
    place.store.write(batch, Durability::Later).expect("write");
    let view = place.store.view();
    let longer = Bytes::from([&longest[..], &[0]].concat());
    assert_eq!(view.get(Keyspace::Data, &longer).expect("get"), None);
    assert!(!view.exists(Keyspace::Data, &longer).expect("exists"));
    for bound in [Bound::Included(longer.clone()), Bound::Excluded(longer)] {
        for direction in [Direction::Forward, Direction::Backward] {
            let found = view.scan(Keyspace::Data, Bound::Unbounded, bound.clone(), direction).count();
            assert_eq!(found, 1);
            assert_eq!(view.scan(Keyspace::Data, bound.clone(), Bound::Unbounded, direction).count(), 0);
        }
    }
}

/// A batch with a key that no store takes changes nothing.
pub fn a_key_out_of_bounds_refuses_the_whole_batch(make: Make<'_>) {
    let place = place(make);
    for key in [vec![], vec![7; MAX_KEY_BYTES + 1]] {
        let mut batch = WriteBatch::default();
        batch.put(Keyspace::Data, "good", "value");
        batch.put(Keyspace::Data, key, "value");
        let refused = place.store.write(batch, Durability::Later);
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
        assert!(rows(&*place.store.view(), Keyspace::Data).is_empty());
    }
    put(&*place.store, &[(Keyspace::Data, "good", "value")]);
}

/// An import replaces everything by what was exported, old views keep what they had, and the next
/// export is the same bytes.
pub fn an_import_replaces_everything(make: Make<'_>) {
    let (source, target) = (place(make), place(make));
    fill(&*source.store, 300);
    let stream = export(&*source.store.view());
    put(&*target.store, &[(Keyspace::Data, "old", "row"), (Keyspace::Meta, "old", "row")]);
    let old = target.store.view();
    let mut import = target.store.import().expect("import");
    import.read(&mut &stream[..]).expect("read");
    assert_eq!(rows(&*target.store.view(), Keyspace::Data).len(), 1, "the old data serves until finish");
    import.finish().expect("finish");
    assert_eq!(everything(&*target.store.view()), everything(&*source.store.view()));
    assert!(export(&*target.store.view()) == stream, "an export does not depend on how rows came in");
    assert_eq!(old.get(Keyspace::Data, b"old").expect("get").expect("present"), "row");
    put(&*target.store, &[(Keyspace::Data, "000001/Data", "newer")]);
    let view = target.store.view();
    assert_eq!(view.get(Keyspace::Data, b"000001/Data").expect("get").expect("present"), "newer");
}

/// An import that is dropped, or never read a stream, changes nothing.
pub fn an_unfinished_import_changes_nothing(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(Keyspace::Data, "k", "v")]);
    let before = everything(&*place.store.view());
    let stream = export(&*place.store.view());
    assert!(place.store.import().expect("import").finish().is_err(), "nothing was read");
    let mut import = place.store.import().expect("import");
    import.read(&mut &stream[..]).expect("read");
    drop(import);
    let mut import = place.store.import().expect("import");
    assert!(import.read(&mut &stream[..stream.len() - 1]).is_err());
    assert!(import.finish().is_err(), "what was read is not sound");
    assert_eq!(everything(&*place.store.view()), before);
    put(&*place.store, &[(Keyspace::Data, "k", "still writable")]);
}

/// A stream with any byte changed, missing or added is refused.
pub fn a_damaged_stream_is_refused(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(Keyspace::Data, "a", "1"), (Keyspace::Data, "b", "22"), (Keyspace::Meta, "m", "")]);
    let before = everything(&*place.store.view());
    let stream = export(&*place.store.view());
    let refused = |stream: &[u8]| {
        let mut import = place.store.import().expect("import");
        import.read(&mut &stream[..]).is_err()
    };
    assert!(!refused(&stream));
    // Each import may open a database: one damage of each kind of place, not all.
    for at in (0..stream.len()).step_by(11) {
        let mut damaged = stream.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(refused(&damaged), "byte {at} of {}", stream.len());
        assert!(refused(&stream[..at]), "cut at {at}");
    }
    assert!(refused(&[&stream[..], b"x"].concat()));
    assert_eq!(everything(&*place.store.view()), before);
}

/// A checkpoint holds what was there when it was taken, whatever is written later.
pub fn a_checkpoint_is_the_state_of_its_moment(make: Make<'_>) {
    let place = place(make);
    fill(&*place.store, 200);
    let target = place.dir.path().join("checkpoints").join("one");
    std::fs::create_dir_all(target.parent().expect("it has one")).expect("create");
    let before = everything(&*place.store.view());
    place.store.checkpoint(&target).expect("checkpoint");
    assert_eq!(everything(&*place.store.view()), before, "a checkpoint leaves no trace in the store");
    let mut batch = WriteBatch::default();
    for (key, _) in &before[0] {
        batch.delete(Keyspace::Data, key.clone());
    }
    place.store.write(batch, Durability::Later).expect("write");
    for _ in 0..2 {
        let first = place.store.open_checkpoint(&target).expect("open");
        let second = place.store.open_checkpoint(&target).expect("open beside the first");
        assert_eq!(everything(&*first), before);
        assert_eq!(export(&*second), export(&*first));
    }
    assert!(place.store.checkpoint(&target).is_err(), "the target exists");
    let next = place.dir.path().join("checkpoints").join("two");
    place.store.checkpoint(&next).expect("checkpoint");
    let next = place.store.open_checkpoint(&next).expect("open");
    assert_eq!(everything(&*next), everything(&*place.store.view()));
    assert!(rows(&*next, Keyspace::Data).is_empty());
    assert!(place.store.open_checkpoint(&place.dir.path().join("none")).is_err());
}

/// A checkpoint can be streamed into another store.
pub fn a_checkpoint_can_be_installed_elsewhere(make: Make<'_>) {
    let (source, target) = (place(make), place(make));
    fill(&*source.store, 100);
    let checkpoint = source.dir.path().join("checkpoint");
    source.store.checkpoint(&checkpoint).expect("checkpoint");
    let stream = export(&*source.store.open_checkpoint(&checkpoint).expect("open"));
    let mut import = target.store.import().expect("import");
    import.read(&mut &stream[..]).expect("read");
    import.finish().expect("finish");
    assert_eq!(everything(&*target.store.view()), everything(&*source.store.view()));
}

/// More data is more bytes.
pub fn size_follows_the_data(make: Make<'_>) {
    let place = place(make);
    let empty = place.store.size_bytes();
    let mut import = place.store.import().expect("import");
    let source = super::memory::MemoryData::new(64 << 20);
    let mut batch = WriteBatch::default();
    for i in 0..4000_u32 {
        let noise =
            (0..256_u32).map(|j| (i.wrapping_mul(2_654_435_761).wrapping_add(j * j) >> (j % 13)) as u8);
        batch.put(Keyspace::Data, i.to_be_bytes().to_vec(), noise.collect::<Vec<_>>());
    }
    source.write(batch, Durability::Later).expect("write");
    import.read(&mut &export(&*source.view())[..]).expect("read");
    import.finish().expect("finish");
    assert!(place.store.size_bytes() > empty + (256 << 10), "{empty} to {}", place.store.size_bytes());
}

/// After `close` nothing is taken and nothing is served.
pub fn a_closed_store_refuses(make: Make<'_>) {
    let place = place(make);
    put(&*place.store, &[(Keyspace::Data, "k", "v")]);
    place.store.close().expect("close");
    place.store.close().expect("closing twice is fine");
    let mut batch = WriteBatch::default();
    batch.put(Keyspace::Data, "k", "v");
    assert!(matches!(place.store.write(batch, Durability::Later), Err(Error::Closed)));
    assert!(matches!(place.store.sync(), Err(Error::Closed)));
    assert!(place.store.import().is_err());
    assert!(place.store.checkpoint(&place.dir.path().join("late")).is_err());
    let view = place.store.view();
    assert!(matches!(view.get(Keyspace::Data, b"k"), Err(Error::Closed)));
    let mut scan = view.scan(Keyspace::Data, Bound::Unbounded, Bound::Unbounded, Direction::Forward);
    assert!(matches!(scan.next(), Some(Err(Error::Closed))));
    assert!(view.export(&mut Vec::new()).is_err());
}
