//! The checker of linearizability, on histories known good and bad.

use odgm_shard::sim::history::{self, Action, Answer, Operation, Wanted};
use odgm_shard::sim::linearize::{Verdict, check};

/// An operation of a client from one moment to another.
fn operation(client: u64, span: (u64, u64), action: Action, answer: Answer) -> Operation {
    Operation { client, object: "alice".to_owned(), action, called: span.0, answered: span.1, answer }
}

fn put(client: u64, span: (u64, u64), value: &str, answer: Answer) -> Operation {
    let action = Action::Put { value: value.to_owned(), condition: Wanted::Nothing };
    operation(client, span, action, answer)
}

fn put_if(client: u64, span: (u64, u64), value: &str, condition: Wanted, answer: Answer) -> Operation {
    operation(client, span, Action::Put { value: value.to_owned(), condition }, answer)
}

fn read(client: u64, span: (u64, u64), answer: Answer) -> Operation {
    operation(client, span, Action::Read, answer)
}

fn delete(client: u64, span: (u64, u64), answer: Answer) -> Operation {
    operation(client, span, Action::Delete { if_revision: None }, answer)
}

fn increment(client: u64, span: (u64, u64), by: i64, answer: Answer) -> Operation {
    operation(client, span, Action::Increment { by }, answer)
}

fn done(revision: u64) -> Answer {
    Answer::Done { revision, value: None }
}

fn sum(revision: u64, value: &str) -> Answer {
    Answer::Done { revision, value: Some(value.to_owned()) }
}

fn value(value: &str, revision: u64) -> Answer {
    Answer::Value { value: value.to_owned(), revision }
}

#[track_caller]
fn good(history: &[Operation]) {
    assert_eq!(check(history), Verdict::Linearizable);
}

#[track_caller]
fn bad(history: &[Operation]) {
    assert!(matches!(check(history), Verdict::Violated(_)), "{:?}", check(history));
}

#[test]
fn a_read_sees_the_last_write_before_it() {
    good(&[put(1, (0, 1), "a", done(1)), put(1, (2, 3), "b", done(2)), read(2, (4, 5), value("b", 2))]);
}

#[test]
fn a_stale_read_is_found() {
    bad(&[put(1, (0, 1), "a", done(1)), put(1, (2, 3), "b", done(2)), read(2, (4, 5), value("a", 1))]);
}

#[test]
fn a_read_beside_a_write_may_see_either() {
    let write = put(1, (10, 20), "b", done(2));
    let first = put(1, (0, 1), "a", done(1));
    good(&[first.clone(), write.clone(), read(2, (11, 12), value("a", 1))]);
    good(&[first.clone(), write.clone(), read(2, (11, 12), value("b", 2))]);
    // But not the new one and then the old one.
    bad(&[first, write, read(2, (11, 12), value("b", 2)), read(2, (13, 14), value("a", 1))]);
}

