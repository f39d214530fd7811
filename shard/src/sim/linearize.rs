//! Whether the history of one object is linearizable: the search of Wing and Gong (1993) with Lowe's memory of
//! configurations that have failed (2017), for a register with conditions, deletes and increments.
//!
//! Why not a crate: `stateright`'s tester has neither that memory nor operations that may never have happened,
//! and `todc-utils`' takes complete histories only; in ours a crash leaves operations of unknown outcome, and
//! a revision in an answer prunes nearly all orders.

use std::collections::HashSet;

use super::history::{Action, Answer, Operation, Wanted};

/// Steps after which the search gives up.
const MOST_STEPS: u64 = 3_000_000;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none; where the search came furthest.
    Violated(String),
    /// The search gave up.
    Undecided,
}

/// The object between two operations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Object {
    value: Option<String>,
    /// That of the last change; `None` after one whose answer is not known.
    revision: Option<u64>,
    /// The greatest revision that is known to have passed.
    floor: u64,
}

/// Checks the operations of one object, in any order.
///
/// An operation that was [`Answer::Refused`] is left out: others see to it that it has no effect.
pub fn check(history: &[Operation]) -> Verdict {
    let reads_nothing = |operation: &&Operation| {
        let unknown = operation.answer == Answer::Unknown;
        operation.answer != Answer::Refused && !(unknown && operation.action == Action::Read)
    };
    let mut operations: Vec<&Operation> = history.iter().filter(reads_nothing).collect();
    operations.sort_by_key(|operation| operation.called);
    Search::new(&operations).run()
}

fn end_of(operation: &Operation) -> u64 {
    if operation.answer == Answer::Unknown { u64::MAX } else { operation.answered }
}

struct Search<'a> {
    operations: &'a [&'a Operation],
    taken: Vec<u64>,
    failed: HashSet<(Vec<u64>, Object)>,
    steps: u64,
    /// The most answered operations that could be ordered, and the state then.
    furthest: (usize, String),
}

/// An operation that was put next, and what to go back to.
struct Choice {
    index: usize,
    before: Object,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [&'a Operation]) -> Self {
        Search {
            operations,
            taken: vec![0; operations.len().div_ceil(64)],
            failed: HashSet::new(),
            steps: 0,
            furthest: (0, String::new()),
        }
    }

    fn is_taken(&self, index: usize) -> bool {
        self.taken[index / 64] & (1 << (index % 64)) != 0
    }

    fn flip(&mut self, index: usize) {
        self.taken[index / 64] ^= 1 << (index % 64);
    }

    fn run(mut self) -> Verdict {
        let answered = self.operations.iter().filter(|op| op.answer != Answer::Unknown).count();
        let mut object = Object { value: None, revision: Some(0), floor: 0 };
        let mut chosen: Vec<Choice> = Vec::new();
        let (mut from, mut done) = (0, 0);
        loop {
            if done == answered {
                return Verdict::Linearizable;
            }
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return Verdict::Undecided;
            }
            match self.next(&object, from) {
                Some((index, after)) => {
                    done += usize::from(self.operations[index].answer != Answer::Unknown);
                    chosen.push(Choice { index, before: std::mem::replace(&mut object, after) });
                    from = 0;
                    if done > self.furthest.0 {
                        self.furthest = (done, format!("{object:?}"));
                    }
                }
                None => {
                    let Some(Choice { index, before }) = chosen.pop() else {
                        return Verdict::Violated(self.explain(answered));
                    };
                    self.flip(index);
                    done -= usize::from(self.operations[index].answer != Answer::Unknown);
                    object = before;
                    from = index + 1;
                }
            }
        }
    }

    /// The first operation at or behind `from` that may come next: it was called before any that is left had
    /// its answer, and its answer fits.
    fn next(&mut self, object: &Object, from: usize) -> Option<(usize, Object)> {
        let left = (0..self.operations.len()).filter(|index| !self.is_taken(*index));
        let limit = left.clone().map(|index| end_of(self.operations[index])).min()?;
        let candidates: Vec<usize> = left
            .take_while(|index| self.operations[*index].called <= limit)
            .filter(|index| *index >= from)
            .collect();
        for index in candidates {
            let Some(after) = step(object, self.operations[index]) else { continue };
            self.flip(index);
            if self.failed.insert((self.taken.clone(), after.clone())) {
                return Some((index, after));
            }
            self.flip(index);
        }
        None
    }

    fn explain(&self, answered: usize) -> String {
        let (done, state) = &self.furthest;
        format!("no order explains more than {done} of {answered} answers; the state there: {state}")
    }
}

