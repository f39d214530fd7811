//! Secondary indexes: kept by every write, built and dropped step by step, the same on every replica.

use std::ops::Bound;

use odgm_shard::object::EntryName;
use odgm_shard::state::index::scalar;
use odgm_shard::state::{
    Command, IndexQuery, IndexSource, IndexSpec, ObjectTable, ObjectView, Operation, Selection, Settings,
    Upkeep,
};
use odgm_storage::data::{ApplicationDataStorage, Direction, Keyspace};

use super::{Fixture, NOW, delete, path, put, storage};

fn by_path(name: &str, pointer: &str) -> IndexSpec {
    IndexSpec { name: name.into(), source: IndexSource::Path(pointer.into()) }
}

fn by_entry(name: &str, entry: &str) -> IndexSpec {
    IndexSpec { name: name.into(), source: IndexSource::Entry(EntryName::parse(entry).unwrap()) }
}

fn configure(indexes: Vec<IndexSpec>) -> Operation {
    Operation::Upkeep(Upkeep::Configure(Settings { indexes, ..Settings::default() }))
}

fn settle(it: &mut Fixture) {
    while !it.table.view().indexes_settled().unwrap() {
        it.run(Operation::Upkeep(Upkeep::IndexStep));
    }
}

fn range(name: &str, from: Bound<&str>, to: Bound<&str>) -> IndexQuery {
    IndexQuery { name: name.into(), from: from.map(scalar), to: to.map(scalar) }
}

fn eq(name: &str, value: &str) -> IndexQuery {
    range(name, Bound::Included(value), Bound::Included(value))
}

fn found(view: &ObjectView, query: &IndexQuery, pattern: &str) -> Vec<String> {
    let selection = Selection::new([pattern.split('/').collect()]);
    let rows = view.find(query, &selection, None).unwrap();
    rows.map(|row| path(&row.unwrap().1)).collect()
}

fn index_rows(store: &dyn ApplicationDataStorage) -> usize {
    let range = (Bound::Included(vec![3].into()), Bound::Excluded(vec![4].into()));
    store.view().scan(Keyspace::Index, range.0, range.1, Direction::Forward).count()
}

