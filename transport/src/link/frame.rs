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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            class: Class::Log,
            cluster: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            from: PeerId(1),
            to: PeerId(2),
            epoch: 3,
        }
    }

    fn message(kind: Kind, correlation: u64, body: &[u8]) -> Message {
        Message { kind, correlation, body: Bytes::copy_from_slice(body) }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::OneWay), Just(Kind::Request), Just(Kind::Response), Just(Kind::Refusal)]
    }

    fn messages() -> impl Strategy<Value = Vec<Message>> {
        let one = (kinds(), any::<u64>(), vec(any::<u8>(), 0..64));
        vec(one.prop_map(|(kind, correlation, body)| message(kind, correlation, &body)), 0..8)
    }

    #[test]
    fn the_bytes_of_version_1_do_not_change() {
        let frame = encode(&header(), &[message(Kind::Request, 9, b"hi")], None);
        let expected = "01010000\
            0102030405060708090a0b0c0d0e0f10\
            0100000000000000\
            0200000000000000\
            0300000000000000\
            01000000\
            01\
            0900000000000000\
            02000000\
            6869";
        assert_eq!(hex(&frame), expected);
        let signed = encode(&header(), &[], Some(b"secret"));
        assert_eq!(signed.len(), HEADER_BYTES + MAC_BYTES);
        assert_eq!(hex(&signed[..4]), "01010100");
    }

    #[test]
    fn another_version_is_told_apart_from_garbage() {
        let mut frame = encode(&header(), &[], None).to_vec();
        frame[0] = 2;
        assert_eq!(decode(Bytes::from(frame), None), Err(Malformed::Version(2)));
    }

    #[test]
    fn the_mac_is_asked_of_both_sides() {
        let plain = encode(&header(), &[], None);
        let signed = encode(&header(), &[], Some(b"secret"));
        assert_eq!(decode(plain, Some(b"secret")), Err(Malformed::Mac));
        assert_eq!(decode(signed.clone(), None), Err(Malformed::Mac));
        assert_eq!(decode(signed.clone(), Some(b"other")), Err(Malformed::Mac));
        assert!(decode(signed, Some(b"secret")).is_ok());
    }

    proptest! {
        #[test]
        fn a_frame_is_read_as_it_was_written(messages in messages(), secret in any::<bool>()) {
            let secret = secret.then_some(&b"secret"[..]);
            let decoded = decode(encode(&header(), &messages, secret), secret);
            prop_assert_eq!(decoded, Ok(Decoded { header: header(), messages }));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in vec(any::<u8>(), 0..300), secret in any::<bool>()) {
            let _ = decode(Bytes::from(bytes), secret.then_some(&b"secret"[..]));
        }

        #[test]
        fn no_damaged_frame_makes_the_decoder_panic(
            messages in messages(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut frame = encode(&header(), &messages, None).to_vec();
            let at = at.index(frame.len());
            if cut { frame.truncate(at) } else { frame[at] = byte }
            let _ = decode(Bytes::from(frame), None);
        }

        #[test]
        fn a_signed_frame_with_one_bit_changed_is_refused(
            messages in messages(), at in any::<prop::sample::Index>(), bit in 0_u8..8,
        ) {
            let mut frame = encode(&header(), &messages, Some(b"secret")).to_vec();
            let at = at.index(frame.len());
            frame[at] ^= 1_u8 << bit;
            prop_assert!(decode(Bytes::from(frame), Some(b"secret")).is_err());
        }
    }
}