/// The object after an operation; `None` when its answer does not fit.
fn step(object: &Object, operation: &Operation) -> Option<Object> {
    let same = || Some(object.clone());
    let present = object.value.is_some();
    match (&operation.action, &operation.answer) {
        (Action::Read, Answer::Value { value, revision }) => {
            (object.value.as_ref() == Some(value)).then_some(())?;
            bound(object, *revision)
        }
        (Action::Read, Answer::Absent) => (!present).then(|| object.clone()),
        (Action::Put { condition: Wanted::Present, .. }, Answer::Absent) => {
            (!present).then(|| object.clone())
        }
        (Action::Put { condition: Wanted::Absent, .. }, Answer::Exists { revision }) => {
            present.then_some(())?;
            bound(object, *revision)
        }
        (Action::Put { condition: Wanted::Revision(wanted), .. }, Answer::Conflict { revision })
        | (Action::Delete { if_revision: Some(wanted) }, Answer::Conflict { revision }) => {
            (wanted != revision).then_some(())?;
            match (present, *revision) {
                (false, 0) => same(),
                (true, revision) if revision > 0 => bound(object, revision),
                _ => None,
            }
        }
        (Action::Put { value, condition }, Answer::Done { revision, .. }) => {
            let object = allowed(object, *condition)?;
            changed(&object, Some(value.clone()), Some(*revision))
        }
        (Action::Put { value, condition }, Answer::Unknown) => match allowed(object, *condition) {
            Some(object) => changed(&object, Some(value.clone()), None),
            None => same(),
        },
        (Action::Delete { if_revision }, answer @ (Answer::Done { .. } | Answer::Unknown)) => {
            let condition = if_revision.map_or(Wanted::Nothing, Wanted::Revision);
            match (allowed(object, condition), answer) {
                (None, Answer::Unknown) => same(),
                (None, _) => None,
                (Some(object), _) if object.value.is_none() => Some(object),
                (Some(object), Answer::Done { revision, .. }) => changed(&object, None, Some(*revision)),
                (Some(object), _) => changed(&object, None, None),
            }
        }
        (Action::Increment { by }, answer) => {
            let sum = match &object.value {
                None => Some(*by),
                Some(text) => text.parse::<i64>().ok().and_then(|number| number.checked_add(*by)),
            };
            let sum = sum.map(|sum| sum.to_string());
            match answer {
                Answer::Unknown => match sum {
                    Some(sum) => changed(object, Some(sum), None),
                    None => same(),
                },
                Answer::Done { revision, value } if sum.is_some() && *value == sum => {
                    changed(object, sum, Some(*revision))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The object, when it has this revision or its revision is not known.
fn bound(object: &Object, revision: u64) -> Option<Object> {
    match object.revision {
        Some(known) => (known == revision).then(|| object.clone()),
        None if revision <= object.floor => None,
        None => Some(Object { revision: Some(revision), floor: revision, ..object.clone() }),
    }
}

/// The object, when a condition holds or may hold.
fn allowed(object: &Object, condition: Wanted) -> Option<Object> {
    let present = object.value.is_some();
    match condition {
        Wanted::Nothing => Some(object.clone()),
        Wanted::Absent => (!present).then(|| object.clone()),
        Wanted::Present => present.then(|| object.clone()),
        Wanted::Revision(0) => (!present).then(|| object.clone()),
        Wanted::Revision(revision) => present.then_some(()).and_then(|()| bound(object, revision)),
    }
}

fn changed(object: &Object, value: Option<String>, revision: Option<u64>) -> Option<Object> {
    if revision.is_some_and(|revision| revision <= object.floor) {
        return None;
    }
    let floor = revision.unwrap_or(object.floor);
    Some(Object { value, revision, floor })
}