#[test]
fn objects_are_found_by_a_scalar_of_their_value_as_it_is_now() {
    let mut it = Fixture::new();
    it.run(configure(vec![by_path("age", "/age"), by_entry("city", "city")]));
    settle(&mut it);
    it.run(put("a", r#"{"age": 30}"#));
    it.run(put("b", r#"{"age": 7}"#));
    it.run(put("c", r#"{"age": "old"}"#));
    it.run(put("d", "no json"));
    it.run(put("a/city", "Paris"));
    it.run(put("e/city", "Oslo"));
    let view = it.table.view();
    assert_eq!(found(&view, &eq("age", "30"), "*"), ["a"]);
    assert_eq!(found(&view, &range("age", Bound::Included("7"), Bound::Excluded("30")), "*"), ["b"]);
    // Numbers come before strings.
    assert_eq!(found(&view, &range("age", Bound::Unbounded, Bound::Unbounded), "*"), ["b", "a", "c"]);
    // What is replied of an object is what the selection asks for.
    assert_eq!(found(&view, &eq("city", "Paris"), "**"), ["a", "a/city"]);
    assert_eq!(found(&view, &eq("city", "Oslo"), "*"), [""; 0]);
    assert_eq!(found(&view, &eq("city", "Oslo"), "*/city"), ["e/city"]);
    it.run(put("a", r#"{"age": 31}"#));
    it.run(delete("b"));
    it.run(put("a/city", "Oslo"));
    it.run(delete("e/city"));
    let view = it.table.view();
    let all = range("age", Bound::Unbounded, Bound::Unbounded);
    assert_eq!(found(&view, &all, "*"), ["a", "c"]);
    assert_eq!(found(&view, &eq("age", "30"), "*"), [""; 0]);
    assert_eq!(found(&view, &eq("city", "Oslo"), "*"), ["a"]);
}

#[test]
fn a_new_index_takes_in_what_is_there_and_what_comes_meanwhile() {
    let mut it = Fixture::new();
    for n in 0..2500 {
        it.run(put(&format!("o{n:04}"), &format!("{{\"n\":{}}}", n % 5)));
    }
    it.run(configure(vec![by_path("n", "/n")]));
    assert_eq!(it.table.view().index_ready("n").unwrap(), Some(false));
    it.run(Operation::Upkeep(Upkeep::IndexStep));
    it.run(put("o0001", r#"{"n":9}"#));
    it.run(put("o2400", r#"{"n":9}"#));
    it.run(delete("o2401"));
    it.run(put("o9999", r#"{"n":9}"#));
    it.run(Operation::Upkeep(Upkeep::IndexStep));
    assert_eq!(it.table.view().index_ready("n").unwrap(), Some(false));
    it.run(Operation::Upkeep(Upkeep::IndexStep));
    let view = it.table.view();
    assert_eq!(view.index_ready("n").unwrap(), Some(true));
    assert_eq!(found(&view, &eq("n", "9"), "*"), ["o0001", "o2400", "o9999"]);
    assert_eq!(found(&view, &eq("n", "1"), "*").len(), 498);
    assert_eq!(found(&view, &range("n", Bound::Unbounded, Bound::Unbounded), "*").len(), 2500);
}

#[test]
fn a_dropped_index_leaves_no_row_whatever_is_written_meanwhile() {
    let store = storage();
    let mut it = Fixture { table: ObjectTable::open(store.clone()).unwrap(), index: 0, time: NOW };
    it.run(configure(vec![by_path("n", "/n"), by_path("m", "/m")]));
    settle(&mut it);
    for n in 0..2500 {
        it.run(put(&format!("o{n:04}"), &format!("{{\"n\":{n}, \"m\":1}}")));
    }
    it.run(configure(vec![by_path("m", "/m")]));
    assert_eq!(it.table.view().index_ready("n").unwrap(), None);
    it.run(Operation::Upkeep(Upkeep::IndexStep));
    it.run(put("o0001", r#"{"n":-1, "m":1}"#));
    it.run(put("o2400", r#"{"n":-1, "m":1}"#));
    it.run(delete("o2401"));
    it.run(put("o9999", r#"{"n":-1, "m":1}"#));
    // Made again while the old one goes: another one, complete.
    it.run(configure(vec![by_path("m", "/m"), by_path("n", "/n")]));
    settle(&mut it);
    assert_eq!(index_rows(&*store), 5000);
    assert_eq!(found(&it.table.view(), &eq("n", "-1"), "*"), ["o0001", "o2400", "o9999"]);
    it.run(configure(vec![]));
    settle(&mut it);
    assert_eq!(index_rows(&*store), 0);
}

#[test]
fn pages_go_on_behind_any_key_of_any_object() {
    let mut it = Fixture::new();
    it.run(configure(vec![by_path("n", "/n")]));
    settle(&mut it);
    for n in 0..20 {
        it.run(put(&format!("o{n:02}"), &format!("{{\"n\":{}}}", n % 3)));
        it.run(put(&format!("o{n:02}/e"), "x"));
        it.run(put(&format!("o{n:02}/f"), "x"));
    }
    let view = it.table.view();
    let (query, all) = (range("n", Bound::Unbounded, Bound::Unbounded), Selection::all());
    let whole: Vec<_> = view.find(&query, &all, None).unwrap().map(Result::unwrap).collect();
    assert_eq!(whole.len(), 60);
    for at in 0..60 {
        let (value, key, _) = whole[at].clone();
        let rest: Vec<_> = view.find(&query, &all, Some((value, key))).unwrap().map(Result::unwrap).collect();
        assert_eq!(rest, whole[at + 1..], "behind {at}");
    }
}

#[test]
fn steps_in_one_call_or_in_many_leave_the_same_rows() {
    let commands = || {
        let mut commands =
            vec![put("a", r#"{"n":1}"#), configure(vec![by_path("n", "/n"), by_entry("e", "e")])];
        for n in 0..1500 {
            commands.push(put(&format!("o{n}"), r#"{"n":2}"#));
            commands.push(put(&format!("o{n}/e"), "3"));
        }
        commands.push(Operation::Upkeep(Upkeep::IndexStep));
        commands.push(delete("o7"));
        commands.push(configure(vec![by_entry("e", "e")]));
        commands.extend((0..3).map(|_| Operation::Upkeep(Upkeep::IndexStep)));
        commands.push(put("a", r#"{"n":5}"#));
        commands
    };
    let command = |operation| Command { rid: None, operation };
    let (one, many) = (storage(), storage());
    let mut it = Fixture { table: ObjectTable::open(one.clone()).unwrap(), index: 0, time: NOW };
    it.apply(commands().into_iter().map(command).collect());
    let mut it = Fixture { table: ObjectTable::open(many.clone()).unwrap(), index: 0, time: NOW };
    for operation in commands() {
        it.run(operation);
    }
    let rows = |store: &dyn ApplicationDataStorage, keyspace| -> Vec<_> {
        let view = store.view();
        view.scan(keyspace, Bound::Unbounded, Bound::Unbounded, Direction::Forward)
            .map(Result::unwrap)
            .collect()
    };
    assert_eq!(rows(&*one, Keyspace::Index), rows(&*many, Keyspace::Index));
    let settings =
        |store: &dyn ApplicationDataStorage| store.view().get(Keyspace::Meta, b"settings").unwrap();
    assert_eq!(settings(&*one), settings(&*many));
}

#[test]
fn a_value_that_is_too_long_is_stored_and_in_no_index() {
    let mut it = Fixture::new();
    it.run(configure(vec![by_entry("e", "e")]));
    settle(&mut it);
    it.run(put("a/e", &"x".repeat(100_000)));
    it.run(put("b/e", "short"));
    let view = it.table.view();
    assert_eq!(found(&view, &range("e", Bound::Unbounded, Bound::Unbounded), "*/e"), ["b/e"]);
    assert_eq!(it.text("a/e").unwrap().len(), 100_000);
}
