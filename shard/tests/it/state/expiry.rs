//! Time to live: by log time, decided where the command is applied.

use odgm_shard::state::{ChangeKind, Condition, Due, Operation, Outcome, Refusal, Upkeep};

use super::{Fixture, SECOND, delete, done, increment, key, path, put, value};

const NOW_MS: u64 = 1_800_000_000_000;

fn put_for(path: &str, text: &str, ttl_ms: u64) -> Operation {
    Operation::Put { key: key(path), value: value(text), ttl_ms: Some(ttl_ms), condition: Condition::None }
}

fn touch(path: &str, ttl_ms: Option<u64>) -> Operation {
    Operation::Touch { key: key(path), ttl_ms }
}

fn expire(due: &[(&str, u64)]) -> Operation {
    let due =
        due.iter().map(|(path, expires_unix_ms)| Due { key: key(path), expires_unix_ms: *expires_unix_ms });
    Operation::Upkeep(Upkeep::Expire(due.collect()))
}

fn deadlines(it: &Fixture) -> Vec<(String, u64)> {
    let due = it.table.view().due(0, u64::MAX, 100).unwrap();
    due.iter().map(|due| (path(&due.key), due.expires_unix_ms - NOW_MS)).collect()
}

#[test]
fn deadlines_stand_in_their_order_and_follow_every_write() {
    let mut it = Fixture::new();
    it.run(put_for("a", "x", 3000));
    it.run(put_for("b", "x", 1000));
    it.run(put_for("a/e", "x", 2000));
    assert_eq!(deadlines(&it), [("b".into(), 1000), ("a/e".into(), 2000), ("a".into(), 3000)]);
    it.time += SECOND;
    it.run(put_for("b", "y", 1500));
    it.run(touch("a/e", Some(500)));
    it.run(increment("n", 1));
    assert_eq!(deadlines(&it), [("a/e".into(), 1500), ("b".into(), 2500), ("a".into(), 3000)]);
    it.run(put("a", "a put without ttl clears it"));
    it.run(touch("b", None));
    assert_eq!(deadlines(&it), [("a/e".into(), 1500)]);
    it.run(delete("a"));
    assert!(deadlines(&it).is_empty());
}

#[test]
fn touch_is_a_put_event_of_the_unchanged_value() {
    let mut it = Fixture::new();
    it.run(put("a", "kept"));
    let (outcome, changes) = it.run(touch("a", Some(700)));
    assert_eq!(done(&outcome), (2, 1, 2));
    assert_eq!(changes[0].kind, ChangeKind::Put(value("kept")));
    assert_eq!(changes[0].expires_unix_ms, NOW_MS + 700);
    it.run(put("b/e", "x"));
    let (outcome, changes) = it.run(touch("b", Some(700)));
    assert_eq!((outcome, changes), (Outcome::Refused(Refusal::NotFound { entries: 1 }), vec![]));
}

#[test]
fn only_what_is_due_by_log_time_and_unchanged_is_deleted() {
    let mut it = Fixture::new();
    it.run(put_for("over", "x", 1000));
    it.run(put_for("later", "x", 9000));
    it.run(put_for("touched", "x", 1000));
    it.run(put("stays", "x"));
    let due = [
        ("over", NOW_MS + 1000),
        ("later", NOW_MS + 9000),
        ("touched", NOW_MS + 1000),
        ("stays", 0),
        ("absent", NOW_MS + 1000),
    ];
    // Log time is not there yet, whatever the one who asks saw on its clock.
    assert!(it.run(expire(&due)).1.is_empty());
    it.time += 2 * SECOND;
    it.run(touch("touched", Some(1000)));
    let (_, changes) = it.run(expire(&due));
    let gone: Vec<_> = changes.iter().map(|change| (path(&change.key), change.kind.clone())).collect();
    assert_eq!(gone, [("over".to_owned(), ChangeKind::Delete)]);
    assert_eq!(it.text("over"), None);
    assert_eq!(deadlines(&it), [("touched".into(), 3000), ("later".into(), 9000)]);
    // A repeat finds nothing, and takes no revision.
    assert!(it.run(expire(&due)).1.is_empty());
    assert_eq!(it.table.view().revision(), 6);
}

#[test]
fn an_object_expires_with_its_entries_and_an_entry_alone() {
    let mut it = Fixture::new();
    it.run(put_for("a", "x", 1000));
    it.run(put("a/e", "x"));
    it.run(put("b", "x"));
    it.run(put_for("b/e", "x", 1000));
    it.run(put("b/f", "x"));
    it.time += SECOND;
    let (_, changes) = it.run(expire(&[("a", NOW_MS + 1000), ("b/e", NOW_MS + 1000)]));
    let gone: Vec<_> = changes.iter().map(|change| path(&change.key)).collect();
    assert_eq!(gone, ["a/e", "a", "b/e"]);
    assert_eq!((it.text("b").as_deref(), it.text("b/f").as_deref()), (Some("x"), Some("x")));
    assert!(deadlines(&it).is_empty());
}

#[test]
fn a_transaction_that_is_refused_leaves_deadlines_as_they_were() {
    use odgm_shard::state::Step;
    let mut it = Fixture::new();
    it.run(put_for("a", "no number", 1000));
    let steps = vec![
        Step::Put { key: key("b"), value: value("x"), ttl_ms: Some(500) },
        Step::Increment { key: key("a"), by: 1 },
    ];
    let refused = it.run(Operation::Txn { checks: vec![], then: steps, otherwise: vec![] }).0;
    assert!(matches!(refused, Outcome::Refused(Refusal::BadIncrement { .. })));
    assert_eq!(deadlines(&it), [("a".into(), 1000)]);
}
