//! Faults of disks: a loss of power, flipped bytes, no room.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use crate::fault::Kind;
use crate::nemesis::{Nemesis, RECOVERY};

/// How long a node with damaged files is watched, in milliseconds.
const WATCHED: std::ops::Range<u64> = 4_000..15_000;
/// How long a disk is full.
const FULL: std::ops::Range<u64> = 3_000..10_000;
/// From so many bytes on a file is large.
const LARGE: u64 = 4 << 10;
/// Places that are looked at for a byte that was written.
const TRIES: u32 = 500;
/// Between two looks at a node.
const PAUSE: Duration = Duration::from_millis(100);

impl Nemesis {
    /// Freezes a node, takes its disk as it is, kills it, and starts it on that.
    pub(crate) async fn cut_power(&mut self, node: usize) {
        self.grid.freeze(node);
        let taken = tokio::task::block_in_place(|| self.grid.disk(node)?.freeze());
        self.grid.kill(node);
        let lost = taken.and_then(|()| tokio::task::block_in_place(|| self.grid.disk(node)?.lose_power()));
        if let Err(error) = lost {
            self.note(format!("no loss of power: {error:#}"));
        }
        self.pass(0..2_000).await;
    }

    /// Fills a node's disk, and makes room again. A node that can't write its data may end.
    pub(crate) async fn fill_disk(&mut self, node: usize) {
        let left = if self.random.random_bool(0.5) { 0 } else { self.random.random_range(0..1 << 20) };
        if let Err(error) = self.grid.disk(node).and_then(|disk| disk.fill(left)) {
            self.note(format!("no full disk: {error:#}"));
        }
        self.pass(FULL).await;
        if let Err(error) = self.grid.disk(node).and_then(|disk| disk.clear()) {
            self.note(format!("the disk stays full: {error:#}"));
        }
        self.pass(0..3_000).await;
        for (node, end) in self.grid.ended() {
            self.note(format!("odgm-{node} ended on a full disk: {end}"));
        }
    }

    /// Kills a node and flips bytes in its files. It then must refuse them, or have a use for none of them; at the
    /// end an empty node takes its place, so that never two nodes are damaged.
    pub(crate) async fn flip_bytes(&mut self, node: usize) {
        // One replica is damaged, and all others have what it acknowledged: that is what can be survived.
        self.await_recovery(Kind::FlippedBytes).await;
        self.grid.kill(node);
        let data = self.grid.data(node);
        let flipped = match flip(&data, &mut self.random) {
            Ok(flipped) => flipped,
            Err(error) => return self.note(format!("no flipped bytes: {error}")),
        };
        eprintln!("         flipped in {}", flipped.display());
        self.grid.restart(node);
        self.watch_damaged(node, "as it is").await;
        self.grid.kill(node);
        if self.random.random_bool(0.5) {
            let (code, said) = tokio::task::block_in_place(|| self.grid.doctor(node));
            self.note(format!("doctor --repair: exit code {code:?}"));
            if !matches!(code, Some(0 | 1)) {
                self.around
                    .record
                    .violated(format!("odgm doctor ended with {code:?} for {}: {said}", flipped.display()));
            }
            self.grid.restart(node);
            self.watch_damaged(node, "after doctor").await;
            self.grid.kill(node);
        }
        self.replace(node).await;
    }

    /// It serves or refuses; it does not panic.
    async fn watch_damaged(&mut self, node: usize, how: &str) {
        let (start, time) = (Instant::now(), self.random.random_range(WATCHED));
        while start.elapsed() < Duration::from_millis(time) {
            if let Some((_, end)) = self.grid.ended().into_iter().find(|(ended, _)| *ended == node) {
                self.note(format!("a node with flipped bytes, {how}: {end}"));
                if end.code().is_none_or(|code| code == 101) || self.grid.log(node).contains("panicked") {
                    let log = self.grid.log(node);
                    self.around.record.violated(format!("odgm-{node} with flipped bytes: {end}\n{log}"));
                }
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let ready = !self.grid.unready().contains(&node);
        let how = if ready { format!("{how}: serves") } else { format!("{how}: refuses a part") };
        self.note(format!("a node with flipped bytes, {how}"));
    }

    /// An empty node takes the place of a stopped one.
    pub(crate) async fn replace(&mut self, node: usize) {
        self.grid.kill(node);
        if let Err(error) = self.grid.empty(node) {
            return self.around.record.violated(format!("odgm-{node} can't be emptied: {error}"));
        }
        self.grid.restart(node);
        let start = Instant::now();
        loop {
            // Asked for until the empty node was seen; what got no answer may have been done.
            let told = self.grid.replace(node).await;
            if told.is_ok() || !self.grid.unready().contains(&node) {
                return;
            }
            if start.elapsed() > RECOVERY {
                let refused = format!("odgm-{node} can't be replaced: {told:?}: {}", self.grid.reasons());
                return self.around.record.violated(refused);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub(crate) fn note(&mut self, note: String) {
        eprintln!("         {note}");
        *self.notes.entry(note).or_default() += 1;
    }
}

/// Flips bytes of one file below a directory, and tells which.
fn flip(dir: &Path, random: &mut StdRng) -> std::io::Result<PathBuf> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    // In the order of names: the same seed draws the same from the same files.
    files.sort_unstable();
    if files.is_empty() {
        return Err(std::io::Error::other("there is no file with anything in it"));
    }
    // Most files are small pointers and marks: as often one of the large ones, where the data is.
    let large: Vec<_> = files.iter().filter(|(_, bytes)| *bytes >= LARGE).cloned().collect();
    if !large.is_empty() && random.random_bool(0.5) {
        files = large;
    }
    let (path, bytes) = files.swap_remove(random.random_range(0..files.len()));
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    for _ in 0..random.random_range(1..8) {
        let (mut at, mut byte) = (0, [0]);
        // Segments are zeros where nothing was written yet: a byte of what was, if one is found.
        for _ in 0..TRIES {
            at = random.random_range(0..bytes);
            file.read_exact_at(&mut byte, at)?;
            if byte != [0] {
                break;
            }
        }
        byte[0] ^= 1 << random.random_range(0..8);
        file.write_all_at(&byte, at)?;
    }
    file.sync_all()?;
    Ok(path)
}

fn collect(dir: &Path, files: &mut Vec<(PathBuf, u64)>) -> std::io::Result<()> {
    for entry in dir.read_dir()? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            collect(&entry.path(), files)?;
        } else if about.len() > 0 {
            files.push((entry.path(), about.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_same_seed_flips_the_same_bytes_of_one_file() {
        let damaged = || {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("inner")).unwrap();
            std::fs::write(dir.path().join("empty"), "").unwrap();
            std::fs::write(dir.path().join("inner/a"), [0; 100]).unwrap();
            std::fs::write(dir.path().join("b"), [0; 100]).unwrap();
            let path = flip(dir.path(), &mut StdRng::seed_from_u64(3)).unwrap();
            let name = path.strip_prefix(dir.path()).unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        };
        let (name, bytes) = damaged();
        assert!(bytes.len() == 100 && bytes.iter().any(|byte| *byte != 0), "{bytes:?}");
        assert_eq!(damaged(), (name, bytes));
    }
}
