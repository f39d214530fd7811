//! The TCP connections between nodes, through this process: they can be cut, and what passes is counted.
//!
//! A cut closes what is open and refuses what is new, on both planes: the nodes' own links and the clients' sessions
//! of the nodes, which form a mesh of their own. Clients connect to a node directly.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::processes::Processes;

/// Which connections these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plane {
    /// Of the nodes' sessions for clients.
    Clients,
    /// Of the nodes among themselves.
    Cluster,
}

/// All connections between the nodes of a cluster.
#[derive(Debug)]
pub(crate) struct Wires {
    /// The nodes on one side; the rest is the other.
    side: watch::Sender<BTreeSet<usize>>,
    clients: Arc<AtomicU64>,
    cluster: Arc<AtomicU64>,
    runtime: tokio::runtime::Handle,
}

impl Wires {
    /// Wires of a cluster that is yet to be set up, carried by the runtime that this is called in.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Wires {
            side: watch::Sender::new(BTreeSet::new()),
            clients: Arc::default(),
            cluster: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Lets nodes that do not run yet reach each other through these wires only.
    pub(crate) fn string(&self, processes: &mut Processes) {
        for from in 0..processes.count() {
            for (plane, setting) in [(Plane::Clients, "zenoh.connect"), (Plane::Cluster, "cluster.peers")] {
                let others = (0..processes.count()).filter(|to| *to != from);
                let lead = |to| {
                    let port = match plane {
                        Plane::Clients => processes.client_port(to),
                        Plane::Cluster => processes.cluster_port(to),
                    };
                    format!("tcp/127.0.0.1:{}", self.lead(plane, from, to, port))
                };
                let endpoints: Vec<String> = others.map(lead).collect();
                processes.set(from, &format!("{setting}=[{}]", endpoints.join(", ")));
            }
            // Gossip would tell of a way around them.
            processes.set(from, "zenoh.config={scouting: {gossip: {enabled: false}}}");
        }
    }

    /// A port that leads from one node to the port of another.
    fn lead(&self, plane: Plane, from: usize, to: usize, port: u16) -> u16 {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let wire = Wire { from, to, port, side: self.side.subscribe(), bytes: self.counter(plane).clone() };
        self.runtime.spawn(wire.run(listener));
        own
    }

    /// Cuts these nodes off from all others.
    pub(crate) fn cut(&self, nodes: &[usize]) {
        self.side.send_replace(nodes.iter().copied().collect());
    }

    /// Lets everything pass again.
    pub(crate) fn heal(&self) {
        self.cut(&[]);
    }

    /// Bytes that passed, both ways.
    pub(crate) fn bytes(&self, plane: Plane) -> u64 {
        self.counter(plane).load(Ordering::Relaxed)
    }

    fn counter(&self, plane: Plane) -> &Arc<AtomicU64> {
        match plane {
            Plane::Clients => &self.clients,
            Plane::Cluster => &self.cluster,
        }
    }
}

#[derive(Clone)]
struct Wire {
    from: usize,
    to: usize,
    port: u16,
    side: watch::Receiver<BTreeSet<usize>>,
    bytes: Arc<AtomicU64>,
}

impl Wire {
    async fn run(self, listener: std::net::TcpListener) {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((near, _)) = listener.accept().await {
            if !self.is_cut(&self.side.borrow()) {
                tokio::spawn(self.clone().carry(near));
            }
        }
    }

    fn is_cut(&self, side: &BTreeSet<usize>) -> bool {
        side.contains(&self.from) != side.contains(&self.to)
    }

    async fn carry(mut self, near: TcpStream) {
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.port)).await else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let (from, to, bytes) = (self.from, self.to, self.bytes);
        let cut = self.side.wait_for(|side| side.contains(&from) != side.contains(&to));
        tokio::select! {
            () = pump(near_in, far_out, &bytes) => {}
            () = pump(far_in, near_out, &bytes) => {}
            _ = cut => {}
        }
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        bytes.fetch_add(count as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
