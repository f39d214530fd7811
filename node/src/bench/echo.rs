//! The bare echo: a query that comes back with its payload from the callback that received it. What
//! zenoh costs by itself.

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Waker};

use odgm_transport::options::SessionOptions;
use odgm_transport::zenoh::ZenohSession;

use crate::output::Failure;

/// The keys that the n-th server answers.
pub(super) fn key(server: usize) -> String {
    format!("odgm-echo/{server}")
}

/// Answers until the process is told to end.
pub(crate) async fn serve(listen: &str, peers: Vec<String>, key: &str) -> Result<(), Failure> {
    let options =
        SessionOptions { listen: vec![listen.to_owned()], connect: peers, ..SessionOptions::default() };
    let session = ZenohSession::open(&options, "echo").await.map_err(Failure::Unreachable)?;
    let refused = |error: &dyn std::fmt::Display| Failure::Refused(error.to_string());
    let queryable = session
        .zenoh()
        .declare_queryable(format!("{key}/**"))
        .callback(|query| {
            let payload = query.payload().cloned().unwrap_or_default();
            // Replies of zenoh are ready when they are polled; the caller sees the loss of one.
            let reply = pin!(query.reply(query.key_expr().clone(), payload).into_future());
            let _ = reply.poll(&mut Context::from_waker(Waker::noop()));
        })
        .await
        .map_err(|error| refused(&error))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| refused(&error))?;
    terminate.recv().await;
    drop(queryable);
    Ok(())
}
