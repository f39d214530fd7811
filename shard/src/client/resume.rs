//! A watch that misses nothing: it begins with the retained changes from a revision on, fills every jump of
//! the revision from them, and where they do not reach back, or the collection was made anew, lists all
//! that there is and goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use odgm_transport::session::{Call, Replies};

use super::{
    ClientError, Consistency, Event, Found, GridClient, Lister, Result, Selected, Watch, invalid, wire,
};
use crate::object::{CollectionName, Partition};
use crate::protocol::reply::{Answer, End, decode};
use crate::protocol::{Code, Plane, Refusal};

/// Changes of the first page of a replay, and of a page of a list.
const PAGE: usize = 1000;
/// Pages of a replay are about as large as this, by the changes of the one before: large enough that asking costs
/// little, and small enough to be held twice.
const PAGE_BYTES: usize = 8 << 20;
/// The fewest and the most changes of a page.
const PAGES: RangeInclusive<usize> = 16..=20_000;
/// What a change takes beside its value.
const CHANGE_BYTES: usize = 256;
/// After so long without an event a watch asks what it missed: a connection that was lost says nothing.
const QUIET: Duration = Duration::from_secs(5);

/// How a change became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// As it was published.
    Live,
    /// From the history.
    Replayed,
    /// As what there is now: the changes before it are not known.
    Listed,
}

/// Where a watch stands in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The next revision that it takes.
    pub next: u64,
    /// Of this incarnation, in hexadecimal; `None` before it saw one.
    pub incarnation: Option<String>,
}

/// A resumed watch.
#[derive(Debug)]
pub struct Resumed<'a> {
    client: &'a GridClient,
    collection: CollectionName,
    pattern: String,
    live: Watch,
    places: BTreeMap<Partition, Place>,
    /// Partitions that may have more in their history.
    behind: BTreeSet<Partition>,
    listing: Option<(Partition, Lister<'a>)>,
    /// Changes that were taken off the network together, and how they became known.
    ready: (Seen, std::vec::IntoIter<Event>),
    /// Changes that the next page of a replay may have.
    page: usize,
    /// The page behind those that are ready, asked already: it comes while they are taken.
    ahead: Option<(Partition, Place, Replies)>,
}

impl GridClient {
    /// Watches what matches `pattern` from revision `from` of each partition on.
    ///
    /// # Errors
    /// When the pattern is none, the session fails, or `@meta` does not answer.
    pub async fn resume(
        &self,
        collection: &CollectionName,
        pattern: &str,
        partition: Option<Partition>,
        from: u64,
    ) -> Result<Resumed<'_>> {
        let live = self.watch(collection, pattern)?;
        // Asked behind the subscription: what is not in a replay comes live.
        let meta = self.meta(collection).await?;
        let partitions: Vec<Partition> = match partition {
            Some(partition) => vec![partition],
            None => (0..meta.partitions).map(Partition).collect(),
        };
        let place = Place { next: from, incarnation: None };
        Ok(Resumed {
            client: self,
            collection: collection.clone(),
            pattern: pattern.to_owned(),
            live,
            places: partitions.iter().map(|partition| (*partition, place.clone())).collect(),
            behind: partitions.into_iter().collect(),
            listing: None,
            ready: (Seen::Live, Vec::new().into_iter()),
            page: PAGE,
            ahead: None,
        })
    }
}

