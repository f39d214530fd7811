//! Positions, memberships and views of the table.

use odgm_shard::state::{Command, Input, ObjectTable, Position};

use super::{Fixture, NOW, batch, key, put, storage};

fn at(index: u64) -> Position {
    Position { term: 2, index }
}

fn command(text: &str) -> Vec<Command> {
    vec![Command { rid: None, operation: put("a", text) }]
}

#[test]
fn the_applied_position_and_membership_are_found_again() {
    let store = storage();
    let mut table = ObjectTable::open(store.clone()).unwrap();
    assert_eq!((table.applied(), table.membership()), (None, None));
    let inputs = vec![
        (at(1), Input::Membership("one".into())),
        (at(2), batch(NOW, command("x"))),
        (at(3), Input::Membership("two".into())),
        (at(4), Input::Blank),
    ];
    let applied = table.apply(inputs).unwrap();
    assert_eq!(applied.outcomes.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 0, 0]);
    table.apply(vec![(at(5), Input::Blank)]).unwrap();
    let table = ObjectTable::open(store).unwrap();
    assert_eq!((table.applied(), table.membership()), (Some(at(5)), Some("two".into())));
}

#[test]
fn an_input_that_was_applied_before_is_a_fault_and_changes_nothing() {
    let mut table = ObjectTable::open(storage()).unwrap();
    table.apply(vec![(at(7), batch(NOW, command("x")))]).unwrap();
    for inputs in [
        vec![(at(7), batch(NOW, command("y")))],
        vec![(at(8), batch(NOW, command("y"))), (at(8), Input::Blank)],
    ] {
        table.apply(inputs).unwrap_err();
        assert_eq!(table.applied(), Some(at(7)));
        assert_eq!(table.view().revision(), 1);
    }
    table.apply(vec![(at(8), batch(NOW, command("z")))]).unwrap();
    assert_eq!(table.view().revision(), 2);
}

#[test]
fn a_view_holds_one_moment_and_needs_no_table() {
    let mut it = Fixture::new();
    let views = it.table.views();
    it.run(put("a", "1"));
    let before = views.view();
    it.run(put("a", "2"));
    it.run(put("b", "2"));
    assert_eq!(before.revision(), 1);
    assert_eq!(before.get(&key("a")).unwrap().unwrap().value.payload, "1");
    assert_eq!(before.get(&key("b")).unwrap(), None);
    assert_eq!(views.view().revision(), 3);
}

#[test]
fn a_record_of_an_unknown_format_is_refused_and_named() {
    let store = storage();
    let mut rows = odgm_storage::data::WriteBatch::default();
    rows.put(odgm_storage::data::Keyspace::Meta, &b"counters"[..], &[9_u8, 0][..]);
    store.write(rows, odgm_storage::data::Durability::Now).unwrap();
    let error = ObjectTable::open(store).unwrap_err().to_string();
    assert!(error.contains("format 9"), "{error}");
}
