//! Making and dropping the indexes of a store, in steps of bounded size.
//!
//! Each step is a transaction of its own, so other writers get in between; what they write is in the index
//! from its first step on. A crash leaves an index that [`resume`] completes.

use std::ops::Bound;

use bytes::Bytes;

use super::{
    DEFINITION_PREFIX, Definition, IndexSelect, KeyspaceId, LAST_ID, MAX_NAME_BYTES, Progress, absent,
    definition_key, encode, extract, find, put_row, refused, row_key,
};
use crate::data::{ApplicationDataStorage, Cursor, Durability, Keyspace, Select, Transaction, WriteBatch};
use crate::{Error, Result};

/// Rows of a step.
const STEP_ROWS: usize = 1000;
/// Bytes of a step's rows; its first may be larger.
const STEP_BYTES: usize = 4 << 20;

/// Makes an index over the rows of a keyspace, or completes it; ready when this returns. The same index
/// again is fine.
///
/// # Errors
/// [`Error::Refused`] for a name that is taken by another index, and for a name or pointer that cannot be;
/// [`Error::TooLarge`] when an indexed value is too long for a key: the index then stays unfinished, to be
/// dropped or, once that row is gone, completed.
pub fn create(
    store: &dyn ApplicationDataStorage,
    name: &str,
    keyspace: Keyspace,
    pointer: &str,
) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(refused(name, "has no name of 1 to 255 bytes"));
    }
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(refused(name, "needs a JSON pointer, empty or beginning with /"));
    }
    if keyspace == Keyspace::Index {
        return Err(refused(name, "cannot cover the rows of indexes"));
    }
    let mut step = Transaction::begin(store);
    match find(step.view(), name)? {
        Some(known) if known.keyspace.0 != keyspace || known.pointer != pointer => {
            return Err(refused(name, "exists over other rows, or another pointer"));
        }
        Some(known) if known.progress == Progress::Dropping => {
            return Err(refused(name, "is being dropped"));
        }
        Some(_) => step.rollback(),
        None => {
            let id = match step.view().get(Keyspace::Index, LAST_ID)? {
                None => 1,
                Some(last) => last[..]
                    .try_into()
                    .ok()
                    .and_then(|last| u32::from_be_bytes(last).checked_add(1))
                    .ok_or_else(|| refused(name, "gets no id: the last one is damaged"))?,
            };
            let definition = Definition {
                id,
                name: name.to_owned(),
                keyspace: KeyspaceId(keyspace),
                pointer: pointer.to_owned(),
                progress: Progress::Building(None),
            };
            let mut rows = WriteBatch::default();
            rows.put(Keyspace::Index, LAST_ID, Bytes::copy_from_slice(&id.to_be_bytes()));
            define(&mut rows, &definition);
            step.add_rows(rows);
            step.commit(Durability::Later)?;
        }
    }
    while fill_step(store, name)? {}
    store.sync()
}

/// Drops an index with its rows; when it returns, nothing of it is left.
///
/// # Errors
/// [`Error::NotFound`] without such an index.
pub fn drop_index(store: &dyn ApplicationDataStorage, name: &str) -> Result<()> {
    let mut step = Transaction::begin(store);
    let mut definition = find(step.view(), name)?.ok_or_else(|| absent(name))?;
    definition.progress = Progress::Dropping;
    let mut rows = WriteBatch::default();
    define(&mut rows, &definition);
    step.add_rows(rows);
    step.commit(Durability::Later)?;
    while clear_step(store, name)? {}
    store.sync()
}

/// Completes what a crash, or an import of a store where one had happened, left unfinished.
///
/// # Errors
/// As [`create`].
pub fn resume(store: &dyn ApplicationDataStorage) -> Result<()> {
    for index in super::definitions(&*store.view())? {
        match index.progress {
            Progress::Ready => {}
            Progress::Building(_) => while fill_step(store, &index.name)? {},
            Progress::Dropping => while clear_step(store, &index.name)? {},
        }
    }
    store.sync()
}

fn define(rows: &mut WriteBatch, definition: &Definition) {
    debug_assert_eq!(definition_key(&definition.name)[0], DEFINITION_PREFIX);
    rows.put(Keyspace::Index, definition_key(&definition.name), encode(definition));
}

/// Takes the next older rows in; `false` when the index is ready.
fn fill_step(store: &dyn ApplicationDataStorage, name: &str) -> Result<bool> {
    let mut step = Transaction::begin(store);
    let mut index = find(step.view(), name)?.ok_or_else(|| absent(name))?;
    let Progress::Building(after) = &index.progress else { return Ok(false) };
    let from = after.clone().map_or(Bound::Unbounded, Bound::Excluded);
    let select = Select::range(from, Bound::Unbounded).limit(STEP_ROWS).bytes(STEP_BYTES);
    let page = step.view().page(index.keyspace.0, &select)?;
    let mut rows = WriteBatch::default();
    for (key, value) in &page.rows {
        if let Some(value) = extract(&index.pointer, value) {
            put_row(&mut rows, index.id, key, &value)?;
        }
    }
    index.progress = match page.next {
        Some(Cursor(last)) => Progress::Building(Some(last)),
        None => Progress::Ready,
    };
    define(&mut rows, &index);
    step.add_rows(rows);
    step.commit(Durability::Later)?;
    Ok(index.progress != Progress::Ready)
}

/// Removes the next rows of an index, in the end its definition; `false` when nothing is left.
fn clear_step(store: &dyn ApplicationDataStorage, name: &str) -> Result<bool> {
    let mut step = Transaction::begin(store);
    let Some(index) = find(step.view(), name)? else { return Ok(false) };
    if index.progress != Progress::Dropping {
        return Err(Error::Refused { what: "an index", reason: format!("{name} was made again") });
    }
    let all = IndexSelect::range(Bound::Unbounded, Bound::Unbounded).limit(STEP_ROWS);
    let page = super::scan(step.view(), index.id, &all)?;
    let mut rows = WriteBatch::default();
    for hit in &page.hits {
        rows.delete(Keyspace::Index, row_key(index.id, &hit.value, &hit.key));
    }
    let more = page.next.is_some();
    if !more {
        rows.delete(Keyspace::Index, definition_key(name));
    }
    step.add_rows(rows);
    step.commit(Durability::Later)?;
    Ok(more)
}
