//! What pages, expiries and secondary indexes promise over every store.

use std::ops::Bound;

use bytes::Bytes;

use super::{Make, Place, everything, export, place, rows};
use crate::Error;
use crate::data::index::{self, IndexSelect, IndexValue, build};
use crate::data::{
    ApplicationDataStorage, DataView, Durability, Keyspace, MAX_KEY_BYTES, Select, Transaction, expiry,
};

const DATA: Keyspace = Keyspace::Data;

fn write(store: &dyn ApplicationDataStorage, change: impl FnOnce(&mut Transaction<'_>)) {
    let mut writes = Transaction::begin(store);
    change(&mut writes);
    writes.commit(Durability::Later).expect("commit");
}

/// All pages of a selection, one after another.
fn paged(view: &dyn DataView, select: &Select) -> Vec<Bytes> {
    let (mut keys, mut select) = (Vec::new(), select.clone());
    loop {
        let page = view.page(DATA, &select).expect("page");
        keys.extend(page.rows.into_iter().map(|(key, _)| key));
        assert!(keys.len() < 1000, "a cursor that does not move");
        let Some(next) = page.next else { return keys };
        select = select.after(next);
    }
}

/// Pages cover a range or prefix once, in order, both ways, whatever their size.
pub fn pages_cover_a_selection_once(make: Make<'_>) {
    let place = place(make);
    let mut all: Vec<Bytes> = (0..60_u8).map(|n| vec![n / 20, 0xff, n].into()).collect();
    all.push(vec![0xff, 0xff].into());
    write(&*place.store, |writes| {
        for key in &all {
            writes.put(DATA, key.clone(), vec![7; 100]).expect("put");
        }
    });
    let view = place.store.view();
    for limit in [1, 7, 60, 1000] {
        for bytes in [0, 350, 1 << 20] {
            let sized = |select: Select| select.limit(limit).bytes(bytes);
            let mut expected = all.clone();
            assert_eq!(paged(&*view, &sized(Select::all())), expected);
            expected.reverse();
            assert_eq!(paged(&*view, &sized(Select::all().backward())), expected);
            for prefix in [vec![1], vec![1, 0xff], vec![0xff], vec![9], vec![]] {
                let mut expected = all.clone();
                expected.retain(|key| key.starts_with(&prefix));
                assert_eq!(paged(&*view, &sized(Select::prefix(prefix.clone()))), expected);
                expected.reverse();
                assert_eq!(paged(&*view, &sized(Select::prefix(prefix)).backward()), expected);
            }
        }
    }
    let (low, high) = (Bound::Included(all[3].clone()), Bound::Included(all[9].clone()));
    let inside = Select::range(low, high).limit(1);
    assert_eq!(paged(&*view, &inside), all[3..=9]);
    let falling: Vec<_> = all[3..=9].iter().rev().cloned().collect();
    assert_eq!(paged(&*view, &inside.backward()), falling);
    let page = view.page(DATA, &Select::all().limit(60)).expect("page");
    assert!(page.next.is_some(), "one more row");
    assert!(view.page(DATA, &Select::all().limit(61)).expect("page").next.is_none());
}

fn expiring(place: &Place, now: u64) -> Vec<(u64, Bytes)> {
    let expired = expiry::expired(&*place.store.view(), now, 100).expect("expired");
    expired.into_iter().map(|row| (row.deadline_unix_ms, row.key)).collect()
}

/// Rows expire in the order of their deadlines, keep being read until swept, and leave nothing behind.
pub fn rows_expire_in_order_and_are_swept_whole(make: Make<'_>) {
    let place = place(make);
    let store = &*place.store;
    build::create(store, "kind", DATA, "/kind").expect("create");
    write(store, |writes| {
        for (key, deadline) in [("c", 30), ("a", 10), ("b", 20), ("put", 5), ("gone", 5), ("later", 15)] {
            writes.put_until(DATA, key, r#"{"kind":1}"#, deadline).expect("put");
        }
        writes.put_until(DATA, "n", 0_i64.to_le_bytes().to_vec(), 12).expect("put");
        writes.put_with_ttl(DATA, "for ever", "", u64::MAX, std::time::Duration::MAX).expect("put");
        writes.put_until(Keyspace::Meta, "a", "", u64::MAX).expect("put");
    });
    write(store, |writes| {
        writes.put(DATA, "put", "stays").expect("put");
        writes.delete(DATA, "gone").expect("delete");
        writes.increment(DATA, "n", 1).expect("increment");
        assert!(writes.touch(DATA, "later", Some(25)).expect("touch"));
        assert!(!writes.touch(DATA, "absent", Some(25)).expect("touch"));
        assert_eq!(writes.expired(12, 9).expect("expired").len(), 2);
    });
    assert_eq!(expiring(&place, 9), []);
    assert_eq!(expiring(&place, 12), [(10, "a".into()), (12, "n".into())], "an increment keeps the deadline");
    let all = expiring(&place, u64::MAX);
    let keys: Vec<_> = all.iter().map(|(_, key)| key.as_ref()).collect();
    assert_eq!(keys, [&b"a"[..], b"n", b"b", b"later", b"c", b"a"]);
    assert_eq!(expiry::first_deadline(&*store.view()).expect("first"), Some(10));
    assert!(store.view().exists(DATA, b"a").expect("exists"), "no clock here: it stays until swept");
    write(store, |writes| {
        let swept = writes.sweep(25, 2).expect("sweep");
        assert_eq!(swept.iter().map(|row| &row.key[..]).collect::<Vec<_>>(), [b"a", b"n"]);
        assert_eq!(writes.sweep(25, 100).expect("sweep").len(), 2);
        assert!(writes.sweep(25, 100).expect("sweep").is_empty());
    });
    assert_eq!(expiring(&place, 1000), [(30, "c".into())]);
    let page = index::query(&*store.view(), "kind", &IndexSelect::equal(1_i64)).expect("query");
    assert_eq!(page.hits.iter().map(|hit| &hit.key[..]).collect::<Vec<_>>(), [b"c"]);
    write(store, |writes| {
        assert_eq!(writes.sweep(u64::MAX, 100).expect("sweep").len(), 2);
    });
    build::drop_index(store, "kind").expect("drop");
    assert_eq!(rows(&*store.view(), DATA).len(), 2, "put and for ever");
    let left = rows(&*store.view(), Keyspace::Index);
    assert_eq!(left.len(), 1, "only the last index id is left: {left:?}");
}

fn found(view: &dyn DataView, name: &str, select: &IndexSelect) -> Vec<String> {
    let (mut keys, mut select) = (Vec::new(), select.clone());
    loop {
        let page = index::query(view, name, &select).expect("query");
        keys.extend(page.hits.iter().map(|hit| String::from_utf8_lossy(&hit.key).into_owned()));
        let Some(next) = page.next else { return keys };
        select = select.after(next);
    }
}

fn json(text: &str) -> IndexValue {
    IndexValue::of(&serde_json::from_str(text).expect("json")).expect("a scalar")
}

/// Scalars that an index holds, in its order.
const ORDER: [&str; 19] = [
    "null",
    "false",
    "true",
    "-1e300",
    "-9223372036854775808",
    "-9223372036854775807",
    "-1.5",
    "-1",
    "0",
    "0.5",
    "1",
    "9007199254740992",
    "9007199254740993",
    "9007199254740994",
    "18446744073709551615",
    "1e300",
    "\"\"",
    "\"a\"",
    "\"a\\u0000\"",
];

/// Values of all types have one order, with exact numbers; equality and every range keep to it.
pub fn an_index_keeps_the_order_of_values(make: Make<'_>) {
    let place = place(make);
    build::create(&*place.store, "v", DATA, "/a/0/v").expect("create");
    write(&*place.store, |writes| {
        for (at, value) in ORDER.iter().enumerate() {
            writes.put(DATA, format!("{at:02}"), format!(r#"{{"a":[{{"v":{value}}}]}}"#)).expect("put");
        }
        for (key, other) in [("x1", "not json"), ("x2", r#"{"a":[]}"#), ("x3", r#"{"a":[{"v":[1]}]}"#)] {
            writes.put(DATA, key, other).expect("put");
        }
    });
    let view = place.store.view();
    let name = |at: usize| format!("{at:02}");
    for (at, value) in ORDER.iter().enumerate() {
        assert_eq!(found(&*view, "v", &IndexSelect::equal(json(value))), [name(at)], "{value}");
        for (to, high) in ORDER.iter().enumerate().skip(at) {
            use Bound::{Excluded, Included};
            let (a, b) = (json(value), json(high));
            let bounds = [
                (Included(a.clone()), Included(b.clone()), at..to + 1),
                (Excluded(a.clone()), Excluded(b), at + 1..to),
                (Included(a), Bound::Unbounded, at..ORDER.len()),
            ];
            for (from, to, expected) in bounds {
                let mut expected: Vec<_> = expected.map(name).collect();
                let select = IndexSelect::range(from, to).limit(3);
                assert_eq!(found(&*view, "v", &select), expected);
                expected.reverse();
                assert_eq!(found(&*view, "v", &select.backward()), expected);
            }
        }
    }
    assert_eq!(json("1.0"), json("1"));
    assert_eq!(json("-0.0"), json("0"));
    let hit = &index::query(&*view, "v", &IndexSelect::equal("a")).expect("query").hits[0];
    assert_eq!(hit.value, "a".into());
}

/// Old rows get in when it is made, new ones with their write; it is gone with its rows when dropped.
pub fn an_index_is_filled_kept_and_dropped(make: Make<'_>) {
    let place = place(make);
    let store = &*place.store;
    let value = |group: u32| format!(r#"{{"group":{group}}}"#);
    write(store, |writes| {
        for n in 0..2500_u32 {
            writes.put(DATA, format!("{n:04}"), value(n % 5)).expect("put");
        }
        writes.put(Keyspace::Meta, "other keyspace", value(1)).expect("put");
    });
    let before = everything(&*store.view());
    build::create(store, "group", DATA, "/group").expect("create");
    build::create(store, "group", DATA, "/group").expect("the same again is fine");
    assert_eq!(found(&*store.view(), "group", &IndexSelect::equal(1_i64)).len(), 500);
    write(store, |writes| {
        writes.put(DATA, "0001", value(9)).expect("put");
        writes.delete(DATA, "0006").expect("delete");
        writes.put(DATA, "9999", value(1)).expect("put");
        writes.put(DATA, "0011", "no json").expect("put");
        let inside = found(writes.view(), "group", &IndexSelect::equal(1_i64).limit(100));
        assert_eq!(inside.len(), 498, "a transaction sees its own changes in the index");
    });
    let ones = found(&*store.view(), "group", &IndexSelect::equal(1_i64).limit(7));
    assert_eq!((ones.len(), &*ones[0], &*ones[497]), (498, "0016", "9999"));
    assert_eq!(found(&*store.view(), "group", &IndexSelect::equal(9_i64)), ["0001"]);
    let index = &index::definitions(&*store.view()).expect("definitions")[0];
    assert_eq!((index.id, &*index.name, &*index.pointer), (1, "group", "/group"));
    let refused = build::create(store, "group", DATA, "/other");
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    for (name, pointer) in [("", "/a"), ("x", "a"), (&*"n".repeat(256), "/a")] {
        assert!(build::create(store, name, DATA, pointer).is_err(), "{name} {pointer}");
    }
    assert!(build::create(store, "x", Keyspace::Index, "/a").is_err());
    build::drop_index(store, "group").expect("drop");
    let absent = index::query(&*store.view(), "group", &IndexSelect::equal(1_i64));
    assert!(matches!(absent, Err(Error::NotFound { .. })), "{absent:?}");
    assert!(matches!(build::drop_index(store, "group"), Err(Error::NotFound { .. })));
    assert_eq!(rows(&*store.view(), Keyspace::Index).len(), 1, "only the last id is left");
    assert_eq!(rows(&*store.view(), Keyspace::Meta), before[3]);
    build::create(store, "group", DATA, "/group").expect("create");
    assert_eq!(index::definitions(&*store.view()).expect("definitions")[0].id, 2, "an id is given once");
}

/// An index that could not be completed is not asked, follows writes, and is completed later.
pub fn an_unfinished_index_is_completed_later(make: Make<'_>) {
    let place = place(make);
    let store = &*place.store;
    let long = format!(r#"{{"v":"{}"}}"#, "x".repeat(MAX_KEY_BYTES));
    write(store, |writes| {
        writes.put(DATA, "a", r#"{"v":1}"#).expect("put");
        writes.put(DATA, "b", long.clone()).expect("put");
    });
    let refused = build::create(store, "v", DATA, "/v");
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let select = IndexSelect::equal(1_i64);
    assert!(matches!(index::query(&*store.view(), "v", &select), Err(Error::Refused { .. })));
    write(store, |writes| {
        writes.put(DATA, "0", r#"{"v":1}"#).expect("put");
        assert!(matches!(writes.put(DATA, "c", long.clone()), Err(Error::TooLarge { .. })));
        writes.delete(DATA, "b").expect("a row that is in no index can go");
    });
    build::resume(store).expect("resume");
    assert_eq!(found(&*store.view(), "v", &select), ["0", "a"]);
}

/// Definitions, rows and deadlines travel in an export; the importing store keeps them from then on.
pub fn indexes_and_deadlines_travel(make: Make<'_>) {
    let (source, target) = (place(make), place(make));
    build::create(&*source.store, "v", DATA, "/v").expect("create");
    build::create(&*target.store, "other", DATA, "/other").expect("create");
    write(&*source.store, |writes| writes.put_until(DATA, "a", r#"{"v":1}"#, 5).expect("put"));
    // The importing store has its own indexes in mind when the data are replaced.
    write(&*target.store, |writes| writes.put(DATA, "z", r#"{"v":1,"other":2}"#).expect("put"));
    let stream = export(&*source.store.view());
    let mut import = target.store.import().expect("import");
    import.read(&mut &stream[..]).expect("read");
    import.finish().expect("finish");
    write(&*target.store, |writes| writes.put(DATA, "b", r#"{"v":1,"other":2}"#).expect("put"));
    let view = target.store.view();
    assert_eq!(found(&*view, "v", &IndexSelect::equal(1_i64)), ["a", "b"]);
    assert!(index::query(&*view, "other", &IndexSelect::equal(2_i64)).is_err());
    assert_eq!(expiring(&target, 5), [(5, "a".into())]);
}