impl Resumed<'_> {
    /// Where it stands: enough to resume it later.
    pub fn places(&self) -> &BTreeMap<Partition, Place> {
        &self.places
    }

    /// The next change, each once and in the order of its partition; `None` when the session is closed.
    ///
    /// # Errors
    /// What the grid refuses, or no answer within the client's deadline; it can be called again.
    pub async fn next(&mut self) -> Result<Option<(Seen, Event)>> {
        loop {
            if let (seen, Some(event)) = (self.ready.0, self.ready.1.next()) {
                return Ok(Some((seen, event)));
            }
            if let Some((partition, lister)) = &mut self.listing {
                let partition = *partition;
                match lister.next_page().await? {
                    Some(page) => self.listed(page, partition),
                    None => self.listing = None,
                }
                continue;
            }
            if let Some(partition) = self.behind.first().copied() {
                self.replay(partition).await?;
                continue;
            }
            match tokio::time::timeout(QUIET, self.live.next()).await {
                Ok(Ok(Some(event))) => {
                    if let Some(event) = self.take(event) {
                        return Ok(Some((Seen::Live, event)));
                    }
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(ClientError::Lagged)) | Err(_) => self.behind.extend(self.places.keys()),
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// The event, when it is what comes next; what is missing before it is asked for.
    fn take(&mut self, event: Event) -> Option<Event> {
        let place = self.places.get_mut(&event.partition)?;
        let same = place.incarnation.as_deref() == Some(hex(&event.found).as_str());
        if same && event.found.revision < place.next {
            return None;
        }
        if same && event.found.revision == place.next {
            place.next += 1;
            return Some(event);
        }
        // A jump: changes that were lost, or of keys that do not match. The history has this one too.
        self.behind.insert(event.partition);
        None
    }

    async fn replay(&mut self, partition: Partition) -> Result<()> {
        let place = self.places[&partition].clone();
        let asked = self.ahead.take().filter(|(of, from, _)| *of == partition && *from == place);
        let (call, limit) = (self.page(partition, &place)?, self.page);
        match self.ask(call, asked.map(|(_, _, replies)| replies)).await {
            Ok((events, end)) => {
                let whole = events.len() < limit;
                let bytes = |event: &Event| event.found.value.len() + event.found.attachment.len();
                self.page = next_page(events.len(), events.iter().map(bytes).sum());
                self.ready = (Seen::Replayed, events.into_iter());
                let next = end.next.as_deref().and_then(|next| next.parse().ok()).unwrap_or(place.next);
                let place = Place { next, incarnation: Some(end.incarnation) };
                if whole {
                    self.behind.remove(&partition);
                } else {
                    // What fails here is asked again when it is due.
                    let replies = self.page(partition, &place).ok();
                    let replies = replies.and_then(|call| self.client.session.call(call).ok());
                    self.ahead = replies.map(|replies| (partition, place.clone(), replies));
                }
                self.places.insert(partition, place);
                Ok(())
            }
            Err(ClientError::Refused(refused)) if refused.code == Code::Compacted => {
                let selected = Selected {
                    collection: self.collection.clone(),
                    pattern: self.pattern.clone(),
                    partition: Some(partition),
                    values: true,
                    consistency: Consistency::Strongest,
                    page: PAGE,
                    find: None,
                };
                self.places.insert(partition, Place { next: 0, incarnation: None });
                self.listing = Some((partition, self.client.list(selected)));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the page that begins at a place.
    fn page(&self, partition: Partition, place: &Place) -> Result<Call> {
        let (from, limit) = (place.next.to_string(), self.page.to_string());
        let mut given = vec![("from", from.as_str()), ("limit", limit.as_str()), ("end", "1")];
        given.extend(place.incarnation.as_deref().map(|incarnation| ("incarnation", incarnation)));
        let keys = &self.client.options.keys;
        let key = keys.matching(Plane::Event, &self.collection, partition, &self.pattern).map_err(invalid)?;
        let call = self.client.call(key, &given);
        // A page may take as long as there is: only silence is worth another attempt.
        Ok(Call { timeout: self.client.options.deadline, many: true, ..call })
    }

    /// Takes a page of the list; what changed since its first page is replayed from there.
    fn listed(&mut self, page: super::Page, partition: Partition) {
        if self.places[&partition].incarnation.is_none() {
            let place = Place { next: page.revision + 1, incarnation: Some(page.incarnation) };
            self.places.insert(partition, place);
        }
        let event =
            |listed: super::Listed| Event { partition, key: listed.key, deleted: false, found: listed.found };
        let events: Vec<_> = page.objects.into_iter().map(event).collect();
        self.ready = (Seen::Listed, events.into_iter());
    }

    /// Asks until a replay comes whole; `asked` are the answers to a first attempt.
    async fn ask(&self, call: Call, mut asked: Option<Replies>) -> Result<(Vec<Event>, End)> {
        let start = Instant::now();
        let deadline = self.client.options.deadline;
        let mut last: Option<Refusal> = None;
        loop {
            let left = deadline.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(ClientError::Unknown { waited: start.elapsed(), last, rid: None });
            }
            let mut replies = match asked.take() {
                Some(asked) => asked,
                None => self.client.session.call(Call { timeout: left, ..call.clone() })?,
            };
            let mut events = Vec::with_capacity(self.page);
            while let Some(reply) = replies.next().await {
                match decode(reply) {
                    Answer::Sample(sample) => {
                        let (partition, key) = wire::key(&self.client.options.keys, Plane::Event, &sample)?;
                        let deleted = sample.payload.is_none();
                        events.push(Event { partition, key, deleted, found: Found::read(sample)? });
                    }
                    Answer::End(end) if end.count == events.len() as u64 => return Ok((events, end)),
                    Answer::Refused(refused) if !refused.code.retry() => {
                        return Err(ClientError::Refused(refused));
                    }
                    Answer::Refused(refused) => last = Some(refused),
                    Answer::End(_) | Answer::Foreign(_) => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(50).min(left)).await;
        }
    }
}

/// How many changes make a page, when so many took so many bytes.
fn next_page(changes: usize, bytes: usize) -> usize {
    let mean = bytes / changes.max(1) + CHANGE_BYTES;
    (PAGE_BYTES / mean).clamp(*PAGES.start(), *PAGES.end())
}

fn hex(found: &Found) -> String {
    format!("{:032x}", u128::from_be_bytes(found.incarnation))
}

#[cfg(test)]
mod tests {
    use super::next_page;

    #[test]
    fn a_page_holds_as_many_changes_as_fit_and_never_none() {
        assert_eq!(next_page(0, 0), 20_000, "nothing is known");
        assert_eq!(next_page(1000, 1000 * 768), 8192);
        assert_eq!(next_page(1, 0), 20_000);
        assert_eq!(next_page(2, 16 << 20), 16);
    }
}
