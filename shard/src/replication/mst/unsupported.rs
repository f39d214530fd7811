//! What a divergent kind refuses, and why.

use crate::state::{Command, Condition, Operation, Step};

/// The reason why replicas that write without asking each other can't do a command; `None` when they can.
pub fn unsupported(command: &Command) -> Option<&'static str> {
    const CONDITION: &str = "a condition: in this collection every replica writes without asking the others, so none \
                             can say what holds; use a raft or none collection";
    const INCREMENT: &str = "increment: in this collection every replica writes without asking the others, and of two \
                             increments the newer would win; use a raft or none collection";
    const IF: &str = "a transaction with if: in this collection every replica writes without asking the others, so \
                      none can say what holds; use a raft or none collection";
    let increments = |step: &Step| matches!(step, Step::Increment { .. });
    match &command.operation {
        Operation::Put { condition, .. } => (*condition != Condition::None).then_some(CONDITION),
        Operation::Delete { if_revision, .. } => if_revision.is_some().then_some(CONDITION),
        Operation::Increment { .. } => Some(INCREMENT),
        Operation::Touch { .. } | Operation::Upkeep(_) => None,
        Operation::Txn { checks, .. } if !checks.is_empty() => Some(IF),
        Operation::Txn { then, otherwise, .. } => {
            then.iter().chain(otherwise).any(increments).then_some(INCREMENT)
        }
    }
}
