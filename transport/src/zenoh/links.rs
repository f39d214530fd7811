//! Keeps the two ends of a zenoh transport in step: it has all its links from its first second on, and loses them all at
//! once.
//!
//! Peers that name each other dial each other, and the two links become one transport, with one set of numbers for
//! key expressions. When one end has given up its links and the other end has not noticed, or has noticed of one link
//! only, what is dialed next joins the old transport there and makes a new one here: from then on the two ends mean
//! different keys by the same number, and a request for one key reaches the queryable of another. Seen with
//! zenoh 1.10.2 after nodes that stood still for longer than the lease, and after cut networks (docs/track-record.md).

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use zenoh::Result as ZResult;
use zenoh_link::Link;
use zenoh_protocol::core::ZenohIdProto;
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
/// How long to wait at most for a link that joined too late to stop.
const JOINED: Duration = Duration::from_secs(1);
/// A link has stopped so long after its loss was told, if not before.
const STOPPING: Duration = Duration::from_millis(5);

/// Watches the links of every transport of a runtime.
#[derive(Default)]
pub(super) struct AllOrNone {
    /// The last transport with each peer, as far as it lives.
    last: Mutex<HashMap<ZenohIdProto, TransportUnicast>>,
}

impl TransportEventHandler for AllOrNone {
    fn new_unicast(
        &self,
        peer: TransportPeer,
        transport: TransportUnicast,
    ) -> ZResult<Arc<dyn TransportPeerEventHandler>> {
        let watched = Watched {
            peer: peer.zid.to_string(),
            transport: transport.clone(),
            opened: Instant::now(),
            founded: AtomicBool::new(false),
            known: Mutex::default(),
            lost: Mutex::default(),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, transport| transport.get_links().is_ok());
        if let Some(forgotten) = last.insert(peer.zid, transport)
            && let Ok(links) = forgotten.get_links()
        {
            // Two would serve one peer: zenoh forgets a transport that begins while the one before is ended twice.
            links
                .into_iter()
                .for_each(|link| drop(watched.close(&forgotten, link, "its transport was forgotten")));
        }
        Ok(Arc::new(watched))
    }

    fn new_multicast(&self, _: TransportMulticast) -> ZResult<Arc<dyn TransportMulticastEventHandler>> {
        Err("the links of a group are not watched".into())
    }
}

struct Watched {
    peer: String,
    transport: TransportUnicast,
    opened: Instant,
    /// It has had its first link.
    founded: AtomicBool,
    /// Those that were added and not lost.
    known: Mutex<Vec<Link>>,
    /// The one whose loss was told last: zenoh stops it next.
    lost: Mutex<Option<Link>>,
}

impl Watched {
    /// Changes what is known, and returns the links that there are when one of those known before is among them.
    fn standing(&self, change: impl FnOnce(&mut Vec<Link>)) -> Option<Vec<Link>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.clone();
        change(&mut known);
        let links = self.transport.get_links().ok()?;
        let stood = before.iter().any(|link| known.contains(link) && links.contains(link));
        stood.then_some(links)
    }

    fn lost(&self) -> MutexGuard<'_, Option<Link>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a link that joined an old transport: nothing is received over it before this returns. As long as another
    /// link stands, which zenoh prefers by its age, nothing is sent over it either; where none does, for a moment.
    fn refuse(&self, link: Link) {
        tracing::info!(peer = self.peer, %link, reason = "the peer dialed again", "a link is closed");
        let (transport, closed) = (self.transport.clone(), link.clone());
        let mut closing = Box::pin(async move { transport.close_link(closed).await });
        // The last link closes with its transport, which waits for this call.
        let stopped = async {
            while self.lost().as_ref() != Some(&link) {
                tokio::time::sleep(STOPPING).await;
            }
            tokio::time::sleep(STOPPING).await;
        };
        let runtime = tokio::runtime::Handle::current();
        // Begun in this thread, not when another has time for it.
        let over = runtime.block_on(async {
            tokio::select! {
                biased;
                _ = &mut closing => true,
                () = stopped => false,
                () = tokio::time::sleep(JOINED) => false,
            }
        });
        if !over {
            runtime.spawn(closing);
        }
    }

    fn close(
        &self,
        transport: &TransportUnicast,
        link: Link,
        reason: &'static str,
    ) -> JoinHandle<ZResult<()>> {
        tracing::info!(peer = self.peer, %link, reason, "a link is closed");
        let transport = transport.clone();
        // Apart, since dropping it half way would leave the transport so.
        tokio::spawn(async move { transport.close_link(link).await })
    }

    fn close_all(&self, links: Vec<Link>) {
        let lost = "another link of its transport was lost";
        let closing = links.into_iter().map(|link| self.close(&self.transport, link, lost));
        // An error: it closed by itself.
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
        let first = !self.founded.swap(true, Ordering::Relaxed);
        let stands = self.standing(|known| known.push(new.clone())).is_some();
        let in_time = stands && self.opened.elapsed() <= FOUNDING;
        // The loss of a link that another one stands beside closes that one, too. Where none stands, the transport has
        // lost its last link, and zenoh is about to end it.
        if !first && !in_time {
            self.refuse(new);
        }
    }

    fn del_link(&self, lost: Link) {
        if let Some(links) = self.standing(|known| known.retain(|link| *link != lost)) {
            self.close_all(links);
        }
        *self.lost() = Some(lost);
    }

    fn closed(&self) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}
