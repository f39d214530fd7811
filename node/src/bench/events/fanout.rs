//! Many subscribers over many sessions on one shard, and its leader changes in the middle: every subscriber has
//! every change, once and in order. What is right is known from the acknowledgements.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use odgm_shard::client::{ClientError, ClientOptions, GridClient, Put};
use odgm_shard::object::{ObjectId, ObjectKey, Partition};
use odgm_shard::protocol::{Attachment, Plane};
use odgm_shard::runtime::{Runtime, TokioRuntime};
use odgm_transport::zenoh::ZenohSession;
use tokio::task::JoinSet;

use super::follower::{Digest, Follower, Place};
use super::{Bench, OBJECTS};
use crate::bench::echo;
use crate::bench::load::Measured;
use crate::bench::report::{Report, Row};
use crate::bench::target::{self, Target};
use crate::output::Failure;

pub(super) const COLLECTION: &str = "fanout";
/// A value begins with the number of its change.
pub(super) const NUMBER_BYTES: usize = 8;
/// How long nothing may go on.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Samples of the bare publication, at most.
const BARE: u64 = 20_000;

/// All subscribers, and what they measure.
struct Audience {
    followers: Vec<Arc<Follower>>,
    /// Of each session: its callbacks come one after the other.
    delays: Vec<Arc<Mutex<Measured>>>,
    sessions: Vec<Arc<ZenohSession>>,
    filling: JoinSet<()>,
}

/// What was acknowledged.
#[derive(Default)]
struct Written {
    /// The number of each change, by its revision.
    changes: Vec<(u64, u64)>,
    puts: Measured,
}

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failure> {
    let limit = bare(bench).await?;
    let (nodes, echo) = (bench.nodes.endpoints(), bench.echo_servers.endpoints());
    let target = Target::connect(bench.common, bench.shape(), &nodes, &echo, COLLECTION).await?;
    target.await_served(&bench.nodes).await?;
    let audience = Audience::gather(bench, &target).await?;
    let start = Instant::now();
    let written = write(bench, &target).await?;
    let last = written.changes.len() as u64;
    audience.await_revision(last).await;
    let took = start.elapsed();
    let places: Vec<Place> = audience.followers.iter().map(|follower| follower.place()).collect();
    let whole = judge(&written, &places);

    let puts = &written.puts;
    report.push(Row::new("changes put", puts.rate(), "op/s").latencies(puts).errors(puts));
    let deliveries = last as f64 * places.len() as f64 / took.as_secs_f64();
    report.push(Row::new("deliveries", deliveries, "events/s").limit(limit));
    let mut delays = Measured::default();
    for measured in &audience.delays {
        delays.beside(measured.lock().unwrap_or_else(PoisonError::into_inner).clone());
    }
    let row = Row::new("from commit time to a live delivery, p99", delays.quantile_ms(0.99), "ms");
    report.push(row.latencies(&delays));
    let sum = |of: fn(&Place) -> u64| places.iter().map(of).sum::<u64>() as f64;
    report.push(Row::new("repeats dropped", sum(|place| place.repeats), "events"));
    report.push(Row::new("holes", sum(|place| place.holes), "holes"));
    report.push(Row::new("filled by from=", sum(|place| place.replayed), "events"));
    let all = places.len() as f64;
    report.push(
        Row::new("subscribers with all changes in order", whole.count as f64, "subscribers").at_least(all),
    );
    audience.close().await;
    target.close().await;
    whole.fault.map_or(Ok(()), |fault| Err(Failure::Refused(fault)))
}

/// How many subscribers have what they must, and what another one has not.
struct Whole {
    count: usize,
    fault: Option<String>,
}

/// Compares what each has with what was acknowledged.
fn judge(written: &Written, places: &[Place]) -> Whole {
    let mut digest = Digest::default();
    for (expected, (revision, number)) in (1..).zip(&written.changes) {
        if *revision != expected {
            let fault = format!("revision {revision} was acknowledged where {expected} was due");
            return Whole { count: 0, fault: Some(fault) };
        }
        digest.add(*revision, &number.to_le_bytes());
    }
    let next = written.changes.len() as u64 + 1;
    let fault_of = |(n, place): (usize, &Place)| {
        let fault = match &place.fault {
            Some(fault) => fault.clone(),
            None if place.next != next => format!("has all below revision {} of {}", place.next, next - 1),
            None if place.digest != digest => "has other changes than were acknowledged".to_owned(),
            None => return None,
        };
        Some(format!("subscriber {n} of {}: {fault}", places.len()))
    };
    let faults: Vec<String> = places.iter().enumerate().filter_map(fault_of).collect();
    Whole { count: places.len() - faults.len(), fault: faults.into_iter().next() }
}

