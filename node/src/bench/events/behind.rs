//! A watcher that is behind catches up by pages of `from=`, while puts go on in the same shard; beside a bare
//! zenoh reply stream of equal samples, and puts alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use odgm_shard::client::GridClient;
use odgm_shard::object::Partition;
use odgm_shard::protocol::Attachment;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Bench, OBJECTS, puts};
use crate::bench::echo;
use crate::bench::load::Measured;
use crate::bench::report::{Report, Row};
use crate::bench::target::{self, Target};
use crate::output::Failure;

pub(super) const COLLECTION: &str = "behind";
/// Changes of one of the transactions that make the history.
const BATCH: u64 = 100;
/// Transactions under way.
const WRITERS: u64 = 8;
/// What of either rate must be left.
const LEFT: f64 = 0.5;
/// When a stream has failed.
const DEADLINE: Duration = Duration::from_secs(600);

/// Samples or events in a time.
#[derive(Default)]
struct Flow {
    count: u64,
    took: Duration,
}

impl Flow {
    fn rate(&self) -> f64 {
        if self.took.is_zero() { 0.0 } else { self.count as f64 / self.took.as_secs_f64() }
    }

    fn add(&mut self, round: Flow) {
        self.count += round.count;
        self.took += round.took;
    }
}

/// Streams and catch-ups over the same links.
#[derive(Default)]
struct Pair {
    stream: Flow,
    catch_up: Flow,
}

impl Pair {
    async fn measure(
        &mut self,
        bench: &Bench<'_>,
        target: &Target,
        behind: u64,
        way: Way,
    ) -> Result<(), Failure> {
        self.stream.add(stream(bench, behind, way).await?);
        self.catch_up.add(catch_up(bench, target, behind, way).await?);
        Ok(())
    }

    fn tell(&self, how: &str, report: &mut Report) -> Row {
        let flow = |name: String, flow: &Flow| Row::new(name, flow.rate(), "events/s");
        report.push(flow(format!("bare reply stream, {how}"), &self.stream));
        report.push(flow(format!("catch-up, {how}"), &self.catch_up).limit(self.stream.rate()));
        let ratio = self.catch_up.rate() / self.stream.rate();
        Row::new(format!("catch-up/stream, {how}"), ratio, "ratio").at_least(LEFT)
    }
}

/// Which way the samples come.
#[derive(Clone, Copy)]
enum Way {
    /// From whom the session is with.
    Direct,
    /// Through another.
    Relayed,
}

impl Way {
    /// To whom the session is, when this one answers.
    fn from(self, answering: usize) -> usize {
        match self {
            Way::Direct => answering,
            Way::Relayed => answering + 1,
        }
    }
}

#[derive(Default)]
struct Rounds {
    direct: Pair,
    relayed: Pair,
    beside_puts: Pair,
    puts_alone: Measured,
    puts_beside_stream: Measured,
    puts_beside_catch_up: Measured,
}

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failure> {
    let (nodes, echo) = (bench.nodes.endpoints(), bench.echo_servers.endpoints());
    let target = Target::connect(bench.common, bench.shape(), &nodes, &echo, COLLECTION).await?;
    target.await_served(&bench.nodes).await?;
    let behind = fill(&target, bench).await?;
    let mut rounds = Rounds::default();
    for _ in 0..bench.options.rounds {
        rounds.direct.measure(bench, &target, behind, Way::Direct).await?;
        rounds.relayed.measure(bench, &target, behind, Way::Relayed).await?;
        rounds.puts_alone.add(&puts(bench, bench.options.duration).run(&target).await);
        let (flow, beside) = beside_puts(bench, &target, stream(bench, behind, Way::Direct)).await?;
        rounds.beside_puts.stream.add(flow);
        rounds.puts_beside_stream.add(&beside);
        let (flow, beside) =
            beside_puts(bench, &target, catch_up(bench, &target, behind, Way::Direct)).await?;
        rounds.beside_puts.catch_up.add(flow);
        rounds.puts_beside_catch_up.add(&beside);
    }
    target.close().await;
    rounds.tell(report);
    Ok(())
}

