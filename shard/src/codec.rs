//! The codec of this crate's own records and messages: bincode 2 with a fixed configuration.
//!
//! Nothing outside names bincode. What is kept or sent begins with a version byte of its own and is
//! covered by golden files.

use serde::{Serialize, de::DeserializeOwned};

/// What a record before raw bytes takes at most, as a rule.
const HEADER_BYTES: usize = 128;

fn config() -> bincode::config::Configuration {
    bincode::config::standard().with_little_endian().with_variable_int_encoding()
}

/// Encodes a record.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config()).expect("records are plain data: encoding them cannot fail")
}

/// Encodes a record behind a version byte.
pub fn encode_versioned<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![version];
    bincode::serde::encode_into_std_write(value, &mut bytes, config())
        .expect("records are plain data: encoding them cannot fail");
    bytes
}

/// Encodes a record behind a version byte, with raw bytes behind it.
pub fn encode_versioned_before<T: Serialize>(version: u8, value: &T, tail: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + tail.len());
    bytes.push(version);
    encode_into(value, &mut bytes);
    bytes.extend_from_slice(tail);
    bytes
}

/// Decodes a record that fills `bytes` exactly. What its lengths claim is bounded by what came, as in
/// [`decode_prefix`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    decode_prefix(bytes).filter(|(_, used)| *used == bytes.len()).map(|(value, _)| value)
}

/// Decodes a record at the head of `bytes`, and says how many it took. What its lengths claim is bounded
/// by what came, so that a few bytes never ask for much memory: a number may grow 16-fold on decoding,
/// nothing grows more.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, usize)> {
    match bytes.len() {
        0..0x1_0000 => decode_up_to::<T, 0x10_0000>(bytes),
        0x1_0000..0x100_0000 => decode_up_to::<T, 0x1000_0000>(bytes),
        _ => decode_up_to::<T, 0x1_0000_0000>(bytes),
    }
}

fn decode_up_to<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Option<(T, usize)> {
    bincode::serde::decode_from_slice(bytes, config().with_limit::<LIMIT>()).ok()
}

/// Encodes a record into a writer that takes everything, such as a hasher.
pub fn encode_into<T: Serialize>(value: &T, into: &mut impl std::io::Write) {
    bincode::serde::encode_into_std_write(value, into, config())
        .expect("records are plain data, and the writer takes everything");
}

/// Decodes a record behind the expected version byte.
pub fn decode_versioned<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((found, rest)) if *found == version => decode(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_claims_more_than_could_have_come_is_refused() {
        // A byte string of 2^40 bytes, of which one is there.
        let mut claims = vec![253];
        claims.extend_from_slice(&(1_u64 << 40).to_le_bytes());
        claims.push(7);
        assert_eq!(decode::<bytes::Bytes>(&claims), None);
        assert_eq!(decode_prefix::<Vec<u64>>(&claims), None);
        let sound = encode(&bytes::Bytes::from(vec![7; 70_000]));
        assert_eq!(decode::<bytes::Bytes>(&sound).map(|bytes| bytes.len()), Some(70_000));
    }
}
