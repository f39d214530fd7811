//! Sizes (`64MiB`, `64Mi`, `1GB`), durations (`100ms`, `30s`, `7d`) and ranges of durations
//! (`400ms..600ms`) as people write them, printed so that they read back as what they are.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const SIZE_FORMS: &str = "a size such as 64MiB, 64Mi, 1GB or a number of bytes";
const PERIOD_FORMS: &str = "a duration such as 100ms, 30s or 7d";
const RANGE_FORMS: &str = "a range of durations such as 400ms..600ms";

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Size(n << 20)
    }

    /// The bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        // The crate saturates silently; what does not fit is no size.
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if size.as_u64() < u64::MAX => Ok(Size(size.as_u64())),
            _ => Err(SIZE_FORMS),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

impl Period {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Period(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Period(Duration::from_millis(milliseconds))
    }

    /// The duration.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text.trim()).map(Period).map_err(|_| PERIOD_FORMS)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanos != 0 && nanos.is_multiple_of(1_000_000) && seconds < 10 {
            write!(f, "{}ms", self.0.as_millis())
        } else if nanos != 0 {
            humantime::format_duration(self.0).fmt(f)
        } else if seconds != 0 && seconds.is_multiple_of(86_400) {
            write!(f, "{}d", seconds / 86_400)
        } else {
            write!(f, "{seconds}s")
        }
    }
}

/// From a duration to a longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeriodRange {
    /// The shortest.
    pub min: Period,
    /// The longest.
    pub max: Period,
}

impl PeriodRange {
    /// A range of milliseconds.
    pub const fn from_millis(min: u64, max: u64) -> Self {
        PeriodRange { min: Period::from_millis(min), max: Period::from_millis(max) }
    }
}

impl FromStr for PeriodRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (min, max) = text.split_once("..").ok_or(RANGE_FORMS)?;
        let parse = |side: &str| side.parse::<Period>().map_err(|_| RANGE_FORMS);
        Ok(PeriodRange { min: parse(min)?, max: parse(max)? })
    }
}

impl fmt::Display for PeriodRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.min, self.max)
    }
}

struct Forms {
    forms: &'static str,
}

impl de::Expected for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.forms)
    }
}

struct TextOrBytes;

impl de::Visitor<'_> for TextOrBytes {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SIZE_FORMS)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
        Ok(Size(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes)
            .map(Size)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &Forms { forms: SIZE_FORMS }))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(|forms| E::invalid_value(de::Unexpected::Str(text), &Forms { forms }))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrBytes)
    }
}

struct Text<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err = &'static str>> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|forms| E::invalid_value(de::Unexpected::Str(text), &Forms { forms }))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text(std::marker::PhantomData, PERIOD_FORMS))
    }
}

impl<'de> Deserialize<'de> for PeriodRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text(std::marker::PhantomData, RANGE_FORMS))
    }
}

macro_rules! serialize_as_text {
    ($($name:ident)*) => { $(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}
serialize_as_text!(Size Period PeriodRange);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_in_every_documented_form() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("64Mi", 64 << 20),
            ("1GB", 1_000_000_000),
            ("10 GiB", 10 << 30),
            ("512k", 512_000),
            ("4096", 4096),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1MiB", "64 bananas", "99999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_read_in_every_documented_form() {
        for (text, milliseconds) in
            [("100ms", 100), ("30s", 30_000), ("7d", 604_800_000), ("1h 30m", 5_400_000)]
        {
            assert_eq!(text.parse(), Ok(Period::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "10", "-1s", "1 fortnight"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        assert_eq!("400ms..600ms".parse(), Ok(PeriodRange::from_millis(400, 600)));
        assert!("400ms-600ms".parse::<PeriodRange>().is_err());
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        for bytes in [0, 1, 1023, 1024, 1_000_000_000, 64 << 20, 10 << 30] {
            let size = Size(bytes);
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for nanos in [0, 1, 1_500_000, 100_000_000, 60_000_000_000, 61_500_000_000, 604_800_000_000_000] {
            let period = Period(Duration::from_nanos(nanos));
            assert_eq!(period.to_string().parse(), Ok(period));
        }
    }
}
