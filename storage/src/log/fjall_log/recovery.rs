//! Reads the database at open: what every group holds, and whether all of it is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::database::Database;
use super::group::{Group, GroupState};
use super::rows::{ENTRY_HEADER, GroupRow, decode_entry, group_of, index_of};
use crate::log::window::{EntryRef, Whereabouts, Window};
use crate::log::{GroupId, LogPosition};
use crate::{Error, Result};

/// What an open found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub groups: BTreeMap<GroupId, Arc<Group>>,
    pub damaged: BTreeMap<GroupId, Error>,
    /// Of damaged groups too, where they can be read.
    pub rows: BTreeMap<GroupId, GroupRow>,
}

/// Reads all groups. A row that cannot be read damages its group; when it cannot be told whose it is, the
/// open fails.
pub(super) fn recover(database: &Database) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    for row in database.groups() {
        let (key, value) = row?;
        let Some(id) = group_of(&key) else {
            return Err(corrupt(database, "key of a group, groups: all".to_owned()));
        };
        let read = match GroupRow::decode(&value) {
            Some(row) => {
                let read = read_group(database, id, &row);
                recovered.rows.insert(id, row);
                read
            }
            None => Err(corrupt(database, format!("row of group {}", id.0))),
        };
        match read {
            Ok(state) => {
                recovered.groups.insert(id, Arc::new(Group::found(id, state)));
            }
            Err(error) => {
                tracing::error!(%error, group = id.0, "acknowledged log entries are damaged");
                recovered.damaged.insert(id, error);
            }
        }
    }
    Ok(recovered)
}

fn read_group(database: &Database, id: GroupId, row: &GroupRow) -> Result<GroupState> {
    let missing =
        |index: u64| corrupt(database, format!("entry {index}, which is missing, of group {}", id.0));
    let mut entries = VecDeque::new();
    let mut expected = row.first;
    for found in database.entries(id, row.first, u64::MAX) {
        let (key, value) = found?;
        if expected == row.end {
            let what = format!("entry above the last one, {}, of group {}", row.end, id.0);
            return Err(corrupt(database, what));
        }
        let decoded = decode_entry(&value).filter(|_| index_of(&key) == Some(expected));
        let Some((term, kind)) = decoded else { return Err(missing(expected)) };
        let payload_bytes = (value.len() - ENTRY_HEADER) as u32;
        entries.push_back(EntryRef { term, kind, payload_bytes, at: Whereabouts::At(()) });
        expected += 1;
    }
    if expected != row.end {
        return Err(missing(expected));
    }
    let window = Window::found(row.purged, row.first, entries);
    let last: Option<LogPosition> = window.bounds().last;
    Ok(GroupState {
        // A hint that ran ahead of what survived would name entries that are not there.
        committed: row.committed.filter(|committed| last.is_some_and(|last| committed.index <= last.index)),
        window,
        vote: row.vote.clone().map(Bytes::from),
        ..GroupState::default()
    })
}

fn corrupt(database: &Database, what: String) -> Error {
    Error::Corrupt { path: database.path().to_owned(), offset: 0, what }
}
