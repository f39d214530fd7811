//! Three nodes under load: the leader is killed at a random moment, then all three at once. Whatever was
//! acknowledged is there, nothing is that was not written, and every repeat ends.
//!
//! Small by default; `ODGM_ROUNDS`, `ODGM_CLIENTS` and `ODGM_OBJECTS` make it large, `ODGM_SEED` another one.

mod record;
mod writer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use odgm_shard::client::GridClient;
use odgm_shard::object::CollectionName;
use odgm_shard::sim::history::Operation;
use odgm_shard::sim::linearize::{Verdict, check};
use tokio::task::JoinSet;

use self::record::Record;
use self::writer::{Shared, Writer};
use crate::processes::{DEADLINE, Processes, Setup};

/// Within the window in which a repeat gets the first answer.
const PATIENCE: Duration = Duration::from_secs(50);

/// How much.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: u64,
    clients: usize,
    /// Objects that are created in a round, by all clients together.
    objects: usize,
    seed: u64,
}

impl Plan {
    fn from_environment() -> Self {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")),
            Err(_) => default,
        };
        let size = |name: &str, default| usize::try_from(number(name, default)).unwrap();
        Plan {
            rounds: number("ODGM_ROUNDS", 1),
            clients: size("ODGM_CLIENTS", 8),
            objects: size("ODGM_OBJECTS", 400),
            seed: number("ODGM_SEED", 1),
        }
    }
}

/// A grid with its clients, and what they were told.
struct Round {
    nodes: Processes,
    writers: Vec<Writer>,
    shared: Arc<Shared>,
    random: Random,
    /// Objects of each client.
    each: usize,
}

/// What a kill did.
struct Outage {
    at: Instant,
    /// Partitions that the killed nodes served.
    partitions: Vec<u32>,
}

#[test]
fn what_was_acknowledged_survives_the_kill_of_the_leader_and_of_all_nodes() {
    let plan = Plan::from_environment();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for round in 0..plan.rounds {
        let seed = plan.seed + round;
        eprintln!("round {} of {}: seed {seed}, {plan:?}", round + 1, plan.rounds);
        runtime.block_on(Round::run(&plan, seed));
    }
}

impl Round {
    async fn run(plan: &Plan, seed: u64) {
        let start = Instant::now();
        let setup = Setup::default();
        let nodes = Processes::start(&setup);
        let shared = Arc::new(Shared::new(CollectionName::parse("default").unwrap(), setup.partitions));
        let mut writers = Vec::new();
        for number in 0..plan.clients {
            let client = nodes.client(number, PATIENCE).await;
            writers.push(Writer::new(number, client, shared.clone(), Random::new(seed, 1 + number as u64)));
        }
        let each = plan.objects.div_ceil(plan.clients);
        let mut round = Round { nodes, writers, shared, random: Random::new(seed, 0), each };
        round.await_served().await;
        eprintln!("  serves after {:?}", start.elapsed());

        let half = each / 2;
        let outage = round.write(0..half, Round::kill_the_leader).await;
        round.report("leader killed", &outage);
        round.verify().await;
        let outage = round.write(half..each, async |round| round.kill_all()).await;
        round.report("all killed", &outage);
        round.verify().await;
        let record = round.record();
        eprintln!(
            "  {} acknowledged, {} refused, {:?}",
            record.changes.len(),
            record.refused,
            start.elapsed()
        );
        for writer in round.writers {
            tokio::task::spawn_blocking(move || writer.client.session().close()).await.unwrap().unwrap();
        }
    }

    /// Waits until every partition is served.
    async fn await_served(&self) {
        let start = Instant::now();
        while self.leaders().await.contains(&None) {
            assert!(start.elapsed() < DEADLINE, "not served: {:?}", self.leaders().await);
        }
    }

    /// Who serves each partition, as the grid says now.
    async fn leaders(&self) -> Vec<Option<usize>> {
        let meta = self.writers[0].client.meta(&self.shared.collection).await.unwrap();
        let number = |name: &String| self.nodes.number(name);
        meta.shards.iter().map(|shard| shard.serving.as_ref().map(number)).collect()
    }

    /// Creates these objects of every client, and does this at a random moment meanwhile.
    async fn write(
        &mut self,
        objects: Range<usize>,
        suffer: impl AsyncFnOnce(&mut Self) -> Outage,
    ) -> Outage {
        let before = self.shared.created();
        let expected = (objects.len() * self.writers.len()) as u64;
        let mut running = JoinSet::new();
        for mut writer in std::mem::take(&mut self.writers) {
            let objects = objects.clone();
            running.spawn(async move {
                for object in objects {
                    writer.create(object).await;
                    writer.another().await;
                }
                writer
            });
        }
        let moment = before + expected / 10 + self.random.below(expected / 2);
        self.shared.await_created(moment).await;
        // The clients work: their sessions are theirs now.
        let observer = self.nodes.client(0, PATIENCE).await;
        self.writers.push(Writer::new(usize::MAX, observer, self.shared.clone(), Random::new(0, 0)));
        let outage = suffer(self).await;
        let observer = self.writers.pop().unwrap();
        while let Some(writer) = running.join_next().await {
            match writer {
                Ok(writer) => self.writers.push(writer),
                Err(error) => panic!("a client failed: {error}"),
            }
        }
        self.writers.sort_by_key(|writer| writer.number);
        tokio::task::spawn_blocking(move || observer.client.session().close()).await.unwrap().unwrap();
        outage
    }

