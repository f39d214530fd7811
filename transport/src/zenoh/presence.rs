//! Presence that does not hang on single events.
//!
//! zenoh tells of each token that appears and ends. An event can be lost: a declaration that is still read from a
//! transport while it is being closed stays in the tables under a face that is no more, and the end of that token is
//! never told (zenoh 1.10.2: `send_close` and `declare_token` of routing/dispatcher). What is asked for is collected
//! from the faces that there are, so every watch also asks, each second, and without a byte on the network between
//! peers.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;
use zenoh::Wait;
use zenoh::key_expr::OwnedKeyExpr;
use zenoh::pubsub::Subscriber;
use zenoh::sample::SampleKind;

use super::session_error;
use crate::session::{Declaration, LivenessHandler};
use crate::{Error, KeyExpr, Result};

/// How often a watch asks.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer may take; one that is not whole by then counts for nothing.
const ANSWER: Duration = Duration::from_millis(800);

/// Declares a watch: events as they come, and what two looks in a row find otherwise.
pub(super) fn watch(
    session: &zenoh::Session,
    key: &KeyExpr<'static>,
    handler: LivenessHandler,
) -> Result<Box<dyn Declaration>> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|error| Error::Session(error.to_string()))?;
    let told = Arc::new(Told { handler, tokens: Mutex::default() });
    let telling = told.clone();
    let subscriber = session
        .liveliness()
        .declare_subscriber(key.clone())
        .history(true)
        .callback(move |sample| {
            telling.event(sample.key_expr().clone().into(), sample.kind() == SampleKind::Put)
        })
        .wait()
        .map_err(session_error)?;
    let looking = runtime.spawn(look(session.clone(), key.clone(), told));
    Ok(Box::new(Watching { _subscriber: subscriber, _looking: AbortOnDropHandle::new(looking) }))
}

struct Watching {
    _subscriber: Subscriber<()>,
    _looking: AbortOnDropHandle<()>,
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watching")
    }
}

impl Declaration for Watching {}

async fn look(session: zenoh::Session, key: KeyExpr<'static>, told: Arc<Told>) {
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if let Some(found) = ask(&session, &key).await {
            told.found(&found);
        }
    }
}

/// The tokens that there are; `None` when the answer is not whole.
async fn ask(session: &zenoh::Session, key: &KeyExpr<'static>) -> Option<HashSet<OwnedKeyExpr>> {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let answered = session.liveliness().get(key.clone()).timeout(ANSWER).callback(move |reply| {
        let token = reply.into_result().map(|sample| sample.key_expr().clone().into());
        // This side waits for the end, unless it is dropped.
        let _ = sender.send(token.ok());
    });
    answered.await.ok()?;
    let mut found = HashSet::new();
    while let Some(token) = receiver.recv().await {
        found.insert(token?);
    }
    Some(found)
}

/// What the handler was told.
struct Told {
    handler: LivenessHandler,
    tokens: Mutex<Tokens>,
}

impl Told {
    fn event(&self, token: OwnedKeyExpr, alive: bool) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the handler is told in order.
        if tokens.event(&token, alive) {
            (self.handler)(token.into(), alive);
        }
    }

    fn found(&self, found: &HashSet<OwnedKeyExpr>) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        for (token, alive) in tokens.found(found) {
            tracing::warn!(%token, alive, "zenoh did not tell of a change of presence");
            (self.handler)(token.into(), alive);
        }
    }
}

/// Events count at once, looks when two in a row agree: an event may overtake the answer to a look.
#[derive(Debug, Default)]
struct Tokens {
    alive: HashSet<OwnedKeyExpr>,
    /// Those of which the last look found the contrary, with no event since.
    doubted: HashSet<OwnedKeyExpr>,
}

impl Tokens {
    /// Whether that is a change.
    fn event(&mut self, token: &OwnedKeyExpr, alive: bool) -> bool {
        self.doubted.remove(token);
        match alive {
            true => self.alive.insert(token.clone()),
            false => self.alive.remove(token),
        }
    }

    /// The changes that the events did not tell.
    fn found(&mut self, found: &HashSet<OwnedKeyExpr>) -> Vec<(OwnedKeyExpr, bool)> {
        let other: HashSet<_> = self.alive.symmetric_difference(found).cloned().collect();
        let (wrong, doubted): (HashSet<_>, _) =
            other.into_iter().partition(|token| self.doubted.contains(token));
        self.doubted = doubted;
        wrong
            .into_iter()
            .map(|token| {
                let alive = found.contains(&token);
                self.event(&token, alive);
                (token, alive)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> OwnedKeyExpr {
        OwnedKeyExpr::try_from(name.to_owned()).unwrap()
    }

    fn keys(names: &[&str]) -> HashSet<OwnedKeyExpr> {
        names.iter().map(|name| key(name)).collect()
    }

    #[test]
    fn an_event_is_told_once() {
        let mut tokens = Tokens::default();
        assert!(tokens.event(&key("a"), true));
        assert!(!tokens.event(&key("a"), true));
        assert!(tokens.event(&key("a"), false));
        assert!(!tokens.event(&key("a"), false));
    }

    #[test]
    fn what_two_looks_find_is_told_once() {
        let mut tokens = Tokens::default();
        tokens.event(&key("gone"), true);
        assert_eq!(tokens.found(&keys(&["new"])), []);
        let mut changes = tokens.found(&keys(&["new"]));
        changes.sort_by_key(|(_, alive)| *alive);
        assert_eq!(changes, [(key("gone"), false), (key("new"), true)]);
        assert_eq!(tokens.found(&keys(&["new"])), []);
        assert_eq!(tokens.found(&keys(&["new"])), []);
    }

    #[test]
    fn a_look_that_an_event_overtook_changes_nothing() {
        let mut tokens = Tokens::default();
        tokens.event(&key("a"), true);
        assert_eq!(tokens.found(&keys(&[])), []);
        // Its end was under way, and it came again.
        tokens.event(&key("a"), false);
        tokens.event(&key("a"), true);
        assert_eq!(tokens.found(&keys(&[])), []);
        assert_eq!(tokens.found(&keys(&["a"])), []);
        assert_eq!(tokens.found(&keys(&[])), []);
    }
}
