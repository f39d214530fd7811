//! Values as index keys: bytes that sort as the values do, and end themselves.
//!
//! | tag | value | bytes behind the tag |
//! |---|---|---|
//! | `10` | null | none |
//! | `20` | false, true | `00`, `01` |
//! | `30` | number | the nearest f64 in sortable form (8) · exact value minus that, plus 32768 (2, big-endian) |
//! | `40` | string | UTF-8, each `00` as `00 ff` · `00 01` |
//!
//! So null sorts before false, true, numbers, strings; integers of 64 bits and floats sort by their exact
//! values among each other.

use serde_json::Value;

const NULL: u8 = 0x10;
const BOOL: u8 = 0x20;
const NUMBER: u8 = 0x30;
const STRING: u8 = 0x40;

/// A scalar that a row is found by, in its sortable form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexValue(Vec<u8>);

impl IndexValue {
    /// The form of a JSON scalar; `None` for an array or an object.
    #[must_use]
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(IndexValue(vec![NULL])),
            Value::Bool(value) => Some((*value).into()),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Some(value.into()),
                (None, Some(value)) => Some(value.into()),
                _ => number.as_f64().and_then(IndexValue::of_f64),
            },
            Value::String(value) => Some(value.as_str().into()),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The form of a float; `None` for NaN and the infinities, which JSON has not.
    #[must_use]
    pub fn of_f64(value: f64) -> Option<Self> {
        value.is_finite().then(|| number(value + 0.0, 0))
    }

    /// The sortable bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Where the value that `bytes` begin with ends; `None` when they begin with none.
    pub(super) fn end_in(bytes: &[u8]) -> Option<usize> {
        let end = match *bytes.first()? {
            NULL => 1,
            BOOL => 2,
            NUMBER => 11,
            STRING => {
                let mut at = 1;
                loop {
                    at += bytes.get(at..)?.iter().position(|byte| *byte == 0)? + 2;
                    if *bytes.get(at - 1)? == 1 {
                        break at;
                    }
                }
            }
            _ => return None,
        };
        (end <= bytes.len()).then_some(end)
    }

    pub(super) fn from_sortable(bytes: &[u8]) -> Self {
        IndexValue(bytes.to_vec())
    }
}

fn number(nearest: f64, rest: i16) -> IndexValue {
    let bits = nearest.to_bits();
    let sortable = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    let mut form = Vec::with_capacity(11);
    form.push(NUMBER);
    form.extend_from_slice(&sortable.to_be_bytes());
    form.extend_from_slice(&(rest as u16 ^ 0x8000).to_be_bytes());
    IndexValue(form)
}

/// Neighbours of a f64 below 2^64 are at most 2048 apart, so the rest is within ±1024.
fn integer(value: i128) -> IndexValue {
    let nearest = value as f64;
    number(nearest, (value - nearest as i128) as i16)
}

impl From<i64> for IndexValue {
    fn from(value: i64) -> Self {
        integer(value.into())
    }
}

impl From<u64> for IndexValue {
    fn from(value: u64) -> Self {
        integer(value.into())
    }
}

impl From<bool> for IndexValue {
    fn from(value: bool) -> Self {
        IndexValue(vec![BOOL, value.into()])
    }
}

impl From<&str> for IndexValue {
    fn from(value: &str) -> Self {
        let mut form = Vec::with_capacity(value.len() + 3);
        form.push(STRING);
        for byte in value.bytes() {
            form.push(byte);
            if byte == 0 {
                form.push(0xff);
            }
        }
        form.extend_from_slice(&[0, 1]);
        IndexValue(form)
    }
}
