//! The portable form of a shard's data: one ordered stream, the same from every store.
//!
//! Layout (docs/formats/data.md): a header, then for each keyspace in order its tag and its rows by
//! rising key, then the number of rows and the xxh3-128 of everything before. Written and read in
//! bounded memory; a stream that is cut, damaged or out of order is refused, never half believed.

use std::io::{Read, Write};

use bytes::{Buf, BytesMut};
use xxhash_rust::xxh3::Xxh3;

use super::{Keyspace, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::{Error, Result};

/// The first bytes of a stream.
pub const MAGIC: [u8; 8] = *b"odgmdata";
/// The format written, and the only one read.
pub const VERSION: u32 = 1;
/// Follows the last keyspace.
const END: u8 = 0xff;
/// Bytes gathered before they are hashed and handed on.
const CHUNK_BYTES: usize = 256 << 10;
/// How errors call a stream that has no file name.
const NAME: &str = "export stream";

/// Writes a stream, row by row.
pub struct StreamWriter<'w> {
    into: &'w mut dyn Write,
    buffer: Vec<u8>,
    hash: Xxh3,
    rows: u64,
}

impl std::fmt::Debug for StreamWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamWriter").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl<'w> StreamWriter<'w> {
    /// Starts a stream.
    pub fn new(into: &'w mut dyn Write) -> Self {
        let mut buffer = Vec::with_capacity(CHUNK_BYTES * 2);
        buffer.extend_from_slice(&MAGIC);
        buffer.extend_from_slice(&VERSION.to_le_bytes());
        StreamWriter { into, buffer, hash: Xxh3::new(), rows: 0 }
    }

    /// Starts a keyspace. All of [`Keyspace::ALL`] must come, in that order.
    ///
    /// # Errors
    /// What the writer below answers.
    pub fn keyspace(&mut self, keyspace: Keyspace) -> Result<()> {
        self.buffer.push(keyspace as u8);
        Ok(())
    }

    /// Writes the next row of the keyspace; keys must rise.
    ///
    /// # Errors
    /// What the writer below answers.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        put_varint(&mut self.buffer, key.len() as u64);
        self.buffer.extend_from_slice(key);
        put_varint(&mut self.buffer, value.len() as u64);
        self.buffer.extend_from_slice(value);
        self.rows += 1;
        if self.buffer.len() >= CHUNK_BYTES { self.drain() } else { Ok(()) }
    }

    /// Ends a keyspace.
    ///
    /// # Errors
    /// What the writer below answers.
    pub fn end_keyspace(&mut self) -> Result<()> {
        self.buffer.push(0);
        Ok(())
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// What the writer below answers.
    pub fn finish(mut self) -> Result<()> {
        self.buffer.push(END);
        self.buffer.extend_from_slice(&self.rows.to_le_bytes());
        self.drain()?;
        let hash = self.hash.digest128().to_le_bytes();
        self.into.write_all(&hash).map_err(|error| Error::io("write", NAME, error))
    }

    fn drain(&mut self) -> Result<()> {
        self.hash.update(&self.buffer);
        self.into.write_all(&self.buffer).map_err(|error| Error::io("write", NAME, error))?;
        self.buffer.clear();
        Ok(())
    }
}

/// Where a reader stands in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Between(usize),
    Rows(usize),
}

/// Reads and checks a stream, row by row.
pub struct StreamReader<'r> {
    from: &'r mut dyn Read,
    /// Read and not yet handed out.
    buffer: BytesMut,
    /// Bytes of the row last handed out, still at the front of `buffer`.
    lent: usize,
    chunk: Vec<u8>,
    hash: Xxh3,
    offset: u64,
    rows: u64,
    last_key: Vec<u8>,
    place: Place,
}

impl std::fmt::Debug for StreamReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamReader").field("offset", &self.offset).field("place", &self.place).finish()
    }
}

impl<'r> StreamReader<'r> {
    /// Starts to read a stream.
    pub fn new(from: &'r mut dyn Read) -> Self {
        StreamReader {
            from,
            buffer: BytesMut::with_capacity(CHUNK_BYTES * 2),
            lent: 0,
            chunk: vec![0; CHUNK_BYTES],
            hash: Xxh3::new(),
            offset: 0,
            rows: 0,
            last_key: Vec::new(),
            place: Place::Header,
        }
    }

