//! What each command does: the lines of the contract's sections 1 and 4.

use odgm_shard::state::{
    ChangeKind, Check, CheckKind, Condition, Operation, Outcome, Refusal, Step, TxnDone,
};

use super::{Fixture, delete, done, increment, key, path, put, put_if, value};

#[test]
fn every_change_takes_the_next_revision() {
    let mut it = Fixture::new();
    assert_eq!(done(&it.run(put("a", "1")).0), (1, 1, 1));
    assert_eq!(done(&it.run(put("b", "1")).0), (2, 2, 1));
    assert_eq!(done(&it.run(put("a", "2")).0), (3, 1, 2));
    assert_eq!(it.table.view().revision(), 3);
}

#[test]
fn a_change_of_an_entry_changes_its_objects_numbers() {
    let mut it = Fixture::new();
    it.run(put("a", "1"));
    it.run(put("a/e", "1"));
    assert_eq!(it.numbers("a"), Some((2, 1, 2)));
    let record = it.table.view().get(&key("a")).unwrap().unwrap();
    assert_eq!((record.revision, record.created_revision, record.version), (2, 1, 2));
}

#[test]
fn commit_times_are_unique_and_increase_even_when_the_clock_goes_back() {
    let mut it = Fixture::new();
    let mut times = Vec::new();
    for back in 0..4 {
        it.time -= back;
        times.extend(it.run(put("a", "x")).1.iter().map(|change| change.time));
    }
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
}

#[test]
fn deleting_an_object_deletes_its_entries_by_name_and_then_its_value() {
    let mut it = Fixture::new();
    for path in ["a/z", "a", "a/b", "ab", "a/a"] {
        it.run(put(path, "x"));
    }
    let (outcome, changes) = it.run(delete("a"));
    let gone: Vec<_> = changes.iter().map(|change| (path(&change.key), change.revision)).collect();
    let expected = [("a/a", 6), ("a/b", 7), ("a/z", 8), ("a", 9)];
    assert_eq!(gone, expected.map(|(path, revision)| (path.to_owned(), revision)));
    assert!(changes.iter().all(|change| change.kind == ChangeKind::Delete));
    assert_eq!(changes.iter().map(|change| change.version).collect::<Vec<_>>(), [5, 6, 7, 8]);
    assert_eq!(done(&outcome), (9, 1, 8));
    assert_eq!(it.numbers("a"), None);
    assert_eq!(it.text("a/b"), None);
    assert_eq!(it.text("ab").as_deref(), Some("x"));
}

#[test]
fn deleting_what_is_absent_succeeds_without_revision_or_change() {
    let mut it = Fixture::new();
    it.run(put("a", "x"));
    for path in ["b", "b/e", "a/e"] {
        let (outcome, changes) = it.run(delete(path));
        assert_eq!(done(&outcome).0, 1);
        assert!(changes.is_empty());
    }
    assert_eq!(it.table.view().revision(), 1);
}

#[test]
fn deleting_an_absent_entry_answers_with_its_objects_numbers() {
    let mut it = Fixture::new();
    it.run(put("a", "x"));
    it.run(put("b", "x"));
    let (outcome, _) = it.run(delete("a/e"));
    assert_eq!(done(&outcome), (1, 1, 1));
    assert!(matches!(it.run(put_if("a", "y", Condition::Revision(1))).0, Outcome::Done(_)));
}

#[test]
fn an_object_ends_with_its_last_key_and_begins_anew() {
    let mut it = Fixture::new();
    it.run(put("a/e", "x"));
    it.run(delete("a/e"));
    assert_eq!(it.numbers("a"), None);
    assert_eq!(done(&it.run(put("a", "y")).0), (3, 3, 1));
}

#[test]
fn an_object_without_own_value_exists_by_its_entries() {
    let mut it = Fixture::new();
    it.run(put("a/e", "x"));
    it.run(put("a/f", "x"));
    it.run(put("a/f", "y"));
    assert_eq!(it.text("a"), None);
    let head = it.table.view().head(&key("a").object).unwrap().unwrap();
    assert_eq!((head.entries, head.has_value), (2, false));
    let (outcome, _) = it.run(put_if("a", "x", Condition::Present));
    assert_eq!(outcome, Outcome::Refused(Refusal::NotFound { entries: 2 }));
    assert_eq!(done(&it.run(put_if("a", "x", Condition::Absent)).0).0, 4);
}

