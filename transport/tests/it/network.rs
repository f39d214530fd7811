//! What the simulated network does to its messages.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use odgm_transport::link::{Class, LinkOptions, Links, PeerId};
use odgm_transport::session::{Call, Congestion, Priority, Sample, SampleHandler};
use odgm_transport::sim::{Faults, Scope, SimNetwork, SimSession};
use odgm_transport::timer::{Timer, TokioTimer};
use odgm_transport::{Error, KeyExpr, Session};

type Trace = Arc<Mutex<Vec<(Duration, u8)>>>;

fn key(text: &'static str) -> KeyExpr<'static> {
    KeyExpr::try_from(text).expect("a valid key")
}

fn record(trace: &Trace, timer: &Arc<TokioTimer>) -> SampleHandler {
    let (trace, timer) = (trace.clone(), timer.clone());
    Arc::new(move |sample| {
        let payload = sample.payload.expect("a value");
        trace.lock().expect("not poisoned").push((timer.now(), payload[0]));
    })
}

fn numbers(trace: &Trace) -> Vec<u8> {
    trace.lock().expect("not poisoned").iter().map(|entry| entry.1).collect()
}

fn put(session: &SimSession, number: u8, congestion: Congestion) {
    let sample = Sample {
        key: key("a"),
        payload: Some(Bytes::copy_from_slice(&[number])),
        encoding: String::new(),
        attachment: None,
        timestamp: None,
    };
    session.publish(sample, Priority::Data, congestion).expect("it is sent");
}

/// Runs on a virtual clock of its own.
fn simulate<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(future)
}

struct Two {
    network: Arc<SimNetwork>,
    one: Arc<SimSession>,
    two: Arc<SimSession>,
    timer: Arc<TokioTimer>,
}

fn two(seed: u64) -> Two {
    let timer = Arc::new(TokioTimer::current().expect("within a runtime"));
    let network = SimNetwork::new(seed, timer.clone());
    Two { one: network.session("one"), two: network.session("two"), network, timer }
}