impl Audience {
    /// Opens the sessions and subscribes.
    async fn gather(bench: &Bench<'_>, target: &Target) -> Result<Self, Failure> {
        let mut audience = Audience {
            followers: Vec::new(),
            delays: Vec::new(),
            sessions: Vec::new(),
            filling: JoinSet::new(),
        };
        for n in 0..bench.options.sessions {
            let session = target::open(&bench.nodes.endpoints(), n).await?;
            let delays = Arc::new(Mutex::new(Measured::default()));
            for _ in 0..bench.options.subscribers {
                audience.subscribe(&session, target, &delays).await?;
            }
            audience.delays.push(delays);
            audience.sessions.push(session);
        }
        Ok(audience)
    }

    async fn subscribe(
        &mut self,
        session: &Arc<ZenohSession>,
        target: &Target,
        delays: &Arc<Mutex<Measured>>,
    ) -> Result<(), Failure> {
        let (keys, collection) = (target.client().options().keys.clone(), target.collection().clone());
        let key = keys.matching(Plane::Event, &collection, Partition(0), "**");
        let key = key.map_err(|refusal| Failure::Usage(refusal.message))?;
        let follower = Arc::new(Follower::new());
        let (taking, delays) = (follower.clone(), delays.clone());
        session
            .zenoh()
            .declare_subscriber(key)
            .callback(move |sample| {
                let attachment = sample.attachment().map(|bytes| bytes.to_bytes()).unwrap_or_default();
                if taking.live(&attachment, &sample.payload().to_bytes())
                    && let Some(committed) = sample.timestamp()
                {
                    let passed = TokioRuntime::wall_clock().saturating_sub(committed.get_time().as_u64());
                    delays.lock().unwrap_or_else(PoisonError::into_inner).record(of_ntp64(passed));
                }
            })
            .background()
            .await
            .map_err(|error| Failure::Refused(error.to_string()))?;
        self.followers.push(follower.clone());
        let session = session.clone();
        self.filling.spawn(async move { follower.fill(session.as_ref(), &keys, &collection).await });
        Ok(())
    }

