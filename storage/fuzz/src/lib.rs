//! One function per decoder of a file: it is given any bytes as that file, through the public interface.
//!
//! None may panic, hang, take memory by what a length claims, or serve what contradicts itself. The first
//! byte of an input says whether the checksums in the rest are to be made right: with an odd one the
//! decoder sees what lies behind them, with an even one it sees the bytes as they are.
//!
//! The fuzz targets run these, and so does an ordinary test over `corpus/` (`storage/tests/it/corpus.rs`).

mod data;
mod layers;
mod log;
mod snapshot;

pub use data::{checkpoint_manifest, data_pointer, data_stream};
pub use layers::storage_layers;
pub use log::log_segment;
pub use snapshot::snapshot_file;

/// The bytes of a file in an input, its checksums made right by `seal` when the input wants that.
fn file_in(input: &[u8], seal: fn(&mut [u8])) -> Option<Vec<u8>> {
    let (mode, file) = input.split_first()?;
    let mut file = file.to_vec();
    if mode % 2 == 1 {
        seal(&mut file);
    }
    Some(file)
}

/// A number in a file, when the file is that long.
fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?) as usize)
}

/// Puts a number into a file; outside of it, nothing happens.
fn put(bytes: &mut [u8], at: usize, word: &[u8]) {
    if let Some(place) = at.checked_add(word.len()).and_then(|end| bytes.get_mut(at..end)) {
        place.copy_from_slice(word);
    }
}
