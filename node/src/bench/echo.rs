//! The bare echo: a query that comes back with its payload from the callback that received it. What
//! zenoh costs by itself. With `stream=N` the payload comes N times, with `publish=N` it is published N
//! times and then comes once.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use odgm_transport::options::SessionOptions;
use odgm_transport::session::{Congestion, Priority, Sample};
use odgm_transport::zenoh::ZenohSession;
use odgm_transport::{KeyExpr, Session};

use crate::output::Failure;

/// Keys that the samples of a stream go through.
const KEYS: u64 = 10_000;

/// The keys that the n-th server answers.
pub(super) fn key(server: usize) -> String {
    format!("odgm-echo/{server}")
}

/// The keys on which the server of `key` publishes.
pub(super) fn published(key: &str) -> String {
    format!("published-{key}")
}

/// Answers until the process is told to end.
pub(crate) async fn serve(listen: &str, peers: Vec<String>, key: &str) -> Result<(), Failure> {
    let options =
        SessionOptions { listen: vec![listen.to_owned()], connect: peers, ..SessionOptions::default() };
    let session = ZenohSession::open(&options, "echo").await.map_err(Failure::Unreachable)?;
    let refused = |error: &dyn std::fmt::Display| Failure::Refused(error.to_string());
    let (publisher, keys) = (session.clone(), published(key));
    let queryable = session
        .zenoh()
        .declare_queryable(format!("{key}/**"))
        .callback(move |query| {
            let count = |name| query.parameters().get(name).and_then(|count| count.parse::<u64>().ok());
            let (streamed, published) = (count("stream"), count("publish"));
            let payload = query.payload().cloned().unwrap_or_default();
            if streamed.is_none() && published.is_none() {
                let reply = pin!(query.reply(query.key_expr().clone(), payload).into_future());
                // Replies of zenoh are ready when they are polled; the caller sees the loss of one.
                let _ = reply.poll(&mut Context::from_waker(Waker::noop()));
                return;
            }
            let (session, keys) = (publisher.clone(), keys.clone());
            // The caller takes them at its own pace, and this is the thread that receives.
            std::thread::spawn(move || {
                let attachment = query.attachment().cloned();
                let base = query.key_expr().as_str().trim_end_matches("/**").to_owned();
                let time = session.zenoh().new_timestamp();
                for n in 0..streamed.unwrap_or_default() {
                    let key = format!("{base}/object-{}", n % KEYS);
                    let reply = query.reply(key, payload.clone()).attachment(attachment.clone());
                    // Fails when the caller has gone.
                    if !matches!(reply.timestamp(time).into_future().now_or_never(), Some(Ok(()))) {
                        return;
                    }
                }
                if let Some(count) = published {
                    let attachment = attachment.map(|bytes| Bytes::from(bytes.to_bytes().into_owned()));
                    publish(&session, &keys, &payload.to_bytes(), attachment, count);
                    let _ = query.reply(base, payload).into_future().now_or_never();
                }
            });
        })
        .await
        .map_err(|error| refused(&error))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| refused(&error))?;
    terminate.recv().await;
    drop(queryable);
    Ok(())
}

/// Publishes so many samples as fast as the links take them.
fn publish(session: &Arc<ZenohSession>, keys: &str, payload: &[u8], attachment: Option<Bytes>, count: u64) {
    for n in 0..count {
        let Ok(key) = KeyExpr::try_from(format!("{keys}/object-{}", n % KEYS)) else { return };
        let sample = Sample {
            key,
            payload: Some(Bytes::copy_from_slice(payload)),
            encoding: String::new(),
            attachment: attachment.clone(),
            timestamp: None,
        };
        // A link that is gone loses it; who receives counts.
        let _ = session.publish(sample, Priority::Data, Congestion::Block);
    }
}
