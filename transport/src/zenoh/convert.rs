//! Between zenoh's types and ours.

use std::borrow::Cow;

use bytes::Bytes;
use zenoh::bytes::{Encoding, ZBytes};
use zenoh::sample::SampleKind;
use zenoh::time::{NTP64, Timestamp as ZenohTimestamp, TimestampId};

use crate::session::{Congestion, ErrorReply, Priority, Reply, Sample, Timestamp};
use crate::{Error, Result};

/// From this size on a payload is shared with zenoh's buffer instead of copied out of it.
const SHARE_BYTES: usize = 16 << 10;

pub(super) fn priority(priority: Priority) -> zenoh::qos::Priority {
    match priority {
        Priority::RealTime => zenoh::qos::Priority::RealTime,
        Priority::InteractiveHigh => zenoh::qos::Priority::InteractiveHigh,
        Priority::Data => zenoh::qos::Priority::Data,
        Priority::Background => zenoh::qos::Priority::Background,
    }
}

pub(super) fn congestion(congestion: Congestion) -> zenoh::qos::CongestionControl {
    match congestion {
        Congestion::Block => zenoh::qos::CongestionControl::Block,
        Congestion::Drop => zenoh::qos::CongestionControl::Drop,
    }
}

/// A payload in one piece.
struct Contiguous(ZBytes);

impl AsRef<[u8]> for Contiguous {
    fn as_ref(&self) -> &[u8] {
        self.0.slices().next().unwrap_or_default()
    }
}

pub(super) fn bytes(payload: &ZBytes) -> Bytes {
    match payload.to_bytes() {
        Cow::Borrowed(slice) if slice.len() < SHARE_BYTES => Bytes::copy_from_slice(slice),
        Cow::Borrowed(_) => Bytes::from_owner(Contiguous(payload.clone())),
        Cow::Owned(joined) => Bytes::from(joined),
    }
}

/// zenoh's default encoding is what a message without one has.
pub(super) fn encoding(encoding: &Encoding) -> String {
    if *encoding == Encoding::ZENOH_BYTES { String::new() } else { encoding.to_string() }
}

pub(super) fn to_encoding(encoding: String) -> Encoding {
    if encoding.is_empty() { Encoding::ZENOH_BYTES } else { Encoding::from(encoding) }
}

pub(super) fn to_timestamp(timestamp: Timestamp) -> Result<ZenohTimestamp> {
    let clock = TimestampId::try_from(&timestamp.clock)
        .map_err(|_| Error::Session("a timestamp needs the id of a clock".into()))?;
    Ok(ZenohTimestamp::new(NTP64(timestamp.time), clock))
}

fn timestamp(timestamp: &ZenohTimestamp) -> Timestamp {
    Timestamp { time: timestamp.get_time().as_u64(), clock: timestamp.get_id().to_le_bytes() }
}

pub(super) fn sample(sample: zenoh::sample::Sample) -> Sample {
    Sample {
        key: sample.key_expr().clone(),
        payload: match sample.kind() {
            SampleKind::Put => Some(bytes(sample.payload())),
            SampleKind::Delete => None,
        },
        encoding: encoding(sample.encoding()),
        attachment: sample.attachment().map(bytes),
        timestamp: sample.timestamp().map(timestamp),
    }
}

/// `None` for the error that zenoh itself makes when the deadline has passed: the session's is a
/// string, that of a hop on the way has no encoding.
pub(super) fn reply(reply: zenoh::query::Reply) -> Option<Reply> {
    match reply.into_result() {
        Ok(accepted) => Some(Ok(sample(accepted))),
        Err(error) => {
            let payload = bytes(error.payload());
            let zenohs = [Encoding::ZENOH_STRING, Encoding::ZENOH_BYTES].contains(error.encoding());
            let deadline = zenohs && payload == "Timeout";
            (!deadline).then(|| Err(ErrorReply { payload, encoding: encoding(error.encoding()) }))
        }
    }
}
