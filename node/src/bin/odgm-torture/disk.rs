//! A disk of a node's own: a small filesystem in an image file, mounted by a loop device. What has reached the
//! image is what a loss of power leaves; it can be filled up without harm to others.
//!
//! Needs root; without it the faults that need a disk are left out, and the report says so.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// How large: for the segments of the log, the data of a run of hours, and snapshots.
const BYTES: u64 = 1 << 30;
/// How often the image is copied until nothing was written to it meanwhile.
const COPIES: u32 = 30;
/// How long a killed process may hold on to its files.
const UNMOUNTING: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// A mounted disk. It is unmounted with it.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    at: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes and mounts one below a directory.
    ///
    /// # Errors
    /// When the machine does not allow it.
    pub(crate) fn create(dir: &Path, number: usize) -> anyhow::Result<Self> {
        let (image, at) = (dir.join(format!("disk-{number}.img")), dir.join(format!("disk-{number}")));
        File::create(&image)?.set_len(BYTES)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        std::fs::create_dir(&at)?;
        let mut disk = Disk { image, at, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    /// Where a node keeps its data on it.
    pub(crate) fn data(&self) -> PathBuf {
        self.at.join("data")
    }

    /// Copies what has reached the disk; the copy takes its place at [`Disk::lose_power`]. The process that
    /// writes to it stands still.
    ///
    /// # Errors
    /// When the system goes on writing, or has no room.
    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        for _ in 0..COPIES {
            let before = self.image.metadata()?.modified()?;
            run(Command::new("cp").arg("--sparse=always").arg(&self.image).arg(self.frozen()))?;
            // Else parts of it are of different moments, which no disk would show.
            if self.image.metadata()?.modified()? == before {
                return Ok(());
            }
        }
        bail!("the system goes on writing to {}", self.image.display())
    }

    /// Goes on from the copy: what had not reached the disk then is gone. No process uses it.
    ///
    /// # Errors
    /// When it can't be unmounted or mounted.
    pub(crate) fn lose_power(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        std::fs::rename(self.frozen(), &self.image)?;
        self.mount()
    }

    /// Leaves no room but this much.
    ///
    /// # Errors
    /// What the filesystem answers.
    pub(crate) fn fill(&self, left: u64) -> anyhow::Result<()> {
        let room = rustix::fs::statvfs(&self.at)?;
        let taken = (room.f_bavail * room.f_frsize).saturating_sub(left);
        let ballast = File::create(self.ballast())?;
        if taken > 0 {
            rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, taken)?;
        }
        Ok(())
    }

    /// Makes room again.
    ///
    /// # Errors
    /// What the filesystem answers.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn frozen(&self) -> PathBuf {
        self.image.with_extension("frozen")
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        // Nothing reaches the image by time alone soon after it was written: what is not synced is to be lost. What
        // is removed leaves a hole in the image.
        run(Command::new("mount").args(["-o", "loop,discard,commit=30"]).arg(&self.image).arg(&self.at))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.mounted {
            match run(Command::new("umount").arg(&self.at)) {
                Ok(()) => self.mounted = false,
                Err(error) if start.elapsed() > UNMOUNTING => return Err(error),
                Err(_) => std::thread::park_timeout(PAUSE),
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A run that ends has nothing to do about a disk that stays mounted but to say so.
        if let Err(error) = self.unmount() {
            eprintln!("{} stays mounted: {error:#}", self.at.display());
        }
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| program.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(())
}
