//! What is asked: the grid and the echo servers, each over the same number of sessions.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use odgm_shard::client::{ClientOptions, Consistency, GridClient, Put};
use odgm_shard::object::{CollectionName, ObjectId, ObjectKey, partition_of};
use odgm_transport::Session;
use odgm_transport::options::SessionOptions;
use odgm_transport::zenoh::ZenohSession;
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::{Operation, echo};
use crate::cli::Common;
use crate::output::Failure;

/// How long the own nodes may take until they serve.
const START: Duration = Duration::from_secs(180);

/// How much is sent over how many sessions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) sessions: usize,
    /// Objects that are written and read.
    pub(super) objects: usize,
    /// Bytes of a value.
    pub(super) size: usize,
}

/// Sessions and what is sent over them.
pub(super) struct Target {
    shared: Arc<Shared>,
    sessions: Vec<Arc<ZenohSession>>,
}

pub(super) struct Shared {
    grid: Vec<GridClient>,
    /// Plain zenoh, as any client's.
    echo: Vec<Arc<ZenohSession>>,
    echo_servers: usize,
    collection: CollectionName,
    keys: Vec<ObjectKey>,
    value: Bytes,
}

impl Target {
    pub(super) async fn connect(
        common: &Common,
        shape: Shape,
        nodes: &[String],
        echo_servers: &[String],
        collection: &str,
    ) -> Result<Self, Failure> {
        let usage = |error: odgm_shard::object::id::NameError| Failure::Usage(error.to_string());
        let collection = CollectionName::parse(collection).map_err(usage)?;
        let keys: Result<Vec<_>, _> = (0..shape.objects)
            .map(|n| ObjectId::parse(&format!("object-{n}")).map(|object| ObjectKey { object, entry: None }))
            .collect();
        let client =
            ClientOptions { deadline: Duration::from_secs(30), ..ClientOptions::under(&common.root)? };
        let (mut sessions, mut grid, mut echo) = (Vec::new(), Vec::new(), Vec::<Arc<ZenohSession>>::new());
        for n in 0..shape.sessions {
            let session = open(nodes, n).await?;
            grid.push(GridClient::new(session.clone(), client.clone()));
            sessions.push(session);
            let session = open(echo_servers, n).await?;
            echo.push(session.clone());
            sessions.push(session);
        }
        let shared = Shared {
            grid,
            echo,
            echo_servers: echo_servers.len(),
            collection,
            keys: keys.map_err(usage)?,
            value: Bytes::from(vec![b'v'; shape.size]),
        };
        Ok(Target { shared: Arc::new(shared), sessions })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// A session to the grid.
    pub(super) fn session(&self, n: usize) -> Arc<dyn Session> {
        self.shared.grid[n % self.shared.grid.len()].session().clone()
    }

    /// One of its clients.
    pub(super) fn client(&self) -> &GridClient {
        &self.shared.grid[0]
    }

    /// The collection that is written and read.
    pub(super) fn collection(&self) -> &CollectionName {
        &self.shared.collection
    }

    /// Waits until every partition has a server.
    pub(super) async fn await_served(&self, nodes: &Cluster) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + START;
        let client = self.client();
        loop {
            nodes.check()?;
            let asked =
                tokio::time::timeout(Duration::from_secs(1), client.meta(&self.shared.collection)).await;
            if let Ok(Ok(meta)) = asked
                && meta.shards.iter().all(|shard| shard.serving.is_some())
            {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(Failure::Refused(format!(
                    "the nodes do not serve after {START:?}{}",
                    nodes.logs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The number of the own node that serves the first partition.
    pub(super) async fn serving(&self) -> Result<usize, Failure> {
        let meta = self.client().meta(&self.shared.collection).await?;
        let serving = meta.shards.first().and_then(|shard| shard.serving.as_deref());
        let number = serving.and_then(|name| name.strip_prefix("bench-")?.parse().ok());
        number.ok_or_else(|| Failure::Refused(format!("{serving:?} is none of the nodes")))
    }

    /// Writes every object once.
    pub(super) async fn fill(&self, clients: usize) -> Result<(), Failure> {
        let mut writers = JoinSet::new();
        for client in 0..clients {
            let shared = self.shared.clone();
            writers.spawn(async move {
                for n in (client..shared.keys.len()).step_by(clients) {
                    shared.put(client, &shared.keys[n]).await?;
                }
                Ok::<_, String>(())
            });
        }
        while let Some(written) = writers.join_next().await {
            written
                .map_err(|error| error.to_string())
                .and_then(|written| written)
                .map_err(|error| Failure::Refused(format!("filling the collection: {error}")))?;
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        for session in self.sessions {
            let closing = tokio::task::spawn_blocking(move || session.close());
            // The process ends soon: what does not close is cut.
            let _ = tokio::time::timeout(Duration::from_secs(1), closing).await;
        }
    }
}

impl Shared {
    /// One request of a client; each client goes through the keys in its own order.
    pub(super) async fn ask(&self, operation: Operation, client: usize, turn: u64) -> Result<(), String> {
        let key = &self.keys[pick(client as u64, turn, self.keys.len())];
        match operation {
            Operation::Put => self.put(client, key).await,
            Operation::Get => {
                let grid = &self.grid[client % self.grid.len()];
                let found = grid.get(&self.collection, key, Consistency::Linearizable).await;
                let found = found.map_err(|error| error.to_string())?;
                if found.value.len() == self.value.len() {
                    Ok(())
                } else {
                    Err("a value of another size".into())
                }
            }
            Operation::Echo => self.echo(client, key).await,
        }
    }

    async fn put(&self, client: usize, key: &ObjectKey) -> Result<(), String> {
        let grid = &self.grid[client % self.grid.len()];
        let put = Put::value(self.value.clone());
        grid.put(&self.collection, key, put, None).await.map(drop).map_err(|error| error.to_string())
    }

    async fn echo(&self, client: usize, key: &ObjectKey) -> Result<(), String> {
        let server = partition_of(&key.object, self.echo_servers as u32).0 as usize;
        let key = format!("{}/{}", echo::key(server), key.object);
        let replies = self.echo[client % self.echo.len()].zenoh().get(key).payload(self.value.clone());
        let replies = replies.timeout(Duration::from_secs(10)).await.map_err(|error| error.to_string())?;
        let reply = replies.recv_async().await.map_err(|error| error.to_string())?;
        match reply.result() {
            Ok(sample) if *sample.payload().to_bytes() == *self.value => Ok(()),
            other => Err(format!("no echo but {other:?}")),
        }
    }
}

/// A key for a client's turn: scattered, the same in every run.
fn pick(client: u64, turn: u64, keys: usize) -> usize {
    let mut x = (client << 40) ^ turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((x ^ (x >> 31)) % keys.max(1) as u64) as usize
}

/// A session that prefers the n-th endpoint and may fall back to the others.
pub(super) async fn open(endpoints: &[String], n: usize) -> Result<Arc<ZenohSession>, Failure> {
    let mut endpoints = endpoints.to_vec();
    let first = n % endpoints.len().max(1);
    endpoints.rotate_left(first);
    let options = SessionOptions { connect_timeout: Some(START), ..SessionOptions::client(endpoints) };
    options.validate().map_err(|error| Failure::Usage(error.to_string()))?;
    ZenohSession::open(&options, &format!("bench-{n}")).await.map_err(Failure::Unreachable)
}
