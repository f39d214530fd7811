//! The list of the backends of a data directory.

use std::path::Path;

use odgm_storage::composite::Layers;
use odgm_storage::disk::{Disk, OpenMode, SimDisk};

use super::{file_in, put};

const DIR: &str = "/data";

/// A list of layers: what is believed is what would be written.
pub fn storage_layers(input: &[u8]) {
    let Some(list) = file_in(input, seal) else { return };
    let disk = SimDisk::new(1);
    let (dir, path) = (Path::new(DIR), Path::new(DIR).join("storage"));
    disk.create_dir_all(dir).expect("a simulated disk");
    let file = disk.open(&path, OpenMode::Create).expect("a simulated disk");
    file.write_at(&list, 0).expect("a simulated disk");
    if let Ok(Some(layers)) = Layers::read(&disk, dir) {
        layers.write(&disk, dir).expect("a simulated disk");
        assert_eq!(disk.bytes(&path).as_deref(), Some(&list[..]));
    }
}

/// Makes the sum at the end right.
fn seal(text: &mut [u8]) {
    if let Some(at) = text.len().checked_sub(15) {
        let sum = format!("crc32 {:08x}\n", crc32fast::hash(&text[..at]));
        put(text, at, sum.as_bytes());
    }
}