    /// Waits until all have everything up to this revision, or nothing goes on any more.
    async fn await_revision(&self, last: u64) {
        let (mut sum, mut moved) = (0, Instant::now());
        loop {
            let places: Vec<Place> = self.followers.iter().map(|follower| follower.place()).collect();
            if places.iter().all(|place| place.next > last || place.fault.is_some()) {
                return;
            }
            let now: u64 = places.iter().map(|place| place.next).sum();
            if now != sum {
                (sum, moved) = (now, Instant::now());
            }
            if moved.elapsed() > PATIENCE {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn close(mut self) {
        self.filling.shutdown().await;
        for session in self.sessions {
            super::close(session).await;
        }
    }
}

/// A difference of NTP64 times.
fn of_ntp64(passed: u64) -> Duration {
    Duration::from_secs(passed >> 32) + Duration::from_nanos(((passed & 0xffff_ffff) * 1_000_000_000) >> 32)
}

/// Puts all changes, and in the middle has the leader changed.
async fn write(bench: &Bench<'_>, target: &Target) -> Result<Written, Failure> {
    let options = ClientOptions { deadline: PATIENCE, ..target.client().options().clone() };
    let clients = bench.options.clients as u64;
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    let start = Instant::now();
    for writer in 0..clients {
        let session = target.session(writer as usize);
        let client = GridClient::new(session, options.clone());
        let (collection, acknowledged) = (target.collection().clone(), acknowledged.clone());
        let (changes, size) = (bench.options.changes, bench.options.size);
        writers.spawn(async move {
            let mut written = Written::default();
            for number in (writer..changes).step_by(clients as usize) {
                let key = key(writer, number / clients, clients)?;
                let begun = Instant::now();
                let done = client.put(&collection, &key, Put::value(value(number, size)), None).await?;
                written.puts.record(begun.elapsed());
                written.changes.push((done.revision, number));
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, ClientError>(written)
        });
    }
    let disturbed = disturb(bench, target, &acknowledged);
    let gathered = async {
        let mut all = Written::default();
        while let Some(written) = writers.join_next().await {
            let written = written.map_err(|error| Failure::Refused(error.to_string()))??;
            all.changes.extend(written.changes);
            all.puts.beside(written.puts);
        }
        all.puts.took(start.elapsed());
        all.changes.sort_unstable();
        Ok(all)
    };
    let (disturbed, gathered) = tokio::join!(disturbed, gathered);
    disturbed.and(gathered)
}

/// An object that no other writer has.
fn key(writer: u64, turn: u64, writers: u64) -> Result<ObjectKey, ClientError> {
    let own = (OBJECTS as u64 / writers).max(1);
    let object = ObjectId::parse(&format!("object-{}", writer + writers * (turn % own)));
    let object = object.map_err(|error| ClientError::Invalid(error.to_string()))?;
    Ok(ObjectKey { object, entry: None })
}

/// A value that begins with its number.
fn value(number: u64, size: usize) -> Bytes {
    let mut value = vec![b'v'; size.max(NUMBER_BYTES)];
    value[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
    value.into()
}

/// Once half of the changes are acknowledged, another node must serve.
async fn disturb(bench: &Bench<'_>, target: &Target, acknowledged: &AtomicU64) -> Result<(), Failure> {
    let (mut seen, mut moved) = (0, Instant::now());
    while seen < bench.options.changes / 2 {
        tokio::time::sleep(PAUSE).await;
        let now = acknowledged.load(Ordering::Relaxed);
        if now != seen {
            (seen, moved) = (now, Instant::now());
        } else if moved.elapsed() > PATIENCE {
            return Err(Failure::Refused(format!("nothing is acknowledged for {PATIENCE:?}")));
        }
    }
    if !bench.options.kill {
        let path = format!("shards/{COLLECTION}/0");
        target.client().admin(&path, Some("transfer"), &[], None).await?;
        return Ok(());
    }
    bench.nodes.kill(target.serving().await?)
}

/// Deliveries a second of bare zenoh to as many subscribers over as many sessions.
async fn bare(bench: &Bench<'_>) -> Result<f64, Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::Refused(error.to_string());
    let count = bench.options.changes.min(BARE);
    let came = Arc::new(AtomicU64::new(0));
    let mut sessions = Vec::new();
    for n in 0..bench.options.sessions {
        let session = target::open(&bench.echo_servers.endpoints(), n).await?;
        for _ in 0..bench.options.subscribers {
            let came = came.clone();
            let counting = session
                .zenoh()
                .declare_subscriber(format!("{}/**", echo::published(&echo::key(0))))
                .callback(move |sample| {
                    came.fetch_add(u64::from(!sample.payload().is_empty()), Ordering::Relaxed);
                });
            counting.background().await.map_err(|error| refused(&error))?;
        }
        sessions.push(session);
    }
    let all = count * (bench.options.sessions * bench.options.subscribers) as u64;
    let publish = |count: u64| {
        let selector = format!("{}/publish?publish={count}", echo::key(0));
        let get = sessions[0].zenoh().get(selector).payload(vec![b'v'; bench.options.size]);
        get.attachment(Attachment::default().encode()).timeout(PATIENCE)
    };
    // The subscriptions are known at the publisher when one sample reaches all.
    let each = all / count;
    let known = Instant::now();
    while came.swap(0, Ordering::Relaxed) < each {
        if known.elapsed() > PATIENCE {
            return Err(Failure::Refused("a bare publication does not reach its subscribers".into()));
        }
        publish(1).await.map_err(|error| refused(&error))?;
        tokio::time::sleep(PAUSE).await;
    }
    let start = Instant::now();
    let replies = publish(count).await.map_err(|error| refused(&error))?;
    let (mut seen, mut moved) = (0, Instant::now());
    while seen < all && moved.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(PAUSE).await;
        let now = came.load(Ordering::Relaxed);
        if now != seen {
            (seen, moved) = (now, Instant::now());
        }
    }
    drop(replies);
    for session in sessions {
        super::close(session).await;
    }
    Ok(seen as f64 / moved.duration_since(start).as_secs_f64())
}
