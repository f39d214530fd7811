//! A process that writes a log is killed under load, again and again: what it was told to be durable is
//! there. On a real disk; each round goes on in the directory of the one before.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use odgm_storage::disk::RealDisk;
use odgm_storage::log::suite::entry;
use odgm_storage::log::{
    AppendLog, AppendOnlyLogStorage, FjallLog, FjallLogOptions, GroupId, LogPosition, SyncPolicy,
    wait_durable,
};

use crate::log_script::options;

const GROUPS: u64 = 4;
/// Set in the child: where its log is.
const DIR: &str = "ODGM_KILL_DIR";

type Open = fn(&Path) -> odgm_storage::Result<Arc<dyn AppendOnlyLogStorage>>;

fn fjall(dir: &Path) -> odgm_storage::Result<Arc<dyn AppendOnlyLogStorage>> {
    // Small memtables: tables are written and compacted while it is killed.
    let options = FjallLogOptions { memtable_bytes: 1 << 20, cache_bytes: 64 << 10, sync: SyncPolicy::Batch };
    Ok(FjallLog::open(Arc::new(RealDisk), dir, options)?)
}

fn append(dir: &Path) -> odgm_storage::Result<Arc<dyn AppendOnlyLogStorage>> {
    Ok(AppendLog::open(Arc::new(RealDisk), dir, options(SyncPolicy::Batch))?)
}

fn payload(group: u64, term: u64, index: u64) -> Vec<u8> {
    // Some beyond a page, where Fjall compresses.
    let bytes = if index.is_multiple_of(17) { 9000 } else { 300 };
    (0..bytes).map(|n| (group * 7 + term * 31 + index * 13 + n) as u8).collect()
}

/// Writes until it is killed, and says on standard output what it begins and what is durable.
fn child(dir: &Path, open: Open) {
    let log = open(dir).unwrap();
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        // One write for a line, so that a kill leaves at most one half.
        out.write_all(format!("#{line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    std::thread::scope(|scope| {
        for id in 0..GROUPS {
            let group = log.group(GroupId(id)).unwrap();
            scope.spawn(move || {
                let mut term = group.state().last.map_or(1, |last| last.term + 1);
                for turn in 0u64.. {
                    let next = group.state().last.map_or(0, |last| last.index + 1);
                    let new: Vec<_> = (next..next + 1 + (id + turn) % 4)
                        .map(|index| entry(term, index, &payload(id, term, index)))
                        .collect();
                    let end = next + new.len() as u64;
                    wait_durable(|durable| group.append(new, durable)).unwrap();
                    say(format!("a {id} {term} {next} {end}"));
                    if turn % 13 == 5 {
                        let last = group.state().last.map_or(0, |last| last.index);
                        say(format!("t {id} {}", last - 1));
                        wait_durable(|durable| group.truncate_after(Some(last - 1), durable)).unwrap();
                        term += 1;
                    }
                    if turn % 29 == 7 && end > 60 {
                        let upto = group.get(end - 40).unwrap().map(|entry| entry.position);
                        say(format!("p {id} {}", end - 40));
                        group.purge(upto.unwrap_or(LogPosition { term, index: end - 40 })).unwrap();
                    }
                    if turn % 11 == 3 {
                        let vote = term * 1_000_000 + turn;
                        let bytes = vote.to_be_bytes().to_vec().into();
                        wait_durable(|durable| group.save_vote(bytes, durable)).unwrap();
                        say(format!("v {id} {vote}"));
                    }
                }
            });
        }
    });
}

/// What must be there.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Term by index.
    entries: BTreeMap<u64, u64>,
    purged: Option<u64>,
    vote: u64,
}

