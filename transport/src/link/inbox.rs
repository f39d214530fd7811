//! What arrives: frames to the handler and to the requests that wait, and presence.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::{
    Class, Decoded, Header, Incoming, Inner, Kind, Malformed, Message, PeerId, ReplyToken, decode, key,
};
use crate::session::{Declaration, LivenessHandler, SampleHandler};
use crate::{Error, Result, Session};

/// Declares the inboxes, then watches for peers, then announces this node.
pub(super) fn declare(inner: &Arc<Inner>, session: &dyn Session) -> Result<Vec<Box<dyn Declaration>>> {
    let options = &inner.options;
    let mut declarations = Vec::new();
    for class in Class::ALL {
        let handler = frames(Arc::downgrade(inner), class);
        declarations.push(session.subscribe(&key::inbox(&options.cluster, options.me, class)?, handler)?);
    }
    declarations.push(session.watch(&key::presences(&options.cluster)?, presence(Arc::downgrade(inner)))?);
    declarations.push(session.announce(&key::presence(options)?)?);
    Ok(declarations)
}

fn frames(inner: Weak<Inner>, class: Class) -> SampleHandler {
    Arc::new(move |sample| {
        if let (Some(inner), Some(frame)) = (inner.upgrade(), sample.payload) {
            inner.receive(class, frame);
        }
    })
}

fn presence(inner: Weak<Inner>) -> LivenessHandler {
    Arc::new(move |key, alive| {
        let Some(inner) = inner.upgrade() else { return };
        let Some((peer, name, epoch)) = key::parse_presence(key.as_str()) else { return };
        if peer == inner.options.me {
            return;
        }
        if alive {
            inner.peers.appeared(peer, epoch, name);
        } else {
            if inner.peers.vanished(peer, epoch) {
                inner.lanes.close(peer);
            }
            inner.pending.fail(peer, epoch);
        }
    })
}

impl Inner {
    fn receive(self: &Arc<Self>, class: Class, frame: Bytes) {
        let counters = &self.counters;
        let decoded = match decode(frame, self.options.secret.as_deref()) {
            Ok(decoded) if decoded.header.to == self.options.me && decoded.header.class == class => decoded,
            Err(Malformed::Mac) => {
                counters.unauthentic.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(_) | Err(Malformed::Garbage | Malformed::Version(_)) => {
                counters.malformed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let (ours, theirs) = (self.cluster(), decoded.header.cluster);
        if !ours.is_nil() && !theirs.is_nil() && ours != theirs {
            counters.foreign.fetch_add(1, Ordering::Relaxed);
            return self.refuse_foreign(decoded);
        }
        counters.frames_received.fetch_add(1, Ordering::Relaxed);
        let header = decoded.header;
        for message in decoded.messages {
            match message.kind {
                Kind::Response => self.pending.complete(header.from, message.correlation, Ok(message.body)),
                Kind::Refusal => self.refused(header.from, message),
                Kind::OneWay | Kind::Request => self.deliver(&header, message),
            }
        }
    }

    fn deliver(self: &Arc<Self>, header: &Header, message: Message) {
        let reply = (message.kind == Kind::Request).then(|| self.token(header, message.correlation));
        let Some(handler) = self.handler.get() else {
            self.counters.unserved.fetch_add(1, Ordering::Relaxed);
            if let Some(reply) = reply {
                reply.refuse("the node is starting".into());
            }
            return;
        };
        handler(Incoming {
            from: header.from,
            epoch: header.epoch,
            cluster: header.cluster,
            class: header.class,
            payload: message.body,
            reply,
        });
    }

    fn token(self: &Arc<Self>, header: &Header, correlation: u64) -> ReplyToken {
        ReplyToken { inner: self.clone(), to: header.from, class: header.class, correlation, answered: false }
    }

    fn refused(&self, from: PeerId, message: Message) {
        let reason = String::from_utf8_lossy(&message.body).into_owned();
        self.pending.complete(from, message.correlation, Err(Error::Refused(reason)));
    }

    /// A frame of another cluster: nothing in it is delivered; its requests are told so, and a
    /// refusal of ours is taken, so that neither side waits for a deadline.
    fn refuse_foreign(self: &Arc<Self>, decoded: Decoded) {
        for message in decoded.messages {
            match message.kind {
                Kind::Request => self
                    .token(&decoded.header, message.correlation)
                    .refuse(format!("another cluster: {}", self.cluster())),
                Kind::Refusal => self.refused(decoded.header.from, message),
                Kind::OneWay | Kind::Response => {}
            }
        }
    }
}