#[test]
fn a_lost_write_is_found() {
    bad(&[put(1, (0, 1), "a", done(1)), read(2, (2, 3), Answer::Absent)]);
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_late_or_never() {
    let history = |answer| {
        [
            put(1, (0, 1), "a", done(1)),
            put(2, (2, 3), "b", Answer::Unknown),
            read(3, (4, 5), value("a", 1)),
            read(3, (100, 101), answer),
        ]
    };
    good(&history(value("b", 2)));
    good(&history(value("a", 1)));
    bad(&history(value("c", 2)));
    // Once seen it stays.
    let mut gone = history(value("b", 2)).to_vec();
    gone.push(read(3, (102, 103), value("a", 1)));
    bad(&gone);
}

#[test]
fn a_write_takes_no_effect_before_its_call() {
    bad(&[read(1, (0, 1), value("a", 1)), put(2, (2, 3), "a", done(1))]);
}

#[test]
fn what_was_refused_is_left_out() {
    good(&[put(1, (0, 1), "a", Answer::Refused), read(2, (2, 3), Answer::Absent)]);
    bad(&[put(1, (0, 1), "a", Answer::Refused), read(2, (2, 3), value("a", 1))]);
}

#[test]
fn conditions_hold_when_they_are_said_to() {
    let first = put(1, (0, 1), "a", done(1));
    let next = |condition, answer| [first.clone(), put_if(2, (2, 3), "b", condition, answer)];
    good(&next(Wanted::Revision(1), done(2)));
    bad(&next(Wanted::Revision(7), done(2)));
    good(&next(Wanted::Revision(7), Answer::Conflict { revision: 1 }));
    bad(&next(Wanted::Revision(1), Answer::Conflict { revision: 1 }));
    bad(&next(Wanted::Revision(7), Answer::Conflict { revision: 0 }));
    good(&next(Wanted::Absent, Answer::Exists { revision: 1 }));
    bad(&next(Wanted::Absent, done(2)));
    good(&next(Wanted::Present, done(2)));
    bad(&next(Wanted::Present, Answer::Absent));
}

#[test]
fn two_winners_of_one_condition_are_found() {
    let race = |second| {
        [
            put(1, (0, 1), "a", done(1)),
            put_if(1, (2, 9), "b", Wanted::Revision(1), done(2)),
            put_if(2, (2, 9), "c", Wanted::Revision(1), second),
        ]
    };
    good(&race(Answer::Conflict { revision: 2 }));
    bad(&race(done(3)));
}

#[test]
fn a_deleted_object_is_absent_until_it_is_put_again() {
    let history =
        |answer| [put(1, (0, 1), "a", done(1)), delete(1, (2, 3), done(2)), read(2, (4, 5), answer)];
    good(&history(Answer::Absent));
    bad(&history(value("a", 1)));
    let mut again = history(Answer::Absent).to_vec();
    again.push(put_if(1, (6, 7), "b", Wanted::Absent, done(3)));
    again.push(read(1, (8, 9), value("b", 3)));
    good(&again);
}

#[test]
fn an_increment_that_ran_twice_is_found() {
    good(&[increment(1, (0, 1), 2, sum(1, "2")), increment(2, (2, 3), 3, sum(2, "5"))]);
    bad(&[increment(1, (0, 1), 2, sum(1, "2")), increment(2, (2, 3), 3, sum(3, "7"))]);
    // One that nobody knows of may be in between.
    good(&[
        increment(1, (0, 1), 2, sum(1, "2")),
        increment(3, (0, 1), 2, Answer::Unknown),
        increment(2, (2, 3), 3, sum(3, "7")),
    ]);
}

#[test]
fn revisions_rise_with_the_order() {
    bad(&[put(1, (0, 1), "a", done(2)), put(1, (2, 3), "b", done(1))]);
}

#[test]
fn a_history_outlives_its_file() {
    let history = [put(1, (0, 1), "a", done(1)), read(2, (2, 3), Answer::Absent)];
    let mut file = Vec::new();
    history::write(&history, &mut file).unwrap();
    assert_eq!(history::read(&mut file.as_slice()).unwrap(), history);
    let broken = history::read(&mut &b"{}\n"[..]).unwrap_err();
    assert!(broken.to_string().contains("line 1"), "{broken}");
}

/// Clients that overlap, over a register that is atomic in the middle of each call.
fn atomic(seed: u64, operations: u64, unknown: bool) -> Vec<Operation> {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    let mut random = StdRng::seed_from_u64(seed);
    let (mut present, mut revision) = (None::<(String, u64)>, 0);
    let mut history = Vec::new();
    for at in 1..=operations {
        let span = (at * 10 - random.random_range(0..40).min(at * 10), at * 10 + random.random_range(1..40));
        let client = at;
        let lost = unknown && random.random_bool(0.2);
        let answer = |answer| if lost { Answer::Unknown } else { answer };
        history.push(match random.random_range(0..4) {
            0 => {
                revision += 1;
                present = Some((format!("v{at}"), revision));
                put(client, span, &format!("v{at}"), answer(done(revision)))
            }
            1 if present.is_some() => {
                revision += 1;
                present = None;
                delete(client, span, answer(done(revision)))
            }
            2 => {
                let wanted = present.as_ref().map_or(0, |(_, revision)| *revision);
                revision += 1;
                present = Some((format!("w{at}"), revision));
                put_if(client, span, &format!("w{at}"), Wanted::Revision(wanted), answer(done(revision)))
            }
            _ => {
                let seen = present.clone().map_or(Answer::Absent, |(seen, revision)| value(&seen, revision));
                read(client, span, answer(seen))
            }
        });
    }
    history
}

#[test]
fn histories_of_an_atomic_register_are_linearizable() {
    for seed in 0..100 {
        assert_eq!(check(&atomic(seed, 120, seed % 2 == 0)), Verdict::Linearizable, "seed {seed}");
    }
}

#[test]
fn a_read_of_the_past_in_a_long_history_is_found() {
    for seed in 0..50 {
        let mut history = atomic(seed, 80, false);
        let put_at = history.iter().position(|op| matches!(op.answer, Answer::Done { .. })).unwrap();
        let Answer::Done { revision, .. } = history[put_at].answer else { unreachable!() };
        let Action::Put { value: old, .. } = history[put_at].action.clone() else { continue };
        let end = history.iter().map(|op| op.answered).max().unwrap();
        let answered_later = history.iter().any(|op| {
            op.called > history[put_at].answered
                && matches!((&op.action, &op.answer), (Action::Put { .. }, Answer::Done { .. }))
        });
        assert!(answered_later, "seed {seed} writes once");
        history.push(read(999, (end + 1, end + 2), value(&old, revision)));
        assert!(matches!(check(&history), Verdict::Violated(_)), "seed {seed}");
    }
}
