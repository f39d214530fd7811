//! The stream: the receiver pulls the ranges of a named object of a peer, in order, in steps of
//! 1 MiB with a small window, over the bulk class of the links. Nothing is pushed, so a slow receiver
//! costs its peer nothing; whoever knows the offset goes on where it stopped, from the same peer or
//! from another that has the object.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::link::{Class, Links, PeerId};
use crate::timer::BoxFuture;
use crate::{Error, Result};

/// How many bytes one request asks for; the last of a stream asks for what is left.
pub const STEP_BYTES: u32 = 1 << 20;

/// What a range request begins with; no other message of the bulk class may.
pub const RANGE_MAGIC: [u8; 4] = *b"oRg1";

/// A request for a part of a named object, as the serving side reads it from
/// [`crate::link::Incoming::payload`]. Answer it with exactly those bytes, or refuse it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRequest {
    /// The name that the receiver and the server agreed on; opaque here.
    pub name: Bytes,
    /// The first byte.
    pub offset: u64,
    /// How many bytes, at most [`STEP_BYTES`].
    pub length: u32,
}

impl RangeRequest {
    /// Writes the request.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(16 + self.name.len());
        out.put_slice(&RANGE_MAGIC);
        out.put_u64_le(self.offset);
        out.put_u32_le(self.length);
        out.put_slice(&self.name);
        out.freeze()
    }

    /// Reads a request; `None` when the message is something else, or asks for more than one step.
    pub fn decode(message: &Bytes) -> Option<Self> {
        let mut rest = message.clone();
        if rest.len() < 16 || !rest.starts_with(&RANGE_MAGIC) {
            return None;
        }
        rest.advance(RANGE_MAGIC.len());
        let (offset, length) = (rest.get_u64_le(), rest.get_u32_le());
        (length <= STEP_BYTES).then_some(RangeRequest { name: rest, offset, length })
    }
}

/// What is pulled, and how.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The name of the object.
    pub name: Bytes,
    /// Where to begin.
    pub offset: u64,
    /// The length of the whole object.
    pub total: u64,
    /// How many requests are under way at once, at least 1.
    pub window: usize,
    /// How long each may take.
    pub timeout: Duration,
}

impl PullOptions {
    /// The whole object, 4 requests at once, 5 s each.
    pub fn new(name: Bytes, total: u64) -> Self {
        PullOptions { name, offset: 0, total, window: 4, timeout: Duration::from_secs(5) }
    }
}

/// A pull under way. The caller asks for the next part when it has stored the last, on whatever
/// thread it likes: at most `window` parts wait meanwhile.
pub struct Pull {
    links: Arc<Links>,
    from: PeerId,
    options: PullOptions,
    /// Up to where it was asked for.
    asked: u64,
    under_way: VecDeque<(u32, BoxFuture<'static, Result<Bytes>>)>,
}

impl Pull {
    /// Begins at `options.offset`; asks for nothing before the first [`Pull::next`].
    pub fn new(links: Arc<Links>, from: PeerId, options: PullOptions) -> Self {
        Pull { links, from, asked: options.offset, options, under_way: VecDeque::new() }
    }

    /// Up to where the parts were handed out: where to resume.
    pub fn offset(&self) -> u64 {
        self.options.offset
    }

    /// The next part, in order; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// As [`Links::request`]; [`Error::Refused`] too for an answer of another length. After an error
    /// the next call asks again from [`Pull::offset`].
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        self.ask();
        let Some((length, part)) = self.under_way.front_mut() else { return Ok(None) };
        let length = *length;
        let answer = Pin::new(part).await;
        let answer = answer.and_then(|part| match part.len() == length as usize {
            true => Ok(part),
            false => Err(Error::Refused(format!("{} bytes instead of {length}", part.len()))),
        });
        match answer {
            Ok(part) => {
                self.under_way.pop_front();
                self.options.offset += u64::from(length);
                self.ask();
                Ok(Some(part))
            }
            Err(error) => {
                self.under_way.clear();
                self.asked = self.options.offset;
                Err(error)
            }
        }
    }

    fn ask(&mut self) {
        while self.under_way.len() < self.options.window.max(1) && self.asked < self.options.total {
            let left = self.options.total - self.asked;
            let length = u32::try_from(left).unwrap_or(STEP_BYTES).min(STEP_BYTES);
            let request = RangeRequest { name: self.options.name.clone(), offset: self.asked, length };
            let answer = self.links.request(self.from, Class::Bulk, request.encode(), self.options.timeout);
            self.under_way.push_back((length, Box::pin(answer)));
            self.asked += u64::from(length);
        }
    }
}

impl fmt::Debug for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull")
            .field("from", &self.from)
            .field("options", &self.options)
            .field("under_way", &self.under_way.len())
            .finish_non_exhaustive()
    }
}

/// Pulls to the end into a sink that does not block; for one that does, drive a [`Pull`] from where
/// it may.
///
/// # Errors
/// The sink's, or that of [`Pull::next`]. The sink has taken everything up to there, in order.
pub async fn pull(
    links: Arc<Links>,
    from: PeerId,
    options: PullOptions,
    mut sink: impl FnMut(Bytes) -> Result<()>,
) -> Result<()> {
    let mut pull = Pull::new(links, from, options);
    while let Some(part) = pull.next().await? {
        sink(part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_request_is_read_as_it_was_written() {
        let request = RangeRequest { name: Bytes::from_static(b"snap"), offset: 1 << 40, length: STEP_BYTES };
        assert_eq!(RangeRequest::decode(&request.encode()), Some(request));
    }

    #[test]
    fn another_message_and_too_long_a_range_are_no_range_request() {
        assert_eq!(RangeRequest::decode(&Bytes::from_static(b"0123456789abcdef")), None);
        assert_eq!(RangeRequest::decode(&Bytes::from_static(b"oRg1")), None);
        let long = RangeRequest { name: Bytes::new(), offset: 0, length: STEP_BYTES + 1 };
        assert_eq!(RangeRequest::decode(&long.encode()), None);
    }
}
