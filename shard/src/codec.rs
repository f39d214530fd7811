//! The codec of this crate's own records and messages: bincode 2 with a fixed configuration.
//!
//! Nothing outside names bincode. What is kept or sent begins with a version byte of its own and is
//! covered by golden files.

use serde::{Serialize, de::DeserializeOwned};

fn config() -> impl bincode::config::Config {
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

/// Decodes a record that fills `bytes` exactly.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bincode::serde::decode_from_slice(bytes, config()) {
        Ok((value, used)) if used == bytes.len() => Some(value),
        _ => None,
    }
}

/// Decodes a record at the head of `bytes`, and says how many it took.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, usize)> {
    bincode::serde::decode_from_slice(bytes, config()).ok()
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