fn note(known: &mut BTreeMap<u64, Acknowledged>, line: &str) -> Option<()> {
    // The first line follows what the test harness says.
    let mut words = line.trim().split_once('#')?.1.split(' ');
    let kind = words.next()?;
    let numbers: Vec<u64> = words.map(|word| word.parse().expect("the child says numbers")).collect();
    let group = known.entry(numbers[0]).or_default();
    match (kind, &numbers[1..]) {
        ("a", [term, from, to]) => group.entries.extend((*from..*to).map(|index| (index, *term))),
        ("t", [last]) => drop(group.entries.split_off(&(last + 1))),
        ("p", [upto]) => group.purged = Some(*upto),
        ("v", [vote]) => group.vote = *vote,
        other => panic!("{other:?}"),
    }
    Some(())
}

/// Holds a log against what was acknowledged; says how many entries were.
fn check(log: &dyn AppendOnlyLogStorage, known: &mut BTreeMap<u64, Acknowledged>, context: &str) -> usize {
    assert_eq!(log.damaged().len(), 0, "{context}: {:?}", log.damaged());
    let mut seen = 0;
    for (id, known) in known.iter_mut() {
        let group = log.group(GroupId(*id)).unwrap();
        let purged = group.state().purged.map(|purged| purged.index);
        assert!(purged <= known.purged, "{context}: purged {purged:?} of {:?}", known.purged);
        let found = group.read(0, u64::MAX, u64::MAX).unwrap();
        for one in &found {
            let LogPosition { term, index } = one.position;
            assert_eq!(*one, entry(term, index, &payload(*id, term, index)), "{context}: group {id}");
        }
        let terms: BTreeMap<u64, u64> =
            found.iter().map(|one| (one.position.index, one.position.term)).collect();
        if let Some(purged) = purged {
            known.entries = known.entries.split_off(&(purged + 1));
        }
        for (index, term) in &known.entries {
            assert_eq!(terms.get(index), Some(term), "{context}: entry {index} of group {id} is lost");
        }
        seen += known.entries.len();
        let vote = group.vote().map_or(0, |vote| u64::from_be_bytes(vote[..].try_into().unwrap()));
        assert!(vote >= known.vote, "{context}: vote {vote} of group {id} after {}", known.vote);
        // Also what was there without an acknowledgement must stay from now on.
        (known.entries, known.vote) = (terms, vote);
    }
    seen
}

#[allow(clippy::print_stdout, reason = "what was tried, for whoever runs it with --nocapture")]
fn kill_rounds(test: &str, open: Open) {
    if let Some(dir) = std::env::var_os(DIR) {
        return child(Path::new(&dir), open);
    }
    let rounds = std::env::var("ODGM_TEST_KILLS").map_or(5, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut known = BTreeMap::new();
    let (mut lines, mut entries) = (0, 0);
    for round in 0..rounds {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads", "1"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let mut said = 0;
        let mut line = String::new();
        // Killed in full flight after so many lines; the rest was said before it died.
        let until = 100 + round * 37 % 400;
        while out.read_line(&mut line).unwrap() > 0 {
            if line.ends_with('\n') && note(&mut known, &line).is_some() {
                said += 1;
                if said == until {
                    process.kill().unwrap();
                }
            }
            line.clear();
        }
        process.wait().unwrap();
        assert!(said >= until, "round {round}: the child ended by itself after {said} lines");
        let context = format!("round {round}");
        let log = open(dir.path()).unwrap_or_else(|error| panic!("{context}: does not open: {error}"));
        entries += check(&*log, &mut known, &context);
        lines += said;
        drop(log);
    }
    println!("{rounds} kills, {lines} acknowledgements, {entries} acknowledged entries found");
}

#[test]
fn append_log_keeps_what_it_acknowledged_when_its_process_is_killed() {
    kill_rounds("log_kill::append_log_keeps_what_it_acknowledged_when_its_process_is_killed", append);
}

#[test]
fn fjall_log_keeps_what_it_acknowledged_when_its_process_is_killed() {
    kill_rounds("log_kill::fjall_log_keeps_what_it_acknowledged_when_its_process_is_killed", fjall);
}
