//! One question, repeated until it is decided.

use std::time::{Duration, Instant};

use odgm_transport::session::{Call, Sample};

use super::{ClientError, CollectionMeta, GridClient, Result, wire};
use crate::object::CollectionName;
use crate::protocol::reply::{Answer, decode};
use crate::protocol::{Code, Effect, Refusal};

/// Between the first repeats.
const PAUSE: Duration = Duration::from_millis(10);
/// Between later ones.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// How often something that is "final only after a repeat" is asked.
const REPEATS: u32 = 3;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) call: Call,
    /// Whose `@meta` is asked when nobody answers.
    pub(super) collection: Option<CollectionName>,
    pub(super) rid: Option<String>,
    /// Without an answer it may have changed something.
    pub(super) changes: bool,
}

/// How one attempt ended.
enum Attempt {
    Answered(Box<Sample>),
    Refused(Refusal),
    Nothing,
}

impl GridClient {
    /// Asks until there is an answer that decides, or the deadline.
    pub(super) async fn ask(&self, question: &Question) -> Result<Sample> {
        let start = Instant::now();
        let deadline = start + self.options.deadline;
        let (mut last, mut unknown, mut pause, mut repeats) = (None, false, PAUSE, 0);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let mut call = question.call.clone();
            call.timeout = left.min(self.options.attempt);
            match self.attempt(call).await? {
                Attempt::Answered(sample) => return Ok(*sample),
                Attempt::Refused(refused) => {
                    unknown |= refused.code.applied() == Effect::Unknown && question.changes;
                    match refused.code {
                        Code::NotLeader | Code::Busy | Code::Unavailable | Code::Timeout => {}
                        Code::NoCollection | Code::ReadOnly | Code::Quota if repeats < REPEATS => {
                            repeats += 1
                        }
                        Code::Internal if unknown => {
                            last = Some(refused);
                            break;
                        }
                        _ => {
                            if let (Some(collection), Code::WrongPartition | Code::NoCollection) =
                                (&question.collection, refused.code)
                            {
                                self.forget(collection);
                            }
                            return Err(ClientError::Refused(refused));
                        }
                    }
                    last = Some(refused);
                }
                Attempt::Nothing => {
                    unknown |= question.changes;
                    if let Some(refused) = self.is_gone(question, deadline).await {
                        repeats += 1;
                        if repeats >= REPEATS {
                            return Err(ClientError::Refused(refused));
                        }
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        match last {
            // Every answer said that nothing happened, and no attempt went without one.
            Some(refused) if !unknown && question.changes => Err(ClientError::Refused(refused)),
            last => Err(ClientError::Unknown { waited: start.elapsed(), last, rid: question.rid.clone() }),
        }
    }

    async fn attempt(&self, call: Call) -> Result<Attempt> {
        let mut replies = self.session.call(call)?;
        let mut worst: Option<Refusal> = None;
        while let Some(reply) = replies.next().await {
            match decode(reply) {
                Answer::Sample(sample) => return Ok(Attempt::Answered(Box::new(sample))),
                Answer::Refused(refused)
                    if worst.as_ref().is_none_or(|worst| weight(worst) < weight(&refused)) =>
                {
                    worst = Some(refused);
                }
                Answer::Refused(_) | Answer::End(_) | Answer::Foreign(_) => {}
            }
        }
        Ok(worst.map_or(Attempt::Nothing, Attempt::Refused))
    }

    /// `NO_COLLECTION`, when that is why nobody answered.
    async fn is_gone(&self, question: &Question, deadline: Instant) -> Option<Refusal> {
        let collection = question.collection.as_ref()?;
        let left = deadline.saturating_duration_since(Instant::now());
        let call = self.meta_call(collection, left.min(Duration::from_secs(1)));
        match self.attempt(call).await {
            Ok(Attempt::Refused(refused)) if refused.code == Code::NoCollection => {
                self.forget(collection);
                Some(refused)
            }
            _ => None,
        }
    }

    fn meta_call(&self, collection: &CollectionName, timeout: Duration) -> Call {
        let mut call = self.call(self.options.keys.meta(collection), &[]);
        call.timeout = timeout;
        call
    }

    pub(super) async fn ask_meta(&self, collection: &CollectionName) -> Result<CollectionMeta> {
        let call = self.meta_call(collection, self.options.attempt);
        let question = Question { call, collection: None, rid: None, changes: false };
        wire::json(&self.ask(&question).await?)
    }
}

/// Of several refusals the state machine's decides, then the one that knows least.
fn weight(refused: &Refusal) -> u8 {
    match refused.code {
        Code::NotLeader => 0,
        Code::Busy | Code::NoCollection | Code::ReadOnly | Code::Quota => 1,
        code if code.applied() == Effect::Unknown => 2,
        _ => 3,
    }
}
