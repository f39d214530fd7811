//! Commands about objects.

use std::io::Read;
use std::path::Path;

use odgm_shard::client::{self, ClientError, Event, Find, GridClient, PutCondition, Seen, Selected};
use odgm_shard::object::{CollectionName, ObjectId, Partition};
use odgm_shard::protocol::{Code, Refusal};
use serde_json::{Value, json};

use super::arguments::{
    Consistency, Delete, Get, Increment, KeyArgument, List, PatternArgument, Put, Touch, Txn, Watch,
};
use crate::output::{self, Failure, Format};

/// Keys a page of a list.
const PAGE: usize = 500;

pub(super) async fn get(client: &GridClient, format: Format, get: Get) -> Result<(), Failure> {
    let mut failure = None;
    for KeyArgument { collection, key } in &get.keys {
        match client.get(collection, key, consistency(get.cons)).await {
            Ok(found) if get.raw => output::raw(&found.value)?,
            Ok(found) if format == Format::Text => output::line(&found.value)?,
            Ok(found) => {
                let partition = client.partition(collection, &key.object).await?;
                output::line(output::found_json(collection, Some(partition), key, &found, true).to_string())?;
            }
            Err(error @ ClientError::Refused(_)) if get.keys.len() > 1 => {
                let error = Failure::from(error);
                error.report(format);
                failure = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    match failure {
        Some(_) => Err(Failure::Refused(format!("not all of {} keys were read", get.keys.len()))),
        None => Ok(()),
    }
}

pub(super) async fn put(client: &GridClient, format: Format, put: Put) -> Result<(), Failure> {
    let value = match (&put.value, &put.file) {
        (_, Some(path)) => read(path)?,
        (Some(value), None) if value == "-" => read(Path::new("-"))?,
        (Some(value), None) => value.clone().into_bytes(),
        (None, None) => return Err(Failure::Usage("no value is given".into())),
    };
    let condition = match put.if_revision {
        Some(revision) => PutCondition::Revision(revision),
        None if put.if_absent => PutCondition::Absent,
        None if put.if_present => PutCondition::Present,
        None => PutCondition::None,
    };
    let change = client::Put {
        value: value.into(),
        encoding: put.encoding,
        attachment: None,
        ttl: put.ttl,
        condition,
    };
    let done = client.put(&put.key.collection, &put.key.key, change, put.rid.as_deref()).await?;
    acknowledged(format, &done)
}

/// What can be said of the arguments before anybody is asked.
pub(super) fn check_delete(delete: &Delete) -> Result<(), Failure> {
    if delete.keys.len() > 1 && delete.rid.is_some() {
        return Err(Failure::Usage("a rid is for one key".into()));
    }
    for pattern in delete.keys.iter().filter(|pattern| pattern.key().is_none()) {
        if pattern.pattern.is_none() {
            return Err(Failure::Usage("a key is collection/object, all objects are 'collection/*'".into()));
        }
        if !delete.yes || delete.if_revision.is_some() || delete.rid.is_some() {
            return Err(Failure::Usage(
                "a pattern deletes all that it matches: say --yes, without --if-revision and --rid".into(),
            ));
        }
    }
    Ok(())
}

pub(super) async fn delete(client: &GridClient, format: Format, delete: Delete) -> Result<(), Failure> {
    for pattern in &delete.keys {
        let Some(KeyArgument { collection, key }) = pattern.key() else {
            delete_all(client, format, pattern).await?;
            continue;
        };
        let done = client.delete(&collection, &key, delete.if_revision, delete.rid.as_deref()).await?;
        acknowledged(format, &done)?;
    }
    Ok(())
}

/// Deletes key by key what a pattern matches now: not atomic, and what comes meanwhile may stay.
async fn delete_all(client: &GridClient, format: Format, pattern: &PatternArgument) -> Result<(), Failure> {
    let chunks = pattern.pattern.clone().unwrap_or_else(|| "*".into());
    let mut lister = client.list(Selected { values: false, ..selected(pattern, chunks, None) });
    let mut deleted = 0_u64;
    while let Some(page) = lister.next_page().await? {
        for listed in page.objects {
            client.delete(&pattern.collection, &listed.key, None, None).await?;
            deleted += 1;
        }
    }
    match format {
        Format::Text => output::line(format!("deleted {deleted}"))?,
        Format::Json => output::line(json!({"deleted": deleted}).to_string())?,
    }
    Ok(())
}

pub(super) async fn increment(
    client: &GridClient,
    format: Format,
    increment: Increment,
) -> Result<(), Failure> {
    let KeyArgument { collection, key } = &increment.key;
    let done = client.increment(collection, key, increment.by, increment.rid.as_deref()).await?;
    match format {
        Format::Text => Ok(output::line(&done.value)?),
        Format::Json => acknowledged(format, &done),
    }
}

pub(super) async fn touch(client: &GridClient, format: Format, touch: Touch) -> Result<(), Failure> {
    let KeyArgument { collection, key } = &touch.key;
    let done = client.touch(collection, key, &touch.ttl, touch.rid.as_deref()).await?;
    acknowledged(format, &done)
}

fn acknowledged(format: Format, done: &client::Acknowledged) -> Result<(), Failure> {
    match format {
        Format::Text => output::line(format!("revision {}", done.revision))?,
        Format::Json => {
            let mut shown = json!({
                "revision": done.revision,
                "created_revision": done.created_revision,
                "version": done.version,
                "rid": done.rid,
            });
            if done.expires_unix_ms != 0 {
                shown["expires_unix_ms"] = json!(done.expires_unix_ms);
            }
            if !done.value.is_empty() {
                let (name, value) = output::value_json(&done.value);
                shown[name] = value;
            }
            output::line(shown.to_string())?;
        }
    }
    Ok(())
}

pub(super) async fn list(client: &GridClient, format: Format, list: List) -> Result<(), Failure> {
    let chunks = match (&list.pattern.pattern, list.pattern.key()) {
        (None, _) => "*".to_owned(),
        // An object: its value and its entries.
        (Some(object), Some(key)) if key.key.entry.is_none() => format!("{object}/**"),
        (Some(pattern), _) => pattern.clone(),
    };
    let collection = &list.pattern.collection;
    let mut what = selected(&list.pattern, chunks, list.cons);
    if let Some(key) = list.pattern.key() {
        what.partition = Some(client.partition(collection, &key.key.object).await?);
    }
    what.values = list.values;
    what.find = list.index.map(|index| Find { index, eq: list.eq, ge: list.ge, lt: list.lt });
    what.page = list.limit.unwrap_or(PAGE).clamp(1, PAGE);
    if list.count {
        let count = client.count(what).await?;
        let shown = match format {
            Format::Text => count.to_string(),
            Format::Json => json!({"count": count}).to_string(),
        };
        return Ok(output::line(shown)?);
    }
    let mut left = list.limit.unwrap_or(usize::MAX);
    let mut shown = 0;
    let mut lister = client.list(what);
    while left > 0 {
        let Some(page) = lister.next_page().await? else { break };
        for listed in page.objects.iter().take(left) {
            match format {
                Format::Text => output::line(output::listed_line(collection, listed, list.values))?,
                Format::Json => {
                    let partition = Some(page.partition);
                    let object =
                        output::found_json(collection, partition, &listed.key, &listed.found, list.values);
                    output::raw(if shown == 0 { b"[\n" } else { b",\n" })?;
                    output::raw(object.to_string().as_bytes())?;
                }
            }
            shown += 1;
        }
        left = left.saturating_sub(page.objects.len());
    }
    if format == Format::Json {
        output::line(if shown == 0 { "[]" } else { "\n]" })?;
    }
    Ok(())
}

fn selected(pattern: &PatternArgument, chunks: String, cons: Option<Consistency>) -> Selected {
    Selected {
        collection: pattern.collection.clone(),
        pattern: chunks,
        partition: None,
        values: false,
        consistency: consistency(cons),
        page: PAGE,
        find: None,
    }
}

pub(super) async fn watch(client: &GridClient, format: Format, watch: Watch) -> Result<(), Failure> {
    let collection = &watch.pattern.collection;
    let chunks = match (&watch.pattern.pattern, watch.pattern.key()) {
        (None, _) => "**".to_owned(),
        (Some(object), Some(key)) if key.key.entry.is_none() => format!("{object}/**"),
        (Some(pattern), _) => pattern.clone(),
    };
    let mut left = watch.count.unwrap_or(u64::MAX);
    if let Some(from) = watch.from {
        let partition = match watch.pattern.key() {
            Some(key) => Some(client.partition(collection, &key.key.object).await?),
            None => None,
        };
        let mut events = client.resume(collection, &chunks, partition, from).await?;
        announce(collection.as_str(), &chunks);
        while left > 0 {
            let event = tokio::select! {
                event = events.next() => event?,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            let (seen, event) = event.ok_or_else(closed)?;
            left -= 1;
            show_event(format, collection, &event, Some(seen))?;
        }
        return Ok(());
    }
    let mut events = client.watch(collection, &chunks)?;
    // Behind the subscription on the same link: once it is answered, the node knows the subscription.
    client.meta(collection).await?;
    announce(collection.as_str(), &chunks);
    while left > 0 {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        left -= 1;
        show_event(format, collection, &event.ok_or_else(closed)?, None)?;
    }
    Ok(())
}

fn closed() -> Failure {
    Failure::Unreachable(odgm_transport::Error::Session("closed".into()))
}

fn show_event(
    format: Format,
    collection: &CollectionName,
    event: &Event,
    seen: Option<Seen>,
) -> Result<(), Failure> {
    match format {
        Format::Text => output::line(output::event_line(collection, event))?,
        Format::Json => {
            let partition = Some(event.partition);
            let mut shown =
                output::found_json(collection, partition, &event.key, &event.found, !event.deleted);
            shown["kind"] = json!(if event.deleted { "delete" } else { "put" });
            if let Some(seen) = seen {
                shown["seen"] = json!(match seen {
                    Seen::Live => "live",
                    Seen::Replayed => "replayed",
                    Seen::Listed => "listed",
                });
            }
            output::line(shown.to_string())?;
        }
    }
    Ok(())
}

#[allow(clippy::print_stderr, reason = "a command speaks to people on stderr")]
fn announce(collection: &str, chunks: &str) {
    eprintln!("odgm: watching {collection}/{chunks}");
}

pub(super) async fn txn(client: &GridClient, format: Format, txn: Txn) -> Result<(), Failure> {
    let body: Value = serde_json::from_slice(&read(&txn.file)?)
        .map_err(|error| Failure::Usage(format!("{} is no JSON: {error}", txn.file.display())))?;
    let partition = partition_of_txn(client, &txn, &body).await?;
    let done = client.txn(&txn.collection, partition, &body, txn.rid.as_deref()).await?;
    if format == Format::Json {
        return Ok(output::line(done.to_string())?);
    }
    let branch = done["branch"].as_str().unwrap_or("?");
    output::line(format!("{branch}, revision {}", done["revision"]))?;
    for result in done["results"].as_array().into_iter().flatten() {
        output::line(result.to_string())?;
    }
    Ok(())
}

/// The partition of all objects that a transaction names.
async fn partition_of_txn(client: &GridClient, txn: &Txn, body: &Value) -> Result<Partition, Failure> {
    let checks = body["if"].as_array().into_iter().flatten().map(|check| &check["object"]);
    let branches =
        ["then", "else"].into_iter().flat_map(|branch| body[branch].as_array().into_iter().flatten());
    let steps = branches.filter_map(|step| step.as_object()?.values().next()).map(|step| &step["object"]);
    let mut found: Option<(Partition, String)> = None;
    for object in checks.chain(steps).filter_map(Value::as_str) {
        let id = ObjectId::parse(object).map_err(|error| Failure::Usage(error.to_string()))?;
        let partition = client.partition(&txn.collection, &id).await?;
        match &found {
            Some((other, first)) if *other != partition => {
                let message = format!(
                    "a transaction stays in one partition: {first:?} is in {other}, {object:?} in {partition}"
                );
                return Err(ClientError::Refused(Refusal::new(Code::WrongPartition, message)).into());
            }
            _ => found = Some((partition, object.to_owned())),
        }
    }
    found
        .map(|(partition, _)| partition)
        .ok_or_else(|| Failure::Usage("the transaction names no object".into()))
}

fn consistency(given: Option<Consistency>) -> client::Consistency {
    match given {
        None => client::Consistency::Strongest,
        Some(Consistency::Linearizable) => client::Consistency::Linearizable,
        Some(Consistency::Local) => client::Consistency::Local,
    }
}

/// A file, or stdin for `-`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let outcome = if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    outcome.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    Ok(bytes)
}
