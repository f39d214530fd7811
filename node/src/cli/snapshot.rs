//! `odgm snapshot`: backups. A shard's data at one position, as a file that says itself whether it is whole.
//!
//! An export is a snapshot of the serving replica, taken for it and sent in ranges. An import writes the
//! objects of a file through the front door, so it fits every cluster, partition count and kind of collection;
//! revisions and event history are the cluster's own again.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use futures_util::{StreamExt, TryStreamExt};
use odgm_shard::client::{ClientError, GridClient, Put, PutCondition};
use odgm_shard::object::{CollectionName, ObjectKey};
use odgm_shard::protocol::Code;
use odgm_shard::runtime::{Runtime, TokioRuntime, unix_ms};
use odgm_shard::state::{ObjectView, Record, Selection};
use odgm_storage::data::{ApplicationDataStorage, DataOptions, FjallEngine};
use odgm_storage::disk::RealDisk;
use odgm_storage::snapshot::{SnapshotFile, SnapshotInfo};
use serde_json::{Value, json};

use super::administration::{existing, show, show_list};
use super::arguments::ShardArgument;
use crate::output::{Failure, Format};

/// Objects of an import that are written at once.
const AT_ONCE: usize = 32;
/// Objects of an import that are read ahead.
const AHEAD: usize = 1024;

pub(super) async fn list(client: &GridClient, format: Format, shard: &ShardArgument) -> Result<(), Failure> {
    existing(client, shard).await?;
    let listed = ask(client, shard, "snapshots", &[]).await?;
    let columns = ["id", "term", "index", "created_unix_ms", "content_bytes", "stored_bytes", "compression"];
    show_list(format, &listed, &columns, "no snapshots")
}

pub(super) async fn export(
    client: &GridClient,
    format: Format,
    shard: &ShardArgument,
    file: &Path,
) -> Result<(), Failure> {
    existing(client, shard).await?;
    if file.exists() {
        return Err(Failure::Refused(format!("{} exists already", file.display())));
    }
    let info = ask(client, shard, "export", &[]).await?;
    let malformed = || ClientError::Malformed("no snapshot in the answer".to_owned());
    let id = info["id"].as_str().ok_or_else(malformed)?;
    let bytes = info["stored_bytes"].as_u64().ok_or_else(malformed)?;
    let partial = with_suffix(file, ".partial");
    let written = pull(client, shard, id, bytes, &partial).await.and_then(|()| finish(&partial, file));
    if let Err(failure) = written {
        // What was begun is of no use: the next export takes another snapshot.
        let _ = std::fs::remove_file(&partial);
        return Err(failure);
    }
    let mut shown = info;
    shown["file"] = json!(file.display().to_string());
    show(format, &shown)
}

/// Receives the stored form of a snapshot.
async fn pull(
    client: &GridClient,
    shard: &ShardArgument,
    id: &str,
    bytes: u64,
    partial: &Path,
) -> Result<(), Failure> {
    let mut file = std::fs::File::create(partial).map_err(|error| io(partial, &error))?;
    let bar = indicatif::ProgressBar::new(bytes);
    let mut offset = 0_u64;
    while offset < bytes {
        let at = offset.to_string();
        let answer = ask(client, shard, "read", &[("id", id), ("offset", &at)]).await?;
        let range = answer["base64"].as_str().and_then(|text| {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            decoded.ok().filter(|range| !range.is_empty())
        });
        let range = range.ok_or_else(|| ClientError::Malformed("an empty range of a snapshot".to_owned()))?;
        file.write_all(&range).map_err(|error| io(partial, &error))?;
        offset += range.len() as u64;
        bar.set_position(offset);
    }
    bar.finish_and_clear();
    file.sync_all().map_err(|error| io(partial, &error))
}

/// Gives a verified file its name.
fn finish(partial: &Path, file: &Path) -> Result<(), Failure> {
    open(partial)?.verify().map_err(|error| Failure::Refused(error.to_string()))?;
    std::fs::rename(partial, file).map_err(|error| io(file, &error))
}

