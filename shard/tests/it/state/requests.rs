//! Request ids: the first answer, within the window, whatever happens in between.

use odgm_shard::state::{Condition, ObjectTable, Outcome, Position, Refusal};

use super::{Fixture, SECOND, done, increment, put, put_if, storage};

#[test]
fn a_repeat_gets_the_first_answer_and_runs_once() {
    let mut it = Fixture::new();
    let (first, _) = it.with_rid("r", increment("n", 1));
    it.run(put("other", "x"));
    let (again, changes) = it.with_rid("r", increment("n", 1));
    assert_eq!(first, again);
    assert!(changes.is_empty());
    assert_eq!(it.text("n").as_deref(), Some("1"));
}

#[test]
fn a_refusal_is_remembered_too() {
    let mut it = Fixture::new();
    let conditional = || put_if("a", "x", Condition::Present);
    let (first, _) = it.with_rid("r", conditional());
    assert_eq!(first, Outcome::Refused(Refusal::NotFound { entries: 0 }));
    it.run(put("a", "now it would succeed"));
    assert_eq!(it.with_rid("r", conditional()).0, first);
}

#[test]
fn the_same_rid_with_another_command_is_refused_and_forgets_nothing() {
    let mut it = Fixture::new();
    let (first, _) = it.with_rid("r", put("a", "1"));
    for other in [put("a", "2"), put("b", "1"), increment("a", 1)] {
        assert_eq!(it.with_rid("r", other).0, Outcome::Refused(Refusal::RidReused));
    }
    assert_eq!(it.with_rid("r", put("a", "1")).0, first);
    assert_eq!(it.table.view().revision(), 1);
}

#[test]
fn a_repeat_within_one_call_is_found() {
    let mut it = Fixture::new();
    let command = || odgm_shard::state::Command { rid: Some("r".into()), operation: increment("n", 1) };
    let applied = it.apply(vec![command(), command()]);
    assert_eq!(applied.outcomes[0][0], applied.outcomes[0][1]);
    assert_eq!(it.text("n").as_deref(), Some("1"));
}

#[test]
fn a_rid_is_forgotten_after_the_window_by_log_time() {
    let mut it = Fixture::new();
    it.with_rid("r", increment("n", 1));
    it.time += 60 * SECOND;
    it.with_rid("r", increment("n", 1));
    assert_eq!(it.text("n").as_deref(), Some("1"), "still within the window");
    it.time += 1;
    it.with_rid("r", increment("n", 1));
    assert_eq!(it.text("n").as_deref(), Some("2"), "out of the window");
    it.time += 60 * SECOND;
    it.with_rid("r", increment("n", 1));
    assert_eq!(it.text("n").as_deref(), Some("2"), "within the window of the second");
    // A clock that went back moves nothing.
    it.time -= 1000 * SECOND;
    it.with_rid("r", increment("n", 1));
    assert_eq!(it.text("n").as_deref(), Some("2"));
}

#[test]
fn forgotten_requests_leave_no_rows_behind() {
    let store = storage();
    let mut it = Fixture { table: ObjectTable::open(store.clone()).unwrap(), index: 0, time: super::NOW };
    for n in 0..100 {
        it.with_rid(&format!("r{n}"), put("a", "x"));
    }
    let full = store.size_bytes();
    it.time += 61 * SECOND;
    for _ in 0..50 {
        it.run(put("a", "x"));
    }
    let rows = |keyspace| {
        use std::ops::Bound::Unbounded;
        let view = store.view();
        view.scan(keyspace, Unbounded, Unbounded, odgm_storage::data::Direction::Forward).count()
    };
    assert_eq!(rows(odgm_storage::data::Keyspace::Index), 0);
    assert!(store.size_bytes() < full);
}

#[test]
fn answers_survive_a_reopen() {
    let store = storage();
    let mut it = Fixture { table: ObjectTable::open(store.clone()).unwrap(), index: 0, time: super::NOW };
    let (first, _) = it.with_rid("r", increment("n", 1));
    let mut it = Fixture { table: ObjectTable::open(store).unwrap(), ..it };
    assert_eq!(it.table.applied(), Some(Position { term: 1, index: 1 }));
    assert_eq!(it.with_rid("r", increment("n", 1)).0, first);
    assert_eq!(done(&it.run(increment("n", 1)).0), (2, 1, 2));
}
