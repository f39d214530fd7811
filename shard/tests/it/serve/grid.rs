//! A collection of single-copy shards on one zenoh session, and a stock zenoh client.

use std::sync::Arc;
use std::time::Duration;

use odgm_shard::object::{CollectionName, NodeId, Partition};
use odgm_shard::replication::Role;
use odgm_shard::runtime::TokioRuntime;
use odgm_shard::shard::{Budget, EventManager, Limits, ObjectShard, ShardParts};
use odgm_shard::state::Settings;
use odgm_transport::Session;
use odgm_transport::options::SessionOptions;
use odgm_transport::zenoh::ZenohSession;
use serde_json::Value;
use tokio::sync::watch;
use zenoh::bytes::{Encoding, ZBytes};
use zenoh::query::{ConsolidationMode, Reply};
use zenoh::sample::Sample;

use super::single::{Shared, SingleCopy};

/// Whatever a test waits for comes sooner.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// A query that is under way while its key or token is undeclared may end at its deadline only: it is asked again.
const LOST: Duration = Duration::from_secs(2);
pub(crate) const ELECTION: Duration = Duration::from_millis(200);
pub(crate) const INCARNATION: [u8; 16] = *b"the-incarnation!";
pub(crate) const INCARNATION_HEX: &str = "7468652d696e6361726e6174696f6e21";

/// The attachment of replies and events, as the contract gives it.
pub(crate) type Numbers = (u8, u64, u64, u64, u64, Vec<u8>, Vec<u8>);

pub(crate) struct Replica {
    pub(crate) state: Arc<SingleCopy>,
    pub(crate) shard: Arc<ObjectShard<TokioRuntime>>,
}

pub(crate) struct Grid {
    pub(crate) node: Arc<ZenohSession>,
    pub(crate) client: zenoh::Session,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) budget: Arc<Budget>,
}

pub(crate) struct Setup {
    pub(crate) partitions: u32,
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    pub(crate) inflight_bytes: u64,
    pub(crate) settings: watch::Receiver<Settings>,
    /// What the events' queue holds; by default what it holds in a node.
    pub(crate) queue_bytes: Option<usize>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            partitions: 1,
            role: Role::Serving,
            limits: Limits::default(),
            inflight_bytes: 64 << 20,
            settings: watch::Sender::new(Settings::default()).subscribe(),
            queue_bytes: None,
        }
    }
}

impl Grid {
    pub(crate) async fn serving(partitions: u32) -> Grid {
        Grid::start(Setup { partitions, ..Setup::default() }).await
    }

    pub(crate) async fn start(setup: Setup) -> Grid {
        let options = SessionOptions { listen: vec!["tcp/127.0.0.1:0".into()], ..SessionOptions::default() };
        let node = ZenohSession::open(&options, "node").await.unwrap();
        let client = connect(&node).await;
        let budget = Budget::new(setup.inflight_bytes);
        let replicas = (0..setup.partitions).map(|partition| {
            let events = match setup.queue_bytes {
                Some(bytes) => EventManager::with_queue(true, bytes),
                None => EventManager::new(true),
            };
            let state = SingleCopy::new(setup.role, events.sink());
            let shard = ObjectShard::start(ShardParts {
                root: "odgm".into(),
                collection: CollectionName::parse("users").unwrap(),
                partition: Partition(partition),
                partitions: setup.partitions,
                incarnation: INCARNATION,
                settings: setup.settings.clone(),
                limits: setup.limits.clone(),
                budget: budget.clone(),
                election_timeout: ELECTION,
                state: Arc::new(Shared(state.clone())),
                events,
                session: node.clone(),
            });
            Replica { state, shard: shard.unwrap() }
        });
        let grid = Grid { node: node.clone(), client, replicas: replicas.collect(), budget };
        if setup.role == Role::Serving {
            for partition in 0..setup.partitions {
                grid.alive(partition, true).await;
            }
        }
        grid
    }

    /// Waits until the client sees, or no longer sees, that somebody serves a partition. It asks: a change that is
    /// made while a subscriber declares itself may show no event.
    pub(crate) async fn alive(&self, partition: u32, wanted: bool) {
        let seen = async {
            while tokio::time::timeout(LOST, self.tokens(partition)).await.map(|count| count > 0)
                != Ok(wanted)
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, seen).await.expect("the liveliness token changes");
    }