pub(super) fn verify(format: Format, file: &Path) -> Result<(), Failure> {
    let info = open(file)?.verify().map_err(|error| Failure::Refused(error.to_string()))?;
    let mut shown = describe(&info);
    shown["file"] = json!(file.display().to_string());
    show(format, &shown)
}

/// Writes the objects of a file into a collection. Objects that exist are left as they are, unless they are to
/// be overwritten; those whose time has come are left out.
pub(super) async fn import(
    client: &GridClient,
    format: Format,
    file: &Path,
    collection: &CollectionName,
    overwrite: bool,
) -> Result<(), Failure> {
    // Without it, every single put would be refused.
    client.meta(collection).await?;
    let refused = |error: odgm_storage::Error| Failure::Refused(error.to_string());
    let scratch = tempfile::tempdir().map_err(|error| io(&std::env::temp_dir(), &error))?;
    let data = FjallEngine::new(&DataOptions::default())
        .and_then(|engine| engine.open(&scratch.path().join("data")))
        .map_err(refused)?;
    let mut import = data.import().map_err(refused)?;
    import.read(&mut open(file)?).and_then(|()| import.finish()).map_err(refused)?;

    let view = ObjectView::new(data.view());
    let selection = Selection::all();
    let condition = if overwrite { PutCondition::None } else { PutCondition::Absent };
    let (mut written, mut kept, mut expired) = (0_u64, 0_u64, 0_u64);
    let mut rows = view.list(&selection, None);
    loop {
        let some: Vec<(ObjectKey, Record)> = rows
            .by_ref()
            .take(AHEAD)
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::Refused(error.to_string()))?;
        if some.is_empty() {
            break;
        }
        let outcomes: Vec<Outcome> = futures_util::stream::iter(some)
            .map(|(key, record)| write(client, collection, key, record, condition))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        for outcome in outcomes {
            match outcome {
                Outcome::Written => written += 1,
                Outcome::Kept => kept += 1,
                Outcome::Expired => expired += 1,
            }
        }
    }
    show(format, &json!({"written": written, "existed": kept, "expired": expired}))
}

enum Outcome {
    Written,
    Kept,
    Expired,
}

async fn write(
    client: &GridClient,
    collection: &CollectionName,
    key: ObjectKey,
    record: Record,
    condition: PutCondition,
) -> Result<Outcome, ClientError> {
    let ttl = match record.expires_unix_ms {
        0 => None,
        expires => match expires.saturating_sub(unix_ms(TokioRuntime::wall_clock())) {
            0 => return Ok(Outcome::Expired),
            left => Some(format!("{left}ms")),
        },
    };
    let Record { value, .. } = record;
    let put =
        Put { value: value.payload, encoding: value.encoding, attachment: value.attachment, ttl, condition };
    match client.put(collection, &key, put, None).await {
        Ok(_) => Ok(Outcome::Written),
        Err(error) if error.code() == Some(Code::Exists) => Ok(Outcome::Kept),
        Err(error) => Err(error),
    }
}

/// What is shown of a snapshot.
pub(crate) fn describe(info: &SnapshotInfo) -> Value {
    let position = info.meta.position;
    json!({
        "id": info.meta.id.to_string(),
        "term": position.map(|position| position.term),
        "index": position.map(|position| position.index),
        "created_unix_ms": info.created_unix_ms,
        "content_bytes": info.content_bytes,
        "stored_bytes": info.stored_bytes,
        "content_hash": format!("{:032x}", info.content_hash),
        "compression": info.compression,
    })
}

async fn ask(
    client: &GridClient,
    shard: &ShardArgument,
    op: &str,
    parameters: &[(&str, &str)],
) -> Result<Value, Failure> {
    let path = format!("shards/{}/{}", shard.collection, shard.partition);
    Ok(client.admin(&path, Some(op), parameters, None).await?)
}

fn open(file: &Path) -> Result<SnapshotFile, Failure> {
    SnapshotFile::open(&RealDisk, file).map_err(|error| Failure::Refused(error.to_string()))
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Refused(format!("{}: {error}", path.display()))
}