impl Two {
    /// Lets virtual time pass: everything that is due happens.
    async fn pass(&self, duration: Duration) {
        self.timer.sleep(duration).await;
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn trace_of(seed: u64) -> Vec<(Duration, u8)> {
    simulate(async {
        let net = two(seed);
        net.network.set_faults(Faults {
            latency: Duration::from_millis(1)..=Duration::from_millis(50),
            loss: 0.1,
            duplicate: 0.1,
            reorder: 0.2,
            ..Faults::default()
        });
        let trace = Trace::default();
        let _subscriber = net.two.subscribe(&key("a"), record(&trace, &net.timer)).expect("declared");
        for number in 0..200 {
            put(&net.one, number, Congestion::Block);
            net.pass(Duration::from_millis(3)).await;
        }
        net.pass(SECOND).await;
        trace.lock().expect("not poisoned").clone()
    })
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let first = trace_of(1);
    assert!(first.len() > 150, "{} of 200 arrived", first.len());
    assert_eq!(first, trace_of(1));
    assert_ne!(first, trace_of(2));
}

#[test]
fn loss_takes_only_what_its_scope_says() {
    simulate(async {
        let net = two(1);
        net.network.set_faults(Faults { loss: 1.0, scope: Scope::Droppable, ..Faults::default() });
        let trace = Trace::default();
        let _subscriber = net.two.subscribe(&key("a"), record(&trace, &net.timer)).expect("declared");
        put(&net.one, 1, Congestion::Drop);
        put(&net.one, 2, Congestion::Block);
        net.pass(SECOND).await;
        assert_eq!(numbers(&trace), [2]);
        assert_eq!(net.network.stats().lost, 1);
    });
}

#[test]
fn a_lost_query_ends_at_its_deadline_without_an_answer() {
    simulate(async {
        let net = two(1);
        let _server =
            net.two.serve(&key("a"), true, Arc::new(|_| panic!("it never arrives"))).expect("declared");
        net.network.set_faults(Faults { loss: 1.0, scope: Scope::Everything, ..Faults::default() });
        let start = net.timer.now();
        let mut replies = net.one.call(Call::new(key("a"), 3 * SECOND)).expect("it is sent");
        assert_eq!(replies.next().await, None);
        assert_eq!(net.timer.now() - start, 3 * SECOND);
    });
}

#[test]
fn a_duplicate_arrives_twice_and_a_reordered_message_is_not_lost() {
    simulate(async {
        let net = two(1);
        let trace = Trace::default();
        let _subscriber = net.two.subscribe(&key("a"), record(&trace, &net.timer)).expect("declared");
        net.network.set_faults(Faults { duplicate: 1.0, ..Faults::default() });
        put(&net.one, 7, Congestion::Block);
        net.pass(SECOND).await;
        assert_eq!(numbers(&trace), [7, 7]);
        trace.lock().expect("not poisoned").clear();
        let latency = Duration::from_millis(10)..=Duration::from_millis(20);
        net.network.set_faults(Faults { reorder: 0.5, latency, ..Faults::default() });
        (0..100).for_each(|number| put(&net.one, number, Congestion::Block));
        net.pass(SECOND).await;
        let mut arrived = numbers(&trace);
        assert_ne!(arrived, (0..100).collect::<Vec<_>>());
        arrived.sort_unstable();
        assert_eq!(arrived, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn what_waits_behind_a_short_block_arrives_in_order() {
    simulate(async {
        let net = two(1);
        let trace = Trace::default();
        let _subscriber = net.two.subscribe(&key("a"), record(&trace, &net.timer)).expect("declared");
        net.network.block("one", "two");
        (0..10).for_each(|number| put(&net.one, number, Congestion::Block));
        net.pass(SECOND).await;
        assert!(numbers(&trace).is_empty());
        net.network.heal();
        net.pass(SECOND).await;
        assert_eq!(numbers(&trace), (0..10).collect::<Vec<_>>());
        assert_eq!(net.network.stats().lost, 0);
    });
}

#[test]
fn one_way_blocked_leaves_the_other_open_for_a_lease() {
    simulate(async {
        let net = two(1);
        let trace = Trace::default();
        let _subscriber = net.one.subscribe(&key("a"), record(&trace, &net.timer)).expect("declared");
        net.network.block("one", "two");
        put(&net.two, 1, Congestion::Block);
        net.pass(SECOND).await;
        assert_eq!(numbers(&trace), [1]);
        net.pass(2 * SECOND).await;
        put(&net.two, 2, Congestion::Block);
        net.pass(SECOND).await;
        assert_eq!(numbers(&trace), [1], "the link has closed both ways");
    });
}

#[test]
fn a_link_blocked_for_a_lease_closes_and_opens_again() {
    simulate(async {
        let net = two(1);
        let changes = Arc::new(Mutex::new(Vec::new()));
        let log = changes.clone();
        let _watch = net
            .one
            .watch(&key("live/*"), Arc::new(move |_, alive| log.lock().expect("not poisoned").push(alive)))
            .expect("declared");
        let _token = net.two.announce(&key("live/two")).expect("declared");
        let held = Arc::new(Mutex::new(Vec::new()));
        let hold = held.clone();
        let _server = net
            .two
            .serve(&key("a"), true, Arc::new(move |query| hold.lock().expect("not poisoned").push(query)))
            .expect("declared");
        let mut replies = net.one.call(Call::new(key("a"), 60 * SECOND)).expect("it is sent");
        net.pass(SECOND).await;
        assert_eq!(held.lock().expect("not poisoned").len(), 1);
        net.network.partition(&["one"], &["two"]);
        let start = net.timer.now();
        assert_eq!(replies.next().await, None);
        assert_eq!(net.timer.now() - start, 2 * SECOND);
        net.pass(SECOND).await;
        assert_eq!(*changes.lock().expect("not poisoned"), [true, false]);
        net.network.heal();
        net.pass(3 * SECOND).await;
        assert_eq!(*changes.lock().expect("not poisoned"), [true, false, true]);
    });
}

#[test]
fn a_crashed_node_fails_the_requests_that_wait_for_it() {
    simulate(async {
        let net = two(1);
        let open = |session: &Arc<SimSession>, id| {
            let options = LinkOptions::new("test", PeerId(id), format!("n{id}"), 100 + id);
            Links::open(session.clone(), net.timer.clone(), options).expect("the links open")
        };
        let (one, two) = (open(&net.one, 1), open(&net.two, 2));
        let held = Arc::new(Mutex::new(Vec::new()));
        let hold = held.clone();
        two.serve(Arc::new(move |incoming| hold.lock().expect("not poisoned").push(incoming)));
        net.pass(SECOND).await;
        let answer = one.request(PeerId(2), Class::Log, Bytes::new(), 60 * SECOND);
        net.pass(SECOND).await;
        assert_eq!(held.lock().expect("not poisoned").len(), 1);
        let start = net.timer.now();
        net.network.crash("two");
        assert_eq!(answer.await, Err(Error::Unreachable(2)));
        assert!(net.timer.now() - start < SECOND);
        // A restart under the same id is another presence.
        let again = net.network.session("two");
        let options = LinkOptions::new("test", PeerId(2), "n2", 777);
        let again = Links::open(again, net.timer.clone(), options).expect("the links open");
        again.serve(Arc::new(|incoming| incoming.reply.expect("a request").send(incoming.payload)));
        net.pass(SECOND).await;
        let answer = one.request(PeerId(2), Class::Log, Bytes::from_static(b"hi"), SECOND);
        assert_eq!(answer.await, Ok(Bytes::from_static(b"hi")));
    });
}
