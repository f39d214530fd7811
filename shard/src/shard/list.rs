//! Lists: one consistent view of the partition, streamed in key order, in bounded memory.

use odgm_storage::data::index::IndexValue;
use odgm_transport::session::{Query, ReplyStream};
use openraft_rt::Instant as _;
use uuid::Uuid;

use super::answer::Answerer;
use super::refusal;
use crate::object::ObjectKey;
use crate::protocol::refusal::not_found;
use crate::protocol::{Code, Find, Plane, Refusal, cursor};
use crate::runtime::Runtime;
use crate::state::{ObjectView, Record, Selection};

/// Keys with their records, and what an index found them by.
type Rows<'a> = Box<dyn Iterator<Item = crate::Result<(Option<IndexValue>, ObjectKey, Record)>> + Send + 'a>;

/// A read of many keys.
#[derive(Debug)]
pub(super) struct List {
    pub(super) selection: Selection,
    /// The page begins behind this key.
    pub(super) after: Option<ObjectKey>,
    /// Only the objects that an index finds, in its order.
    pub(super) find: Option<Find>,
    /// How many keys a page has at most.
    pub(super) limit: Option<u64>,
    /// No payloads.
    pub(super) keys_only: bool,
    /// No keys, only the END record.
    pub(super) count_only: bool,
    /// Close with an END record; also what `count_only` leaves.
    pub(super) end: bool,
    /// The key was concrete: say so when it does not exist.
    pub(super) concrete: Option<ObjectKey>,
}

impl<R: Runtime> Answerer<R> {
    /// Streams a list. May wait for the disk, and for a caller that takes the replies slowly; ends
    /// when the caller is gone, at the deadline, and when the shard closes.
    pub(super) fn stream_list(
        &self,
        view: &ObjectView,
        plane: Plane,
        list: &List,
        query: Query,
        deadline: R::Instant,
    ) {
        let replies = query.stream();
        let outcome = self.send_list(view, plane, list, &replies, deadline);
        if let Err(refused) = outcome {
            self.metrics.refused(plane.name(), refused.code.name());
            // The caller may have gone.
            let _ = replies.send(refused.reply_to("", Uuid::new_v4));
        }
    }

    fn send_list(
        &self,
        view: &ObjectView,
        plane: Plane,
        list: &List,
        replies: &ReplyStream,
        deadline: R::Instant,
    ) -> Result<(), Refusal> {
        let mut rows: Rows<'_> = match &list.find {
            None => {
                let rows = view.list(&list.selection, list.after.as_ref());
                Box::new(rows.map(|row| row.map(|(key, record)| (None, key, record))))
            }
            Some(find) => {
                let rows =
                    view.find(&find.query, &list.selection, find.after.clone()).map_err(refusal::of)?;
                Box::new(rows.map(|row| row.map(|(value, key, record)| (Some(value), key, record))))
            }
        };
        let (mut count, mut last) = (0_u64, None);
        let next = loop {
            let row = rows.next().transpose().map_err(refusal::of)?;
            let Some((value, key, record)) = row else { break None };
            if list.limit.is_some_and(|limit| count >= limit) {
                break last;
            }
            if self.stop.is_cancelled() {
                return Err(Refusal::new(Code::Unavailable, "the shard closes"));
            }
            if R::Instant::now() > deadline {
                return Err(Refusal::new(Code::Timeout, "the list was not finished in time"));
            }
            if !list.count_only {
                let sample = self.found(plane, &key, record, list.keys_only);
                if replies.send(Ok(sample)).is_err() {
                    return Ok(()); // the caller is gone
                }
            }
            count += 1;
            last = Some((value, key));
        };
        drop(rows);
        self.metrics.listed.increment(count);
        self.metrics.reads_ok(plane).increment(1);
        if let Some(key) = list.concrete.as_ref().filter(|_| count == 0) {
            let head = view.head(&key.object).map_err(refusal::of)?;
            let refused = not_found(head.map_or(0, |head| head.entries));
            let _ = replies.send(refused.reply_to("", Uuid::new_v4));
        }
        if list.end {
            let next = next.map(|(value, key)| match value {
                None => cursor::encode(&key),
                Some(value) => cursor::encode_hit(&value, &key),
            });
            let _ = replies.send(Err(self.voice.end(view.revision(), count, next)));
        }
        Ok(())
    }
}