    async fn tokens(&self, partition: u32) -> usize {
        let key = format!("odgm/@live/shard/users/{partition}");
        let replies = self.client.liveliness().get(key).await.unwrap();
        let mut count = 0;
        while replies.recv_async().await.is_ok() {
            count += 1;
        }
        count
    }

    /// Everything that comes back.
    pub(crate) async fn get(&self, selector: &str) -> Vec<Answer> {
        self.send(selector, None).await
    }

    /// The only answer.
    pub(crate) async fn one(&self, selector: &str) -> Answer {
        only(selector, self.get(selector).await)
    }

    /// A command with a payload; its only answer.
    pub(crate) async fn command(&self, selector: &str, payload: impl Into<ZBytes>) -> Answer {
        only(selector, self.send(selector, Some((payload.into(), Encoding::default(), None))).await)
    }

    pub(crate) async fn send(
        &self,
        selector: &str,
        value: Option<(ZBytes, Encoding, Option<&[u8]>)>,
    ) -> Vec<Answer> {
        let mut get = self.client.get(selector).consolidation(ConsolidationMode::None).timeout(SOON);
        if let Some((payload, encoding, attachment)) = value {
            get = get.payload(payload).encoding(encoding);
            if let Some(attachment) = attachment {
                get = get.attachment(attachment);
            }
        }
        let replies = get.await.unwrap();
        let mut answers = Vec::new();
        while let Ok(reply) = replies.recv_async().await {
            answers.push(Answer(reply));
        }
        answers
    }

    /// Asks again until an answer satisfies: for what becomes visible soon.
    pub(crate) async fn eventually(&self, selector: &str, wanted: impl Fn(&[Answer]) -> bool) -> Vec<Answer> {
        let asked = async {
            loop {
                let Ok(answers) = tokio::time::timeout(LOST, self.get(selector)).await else { continue };
                if wanted(&answers) {
                    return answers;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, asked)
            .await
            .unwrap_or_else(|_| panic!("{selector} never answers as wanted"))
    }

    pub(crate) async fn close(self) {
        for replica in &self.replicas {
            replica.shard.close().await;
        }
        self.client.close().await.unwrap();
        self.node.close().unwrap();
    }
}

fn only(selector: &str, mut answers: Vec<Answer>) -> Answer {
    assert_eq!(answers.len(), 1, "{selector}: {answers:?}");
    answers.remove(0)
}

/// A stock client of a node.
pub(crate) async fn connect(node: &ZenohSession) -> zenoh::Session {
    let mut config = zenoh::Config::default();
    let locators = serde_json::to_string(&node.locators()).unwrap();
    for (key, value) in [
        ("mode", "\"client\""),
        ("connect/endpoints", locators.as_str()),
        ("scouting/multicast/enabled", "false"),
        ("scouting/gossip/enabled", "false"),
    ] {
        config.insert_json5(key, value).unwrap();
    }
    zenoh::open(config).await.unwrap()
}

/// A reply, with what tests look at.
#[derive(Debug)]
pub(crate) struct Answer(Reply);

impl Answer {
    #[track_caller]
    pub(crate) fn sample(&self) -> &Sample {
        match self.0.result() {
            Ok(sample) => sample,
            Err(error) => panic!("refused: {}", error.payload().try_to_string().unwrap()),
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.0.result().is_ok()
    }

    #[track_caller]
    pub(crate) fn key(&self) -> &str {
        self.sample().key_expr().as_str()
    }

    #[track_caller]
    pub(crate) fn text(&self) -> String {
        self.sample().payload().try_to_string().unwrap().into_owned()
    }

    #[track_caller]
    pub(crate) fn numbers(&self) -> Numbers {
        numbers(self.sample())
    }

    /// What a refusal says.
    #[track_caller]
    pub(crate) fn refusal(&self) -> Value {
        match self.0.result() {
            Ok(sample) => panic!("not refused: {sample:?}"),
            Err(error) => {
                assert_eq!(error.encoding().to_string(), "application/json");
                serde_json::from_slice(&error.payload().to_bytes()).unwrap()
            }
        }
    }

    #[track_caller]
    pub(crate) fn code(&self) -> String {
        self.refusal()["code"].as_str().unwrap().to_owned()
    }
}

#[track_caller]
pub(crate) fn numbers(sample: &Sample) -> Numbers {
    zenoh_ext::z_deserialize(sample.attachment().expect("an attachment")).unwrap()
}

/// A node, as a hint.
pub(crate) const OTHER_NODE: NodeId = NodeId(77);