#[test]
fn conditions_hold_the_objects_revision_and_the_keys_presence() {
    let mut it = Fixture::new();
    it.run(put("a", "1"));
    it.run(put("a/e", "1"));
    let refused = |outcome| Outcome::Refused(outcome);
    let conflict = refused(Refusal::Conflict { revision: 2 });
    assert_eq!(it.run(put_if("a", "2", Condition::Revision(1))).0, conflict);
    assert_eq!(it.run(Operation::Delete { key: key("a/e"), if_revision: Some(1) }).0, conflict);
    let absent = refused(Refusal::Conflict { revision: 0 });
    assert_eq!(it.run(put_if("b", "2", Condition::Revision(9))).0, absent);
    let exists = refused(Refusal::Exists { revision: 2 });
    assert_eq!(it.run(put_if("a/e", "2", Condition::Absent)).0, exists);
    let missing = refused(Refusal::NotFound { entries: 1 });
    assert_eq!(it.run(put_if("a/f", "2", Condition::Present)).0, missing);
    assert_eq!(it.table.view().revision(), 2);
    assert_eq!(done(&it.run(put_if("a/f", "2", Condition::Revision(2))).0).0, 3);
    assert_eq!(done(&it.run(put_if("a/f", "3", Condition::Present)).0).0, 4);
    assert_eq!(done(&it.run(put_if("b", "2", Condition::Revision(0))).0).0, 5);
}

#[test]
fn increment_counts_from_zero_and_answers_the_new_value() {
    let mut it = Fixture::new();
    for (by, sum) in [(5, "5"), (-7, "-2"), (i64::MAX, "9223372036854775805")] {
        let (outcome, _) = it.run(increment("n", by));
        let Outcome::Done(done) = outcome else { panic!("{outcome:?}") };
        assert_eq!(done.value.unwrap(), sum);
        assert_eq!(it.text("n").as_deref(), Some(sum));
    }
}

#[test]
fn a_bad_increment_changes_nothing() {
    let mut it = Fixture::new();
    it.run(put("text", "12x"));
    it.run(put("max", &i64::MAX.to_string()));
    for path in ["text", "max"] {
        let (outcome, changes) = it.run(increment(path, 1));
        assert!(matches!(outcome, Outcome::Refused(Refusal::BadIncrement { .. })), "{outcome:?}");
        assert!(changes.is_empty());
    }
    assert_eq!(it.table.view().revision(), 2);
    assert_eq!(it.text("text").as_deref(), Some("12x"));
}

fn txn(checks: Vec<(&str, CheckKind)>, then: Vec<Step>, otherwise: Vec<Step>) -> Operation {
    let checks = checks.into_iter().map(|(path, kind)| Check { key: key(path), kind }).collect();
    Operation::Txn { checks, then, otherwise }
}

fn put_step(path: &str, text: &str) -> Step {
    Step::Put { key: key(path), value: value(text), ttl_ms: None }
}

fn txn_done(outcome: Outcome) -> TxnDone {
    match outcome {
        Outcome::Txn(done) => done,
        other => panic!("no transaction: {other:?}"),
    }
}

#[test]
fn a_transaction_takes_one_revision_for_each_key_that_it_changes() {
    let mut it = Fixture::new();
    it.run(put("gone", "x"));
    it.run(put("gone/e", "x"));
    let steps = vec![
        put_step("a", "1"),
        Step::Delete { key: key("gone") },
        Step::Delete { key: key("absent") },
        Step::Increment { key: key("n"), by: 2 },
    ];
    let (outcome, changes) = it.run(txn(vec![], steps, vec![]));
    let done = txn_done(outcome);
    assert!(done.then);
    assert_eq!(done.revision, 6);
    let revisions: Vec<_> = done.results.iter().map(|step| step.done.revision).collect();
    assert_eq!(revisions, [3, 5, 5, 6]);
    assert_eq!(done.results[3].done.value.as_deref(), Some(&b"2"[..]));
    assert_eq!(changes.iter().map(|change| change.revision).collect::<Vec<_>>(), [3, 4, 5, 6]);
}

