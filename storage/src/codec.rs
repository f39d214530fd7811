//! The codec of this crate's own records: bincode 2 with a fixed configuration.
//!
//! Nothing outside names bincode. What it writes is covered by golden files.

use serde::{Serialize, de::DeserializeOwned};

/// Little-endian, with variable integers.
fn config() -> bincode::config::Configuration {
    bincode::config::standard().with_little_endian().with_variable_int_encoding()
}

/// Encodes a record.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config()).expect("records are plain data: encoding them cannot fail")
}

/// Decodes a record that fills `bytes` exactly. What its lengths claim is bounded by what came, so that
/// a few bytes never ask for much memory: a number may grow 16-fold on decoding, nothing grows more.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bytes.len() {
        0..0x1_0000 => decode_up_to::<T, 0x10_0000>(bytes),
        0x1_0000..0x100_0000 => decode_up_to::<T, 0x1000_0000>(bytes),
        _ => decode_up_to::<T, 0x1_0000_0000>(bytes),
    }
}

fn decode_up_to<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Option<T> {
    match bincode::serde::decode_from_slice(bytes, config().with_limit::<LIMIT>()) {
        Ok((value, used)) if used == bytes.len() => Some(value),
        _ => None,
    }
}