impl Rounds {
    fn tell(&self, report: &mut Report) {
        let direct = self.direct.tell("direct", report);
        let relayed = self.relayed.tell("through another node", report);
        let beside_puts = self.beside_puts.tell("direct, beside puts", report);
        for (name, puts) in [
            ("puts alone", &self.puts_alone),
            ("puts beside a bare reply stream", &self.puts_beside_stream),
            ("puts beside a catch-up", &self.puts_beside_catch_up),
        ] {
            report.push(Row::new(name, puts.rate(), "op/s").latencies(puts).errors(puts));
        }
        report.push(direct);
        report.push(relayed);
        report.push(beside_puts);
        let mixed = self.beside_puts.catch_up.rate() / self.direct.stream.rate();
        report.push(Row::new("catch-up beside puts/stream alone", mixed, "ratio"));
        let puts = self.puts_beside_catch_up.rate() / self.puts_alone.rate();
        report.push(Row::new("puts beside a catch-up/alone", puts, "ratio").at_least(LEFT));
    }
}

/// Measures a flow, and the puts that go on for as long as it does.
async fn beside_puts(
    bench: &Bench<'_>,
    target: &Target,
    flow: impl Future<Output = Result<Flow, Failure>>,
) -> Result<(Flow, Measured), Failure> {
    let (stop, load) = (CancellationToken::new(), puts(bench, DEADLINE));
    let flow = async {
        let measured = flow.await;
        stop.cancel();
        measured
    };
    let (flow, puts) = tokio::join!(flow, load.run_until(target, &stop));
    Ok((flow?, puts))
}

/// Makes the history; how many changes it has.
async fn fill(target: &Target, bench: &Bench<'_>) -> Result<u64, Failure> {
    let batches = bench.options.behind.div_ceil(BATCH);
    let value = "v".repeat(bench.options.size);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = GridClient::new(target.client().session().clone(), target.client().options().clone());
        let (collection, value) = (target.collection().clone(), value.clone());
        writers.spawn(async move {
            for batch in (writer..batches).step_by(WRITERS as usize) {
                let put = |n: u64| {
                    let object = format!("object-{}", n % OBJECTS as u64);
                    json!({"put": {"object": object, "value": value}})
                };
                let changes: Vec<_> = (batch * BATCH..(batch + 1) * BATCH).map(put).collect();
                client.txn(&collection, Partition(0), &json!({"then": changes}), None).await?;
            }
            Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written.map_err(|error| Failure::Refused(error.to_string()))?.map_err(Failure::Client)?;
    }
    Ok(batches * BATCH)
}

/// Takes the whole history, as `odgm watch --from 1` does.
async fn catch_up(bench: &Bench<'_>, target: &Target, behind: u64, way: Way) -> Result<Flow, Failure> {
    let serving = target.serving().await?;
    let session = target::open(&bench.nodes.endpoints(), way.from(serving)).await?;
    let client = GridClient::new(session.clone(), target.client().options().clone());
    let start = Instant::now();
    let mut watch = client.resume(target.collection(), "**", Some(Partition(0)), 1).await?;
    for expected in 1..=behind {
        let next = watch.next().await?.map(|(_, event)| event.found.revision);
        if next != Some(expected) {
            let message = format!("catching up: revision {expected} was due and {next:?} came");
            return Err(Failure::Refused(message));
        }
    }
    let took = start.elapsed();
    drop(watch);
    super::close(session).await;
    Ok(Flow { count: behind, took })
}

/// Takes as many samples of bare zenoh, each as large as an event.
async fn stream(bench: &Bench<'_>, count: u64, way: Way) -> Result<Flow, Failure> {
    let session = target::open(&bench.echo_servers.endpoints(), way.from(0)).await?;
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let came = Arc::new(AtomicU64::new(0));
    let counted = came.clone();
    let start = Instant::now();
    // With a time range zenoh does not consolidate, which would keep one of each key.
    let selector = format!("{}/{COLLECTION}/0/**?stream={count};_time=[now(-1h)..]", echo::key(0));
    session
        .zenoh()
        .get(selector)
        .payload(Bytes::from(vec![b'v'; bench.options.size]))
        .attachment(Attachment::default().encode())
        .timeout(DEADLINE)
        .callback(move |reply| {
            // Dropped with the callback when the query has ended.
            let _ = &ended;
            let is_whole = reply.result().is_ok_and(|sample| !sample.payload().to_bytes().is_empty());
            counted.fetch_add(u64::from(is_whole), Ordering::Relaxed);
        })
        .await
        .map_err(|error| Failure::Refused(error.to_string()))?;
    // An error: nothing is ever sent.
    let _ = end.await;
    let took = start.elapsed();
    super::close(session).await;
    match came.load(Ordering::Relaxed) {
        came if came == count => Ok(Flow { count, took }),
        came => Err(Failure::Refused(format!("the bare stream lost samples: {came} of {count} came"))),
    }
}
