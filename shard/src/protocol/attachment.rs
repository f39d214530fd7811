//! The attachment of replies and events: zenoh-ext's serialization of
//! `(u8 format = 1, u64 revision, u64 created_revision, u64 version, u64 expires_unix_ms, bytes
//! incarnation, bytes user_attachment)`.
//!
//! That is: integers little-endian at their full width, a sequence of bytes behind its LEB128 length,
//! a tuple as its members one behind the other.

use bytes::{BufMut, Bytes, BytesMut};

const FORMAT: u8 = 1;

/// The numbers that come with every reply and event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    /// The object's revision; of an event, its own.
    pub revision: u64,
    /// The object's first revision.
    pub created_revision: u64,
    /// The object's count of changes.
    pub version: u64,
    /// When the key expires, Unix milliseconds; 0 is never.
    pub expires_unix_ms: u64,
    /// The collection's incarnation, or the replica's.
    pub incarnation: [u8; 16],
    /// What the writer attached; empty when nothing.
    pub user: Bytes,
}

impl Attachment {
    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1 + 4 * 8 + 1 + 16 + 10 + self.user.len());
        bytes.put_u8(FORMAT);
        bytes.put_u64_le(self.revision);
        bytes.put_u64_le(self.created_revision);
        bytes.put_u64_le(self.version);
        bytes.put_u64_le(self.expires_unix_ms);
        put_sequence(&mut bytes, &self.incarnation);
        put_sequence(&mut bytes, &self.user);
        bytes.freeze()
    }

    /// Reads the bytes; `None` when they are not of this format, or not whole.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let mut rest = Rest(bytes);
        if rest.take(1)? != [FORMAT] {
            return None;
        }
        let attachment = Attachment {
            revision: rest.take_u64()?,
            created_revision: rest.take_u64()?,
            version: rest.take_u64()?,
            expires_unix_ms: rest.take_u64()?,
            incarnation: rest.take_sequence()?.try_into().ok()?,
            user: bytes.slice_ref(rest.take_sequence()?),
        };
        rest.0.is_empty().then_some(attachment)
    }
}

fn put_sequence(bytes: &mut BytesMut, sequence: &[u8]) {
    let mut length = sequence.len() as u64;
    while length >= 0x80 {
        bytes.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.put_u8(length as u8);
    bytes.put_slice(sequence);
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn take_u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn take_sequence(&mut self) -> Option<&'a [u8]> {
        let mut length: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            length |= bits << shift;
            if byte & 0x80 == 0 {
                return self.take(usize::try_from(length).ok()?);
            }
        }
        None
    }
}
