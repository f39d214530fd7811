//! The frame: what travels between two nodes, `docs/formats/wire.md`.
//!
//! Pure: bytes in, messages out. Decoding never copies a body and never panics.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use super::{Class, PeerId};

/// The version in the first byte of each frame.
pub const FRAME_VERSION: u8 = 1;

const HEADER_BYTES: usize = 48;
const MESSAGE_BYTES: usize = 13;
const MAC_BYTES: usize = 32;
const FLAG_MAC: u8 = 1;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing is expected back.
    OneWay,
    /// Its correlation id comes back in the answer.
    Request,
    /// An answer.
    Response,
    /// An answer that refuses, with a reason in UTF-8.
    Refusal,
}

/// One message of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// The requester's number for a request and its answer; 0 for a one-way message.
    pub correlation: u64,
    /// Its bytes.
    pub body: Bytes,
}

impl Message {
    /// The bytes it takes in a frame.
    pub fn size(&self) -> usize {
        MESSAGE_BYTES + self.body.len()
    }
}

/// Who sends to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The class of all messages of the frame.
    pub class: Class,
    /// The sender's cluster, nil before the founding.
    pub cluster: Uuid,
    /// The sender.
    pub from: PeerId,
    /// The receiver.
    pub to: PeerId,
    /// The sender's start.
    pub epoch: u64,
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Who sends to whom.
    pub header: Header,
    /// In the order in which they were sent.
    pub messages: Vec<Message>,
}

/// Why a frame cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a frame: too short, lengths that do not fit, an unknown class, kind or flag.
    #[error("not a frame")]
    Garbage,
    /// A version that this node does not know.
    #[error("frame version {0}, known is 1")]
    Version(u8),
    /// The MAC is missing, unexpected or wrong.
    #[error("the MAC is missing or wrong")]
    Mac,
}

/// Writes a frame.
pub fn encode(header: &Header, messages: &[Message], secret: Option<&[u8]>) -> Bytes {
    let body: usize = messages.iter().map(Message::size).sum();
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body + MAC_BYTES);
    out.put_u8(FRAME_VERSION);
    out.put_u8(header.class as u8);
    out.put_u8(if secret.is_some() { FLAG_MAC } else { 0 });
    out.put_u8(0);
    out.put_slice(header.cluster.as_bytes());
    out.put_u64_le(header.from.0);
    out.put_u64_le(header.to.0);
    out.put_u64_le(header.epoch);
    out.put_u32_le(u32::try_from(messages.len()).expect("a frame holds fewer than 2^32 messages"));
    for message in messages {
        out.put_u8(message.kind as u8);
        out.put_u64_le(message.correlation);
        out.put_u32_le(u32::try_from(message.body.len()).expect("a message is under its limit"));
        out.put_slice(&message.body);
    }
    if let Some(secret) = secret {
        let tag = mac(secret, &out).finalize().into_bytes();
        out.put_slice(&tag);
    }
    out.freeze()
}

/// Reads a frame. With a secret, one without the right MAC is refused, before anything in it is
/// looked at; without one, a frame that has a MAC is refused too: the nodes do not agree.
///
/// # Errors
/// Anything that is not a frame of this version.
pub fn decode(mut frame: Bytes, secret: Option<&[u8]>) -> Result<Decoded, Malformed> {
    if frame.len() < HEADER_BYTES {
        return Err(Malformed::Garbage);
    }
    if frame[0] != FRAME_VERSION {
        return Err(Malformed::Version(frame[0]));
    }
    if frame[2] & !FLAG_MAC != 0 || frame[3] != 0 {
        return Err(Malformed::Garbage);
    }
    check_mac(&mut frame, secret)?;
    let class = class(frame[1])?;
    frame.advance(4);
    let mut cluster = [0; 16];
    frame.copy_to_slice(&mut cluster);
    let header = Header {
        class,
        cluster: Uuid::from_bytes(cluster),
        from: PeerId(frame.get_u64_le()),
        to: PeerId(frame.get_u64_le()),
        epoch: frame.get_u64_le(),
    };
    let count = frame.get_u32_le() as usize;
    if count > frame.len() / MESSAGE_BYTES {
        return Err(Malformed::Garbage);
    }
    let messages = (0..count).map(|_| message(&mut frame)).collect::<Result<Vec<_>, _>>()?;
    if frame.has_remaining() {
        return Err(Malformed::Garbage);
    }
    Ok(Decoded { header, messages })
}

/// Checks the MAC and cuts it off.
fn check_mac(frame: &mut Bytes, secret: Option<&[u8]>) -> Result<(), Malformed> {
    match (secret, frame[2] & FLAG_MAC != 0) {
        (None, false) => Ok(()),
        (Some(secret), true) => {
            let length = frame.len().checked_sub(MAC_BYTES).ok_or(Malformed::Garbage)?;
            if length < HEADER_BYTES {
                return Err(Malformed::Garbage);
            }
            let tag = frame.split_off(length);
            mac(secret, frame).verify_slice(&tag).map_err(|_| Malformed::Mac)
        }
        _ => Err(Malformed::Mac),
    }
}

fn message(frame: &mut Bytes) -> Result<Message, Malformed> {
    if frame.len() < MESSAGE_BYTES {
        return Err(Malformed::Garbage);
    }
    let kind = match frame.get_u8() {
        0 => Kind::OneWay,
        1 => Kind::Request,
        2 => Kind::Response,
        3 => Kind::Refusal,
        _ => return Err(Malformed::Garbage),
    };
    let correlation = frame.get_u64_le();
    let length = frame.get_u32_le() as usize;
    if length > frame.len() {
        return Err(Malformed::Garbage);
    }
    Ok(Message { kind, correlation, body: frame.split_to(length) })
}

fn class(byte: u8) -> Result<Class, Malformed> {
    Class::ALL.into_iter().find(|class| *class as u8 == byte).ok_or(Malformed::Garbage)
}

fn mac(secret: &[u8], bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(bytes);
    mac
}
