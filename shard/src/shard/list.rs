//! Lists: one consistent view of the partition, streamed in key order, in bounded memory.

use odgm_storage::data::index::IndexValue;
use odgm_transport::session::{Query, ReplyStream, Sample};
use openraft_rt::Instant as _;
use uuid::Uuid;

use super::ahead::{self, Ahead};
use super::answer::Answerer;
use super::refusal;
use crate::object::ObjectKey;
use crate::protocol::refusal::not_found;
use crate::protocol::{Code, Find, Plane, Refusal, cursor};
use crate::runtime::Runtime;
use crate::state::{ObjectView, Record, Selection};

/// Keys with their records, and what an index found them by.
type Rows<'a> = Box<dyn Iterator<Item = crate::Result<(Option<IndexValue>, ObjectKey, Record)>> + Send + 'a>;

/// Where a row stands: what an index found it by, and its key.
type Place = (Option<IndexValue>, ObjectKey);

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
        let rows: Rows<'_> = match &list.find {
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
        let rows = rows.map(|row| {
            let (value, key, record) = row?;
            let sample = (!list.count_only).then(|| self.found(plane, &key, record, list.keys_only));
            Ok(((value, key), sample))
        });
        let sent = std::thread::scope(|scope| {
            self.send_rows(Ahead::new(scope, rows, ahead::weight), list.limit, replies, deadline)
        })?;
        let Some((count, next)) = sent else { return Ok(()) };
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

    /// Sends a page. How many rows it has, and the last of them when there are more; `None` when the caller is gone.
    fn send_rows(
        &self,
        rows: impl Iterator<Item = crate::Result<(Place, Option<Sample>)>>,
        limit: Option<u64>,
        replies: &ReplyStream,
        deadline: R::Instant,
    ) -> Result<Option<(u64, Option<Place>)>, Refusal> {
        let (mut count, mut last) = (0_u64, None);
        for row in rows {
            let (place, sample) = row.map_err(refusal::of)?;
            if limit.is_some_and(|limit| count >= limit) {
                return Ok(Some((count, last)));
            }
            if self.stop.is_cancelled() {
                return Err(Refusal::new(Code::Unavailable, "the shard closes"));
            }
            if R::Instant::now() > deadline {
                return Err(Refusal::new(Code::Timeout, "the list was not finished in time"));
            }
            if let Some(sample) = sample
                && replies.send(Ok(sample)).is_err()
            {
                return Ok(None);
            }
            count += 1;
            last = Some(place);
        }
        Ok(Some((count, None)))
    }
}