    /// Kills who serves most, and starts it again when the others have served for a while.
    async fn kill_the_leader(&mut self) -> Outage {
        let leaders = self.leaders().await;
        let led = |node: usize| leaders.iter().filter(|leader| **leader == Some(node)).count();
        let victim = (0..self.nodes.count()).max_by_key(|node| led(*node)).unwrap();
        let served = (0..).zip(&leaders).filter(|(_, leader)| **leader == Some(victim));
        let outage =
            Outage { at: Instant::now(), partitions: served.map(|(partition, _)| partition).collect() };
        self.nodes.kill(victim);
        // Fewer than are still to come.
        let without = self.random.below(self.each as u64 / 4);
        self.shared.await_created(self.shared.created() + without).await;
        self.nodes.restart(victim);
        self.nodes.await_ready(victim);
        outage
    }

    fn kill_all(&mut self) -> Outage {
        let outage = Outage { at: Instant::now(), partitions: (0..self.shared.partitions).collect() };
        self.nodes.kill_all();
        (0..self.nodes.count()).for_each(|node| self.nodes.restart(node));
        (0..self.nodes.count()).for_each(|node| self.nodes.await_ready(node));
        eprintln!("  ready {:?} after all were killed", outage.at.elapsed());
        outage
    }

    /// The longest time without an acknowledgement, of any partition and of the worst that was hit.
    fn report(&self, what: &str, outage: &Outage) {
        let record = self.record();
        let any = record.longest_gap(outage.at, None);
        let worst = outage.partitions.iter().map(|partition| record.longest_gap(outage.at, Some(*partition)));
        let (worst, hit) = (worst.max().unwrap_or_default(), outage.partitions.len());
        eprintln!("  {what}: nothing acknowledged for {any:?}, in the {hit} partitions hit for {worst:?}");
    }

    fn record(&self) -> Record {
        let mut record = Record::default();
        self.writers.iter().for_each(|writer| record.add(&writer.record));
        record
    }

    /// Everything that the clients know is what every node tells now.
    async fn verify(&mut self) {
        let start = Instant::now();
        let mut running = JoinSet::new();
        for writer in std::mem::take(&mut self.writers) {
            running.spawn(async move {
                writer.verify().await;
                writer
            });
        }
        while let Some(writer) = running.join_next().await {
            self.writers.push(writer.unwrap());
        }
        self.writers.sort_by_key(|writer| writer.number);
        let record = self.record();
        let revisions = record.verify_revisions(self.shared.partitions);
        let totals = record.verify_increments();
        let swapped = record.verify_swaps();
        self.verify_histories();
        for writer in self.writers.iter().take(self.nodes.count()) {
            let mut expected: Vec<_> =
                self.writers.iter().flat_map(|writer| writer.existing()).map(str::to_owned).collect();
            expected.extend(totals.keys().map(|counter| Shared::counter(*counter)));
            expected.extend(swapped.keys().map(|register| Shared::register(*register)));
            expected.sort_unstable();
            let (objects, shown) = list(&writer.client, &self.shared.collection).await;
            assert_eq!(objects, expected, "the objects that there are");
            assert_eq!(shown, revisions, "the revisions of the partitions");
            for (counter, total) in &totals {
                assert_eq!(writer.read_counter(*counter).await, *total, "counter {counter}");
            }
            for (register, revision) in &swapped {
                assert_eq!(writer.read_register(*register).await, *revision, "register {register}");
            }
        }
        eprintln!("  verified {} changes in {:?}", record.changes.len(), start.elapsed());
    }
}

impl Round {
    /// What the clients saw of the objects that they share has an order that explains it.
    fn verify_histories(&self) {
        let mut histories: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
        for operation in self.writers.iter().flat_map(|writer| &writer.history) {
            histories.entry(operation.object.clone()).or_default().push(operation.clone());
        }
        for (object, history) in histories {
            assert_eq!(check(&history), Verdict::Linearizable, "{object}: {history:?}");
        }
    }
}

/// All objects, sorted, and each partition's revision.
async fn list(client: &GridClient, collection: &CollectionName) -> (Vec<String>, Vec<u64>) {
    let mut lister = client.list(odgm_shard::client::Selected {
        collection: collection.clone(),
        pattern: "*".to_owned(),
        partition: None,
        values: false,
        consistency: odgm_shard::client::Consistency::Linearizable,
        page: 500,
        find: None,
    });
    let (mut objects, mut revisions) = (Vec::new(), Vec::<u64>::new());
    while let Some(page) = lister.next_page().await.unwrap() {
        objects.extend(page.objects.iter().map(|listed| listed.key.object.as_str().to_owned()));
        revisions.resize(page.partition.0 as usize + 1, 0);
        *revisions.last_mut().unwrap() = page.revision;
    }
    objects.sort_unstable();
    (objects, revisions)
}

/// Numbers from a seed, one stream for each who asks.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        Random(seed.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ stream.wrapping_mul(0xA076_1D64_78BD_642F))
    }

    /// Below `limit`, which is not 0 (else 0).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % limit.max(1)
    }
}
