//! Which snapshots are kept: a rule over the list of a store, without a clock and without a disk.

use std::time::Duration;

use uuid::Uuid;

use super::SnapshotInfo;

/// What bounds the snapshots of a store. The newest is kept whatever the bounds say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainPolicy {
    /// The newest so many.
    Latest {
        /// How many.
        count: usize,
    },
    /// Those not older than this.
    Age {
        /// How old, by the time of creation in the manifest.
        age: Duration,
    },
    /// Those among the newest so many that are not older than this, too.
    Both {
        /// How many.
        count: usize,
        /// How old.
        age: Duration,
    },
    /// The newest that take no more than this together.
    Size {
        /// Stored bytes.
        bytes: u64,
    },
}

impl RetainPolicy {
    /// Those of `list`, oldest first, that this policy lets go at a time given as Unix milliseconds.
    /// One that was created later than that is young.
    #[must_use]
    pub fn surplus(&self, list: &[SnapshotInfo], now_unix_ms: u64) -> Vec<Uuid> {
        let mut bytes = 0_u64;
        let mut surplus: Vec<Uuid> = list
            .iter()
            .rev()
            .enumerate()
            .filter(|(newer, info)| {
                bytes = bytes.saturating_add(info.stored_bytes);
                let counted = |count: usize| *newer < count;
                let young = |age: Duration| {
                    u128::from(now_unix_ms.saturating_sub(info.created_unix_ms)) <= age.as_millis()
                };
                let kept = match *self {
                    RetainPolicy::Latest { count } => counted(count),
                    RetainPolicy::Age { age } => young(age),
                    RetainPolicy::Both { count, age } => counted(count) && young(age),
                    RetainPolicy::Size { bytes: limit } => bytes <= limit,
                };
                *newer > 0 && !kept
            })
            .map(|(_, info)| info.meta.id)
            .collect();
        surplus.reverse();
        surplus
    }
}
