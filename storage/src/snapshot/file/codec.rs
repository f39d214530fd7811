//! The codecs of frames. Each frame is coded on its own; one that does not shrink stays as it is.

use std::io::{Read, Write};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use zstd::bulk::{Compressor, Decompressor};

use crate::snapshot::{Compression, SnapshotOptions};

/// The codec of a frame; final numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub(super) enum FrameCodec {
    None = 0,
    Zstd = 1,
    Lz4 = 2,
    Gzip = 3,
}

impl From<FrameCodec> for u8 {
    fn from(codec: FrameCodec) -> u8 {
        codec as u8
    }
}

impl TryFrom<u8> for FrameCodec {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            0 => Ok(FrameCodec::None),
            1 => Ok(FrameCodec::Zstd),
            2 => Ok(FrameCodec::Lz4),
            3 => Ok(FrameCodec::Gzip),
            other => Err(format!("codec {other}")),
        }
    }
}

impl From<Compression> for FrameCodec {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => FrameCodec::None,
            Compression::Zstd => FrameCodec::Zstd,
            Compression::Lz4 => FrameCodec::Lz4,
            Compression::Gzip => FrameCodec::Gzip,
        }
    }
}

impl From<FrameCodec> for Compression {
    fn from(codec: FrameCodec) -> Self {
        match codec {
            FrameCodec::None => Compression::None,
            FrameCodec::Zstd => Compression::Zstd,
            FrameCodec::Lz4 => Compression::Lz4,
            FrameCodec::Gzip => Compression::Gzip,
        }
    }
}

/// Compresses frames, one after the other.
pub(super) enum Packer {
    None,
    Zstd(Compressor<'static>),
    Lz4,
    Gzip(flate2::Compression),
}

impl Packer {
    /// A packer for options that were validated.
    pub(super) fn new(options: &SnapshotOptions) -> std::io::Result<Self> {
        Ok(match options.compression {
            Compression::None => Packer::None,
            Compression::Zstd => Packer::Zstd(Compressor::new(options.level)?),
            Compression::Lz4 => Packer::Lz4,
            Compression::Gzip => Packer::Gzip(flate2::Compression::new(options.level.unsigned_abs())),
        })
    }

    /// The stored form of `content` behind `room` zero bytes, and its codec: `None` when packing gains nothing.
    pub(super) fn pack(&mut self, content: &[u8], room: usize) -> (FrameCodec, Vec<u8>) {
        let raw = content.len();
        let mut out = Vec::new();
        // Anything that goes wrong here leaves the content as it is, which is always right.
        let packed = match self {
            Packer::None => None,
            Packer::Zstd(zstd) => {
                // One byte less than the content: what does not shrink does not fit.
                out.resize(room + raw - 1, 0);
                let packed = zstd.compress_to_buffer(content, &mut out[room..]);
                packed.ok().map(|stored| (FrameCodec::Zstd, stored))
            }
            Packer::Lz4 => {
                out.resize(room + lz4_flex::block::get_maximum_output_size(raw), 0);
                let packed = lz4_flex::block::compress_into(content, &mut out[room..]);
                packed.ok().map(|stored| (FrameCodec::Lz4, stored))
            }
            Packer::Gzip(level) => {
                out.reserve(room + raw);
                out.resize(room, 0);
                let mut gzip = GzEncoder::new(&mut out, *level);
                let packed = gzip.write_all(content).and_then(|()| gzip.finish().map(|out| out.len() - room));
                packed.ok().map(|stored| (FrameCodec::Gzip, stored))
            }
        };
        if let Some((codec, stored)) = packed.filter(|(_, stored)| *stored < raw) {
            out.truncate(room + stored);
            return (codec, out);
        }
        out.clear();
        out.reserve(room + raw);
        out.resize(room, 0);
        out.extend_from_slice(content);
        (FrameCodec::None, out)
    }
}

/// Decompresses frames, one after the other.
#[derive(Default)]
pub(super) struct Unpacker {
    zstd: Option<Decompressor<'static>>,
}

impl Unpacker {
    /// Puts the content of a frame into `content`, whatever was in it; `false` when `stored` is not the
    /// packed form of exactly `raw` bytes. May take the buffer of `stored`.
    pub(super) fn unpack(
        &mut self,
        codec: FrameCodec,
        stored: &mut Vec<u8>,
        raw: usize,
        content: &mut Vec<u8>,
    ) -> bool {
        content.resize(raw, 0);
        match codec {
            FrameCodec::None => {
                std::mem::swap(content, stored);
                content.len() == raw
            }
            FrameCodec::Zstd => {
                let zstd = match self.zstd.take() {
                    Some(zstd) => Ok(zstd),
                    None => Decompressor::new(),
                };
                let Ok(mut zstd) = zstd else { return false };
                let count = zstd.decompress_to_buffer(stored, &mut content[..]);
                self.zstd = Some(zstd);
                count.ok() == Some(raw)
            }
            FrameCodec::Lz4 => lz4_flex::block::decompress_into(stored, content).ok() == Some(raw),
            FrameCodec::Gzip => {
                let mut gzip = GzDecoder::new(&stored[..]);
                // The second read meets the end, where the sum of the content is checked.
                gzip.read_exact(content).is_ok()
                    && matches!(gzip.read(&mut [0]), Ok(0))
                    && gzip.into_inner().is_empty()
            }
        }
    }
}
