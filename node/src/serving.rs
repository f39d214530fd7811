//! Who serves which shard, as far as this node has heard: its own replicas know, the others' servers
//! say so when it changes and every two seconds. A hint for `@meta` and for people, nothing more.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use odgm_shard::object::{GroupId, NodeId};

/// How often a server repeats what it serves.
pub(crate) const REPEAT: Duration = Duration::from_secs(2);
/// After this long without a repeat nobody is known to serve.
const FORGET: Duration = Duration::from_secs(7);

#[derive(Debug, Clone, Copy)]
struct Heard {
    node: NodeId,
    term: u64,
    at: Duration,
}

/// The servers heard of.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    heard: Mutex<BTreeMap<GroupId, Heard>>,
}

impl Serving {
    /// Notes that a node says it serves; an older term than the one known is stale news.
    pub(crate) fn heard(&self, node: NodeId, groups: &[(GroupId, u64)], now: Duration) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for (group, term) in groups {
            let fresh = Heard { node, term: *term, at: now };
            let known = heard.entry(*group).or_insert(fresh);
            if known.term <= *term || now.saturating_sub(known.at) > FORGET {
                *known = fresh;
            }
        }
    }

    /// Who serves a group.
    pub(crate) fn of(&self, group: GroupId, now: Duration) -> Option<NodeId> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&group).filter(|known| now.saturating_sub(known.at) <= FORGET).map(|known| known.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_term_wins_and_silence_is_forgotten() {
        let serving = Serving::default();
        let second = Duration::from_secs;
        serving.heard(NodeId(1), &[(GroupId(5), 3)], second(0));
        serving.heard(NodeId(2), &[(GroupId(5), 4)], second(1));
        serving.heard(NodeId(1), &[(GroupId(5), 3)], second(2));
        assert_eq!(serving.of(GroupId(5), second(3)), Some(NodeId(2)));
        assert_eq!(serving.of(GroupId(5), second(20)), None);
        serving.heard(NodeId(1), &[(GroupId(5), 3)], second(20));
        assert_eq!(serving.of(GroupId(5), second(20)), Some(NodeId(1)));
    }
}
