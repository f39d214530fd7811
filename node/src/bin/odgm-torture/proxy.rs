//! The wires between the nodes: each node reaches each other one through a port of this proxy, which holds bytes
//! back, delays them and breaks connections.
//!
//! Bytes are never dropped, damaged or reordered: below is TCP, which would not either. What a lossy network does
//! to TCP is that it stalls, and that connections break.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Pieces of a direction that are under way; more wait in the sender's socket.
const UNDER_WAY: usize = 64;
/// The largest piece.
const PIECE: usize = 64 << 10;

/// A direction: from node, to node.
pub(crate) type Way = (usize, usize);

/// How a direction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Condition {
    /// Nothing passes; what was sent waits.
    pub(crate) blocked: bool,
    /// How long every piece takes.
    pub(crate) delay: Duration,
    /// Connections that were made under a smaller number are broken.
    breaks: u64,
}

/// The wires between all nodes. They end with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    ways: BTreeMap<Way, watch::Sender<Condition>>,
    /// Where `from` reaches `to`.
    ports: BTreeMap<Way, u16>,
    _accepting: tokio::task::JoinSet<()>,
}

impl Proxy {
    /// Between nodes that listen on these ports.
    ///
    /// # Errors
    /// When no port is to be had.
    pub(crate) async fn start(nodes: &[u16]) -> io::Result<Self> {
        let pairs = || (0..nodes.len()).flat_map(|from| (0..nodes.len()).map(move |to| (from, to)));
        let pairs = || pairs().filter(|(from, to)| from != to);
        let ways: BTreeMap<Way, _> = pairs().map(|way| (way, watch::Sender::default())).collect();
        let (mut ports, mut accepting) = (BTreeMap::new(), tokio::task::JoinSet::new());
        for (from, to) in pairs() {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            ports.insert((from, to), listener.local_addr()?.port());
            accepting.spawn(accept(
                listener,
                nodes[to],
                ways[&(from, to)].clone(),
                ways[&(to, from)].clone(),
            ));
        }
        Ok(Proxy { ways, ports, _accepting: accepting })
    }

    /// Where a node reaches the others.
    pub(crate) fn peers(&self, from: usize) -> Vec<String> {
        let of = self.ports.iter().filter(|(way, _)| way.0 == from);
        of.map(|(_, port)| format!("tcp/127.0.0.1:{port}")).collect()
    }

    /// All directions.
    pub(crate) fn ways(&self) -> Vec<Way> {
        self.ways.keys().copied().collect()
    }

    /// Lets nothing pass that way.
    pub(crate) fn block(&self, way: Way) {
        self.ways[&way].send_modify(|condition| condition.blocked = true);
    }

    /// Lets everything pass later.
    pub(crate) fn delay(&self, way: Way, delay: Duration) {
        self.ways[&way].send_modify(|condition| condition.delay = delay);
    }

    /// Breaks the connections that go that way; new ones can be made.
    pub(crate) fn cut(&self, way: Way) {
        self.ways[&way].send_modify(|condition| condition.breaks += 1);
    }

    /// All is well again.
    pub(crate) fn heal(&self) {
        let well = |condition: &mut Condition| {
            let was = *condition;
            *condition = Condition { breaks: was.breaks, ..Condition::default() };
            was != *condition
        };
        for way in self.ways.values() {
            way.send_if_modified(well);
        }
    }
}

async fn accept(
    listener: TcpListener,
    to: u16,
    there: watch::Sender<Condition>,
    back: watch::Sender<Condition>,
) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        // A node that is down refuses, and so does its port here.
        let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
        // It costs latency only.
        let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        let (there, back) = (there.subscribe(), back.subscribe());
        connections.spawn(async move {
            // One end that is over is both: half-open connections are no use to anybody here.
            tokio::select! {
                () = pump(near_in, far_out, there) => {}
                () = pump(far_in, near_out, back) => {}
            }
        });
    }
}

/// Carries one direction of a connection to its end.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Condition>) {
    let began = way.borrow_and_update().breaks;
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let reading = async {
        loop {
            let mut piece = vec![0; PIECE];
            let Ok(count @ 1..) = from.read(&mut piece).await else { return };
            piece.truncate(count);
            if sender.send((Instant::now(), piece)).await.is_err() {
                return;
            }
        }
    };
    let mut writing_way = way.clone();
    let writing = async {
        while let Some((at, piece)) = receiver.recv().await {
            let delay = writing_way.borrow().delay;
            tokio::time::sleep_until(at + delay).await;
            if writing_way.wait_for(|condition| !condition.blocked).await.is_err()
                || to.write_all(&piece).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
        _ = way.wait_for(|condition| condition.breaks != began) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wire() -> (Proxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy::start(&[0, port]).await.unwrap();
        let near = TcpStream::connect(("127.0.0.1", proxy.ports[&(0, 1)])).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (proxy, near, far)
    }

    async fn read(stream: &mut TcpStream) -> [u8; 4] {
        let mut four = [0; 4];
        tokio::time::timeout(Duration::from_secs(30), stream.read_exact(&mut four)).await.unwrap().unwrap();
        four
    }

    #[tokio::test]
    async fn a_way_that_is_blocked_holds_back_while_the_other_passes() {
        let (proxy, mut near, mut far) = wire().await;
        proxy.block((0, 1));
        near.write_all(b"held").await.unwrap();
        far.write_all(b"back").await.unwrap();
        assert_eq!(&read(&mut near).await, b"back");
        let silent = tokio::time::timeout(Duration::from_millis(50), far.read_u8()).await;
        assert!(silent.is_err(), "{silent:?}");
        proxy.heal();
        assert_eq!(&read(&mut far).await, b"held");
    }

    #[tokio::test]
    async fn a_delayed_way_delivers_later_and_in_order() {
        let (proxy, mut near, mut far) = wire().await;
        proxy.delay((0, 1), Duration::from_millis(40));
        let sent = Instant::now();
        near.write_all(b"onetwo__").await.unwrap();
        assert_eq!((&read(&mut far).await, &read(&mut far).await), (b"onet", b"wo__"));
        assert!(sent.elapsed() >= Duration::from_millis(40));
    }

    #[tokio::test]
    async fn a_cut_ends_both_ends() {
        let (proxy, mut near, mut far) = wire().await;
        near.write_all(b"here").await.unwrap();
        assert_eq!(&read(&mut far).await, b"here");
        proxy.cut((1, 0));
        let patience = Duration::from_secs(30);
        let mut byte = [0];
        for end in [&mut near, &mut far] {
            let read = tokio::time::timeout(patience, end.read(&mut byte)).await.unwrap();
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
    }
}
