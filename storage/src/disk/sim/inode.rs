//! The bytes of a file: what is durable, what a reader sees, and what lies between.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// A file without its name.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) durable: Vec<u8>,
    pub(super) cached: Vec<u8>,
    /// Not synced: offset and bytes, in order.
    pub(super) pending: Vec<(usize, Vec<u8>)>,
}

impl Inode {
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if self.cached.len() < offset + bytes.len() {
            self.cached.resize(offset + bytes.len(), 0);
        }
        self.cached[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.pending.push((offset, bytes.to_vec()));
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.cached.len(), 0);
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            let end = (offset + bytes.len()).min(self.durable.len());
            if offset < end {
                self.durable[offset..end].copy_from_slice(&bytes[..end - offset]);
            }
        }
    }

    /// Every page that was written since the last sync takes the content after some of its writes;
    /// one in four mixes two of them sector by sector.
    pub(super) fn crash(&mut self, rng: &mut StdRng) {
        if self.durable.len() != self.cached.len() && rng.random() {
            self.durable.resize(self.cached.len(), 0);
        }
        let mut pages: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
        for (offset, bytes) in &self.pending {
            let (mut at, mut rest) = (*offset, bytes.as_slice());
            while !rest.is_empty() {
                let take = (PAGE - at % PAGE).min(rest.len());
                pages.entry(at / PAGE).or_default().push((at, &rest[..take]));
                (at, rest) = (at + take, &rest[take..]);
            }
        }
        for writes in pages.into_values() {
            let kept = rng.random_range(0..=writes.len());
            let torn = rng.random_ratio(1, 4);
            for (at, bytes) in &writes[..kept] {
                for (n, piece) in sectors(*at, bytes) {
                    let end = (n + piece.len()).min(self.durable.len());
                    if n < end && !(torn && rng.random()) {
                        self.durable[n..end].copy_from_slice(&piece[..end - n]);
                    }
                }
            }
        }
        self.pending.clear();
        self.cached = self.durable.clone();
    }
}

/// Cuts a write where sectors begin.
fn sectors(mut at: usize, mut bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let take = (SECTOR - at % SECTOR).min(bytes.len());
        pieces.push((at, &bytes[..take]));
        (at, bytes) = (at + take, &bytes[take..]);
    }
    pieces
}
