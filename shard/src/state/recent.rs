//! The heads of the objects that were changed last, in memory: each write reads its object's head, and what is
//! written is often written again.

use quick_cache::unsync::Cache;

use super::layout::Head;
use crate::object::ObjectId;

/// How many heads a replica keeps: about 1 MiB of them.
const HEADS: usize = 8192;

/// Heads as the data layer holds them; `None` for an object that is not there. Given up when a batch is not written.
#[derive(Debug)]
pub(crate) struct RecentHeads(Cache<ObjectId, Option<Head>>);

impl Default for RecentHeads {
    fn default() -> Self {
        RecentHeads(Cache::new(HEADS))
    }
}

impl RecentHeads {
    pub(crate) fn get(&self, object: &ObjectId) -> Option<Option<Head>> {
        self.0.get(object).copied()
    }

    pub(crate) fn set(&mut self, object: ObjectId, head: Option<Head>) {
        self.0.insert(object, head);
    }
}