    /// The next row of a keyspace, lent until the next call; `None` at its end. Ask for all of
    /// [`Keyspace::ALL`], each to its end and in that order, then call [`StreamReader::finish`]: rows
    /// are only believed when that has succeeded.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the place in the stream, [`Error::Format`] for another version, or
    /// what the reader below answers.
    pub fn row(&mut self, keyspace: Keyspace) -> Result<Option<(&[u8], &[u8])>> {
        let lent = std::mem::take(&mut self.lent);
        self.consume(lent);
        if self.place == Place::Header {
            self.header()?;
        }
        if self.place == Place::Between(keyspace.slot()) {
            if self.byte()? != keyspace as u8 {
                return Err(self.corrupt("tag of a keyspace"));
            }
            self.last_key.clear();
            self.place = Place::Rows(keyspace.slot());
        }
        assert_eq!(self.place, Place::Rows(keyspace.slot()), "keyspaces are read in order, each to its end");
        match self.row_bounds()? {
            None => {
                self.place = Place::Between(keyspace.slot() + 1);
                Ok(None)
            }
            Some((key, value)) => {
                self.lent = value.end;
                Ok(Some((&self.buffer[key], &self.buffer[value])))
            }
        }
    }

    fn header(&mut self) -> Result<()> {
        self.need(MAGIC.len() + 4)?;
        if self.buffer[..MAGIC.len()] != MAGIC {
            return Err(self.corrupt("magic of an export"));
        }
        let mut version = &self.buffer[MAGIC.len()..];
        let version = version.get_u32_le();
        if version != VERSION {
            let (found, supported) = (version.to_string(), VERSION.to_string());
            return Err(Error::Format { path: NAME.into(), found, supported });
        }
        self.consume(MAGIC.len() + 4);
        self.place = Place::Between(0);
        Ok(())
    }

    /// The next row's key and value as places in the buffer; `None` where the keyspace ends.
    fn row_bounds(&mut self) -> Result<Option<(std::ops::Range<usize>, std::ops::Range<usize>)>> {
        let (length, at) = self.varint(0)?;
        if length == 0 {
            self.consume(at);
            return Ok(None);
        }
        if length > MAX_KEY_BYTES as u64 {
            return Err(self.corrupt("length of a key"));
        }
        let key = at..at + length as usize;
        let (length, at) = self.varint(key.end)?;
        if length > MAX_VALUE_BYTES as u64 {
            return Err(self.corrupt("length of a value"));
        }
        let value = at..at + length as usize;
        self.need(value.end)?;
        if self.buffer[key.clone()] <= self.last_key[..] {
            return Err(self.corrupt("order of keys"));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(&self.buffer[key.clone()]);
        self.rows += 1;
        Ok(Some((key, value)))
    }

    /// Checks the end of the stream, after the last keyspace's.
    ///
    /// # Errors
    /// As [`StreamReader::row`].
    pub fn finish(mut self) -> Result<()> {
        assert_eq!(self.place, Place::Between(Keyspace::ALL.len()), "all keyspaces were read to their end");
        if self.byte()? != END {
            return Err(self.corrupt("end mark"));
        }
        self.need(8)?;
        if (&self.buffer[..8]).get_u64_le() != self.rows {
            return Err(self.corrupt("number of rows"));
        }
        self.consume(8);
        self.need(16)?;
        let found = (&self.buffer[..16]).get_u128_le();
        if found != self.hash.digest128() {
            return Err(self.corrupt("hash of the stream"));
        }
        self.consume(16);
        if !self.buffer.is_empty() || self.fill()? != 0 {
            return Err(self.corrupt("bytes after the end"));
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8> {
        self.need(1)?;
        let byte = self.buffer[0];
        self.consume(1);
        Ok(byte)
    }

    /// A number at a place of the buffer, and where it ends.
    fn varint(&mut self, at: usize) -> Result<(u64, usize)> {
        let mut value = 0;
        for i in 0..5 {
            self.need(at + i + 1)?;
            let byte = self.buffer[at + i];
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok((value, at + i + 1));
            }
        }
        Err(self.corrupt("a length"))
    }

    /// Makes sure of `count` bytes in the buffer.
    fn need(&mut self, count: usize) -> Result<()> {
        while self.buffer.len() < count {
            if self.fill()? == 0 {
                self.offset += self.buffer.len() as u64;
                return Err(self.corrupt("end: the stream is cut short"));
            }
        }
        Ok(())
    }

    /// Memory grows by what came, never by what a length claims.
    fn fill(&mut self) -> Result<usize> {
        loop {
            match self.from.read(&mut self.chunk) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&self.chunk[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", NAME, error)),
            }
        }
    }

    fn consume(&mut self, count: usize) {
        self.hash.update(&self.buffer[..count]);
        self.buffer.advance(count);
        self.offset += count as u64;
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::Corrupt { path: NAME.into(), offset: self.offset, what: what.to_owned() }
    }
}

fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}
