//! Listing page by page: each page is one consistent view of one partition, complete by its END.

use std::time::Instant;

use odgm_transport::session::Call;

use super::{ClientError, Consistency, Found, GridClient, Result, invalid, wire};
use crate::object::{CollectionName, ObjectKey, Partition};
use crate::protocol::reply::{Answer, End, decode};
use crate::protocol::{Effect, Plane, Refusal};

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The collection.
    pub collection: CollectionName,
    /// The object and entry chunks as zenoh takes them, such as `*` or `alice/**`.
    pub pattern: String,
    /// The one partition that is asked; else all, one after the other.
    pub partition: Option<Partition>,
    /// Values too, or keys alone.
    pub values: bool,
    /// How fresh.
    pub consistency: Consistency,
    /// Keys a page.
    pub page: usize,
    /// Only the objects that an index finds, in its order.
    pub find: Option<Find>,
}

/// What an index is asked for: a value, or a range. Values are JSON scalars, or text as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Find {
    /// The index.
    pub index: String,
    /// This value.
    pub eq: Option<String>,
    /// From this value on.
    pub ge: Option<String>,
    /// Below this value.
    pub lt: Option<String>,
}

/// A key of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: ObjectKey,
    /// Its value (empty when only keys were asked) and numbers.
    pub found: Found,
}

/// A page, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The partition it is of.
    pub partition: Partition,
    /// The partition's revision that it shows.
    pub revision: u64,
    /// The collection's incarnation, in hexadecimal.
    pub incarnation: String,
    /// The keys.
    pub objects: Vec<Listed>,
}

/// A list under way.
#[derive(Debug)]
pub struct Lister<'a> {
    client: &'a GridClient,
    selected: Selected,
    partition: u32,
    last_partition: Option<u32>,
    cursor: Option<String>,
}

impl GridClient {
    /// Lists what is selected; nothing is asked before the first page is.
    pub fn list(&self, selected: Selected) -> Lister<'_> {
        let partition = selected.partition.map_or(0, |partition| partition.0);
        let last_partition = selected.partition.map(|partition| partition.0);
        Lister { client: self, selected, partition, last_partition, cursor: None }
    }

    /// How many keys are selected.
    ///
    /// # Errors
    /// As [`Lister::next_page`].
    pub async fn count(&self, selected: Selected) -> Result<u64> {
        let mut lister = self.list(selected);
        let mut count = 0;
        let last = lister.last().await?;
        while lister.partition <= last {
            count += lister.page(&[("count", "1"), ("end", "1")]).await?.1.count;
            lister.partition += 1;
        }
        Ok(count)
    }
}

impl Lister<'_> {
    /// The next page; `None` at the end. A page may be empty.
    ///
    /// # Errors
    /// What the grid refuses; [`ClientError::Unknown`] when a page did not come whole in time.
    pub async fn next_page(&mut self) -> Result<Option<Page>> {
        let last = self.last().await?;
        if self.partition > last {
            return Ok(None);
        }
        let limit = self.selected.page.max(1).to_string();
        let cursor = self.cursor.clone();
        let mut parameters = vec![("end", "1"), ("limit", limit.as_str())];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        if !self.selected.values {
            parameters.push(("keys", "1"));
        }
        let (objects, end) = self.page(&parameters).await?;
        let partition = Partition(self.partition);
        self.cursor = end.next;
        if self.cursor.is_none() {
            self.partition += 1;
        }
        Ok(Some(Page { partition, revision: end.revision, incarnation: end.incarnation, objects }))
    }

    async fn last(&mut self) -> Result<u32> {
        if let Some(last) = self.last_partition {
            return Ok(last);
        }
        let meta = self.client.meta(&self.selected.collection).await?;
        let last = meta.partitions.saturating_sub(1);
        self.last_partition = Some(last);
        Ok(last)
    }

    /// Asks until a page comes whole.
    async fn page(&self, parameters: &[(&str, &str)]) -> Result<(Vec<Listed>, End)> {
        let client = self.client;
        let Selected { collection, pattern, consistency, find, .. } = &self.selected;
        let mut given = parameters.to_vec();
        given.extend(consistency.parameter());
        if let Some(Find { index, eq, ge, lt }) = find {
            given.push(("index", index));
            let bounds = [("eq", eq), ("ge", ge), ("lt", lt)];
            given.extend(bounds.into_iter().filter_map(|(name, bound)| Some((name, bound.as_deref()?))));
        }
        let partition = Partition(self.partition);
        let key =
            client.options.keys.matching(Plane::Data, collection, partition, pattern).map_err(invalid)?;
        let call = Call { many: true, ..client.call(key, &given) };
        let start = Instant::now();
        let deadline = start + client.options.deadline;
        let mut last: Option<Refusal> = None;
        let mut no_collection = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Unknown { waited: start.elapsed(), last, rid: None });
            }
            let mut call = call.clone();
            // A page may take as long as there is: only silence is worth another attempt.
            call.timeout = left;
            match self.attempt(call).await? {
                Ok(page) => return Ok(page),
                Err(Some(refused)) if refused.code.retry() || refused.code.applied() == Effect::Unknown => {
                    last = Some(refused)
                }
                Err(Some(refused)) => return Err(ClientError::Refused(refused)),
                Err(None) => {
                    if let Err(ClientError::Refused(refused)) = client.meta(collection).await {
                        no_collection += 1;
                        if no_collection > 1 {
                            return Err(ClientError::Refused(refused));
                        }
                    }
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(50).min(left)).await;
        }
    }

    async fn attempt(&self, call: Call) -> Result<Result<(Vec<Listed>, End), Option<Refusal>>> {
        let mut replies = self.client.session.call(call)?;
        let (mut objects, mut refusal) = (Vec::new(), None);
        while let Some(reply) = replies.next().await {
            match decode(reply) {
                Answer::Sample(sample) => {
                    let (_, key) = wire::key(&self.client.options.keys, Plane::Data, &sample)?;
                    objects.push(Listed { key, found: Found::read(sample)? });
                }
                Answer::End(end) if objects.is_empty() || end.count == objects.len() as u64 => {
                    return Ok(Ok((objects, end)));
                }
                Answer::End(end) => {
                    let message = format!("{} keys came, END counts {}", objects.len(), end.count);
                    return Err(ClientError::Malformed(message));
                }
                Answer::Refused(refused) => refusal = Some(refused),
                Answer::Foreign(_) => {}
            }
        }
        Ok(Err(refusal))
    }
}
