//! Parameters: `a=1;b=2`, names as they are, values percent-encoded UTF-8; and the values' types.
//!
//! A name that is given twice, or that the request does not know, is refused; so is a bad value, with
//! what is allowed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::refusal::Refusal;

/// zenoh's own, for getters that accept replies on any key: ours always match the query's.
const ANY_KEY: &str = "_anyke";
/// The longest time that a parameter may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// All parameters, decoded.
///
/// # Errors
/// `INVALID_PARAMETER` for a name given twice or missing, and for a value that is not percent-encoded UTF-8.
pub fn pairs(parameters: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut pairs = BTreeMap::new();
    for pair in parameters.split(';').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name == ANY_KEY {
            continue;
        }
        if name.is_empty() {
            return Err(Refusal::parameter("a parameter has no name"));
        }
        let decoded = percent_decode(value).ok_or_else(|| {
            Refusal::parameter(format!("the value of {} is not percent-encoded UTF-8", shown(name)))
        })?;
        if pairs.insert(name.to_owned(), decoded).is_some() {
            return Err(Refusal::parameter(format!("parameter {} is given twice", shown(name))));
        }
    }
    Ok(pairs)
}

/// `name=value` pairs as parameters, values percent-encoded.
pub fn join<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let encode = |(name, value): (&str, String)| format!("{name}={}", percent_encode(&value));
    pairs.into_iter().map(encode).collect::<Vec<_>>().join(";")
}

/// Decodes `%XX`; `None` when that is malformed or does not give UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = (hex_digit(*rest.first()?)?, hex_digit(*rest.get(1)?)?);
        bytes.push(high << 4 | low);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Encodes everything but letters, digits and `-_.~` as `%XX`.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A name or value as it is shown to its sender: quoted, and cut.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(64).collect();
    format!("{cut:?}")
}

/// The parameters of one request, taken one by one; what is left over is unknown.
pub(crate) struct Taking {
    left: BTreeMap<String, String>,
    asked: Vec<&'static str>,
}

impl Taking {
    pub(crate) fn new(parameters: &str) -> Result<Self, Refusal> {
        Ok(Taking { left: pairs(parameters)?, asked: Vec::new() })
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        self.asked.push(name);
        self.left.remove(name)
    }

    pub(crate) fn flag(&mut self, name: &'static str) -> Result<bool, Refusal> {
        match self.text(name).as_deref() {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(bad(name, other, "1 or 0")),
        }
    }

    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let allowed = "a decimal number from 0 to 18446744073709551615";
        self.parsed(name, allowed, |text| decimal(text)?.parse().ok())
    }

    pub(crate) fn positive(&mut self, name: &'static str) -> Result<Option<u64>, Refusal> {
        let allowed = "a decimal number from 1 to 18446744073709551615";
        self.parsed(name, allowed, |text| decimal(text)?.parse().ok().filter(|number| *number > 0))
    }

    pub(crate) fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, Refusal> {
        self.parsed(name, DURATION, duration)
    }

    pub(crate) fn timeout(&mut self) -> Result<Option<Duration>, Refusal> {
        let fits = |text: &str| duration(text).filter(|timeout| *timeout <= MAX_TIMEOUT);
        self.parsed("timeout", "a duration from 1ms to 1h such as 100ms, 2s", fits)
    }

    pub(crate) fn parsed<T>(
        &mut self,
        name: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| bad(name, &text, allowed))
    }

    /// Refuses what nobody asked for.
    pub(crate) fn finish(self, of: &str) -> Result<(), Refusal> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(unknown) => Err(Refusal::parameter(format!(
                "{} is no parameter of {of}, allowed are {}",
                shown(unknown),
                self.asked.join(", ")
            ))),
        }
    }
}

/// How durations are written.
pub(crate) const DURATION: &str = "a duration above 0 such as 100ms, 30s, 5m, 2h, 7d";

fn bad(name: &str, value: &str, allowed: &str) -> Refusal {
    Refusal::parameter(format!("{name}={} is not allowed, allowed is {allowed}", shown(value)))
}

fn decimal(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

/// A duration above 0: `100ms`, `30s`, `5m`, `2h`, `7d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..unit_at].parse().ok()?;
    let unit_ms: u64 = match &text[unit_at..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    // So far that adding it to a wall clock cannot overflow.
    let ms = number.checked_mul(unit_ms).filter(|ms| (1..=u64::MAX / 4).contains(ms))?;
    Some(Duration::from_millis(ms))
}

/// A duration as a parameter's value.
pub(crate) fn duration_text(duration: Duration) -> String {
    format!("{}ms", duration.as_millis().max(1))
}
