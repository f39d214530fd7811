//! How results and failures of a command are printed, and the exit codes they end with.

use std::io::Write;

use base64::Engine;
use odgm_shard::client::{ClientError, Event, Found, Listed};
use odgm_shard::object::{CollectionName, ObjectKey, Partition};
use serde_json::{Map, Value, json};

/// Done.
pub const DONE: u8 = 0;
/// The grid refused, or there is no such thing.
pub const REFUSED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// Nobody answered, or nobody could say what happened.
pub const UNREACHABLE: u8 = 3;
/// The storage of a running node failed (EX_IOERR).
pub const STORAGE: u8 = 74;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Why a command ends without being done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The client's.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No session.
    #[error("unreachable: {0}")]
    Unreachable(odgm_transport::Error),
    /// This version can't do it yet.
    #[error("UNSUPPORTED: {0} is not supported yet")]
    Unsupported(&'static str),
    /// Refused before anything was asked.
    #[error("{0}")]
    Refused(String),
    /// What was given can't be.
    #[error("{0}")]
    Usage(String),
    /// Results can't be printed.
    #[error("stdout: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Client(ClientError::Invalid(_)) | Failure::Usage(_) => USAGE,
            Failure::Client(ClientError::Unknown { .. } | ClientError::Transport(_))
            | Failure::Unreachable(_) => UNREACHABLE,
            Failure::Client(_) | Failure::Unsupported(_) | Failure::Refused(_) | Failure::Output(_) => {
                REFUSED
            }
        }
    }

    /// To stderr.
    pub fn report(&self, format: Format) {
        let mut stderr = std::io::stderr().lock();
        // A pipe whose reader has gone is nobody to tell.
        let _ = match (format, self) {
            (Format::Json, Failure::Client(ClientError::Refused(refused))) => {
                writeln!(stderr, "{}", String::from_utf8_lossy(&refused.encode().payload))
            }
            (Format::Json, other) => writeln!(stderr, "{}", json!({"message": other.to_string()})),
            (Format::Text, Failure::Client(ClientError::Refused(refused))) => {
                write!(stderr, "odgm: {refused}").and_then(|()| facts(&mut stderr, &refused.facts))
            }
            (Format::Text, other) => writeln!(stderr, "odgm: {other}"),
        };
    }
}

/// ` (revision 7, entries 2)` and the end of the line.
fn facts(to: &mut impl Write, facts: &Map<String, Value>) -> std::io::Result<()> {
    let facts: Vec<String> = facts
        .iter()
        .map(|(name, value)| {
            format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    if facts.is_empty() { writeln!(to) } else { writeln!(to, " ({})", facts.join(", ")) }
}

/// A line of text on stdout.
///
/// # Errors
/// When stdout is gone.
pub fn line(text: impl AsRef<[u8]>) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_ref())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Bytes as they are on stdout.
///
/// # Errors
/// When stdout is gone.
pub fn raw(bytes: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// A table, or a sentence when it has no rows.
///
/// # Errors
/// When stdout is gone.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, none: &str) -> std::io::Result<()> {
    if rows.is_empty() {
        return line(none);
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text: Vec<String> = table.lines().map(|row| row.trim_end().to_owned()).collect();
    line(text.join("\n"))
}

/// A value as JSON: text as a string, else base64.
pub fn value_json(value: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(value) {
        Ok(text) => ("value", json!(text)),
        Err(_) => ("base64", json!(base64::engine::general_purpose::STANDARD.encode(value))),
    }
}

/// A key of the grid with what is known of it.
pub fn found_json(
    collection: &CollectionName,
    partition: Option<Partition>,
    key: &ObjectKey,
    found: &Found,
    with_value: bool,
) -> Value {
    let mut shown = json!({
        "collection": collection.as_str(),
        "object": key.object.as_str(),
        "revision": found.revision,
        "created_revision": found.created_revision,
        "version": found.version,
    });
    if let Some(entry) = &key.entry {
        shown["entry"] = json!(entry.as_str());
    }
    if let Some(partition) = partition {
        shown["partition"] = json!(partition.0);
    }
    if found.expires_unix_ms != 0 {
        shown["expires_unix_ms"] = json!(found.expires_unix_ms);
    }
    if with_value {
        let (name, value) = value_json(&found.value);
        shown[name] = value;
        shown["encoding"] = json!(found.encoding);
    }
    let incarnation: String = found.incarnation.iter().map(|byte| format!("{byte:02x}")).collect();
    shown["incarnation"] = json!(incarnation);
    shown
}

/// `object[/entry]`.
pub fn key_text(key: &ObjectKey) -> String {
    match &key.entry {
        Some(entry) => format!("{}/{entry}", key.object),
        None => key.object.to_string(),
    }
}

/// A listed key as a line.
pub fn listed_line(collection: &CollectionName, listed: &Listed, with_value: bool) -> Vec<u8> {
    let mut text = format!("{collection}/{}", key_text(&listed.key)).into_bytes();
    if with_value {
        text.push(b'\t');
        text.extend_from_slice(&listed.found.value);
    }
    text
}

/// A change as a line: kind, key, revision, value.
pub fn event_line(collection: &CollectionName, event: &Event) -> Vec<u8> {
    let kind = if event.deleted { "delete" } else { "put" };
    let key = key_text(&event.key);
    let mut text = format!("{kind}\t{collection}/{key}\t{}", event.found.revision).into_bytes();
    if !event.deleted {
        text.push(b'\t');
        text.extend_from_slice(&event.found.value);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_in_base64() {
        assert_eq!(value_json("é".as_bytes()), ("value", json!("é")));
        for (bytes, text) in
            [(&b"\xff"[..], "/w=="), (&b"\xff\xfe"[..], "//4="), (&b"\xff\xfe\xfd"[..], "//79")]
        {
            assert_eq!(value_json(bytes), ("base64", json!(text)));
        }
    }

    #[test]
    fn exit_codes_tell_refused_usage_and_unreachable_apart() {
        let unknown = ClientError::Unknown { waited: std::time::Duration::ZERO, last: None, rid: None };
        assert_eq!(Failure::Client(unknown).code(), UNREACHABLE);
        assert_eq!(Failure::Client(ClientError::Invalid("x".into())).code(), USAGE);
        assert_eq!(Failure::Unsupported("x").code(), REFUSED);
        assert_eq!(Failure::Refused("x".into()).code(), REFUSED);
    }
}
