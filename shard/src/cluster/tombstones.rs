//! How long deletions are remembered, where that is a matter of time: in an `eventual` collection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::collection::{MAX_AGE, Replication, SpecError};
use crate::quantity::Period;

/// What is remembered of deletions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TombstonesSpec {
    /// For how long, at least 1s. Default 24h. A replica that was away for longer may bring a deleted key back.
    pub retain: Period,
}

impl Default for TombstonesSpec {
    fn default() -> Self {
        TombstonesSpec { retain: Period::from_secs(24 * 3600) }
    }
}

impl TombstonesSpec {
    pub(super) fn validate(&self, replication: Replication) -> Result<(), SpecError> {
        let wrong = |why: &str| Err(SpecError::Invalid(format!("tombstones are given: {why}")));
        match replication {
            Replication::Eventual => {}
            Replication::Mst => {
                return wrong("replication mst remembers a deletion until every replica has seen it");
            }
            Replication::Raft | Replication::None => {
                return wrong(
                    "only replicas that write without asking each other, those of eventual, need them",
                );
            }
        }
        let retain = self.retain.duration();
        if retain < Duration::from_secs(1) || retain > MAX_AGE {
            let retain = self.retain;
            return Err(SpecError::Invalid(format!("tombstones.retain is {retain}, must be 1s to 36500d")));
        }
        Ok(())
    }
}
