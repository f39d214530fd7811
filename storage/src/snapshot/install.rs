//! Taking over a snapshot from a stream: a backup's file, or a pipe.

use std::io::{ErrorKind, Read};

use super::file::HEADER_BYTES;
use super::{RaftSnapshotStorage, SnapshotInfo, file};
use crate::{Error, Result};

/// How errors call a stream that has no file name.
const NAME: &str = "snapshot stream";
const CHUNK_BYTES: usize = 256 << 10;

/// As [`RaftSnapshotStorage::install`].
pub(super) fn install<S: RaftSnapshotStorage + ?Sized>(
    store: &S,
    stored_bytes: u64,
    from: &mut dyn Read,
) -> Result<SnapshotInfo> {
    let mut header = [0; HEADER_BYTES];
    if fill(from, &mut header)? != HEADER_BYTES {
        return Err(corrupt(0, "header: the stream is cut short"));
    }
    let id = file::id_of(&header).ok_or_else(|| corrupt(0, "header"))?;
    let mut receiver = store.receive(id, stored_bytes)?;
    let mut at = 0;
    let mut piece = header.to_vec();
    while !piece.is_empty() {
        // What an earlier attempt left here is not written again.
        let known = receiver.offset().saturating_sub(at).min(piece.len() as u64) as usize;
        receiver.write(&piece[known..])?;
        at += piece.len() as u64;
        piece.resize(CHUNK_BYTES, 0);
        let count = fill(from, &mut piece)?;
        piece.truncate(count);
    }
    if at < stored_bytes {
        return Err(corrupt(at, "end: the stream is cut short"));
    }
    receiver.finish()
}

/// Reads until `into` is full or the stream ends.
fn fill(from: &mut dyn Read, into: &mut [u8]) -> Result<usize> {
    let mut count = 0;
    while count < into.len() {
        match from.read(&mut into[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", NAME, error)),
        }
    }
    Ok(count)
}

fn corrupt(offset: u64, what: &str) -> Error {
    Error::Corrupt { path: NAME.into(), offset, what: what.to_owned() }
}
