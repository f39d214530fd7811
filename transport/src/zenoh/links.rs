//! Keeps the two ends of a zenoh transport in step: it has all its links from its first second on, and loses them all at
//! once.
//!
//! Peers that name each other dial each other, and the two links become one transport, with one set of numbers for
//! key expressions. When one end has given up its links and the other end has not noticed, or has noticed of one link
//! only, what is dialed next joins the old transport there and makes a new one here: from then on the two ends mean
//! different keys by the same number, and a request for one key reaches the queryable of another. Seen with
//! zenoh 1.10.2 after nodes that stood still for longer than the lease, and after cut networks (docs/track-record.md).

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zenoh::Result as ZResult;
use zenoh_link::Link;
use zenoh_protocol::network::NetworkMessageMut;
use zenoh_transport::multicast::TransportMulticast;
use zenoh_transport::unicast::TransportUnicast;
use zenoh_transport::{
    TransportEventHandler, TransportMulticastEventHandler, TransportPeer, TransportPeerEventHandler,
};

/// How long after its first link others may join a transport: peers dial each other at about the same time. Less than
/// the lease (2 s unless configured), which a peer must have waited out before it dials again.
const FOUNDING: Duration = Duration::from_secs(1);
/// How long to wait for links to close. The end of a transport also waits for a link that is just being added.
const CLOSING: Duration = Duration::from_millis(50);
/// How long to wait for a link that joined too late to close. It is not the last of its transport, so nothing waits
/// for it but a busy machine.
const JOINED: Duration = Duration::from_secs(1);

const DIALED_AGAIN: &str = "the peer dialed again";

/// Watches the links of every transport of a runtime.
pub(super) struct AllOrNone;

impl TransportEventHandler for AllOrNone {
    fn new_unicast(
        &self,
        peer: TransportPeer,
        transport: TransportUnicast,
    ) -> ZResult<Arc<dyn TransportPeerEventHandler>> {
        let peer = peer.zid.to_string();
        Ok(Arc::new(Watched { peer, transport, opened: Instant::now(), known: Mutex::default() }))
    }

    fn new_multicast(&self, _: TransportMulticast) -> ZResult<Arc<dyn TransportMulticastEventHandler>> {
        Err("the links of a group are not watched".into())
    }
}

struct Watched {
    peer: String,
    transport: TransportUnicast,
    opened: Instant,
    /// Those that were added and not lost.
    known: Mutex<Vec<Link>>,
}

impl Watched {
    /// Changes what is known, and returns the links that there are when one of those known before is among them.
    ///
    /// Otherwise the transport has been without a link: then zenoh is about to close it, with all that joined since,
    /// and to close those before would make it forget the transport that comes next.
    fn standing(&self, change: impl FnOnce(&mut Vec<Link>)) -> Option<Vec<Link>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.clone();
        change(&mut known);
        let links = self.transport.get_links().ok()?;
        let stood = before.iter().any(|link| known.contains(link) && links.contains(link));
        stood.then_some(links)
    }

    /// Closes a link that joined too late: nothing is received over it before this returns, and as long as another
    /// one stands, which zenoh prefers by its age, nothing is sent over it.
    fn refuse(&self, link: Link) {
        tracing::info!(peer = self.peer, %link, reason = DIALED_AGAIN, "a link is closed");
        let transport = self.transport.clone();
        let mut closing = Box::pin(async move { transport.close_link(link).await });
        let runtime = tokio::runtime::Handle::current();
        // Begun in this thread, not when another has time for it.
        let closed = runtime.block_on(async { tokio::time::timeout(JOINED, &mut closing).await });
        if closed.is_err() {
            runtime.spawn(closing);
        }
    }

    fn close(&self, links: Vec<Link>, reason: &'static str) {
        let closing = links.into_iter().map(|link| {
            tracing::info!(peer = self.peer, %link, reason, "a link is closed");
            let transport = self.transport.clone();
            // An error: it closed by itself. Apart, since dropping it half way would leave the transport so.
            tokio::spawn(async move { transport.close_link(link).await })
        });
        let closed = tokio::time::timeout(CLOSING, join_all(closing));
        let _ = tokio::runtime::Handle::current().block_on(closed);
    }
}

/// zenoh makes these calls on threads that may wait: one for a new link before anything is received over it, one for
/// a lost link before it dials again.
impl TransportPeerEventHandler for Watched {
    fn handle_message(&self, _: NetworkMessageMut<'_>) -> ZResult<()> {
        Ok(())
    }

    fn new_link(&self, new: Link) {
        let joined = self.standing(|known| known.push(new.clone()));
        if let Some(mut links) = joined
            && self.opened.elapsed() > FOUNDING
        {
            links.retain(|link| *link != new);
            self.refuse(new);
            self.close(links, DIALED_AGAIN);
        }
    }

    fn del_link(&self, lost: Link) {
        if let Some(links) = self.standing(|known| known.retain(|link| *link != lost)) {
            self.close(links, "another link of its transport was lost");
        }
    }

    fn closed(&self) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}
