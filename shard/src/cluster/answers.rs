//! What administration answered lately, by request id: a record of its own, changed in the same transaction as
//! what the answer is about, so that a repeat on whatever node gets the first answer or runs first.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cluster::map::{ClusterMap, Revised};
use crate::cluster::records;
use crate::state::Operation;

/// Answers that are kept at most; the oldest go first.
const MOST: usize = 128;

/// The record: the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Answers {
    given: Vec<Answered>,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Its id.
    pub rid: String,
    /// What it asked for: two requests are the same when this is.
    pub command: String,
    /// When, Unix milliseconds.
    pub unix_ms: u64,
    /// What was answered.
    pub answer: FirstAnswer,
}

/// An answer that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstAnswer {
    /// It is done, with this result.
    Done(Value),
    /// It was refused for what the records held.
    Refused {
        /// The code on the wire.
        code: String,
        /// In words.
        message: String,
    },
}

impl Answers {
    /// The answer to a request id within the window before now.
    pub fn first(&self, rid: &str, now_ms: u64, window_ms: u64) -> Option<&Answered> {
        let since = now_ms.saturating_sub(window_ms);
        self.given.iter().rev().find(|answered| answered.rid == rid && answered.unix_ms >= since)
    }
}

/// The transaction that also remembers an answer, and forgets what is older than the window.
#[must_use]
pub fn remember(map: &ClusterMap, operation: Operation, answered: Answered, window_ms: u64) -> Operation {
    let Operation::Txn { mut checks, mut then, otherwise } = operation else { return operation };
    let before = map.answers.as_ref();
    let since = answered.unix_ms.saturating_sub(window_ms);
    let mut given: Vec<Answered> = before.map(|answers| answers.record.given.clone()).unwrap_or_default();
    given.retain(|answered| answered.unix_ms >= since);
    given.push(answered);
    given.drain(..given.len().saturating_sub(MOST));
    checks.push(records::unchanged(records::answers_key(), before.map(|Revised { revision, .. }| *revision)));
    then.push(records::put(records::answers_key(), &Answers { given }));
    Operation::Txn { checks, then, otherwise }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Step;

    fn answered(n: u64) -> Answered {
        let answer = FirstAnswer::Done(Value::from(n));
        Answered { rid: format!("r{n}"), command: "create".into(), unix_ms: n, answer }
    }

    fn after(map: &ClusterMap, n: u64, window_ms: u64) -> ClusterMap {
        let nothing = Operation::Txn { checks: vec![], then: vec![], otherwise: vec![] };
        let Operation::Txn { then, .. } = remember(map, nothing, answered(n), window_ms) else { panic!() };
        let [Step::Put { value, .. }] = then.as_slice() else { panic!("{then:?}") };
        let answers = Some(Revised { revision: n, record: records::parse(&value.payload).unwrap() });
        ClusterMap { answers, ..ClusterMap::default() }
    }

    #[test]
    fn an_answer_is_found_within_the_window_and_forgotten_behind_it() {
        let map = after(&after(&ClusterMap::default(), 100, 60), 150, 60);
        let answers = &map.answers.as_ref().unwrap().record;
        assert_eq!(answers.first("r100", 160, 60).unwrap().answer, FirstAnswer::Done(Value::from(100)));
        assert_eq!(answers.first("r100", 161, 60), None);
        assert_eq!(answers.first("r1", 150, 60), None);
        let map = after(&map, 161, 60);
        assert_eq!(map.answers.unwrap().record.given.len(), 2);
    }

    #[test]
    fn the_answers_that_are_kept_are_bounded() {
        let map = (1..=200).fold(ClusterMap::default(), |map, n| after(&map, n, 1000));
        let answers = map.answers.unwrap().record;
        assert_eq!((answers.given.len(), &answers.given[0]), (MOST, &answered(73)));
    }
}
