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

    /// Reads the sortable bytes back; `None` when they are none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (Self::end_in(bytes) == Some(bytes.len())).then(|| IndexValue(bytes.to_vec()))
    }

    /// The scalar that it is the form of.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rest = &self.0[1..];
        match self.0[0] {
            BOOL => Value::Bool(rest == [1]),
            NUMBER => to_number(rest),
            STRING => {
                let text = &rest[..rest.len() - 2];
                let mut bytes = Vec::with_capacity(text.len());
                // Behind each 00 stands an ff, which no text has.
                bytes.extend(text.iter().filter(|byte| **byte != 0xff));
                Value::String(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => Value::Null,
        }
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

/// The number of a form behind its tag.
fn to_number(form: &[u8]) -> Value {
    let (mut bits, mut rest) = ([0; 8], [0; 2]);
    bits.copy_from_slice(&form[..8]);
    rest.copy_from_slice(&form[8..10]);
    let sortable = u64::from_be_bytes(bits);
    let nearest = f64::from_bits(if sortable >> 63 == 1 { sortable & !(1 << 63) } else { !sortable });
    let rest = (u16::from_be_bytes(rest) ^ 0x8000) as i16;
    let exact = nearest as i128 + i128::from(rest);
    let is_integer = nearest.fract() == 0.0 && nearest.abs() < 2e19;
    match (is_integer, i64::try_from(exact), u64::try_from(exact)) {
        (true, Ok(integer), _) => integer.into(),
        (true, _, Ok(integer)) => integer.into(),
        _ => nearest.into(),
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::IndexValue;

    #[test]
    fn a_form_gives_its_scalar_back() {
        for value in [
            json!(null),
            json!(true),
            json!(0),
            json!(-7),
            json!(1.5),
            json!(-1e300),
            json!(i64::MIN),
            json!(i64::MAX),
            json!(u64::MAX),
            json!(9_007_199_254_740_993_i64),
            json!(""),
            json!("a\u{0}b\u{0}\u{0}"),
            json!("ü\u{1}"),
        ] {
            let form = IndexValue::of(&value).unwrap();
            assert_eq!(form.to_json(), value);
            assert_eq!(IndexValue::from_bytes(form.as_bytes()), Some(form));
        }
        assert_eq!(IndexValue::of(&json!(2.0)).unwrap().to_json(), json!(2));
        for damaged in [&b""[..], b"\x30", b"\x40abc", b"\x10\x10", b"\x99"] {
            assert_eq!(IndexValue::from_bytes(damaged), None);
        }
    }
}
