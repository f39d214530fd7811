//! `odgm bench events`: what the history costs puts, how fast a watcher that is behind catches up, and
//! whether every subscriber gets every change, once and in order, while the leader changes.
//!
//! Beside each stands what it is made of, measured in the same run and in turn: puts into a collection
//! without history, a bare zenoh reply stream of equal samples, a bare zenoh publication to as many
//! subscribers over as many sessions.

mod behind;
mod fanout;
mod follower;
mod history;

use std::sync::Arc;
use std::time::Duration;

use odgm_transport::Session;
use odgm_transport::zenoh::ZenohSession;

use super::cluster::Cluster;
use super::load::Load;
use super::report::Report;
use super::target::Shape;
use super::{NODES, Operation, own_dir, show};
use crate::cli::{BenchEvents, Common, EventsPart};
use crate::output::{Failure, Format};

/// Objects that the changes go through.
const OBJECTS: usize = 10_000;
/// Sessions of those who put.
const SESSIONS: usize = 8;
/// Retains all of a run.
const RETAIN_ALL: &str = "{retain: {count: 1000000000, bytes: 1TiB, age: 30d}}";

/// What the parts measure.
struct Bench<'a> {
    common: &'a Common,
    options: &'a BenchEvents,
    nodes: Cluster,
    echo_servers: Cluster,
}

impl Bench<'_> {
    /// What is put, over how many sessions.
    fn shape(&self) -> Shape {
        let sessions = SESSIONS.min(self.options.clients);
        Shape { sessions, objects: OBJECTS, size: self.options.size }
    }
}

/// Runs the benchmark and prints it. A change that a subscriber misses or has twice is a failure, told behind the
/// figures.
pub(crate) async fn run(common: &Common, options: BenchEvents) -> Result<(), Failure> {
    let counts = [options.sessions, options.subscribers, options.clients, options.rounds];
    let sizes = [options.changes, options.behind];
    if counts.contains(&0) || sizes.contains(&0) || options.duration.is_zero() {
        let names = "--sessions, --subscribers, --changes, --behind, --clients, --rounds and --duration";
        return Err(Failure::Usage(format!("{names} must not be 0")));
    }
    if options.size < fanout::NUMBER_BYTES {
        return Err(Failure::Usage(format!("--size: allowed is {} or more", fanout::NUMBER_BYTES)));
    }
    let dir = own_dir(&options.dir)?;
    let bench = Bench {
        common,
        options: &options,
        echo_servers: Cluster::echo(NODES, dir.path()).await?,
        nodes: Cluster::nodes(NODES, dir.path(), &collections())?,
    };
    let mut report = Report::new();
    let mut measured = Ok(());
    // The kill of a node comes last.
    for part in [EventsPart::History, EventsPart::Behind, EventsPart::Fanout] {
        if measured.is_ok() && options.parts.contains(&part) {
            measured = match part {
                EventsPart::History => history::measure(&bench, &mut report).await,
                EventsPart::Behind => behind::measure(&bench, &mut report).await,
                EventsPart::Fanout => fanout::measure(&bench, &mut report).await,
            };
        }
    }
    show(&report, options.json || common.output == Format::Json)?;
    measured
}

fn collections() -> String {
    let collection = |name: &str, events: &str| {
        format!("{{name: {name}, partitions: 1, replicas: {NODES}, events: {events}}}")
    };
    [
        collection(history::WITH, "{enabled: true}"),
        collection(history::WITHOUT, "{enabled: false}"),
        collection(behind::COLLECTION, RETAIN_ALL),
        collection(fanout::COLLECTION, RETAIN_ALL),
    ]
    .join(", ")
}

/// Puts of all clients, each as soon as its last is acknowledged.
fn puts(bench: &Bench<'_>, duration: Duration) -> Load {
    Load { operation: Operation::Put, clients: bench.options.clients, rate: None, duration }
}

/// Says goodbye, but waits for nobody: what has not closed by then is cut.
async fn close(session: Arc<ZenohSession>) {
    let closing = tokio::task::spawn_blocking(move || session.close());
    let _ = tokio::time::timeout(Duration::from_secs(1), closing).await;
}
