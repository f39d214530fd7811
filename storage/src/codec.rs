//! The codec of this crate's own records: bincode 2 with a fixed configuration.
//!
//! Nothing outside names bincode. What it writes is covered by golden files.

use serde::{Serialize, de::DeserializeOwned};

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_little_endian().with_variable_int_encoding()
}

/// Encodes a record.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config()).expect("records are plain data: encoding them cannot fail")
}

/// Decodes a record that fills `bytes` exactly.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bincode::serde::decode_from_slice(bytes, config()) {
        Ok((value, used)) if used == bytes.len() => Some(value),
        _ => None,
    }
}