#[test]
fn a_transactions_checks_choose_its_branch() {
    let mut it = Fixture::new();
    it.run(put("a", "1"));
    it.run(put("b/e", "1"));
    let holding = [
        ("a", CheckKind::Revision(1)),
        ("none", CheckKind::Revision(0)),
        ("a", CheckKind::Value("1".into())),
        ("b", CheckKind::Present),
        ("b/f", CheckKind::Absent),
        ("none", CheckKind::Absent),
    ];
    let failing = [
        ("a", CheckKind::Revision(2)),
        ("a", CheckKind::Value("2".into())),
        ("none", CheckKind::Value("".into())),
        ("b", CheckKind::Absent),
        ("b/e", CheckKind::Absent),
        ("b/f", CheckKind::Present),
    ];
    for check in holding.clone() {
        assert!(txn_done(it.run(txn(vec![check.clone()], vec![], vec![])).0).then, "{check:?}");
    }
    for check in failing {
        let mut checks = holding.to_vec();
        checks.push(check.clone());
        let done = txn_done(it.run(txn(checks, vec![put_step("x", "then")], vec![])).0);
        assert_eq!((done.then, done.revision), (false, 2), "{check:?}");
    }
    let done = txn_done(it.run(txn(vec![("a", CheckKind::Absent)], vec![], vec![put_step("x", "else")])).0);
    assert_eq!((done.then, done.revision), (false, 3));
    assert_eq!(it.text("x").as_deref(), Some("else"));
}

#[test]
fn a_transaction_with_a_bad_increment_leaves_no_trace() {
    let mut it = Fixture::new();
    it.run(put("text", "x"));
    it.run(put("gone", "x"));
    it.run(put("gone/e", "x"));
    let steps = vec![
        put_step("new", "1"),
        put_step("gone/f", "1"),
        Step::Delete { key: key("gone/e") },
        Step::Increment { key: key("text"), by: 1 },
    ];
    // In one call with what follows, so that a trace in memory would show too.
    let commands = [txn(vec![], steps, vec![]), put("after", "x"), delete("gone")];
    let command = |operation| odgm_shard::state::Command { rid: None, operation };
    let applied = it.apply(commands.map(command).to_vec());
    let outcomes = &applied.outcomes[0];
    assert!(matches!(outcomes[0], Outcome::Refused(Refusal::BadIncrement { .. })));
    assert_eq!(done(&outcomes[1]), (4, 4, 1));
    let changed: Vec<_> = applied.changes.iter().map(|change| path(&change.key)).collect();
    assert_eq!(changed, ["after", "gone/e", "gone"]);
    assert_eq!(applied.changes[0].revision, 4);
    assert_eq!((it.text("new"), it.text("gone/f"), it.numbers("gone")), (None, None, None));
}

#[test]
fn commands_of_one_call_see_each_others_effects() {
    let mut it = Fixture::new();
    let command = |operation| odgm_shard::state::Command { rid: None, operation };
    let commands = [
        put("a/x", "1"),
        put_if("a/x", "2", Condition::Absent),
        increment("a/x", 4),
        delete("a"),
        put_if("a", "3", Condition::Revision(0)),
    ];
    let applied = it.apply(commands.map(command).to_vec());
    let outcomes = &applied.outcomes[0];
    assert_eq!(outcomes[1], Outcome::Refused(Refusal::Exists { revision: 1 }));
    assert_eq!(done(&outcomes[3]), (3, 1, 3));
    assert_eq!(done(&outcomes[4]), (4, 4, 1));
    assert_eq!(it.text("a").as_deref(), Some("3"));
    assert_eq!(it.text("a/x"), None);
}

#[test]
fn an_increment_keeps_encoding_attachment_and_expiry_and_a_put_clears_them() {
    let mut it = Fixture::new();
    let mut counter = value("1");
    counter.encoding = "text/plain;mine".into();
    counter.attachment = Some("tag".into());
    it.run(Operation::Put { key: key("n"), value: counter, ttl_ms: Some(500), condition: Condition::None });
    it.run(increment("n", 1));
    let record = it.table.view().get(&key("n")).unwrap().unwrap();
    assert_eq!(record.value.encoding, "text/plain;mine");
    assert_eq!(record.value.attachment.as_deref(), Some(&b"tag"[..]));
    assert_eq!(record.expires_unix_ms, 1_800_000_000_500);
    it.run(put("n", "3"));
    let record = it.table.view().get(&key("n")).unwrap().unwrap();
    assert_eq!((record.expires_unix_ms, record.value.attachment), (0, None));
}
