//! One process for one node id: two processes on copies of one data directory would vote twice.
//!
//! Every process announces its start, first as one that asks and then as one that runs, and tells
//! whoever asks which starts it sees: nodes are connected to the peers of their configuration alone,
//! and two processes on copies of one directory need not know each other. A start that meets a running
//! one of its own node, which does not go away as a process that was just killed does, is refused; of
//! two that ask at once, the later one waits for the earlier.
//!
//! ```text
//! @odgm/{cluster}/start/{node}/{asks|runs}/{epoch}   announced by a process; an epoch grows with time
//! @odgm/{cluster}/starts/{epoch}?node={node}         asked: a line "{asks|runs} {epoch}" for each start
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use odgm_shard::object::NodeId;
use odgm_transport::session::{Call, Declaration, LivenessHandler, Query, QueryHandler, Sample};
use odgm_transport::{KeyExpr, Session};

/// A killed process is forgotten by its peers after the lease of its session, two seconds.
const FORGOTTEN: Duration = Duration::from_secs(5);
/// A process that runs believes in another one only after this time.
const DOUBLED: Duration = Duration::from_secs(15);
/// How long peers may take to tell.
const ASK: Duration = Duration::from_millis(500);
/// How often a process that asks looks again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often a process that runs looks.
const WATCH: Duration = Duration::from_secs(2);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Asks,
    Runs,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Asks => "asks",
            Phase::Runs => "runs",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Phase::Asks, Phase::Runs].into_iter().find(|phase| phase.name() == name)
    }
}

/// One start of a node, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Start {
    phase: Phase,
    epoch: u64,
}

type Seen = Arc<Mutex<BTreeSet<(u64, Start)>>>;

/// Watches for other starts of this node.
#[derive(Debug)]
pub(crate) struct Presence {
    session: Arc<dyn Session>,
    root: String,
    node: NodeId,
    epoch: u64,
    seen: Seen,
    own: Option<Box<dyn Declaration>>,
    _declared: [Box<dyn Declaration>; 2],
}

impl Presence {
    /// Starts to watch and to tell, before this start announces itself.
    pub(crate) fn open(
        session: &Arc<dyn Session>,
        cluster: &str,
        node: NodeId,
        epoch: u64,
    ) -> anyhow::Result<Self> {
        let root = format!("@odgm/{cluster}");
        let seen = Seen::default();
        let watching = seen.clone();
        let handler: LivenessHandler = Arc::new(move |key, alive| {
            let Some(start) = parse_key(key.as_str()) else { return };
            let mut seen = watching.lock().unwrap_or_else(PoisonError::into_inner);
            if alive {
                seen.insert(start);
            } else {
                seen.remove(&start);
            }
        });
        let telling = seen.clone();
        let answer_key = key(&format!("{root}/starts/{epoch:x}"))?;
        let own_key = answer_key.clone();
        let teller: QueryHandler = Arc::new(move |query| tell(&telling, &own_key, query));
        let declared = [
            session.watch(&key(&format!("{root}/start/*/*/*"))?, handler)?,
            session.serve(&answer_key, false, teller)?,
        ];
        Ok(Presence { session: session.clone(), root, node, epoch, seen, own: None, _declared: declared })
    }

