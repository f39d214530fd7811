//! The conformance suite: one function per promise of [`Session`], [`crate::link::Links`] and
//! [`crate::stream`], for zenoh and for its simulated twin. [`transport_conformance!`] makes a test of
//! each.

pub mod calls;
pub mod links;
pub mod presence;
pub mod samples;
pub mod streams;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::session::{Call, QueryHandler, Reply, Sample, SampleHandler, Session};
use crate::timer::Timer;
use crate::{KeyExpr, Result};

/// Longer than anything here takes, even on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// Three sessions that see each other, and the time they live in.
#[derive(Clone)]
pub struct Mesh {
    /// The sessions.
    pub sessions: [Arc<dyn Session>; 3],
    /// Their time.
    pub timer: Arc<dyn Timer>,
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").finish_non_exhaustive()
    }
}

/// A test per promise: the attributes of each, and a function without arguments whose future is the
/// [`Mesh`].
#[macro_export]
macro_rules! transport_conformance {
    ($attributes:tt, $mesh:path) => {
        $crate::transport_conformance!(@ $attributes, $mesh, calls:
            a_call_carries_parameters_payload_encoding_and_attachment,
            a_reply_carries_key_payload_encoding_attachment_and_timestamp,
            a_wildcard_is_answered_on_concrete_keys,
            a_delete_is_a_reply,
            an_error_reply_arrives_with_its_encoding,
            a_query_ends_when_it_is_dropped,
            a_call_that_nobody_serves_ends_at_once,
            a_call_ends_at_its_deadline,
            all_servers_that_match_are_asked,
            one_of_the_complete_servers_answers_alone,
            a_server_that_covers_only_a_part_is_not_complete,
            streamed_replies_keep_their_order_and_are_not_consolidated,
            large_payloads_arrive_whole,
            an_undeclared_server_is_asked_no_more,
        );
        $crate::transport_conformance!(@ $attributes, $mesh, samples:
            samples_arrive_in_order,
            a_sample_carries_encoding_attachment_and_timestamp,
            a_delete_is_a_sample_without_payload,
            own_samples_are_not_received,
            a_declared_publisher_sends_in_order,
        );
        $crate::transport_conformance!(@ $attributes, $mesh, presence:
            presence_is_seen_by_who_came_before_and_after,
            presence_ends_with_its_declaration,
            presence_ends_with_its_session,
        );
        $crate::transport_conformance!(@ $attributes, $mesh, links:
            peers_know_each_other_by_name,
            messages_of_a_class_arrive_in_order,
            many_requests_are_answered_in_any_order,
            a_refusal_carries_its_reason,
            a_dropped_request_is_refused,
            a_request_ends_at_its_deadline,
            a_large_message_arrives_whole,
            a_message_over_the_limit_is_refused_at_once,
            an_unknown_peer_is_unreachable_at_once,
            a_peer_that_goes_fails_what_waits_for_it,
            another_cluster_is_refused,
            a_node_without_a_cluster_is_heard,
            a_wrong_secret_is_refused,
            garbage_is_counted_and_ignored,
        );
        $crate::transport_conformance!(@ $attributes, $mesh, streams:
            a_stream_is_pulled_in_order,
            a_pull_resumes_at_its_offset,
        );
    };
    (@ $attributes:tt, $mesh:path, $module:ident: $($promise:ident,)*) => {
        mod $module {
            $($crate::transport_conformance!(@test $attributes, $mesh, $module, $promise);)*
        }
    };
    (@test [$($attribute:tt)*], $mesh:path, $module:ident, $promise:ident) => {
        $($attribute)*
        async fn $promise() {
            $crate::suite::$module::$promise($mesh().await).await;
        }
    };
}

impl Mesh {
    /// Waits for a state.
    pub async fn until(&self, what: &str, state: impl Fn() -> bool) {
        let start = self.timer.now();
        while !state() {
            assert!(self.timer.now() - start < DEADLINE, "waited in vain: {what}");
            self.timer.sleep(Duration::from_millis(2)).await;
        }
    }

    /// Bounds a wait.
    pub async fn within<T>(&self, what: &str, future: impl Future<Output = T> + Send) -> T {
        let future = std::pin::pin!(future);
        match futures_util::future::select(future, self.timer.sleep(DEADLINE)).await {
            futures_util::future::Either::Left((value, _)) => value,
            futures_util::future::Either::Right(_) => panic!("waited in vain: {what}"),
        }
    }

    /// All replies of a call.
    pub async fn ask(&self, session: usize, call: Call) -> Vec<Reply> {
        self.within("the end of a call", async {
            let mut replies = self.sessions[session].call(call).expect("the call is sent");
            let mut all = Vec::new();
            while let Some(reply) = replies.next().await {
                all.push(reply);
            }
            all
        })
        .await
    }

    /// Asks again until there are so many replies: declarations take their time to travel.
    pub async fn ask_until(&self, session: usize, call: Call, count: usize) -> Vec<Reply> {
        let start = self.timer.now();
        loop {
            let replies = self.ask(session, call.clone()).await;
            if replies.len() == count {
                return replies;
            }
            assert!(self.timer.now() - start < DEADLINE, "{} replies instead of {count}", replies.len());
            self.timer.sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A key.
pub(crate) fn key(text: &str) -> KeyExpr<'static> {
    KeyExpr::try_from(text.to_owned()).expect("the suite's keys are valid")
}

/// A sample with only a payload.
pub(crate) fn sample(at: &str, payload: &'static [u8]) -> Sample {
    Sample {
        key: key(at),
        payload: Some(payload.into()),
        encoding: String::new(),
        attachment: None,
        timestamp: None,
    }
}

/// A call that ends late.
pub(crate) fn call(at: &str) -> Call {
    Call::new(key(at), DEADLINE)
}

/// Answers every query with one sample.
pub(crate) fn answer(with: Sample) -> QueryHandler {
    Arc::new(move |query| query.respond(Ok(with.clone())))
}

/// What a handler has seen.
#[derive(Debug)]
pub(crate) struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Seen(self.0.clone())
    }
}

impl<T: Clone + Send + 'static> Seen<T> {
    pub(crate) fn new() -> Self {
        Seen(Arc::default())
    }

    pub(crate) fn push(&self, value: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Collects samples.
pub(crate) fn collect(seen: &Seen<Sample>) -> SampleHandler {
    let seen = seen.clone();
    Arc::new(move |sample| seen.push(sample))
}

/// The samples among replies.
pub(crate) fn samples(replies: Vec<Reply>) -> Vec<Sample> {
    replies.into_iter().map(|reply| reply.expect("a sample and no error")).collect()
}

/// What must succeed in the suite.
pub(crate) fn ok<T>(result: Result<T>) -> T {
    result.expect("the transport does what it is asked")
}
