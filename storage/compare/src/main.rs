//! The log of odgm, those of the crates raft-log and raft-engine, and the bare system calls: the same
//! appends, one at a time and each waited for, in turn.
//!
//! `cargo run --release -- DIR` in `storage/compare`; DIR lies on the disk to be measured. Prints JSON.

mod bare;
mod odgm;
mod raft_engine_log;
mod raft_log_log;

use std::path::Path;
use std::time::{Duration, Instant};

/// Payload bytes of an entry.
pub(crate) const ENTRY: usize = 256;
/// Bytes of a segment, chunk or file of each of them.
pub(crate) const SEGMENT: u64 = 64 << 20;
/// What is kept behind the last entry: the rest is purged, so that files are used again where that is known.
pub(crate) const KEPT: u64 = (32 << 20) / ENTRY as u64;
const TURNS: usize = 9;
const TURN: Duration = Duration::from_millis(500);

/// A log that is compared.
pub(crate) trait Log {
    fn name(&self) -> &'static str;
    /// Appends so many entries behind the last one; durable when it returns.
    fn append(&mut self, count: usize) -> anyhow::Result<()>;
    /// Appends so many entries again and again until `until`; says how often.
    fn run(&mut self, count: usize, until: Instant) -> anyhow::Result<u64> {
        let mut appends = 0;
        while Instant::now() < until {
            self.append(count)?;
            appends += 1;
        }
        Ok(appends)
    }
    /// Drops what lies further back than [`KEPT`] entries.
    fn purge(&mut self) -> anyhow::Result<()>;
}

/// Bytes that no codec makes smaller, and that are text.
pub(crate) fn payload() -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + (state >> 33) as u8 % 95)
    };
    (0..ENTRY).map(letter).collect()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Seconds of processor time that this process took.
fn processor_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn main() -> anyhow::Result<()> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "compare-data".to_owned());
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir)?;
    let mut rows = Vec::new();
    for batch in [1, 16, 256] {
        let place = |name: &str| dir.join(format!("{name}-{batch}"));
        let mut logs: Vec<Box<dyn Log>> = vec![
            Box::new(bare::Bare::create(&place("bare"))?),
            Box::new(odgm::Odgm::open(&place("odgm"), false)?),
            Box::new(odgm::Odgm::open(&place("odgm-chained"), true)?),
            Box::new(raft_log_log::RaftLogLog::open(&place("raft-log"))?),
            Box::new(raft_engine_log::RaftEngineLog::open(&place("raft-engine"))?),
        ];
        let mut rates = vec![Vec::new(); logs.len()];
        let mut processor = vec![Vec::new(); logs.len()];
        // The first turn, in which files are made for the first time, does not count.
        for turn in 0..=TURNS {
            for n in 0..logs.len() {
                let n = (n + turn) % logs.len();
                let (start, used) = (Instant::now(), processor_seconds());
                let appends = logs[n].run(batch, start + TURN)?;
                let (took, used) = (start.elapsed().as_secs_f64(), processor_seconds() - used);
                logs[n].purge()?;
                if turn > 0 {
                    rates[n].push((appends * batch as u64) as f64 / took);
                    processor[n].push(used * 1e6 / appends as f64);
                }
            }
        }
        let bare = rates[0].clone();
        for (n, log) in logs.iter().enumerate() {
            let ratios = rates[n].iter().zip(&bare).map(|(ours, bare)| ours / bare).collect();
            rows.push(format!(
                "  {{\"batch\": {batch}, \"log\": \"{}\", \"entries_per_second\": {:.0}, \"of_bare\": {:.3}, \"processor_us_per_append\": {:.1}}}",
                log.name(),
                median(rates[n].clone()),
                median(ratios),
                median(processor[n].clone()),
            ));
        }
        drop(logs);
        for name in ["odgm", "odgm-chained", "raft-log", "raft-engine"] {
            std::fs::remove_dir_all(place(name))?;
        }
        std::fs::remove_file(place("bare"))?;
    }
    println!("[\n{}\n]", rows.join(",\n"));
    Ok(())
}