    /// Listens for a moment, waits until no other start of this node is in the way, and announces that
    /// this one runs.
    ///
    /// # Errors
    /// When another process of this node stays.
    pub(crate) async fn admit(&mut self, listen: Duration) -> anyhow::Result<()> {
        self.announce(Phase::Asks)?;
        let begun = Instant::now();
        let mut met: Option<Instant> = None;
        loop {
            let others = self.others().await;
            let in_the_way =
                others.iter().find(|other| other.phase == Phase::Runs || other.epoch < self.epoch);
            match in_the_way {
                None if begun.elapsed() >= listen => break,
                None => met = None,
                Some(other) if met.get_or_insert_with(Instant::now).elapsed() >= FORGOTTEN => {
                    anyhow::bail!(
                        "another process runs as this node (start {:x}): this data directory is a copy; start it \
                         empty, and use `odgm node replace`",
                        other.epoch
                    );
                }
                Some(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.announce(Phase::Runs)
    }

    /// Completes when another process of this node, of an earlier start, runs and stays: one that could
    /// not be seen when this one began.
    pub(crate) async fn doubled(&mut self) {
        let mut met: Option<Instant> = None;
        loop {
            let others = self.others().await;
            let runs = |other: &Start| other.phase == Phase::Runs && other.epoch < self.epoch;
            if !others.iter().any(runs) {
                met = None;
            } else if met.get_or_insert_with(Instant::now).elapsed() >= DOUBLED {
                return;
            }
            tokio::time::sleep(WATCH).await;
        }
    }

    /// The new announcement stands before the old one ends.
    fn announce(&mut self, phase: Phase) -> anyhow::Result<()> {
        let key = key(&format!("{}/start/{:x}/{}/{:x}", self.root, self.node.0, phase.name(), self.epoch))?;
        self.own = Some(self.session.announce(&key)?);
        Ok(())
    }

    /// The other starts of this node, as this process and its peers see them.
    async fn others(&self) -> BTreeSet<Start> {
        let mut found = starts_of(&self.seen, self.node.0);
        if let Ok(all) = key(&format!("{}/starts/*", self.root)) {
            let mut call = Call::new(all, ASK);
            call.all = true;
            call.parameters = format!("node={:x}", self.node.0);
            let session = self.session.clone();
            // Asking may wait for a link.
            if let Ok(Ok(mut replies)) = tokio::task::spawn_blocking(move || session.call(call)).await {
                while let Some(reply) = replies.next().await {
                    let lines = reply.ok().and_then(|sample| sample.payload).unwrap_or_default();
                    found.extend(String::from_utf8_lossy(&lines).lines().filter_map(parse_line));
                }
            }
        }
        found.retain(|start| start.epoch != self.epoch);
        found
    }
}

fn key(text: &str) -> anyhow::Result<KeyExpr<'static>> {
    KeyExpr::try_from(text.to_owned()).map_err(|error| anyhow::anyhow!("key {text:?}: {error}"))
}

fn starts_of(seen: &Seen, node: u64) -> BTreeSet<Start> {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.iter().filter(|(of, _)| *of == node).map(|(_, start)| *start).collect()
}

fn tell(seen: &Seen, own: &KeyExpr<'static>, query: Query) {
    let Some(node) = query.parameters.strip_prefix("node=").and_then(hex) else { return };
    let mut lines = String::new();
    for start in starts_of(seen, node) {
        let _ = writeln!(lines, "{} {:x}", start.phase.name(), start.epoch);
    }
    query.respond(Ok(Sample {
        key: own.clone(),
        payload: Some(lines.into()),
        encoding: String::new(),
        attachment: None,
        timestamp: None,
    }));
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn parse_line(line: &str) -> Option<Start> {
    let (phase, epoch) = line.split_once(' ')?;
    Some(Start { phase: Phase::parse(phase)?, epoch: hex(epoch)? })
}

fn parse_key(key: &str) -> Option<(u64, Start)> {
    let mut chunks = key.rsplit('/');
    let epoch = hex(chunks.next()?)?;
    let phase = Phase::parse(chunks.next()?)?;
    Some((hex(chunks.next()?)?, Start { phase, epoch }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_read_as_it_is_announced_and_told() {
        let start = Start { phase: Phase::Runs, epoch: 0x2f };
        assert_eq!(parse_key("@odgm/a/start/1e/runs/2f"), Some((0x1e, start)));
        assert_eq!(parse_line("runs 2f"), Some(start));
        for garbage in ["", "/", "@odgm/a/start/x/runs/1", "@odgm/a/start/1/dies/1"] {
            assert_eq!(parse_key(garbage), None);
        }
        for garbage in ["", "runs", "dies 1", "runs x"] {
            assert_eq!(parse_line(garbage), None);
        }
    }
}
