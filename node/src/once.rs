//! Administration with a request id: a repeat gets the first answer, whether it was done or refused, and the id is
//! good for nothing else, as with commands.

use std::time::Duration;

use odgm_shard::cluster::ClusterMap;
use odgm_shard::cluster::answers::{self, Answered, FirstAnswer};
use odgm_shard::cluster::transaction::Refused;
use odgm_shard::protocol::{Code, MAX_RID_BYTES, Refusal};
use odgm_shard::runtime::{Runtime, TokioRuntime, unix_ms};
use odgm_shard::state::Operation;
use serde_json::Value;

use crate::request::AdminRequest;
use crate::system::{ChangeError, SystemShard};

/// A request as it is remembered.
#[derive(Debug)]
pub(crate) struct Once {
    rid: String,
    command: String,
    now_ms: u64,
    window_ms: u64,
}

impl Once {
    /// What a request with an id is remembered by; `None` for one without.
    ///
    /// # Errors
    /// When the id is none.
    pub(crate) fn of(request: &AdminRequest, window: Duration) -> Result<Option<Self>, Refusal> {
        let Some(rid) = request.parameter("rid").map(str::to_owned) else { return Ok(None) };
        if !(1..=MAX_RID_BYTES).contains(&rid.len()) {
            let message = format!("rid has {} bytes, allowed are 1 to {MAX_RID_BYTES}", rid.len());
            return Err(Refusal::new(Code::InvalidParameter, message));
        }
        let now_ms = unix_ms(TokioRuntime::wall_clock());
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Ok(Some(Once { rid, command: request.fingerprint(), now_ms, window_ms }))
    }

    /// The first answer, when this is a repeat.
    pub(crate) fn first(&self, map: &ClusterMap) -> Option<Result<Value, Refusal>> {
        let first = map.answers.as_ref()?.record.first(&self.rid, self.now_ms, self.window_ms)?;
        if first.command != self.command {
            let message = "this rid was used for another request";
            return Some(Err(Refusal::new(Code::InvalidParameter, message)));
        }
        Some(match &first.answer {
            FirstAnswer::Done(value) => Ok(value.clone()),
            FirstAnswer::Refused { code, message } => {
                Err(Refusal::new(Code::parse(code).unwrap_or(Code::Internal), message.clone()))
            }
        })
    }

    fn answered(&self, answer: FirstAnswer) -> Answered {
        let (rid, command) = (self.rid.clone(), self.command.clone());
        Answered { rid, command, unix_ms: self.now_ms, answer }
    }
}

/// What became of a change.
#[derive(Debug)]
pub(crate) enum Changed {
    /// It happened now.
    Now(Value),
    /// It happened before.
    Before(Value),
}

/// Changes the records, once for each request id.
///
/// # Errors
/// What `compute` refuses, or refused the first time.
pub(crate) async fn change(
    system: &SystemShard,
    once: Option<&Once>,
    compute: impl Fn(&ClusterMap) -> Result<(Operation, Value), Refused>,
) -> Result<Changed, Refusal> {
    let compute_once = |map: &ClusterMap| {
        let Some(once) = once else {
            let (operation, value) = compute(map)?;
            return Ok((Some(operation), Ok(Changed::Now(value))));
        };
        if let Some(first) = once.first(map) {
            return Ok((None, first.map(Changed::Before)));
        }
        let (operation, result) = match compute(map) {
            Ok((operation, value)) => (operation, Ok(value)),
            Err(refused) if is_final(&refused) => {
                let nothing = Operation::Txn { checks: vec![], then: vec![], otherwise: vec![] };
                (nothing, Err(refusal(refused)))
            }
            Err(refused) => return Err(refused),
        };
        let answer = match &result {
            Ok(value) => FirstAnswer::Done(value.clone()),
            Err(Refusal { code, message, .. }) => {
                FirstAnswer::Refused { code: code.name().to_owned(), message: message.clone() }
            }
        };
        let operation = answers::remember(map, operation, once.answered(answer), once.window_ms);
        Ok((Some(operation), result.map(Changed::Now)))
    };
    match system.change_if(compute_once).await {
        Ok(result) => result,
        Err(ChangeError::Refused(refused)) => Err(refusal(refused)),
        Err(ChangeError::Shard(error)) => Err(error.into()),
    }
}

/// Whether the records were asked and said no; what is wrong in itself is refused anew each time.
fn is_final(refused: &Refused) -> bool {
    matches!(refused, Refused::NoCollection(_) | Refused::NotFound(_) | Refused::Exists(_))
}

fn refusal(refused: Refused) -> Refusal {
    let code = match refused {
        Refused::Invalid(_) => Code::InvalidParameter,
        Refused::Unsupported(_) => Code::Unsupported,
        Refused::NoCollection(_) => Code::NoCollection,
        Refused::NotFound(_) => Code::NotFound,
        Refused::Exists(_) => Code::Exists,
        Refused::Quota(_) => Code::Quota,
        Refused::NotFounded => Code::Unavailable,
    };
    Refusal::new(code, refused.to_string())
}
