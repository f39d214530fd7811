//! The session of a command.

use std::sync::Arc;

use odgm_shard::client::{ClientOptions, GridClient};
use odgm_transport::Session;
use odgm_transport::options::SessionOptions;
use odgm_transport::zenoh::ZenohSession;

use super::arguments::Common;
use crate::output::Failure;

/// A client with its session.
pub(super) struct Connected {
    pub(super) client: GridClient,
    session: Arc<ZenohSession>,
}

impl Connected {
    /// Connects to the first endpoint that answers.
    pub(super) async fn open(common: &Common) -> Result<Self, Failure> {
        let options = SessionOptions {
            connect_timeout: Some(common.timeout),
            ..SessionOptions::client(common.connect.clone())
        };
        let client = ClientOptions { deadline: common.timeout, ..ClientOptions::under(&common.root)? };
        options.validate().map_err(|error| Failure::Usage(error.to_string()))?;
        let opening = ZenohSession::open(&options, "odgm");
        // zenoh has its own idea of when a connection that hangs has failed.
        let opened = tokio::time::timeout(common.timeout + std::time::Duration::from_secs(1), opening).await;
        let session = opened
            .map_err(|_| Failure::Unreachable(odgm_transport::Error::Timeout(common.timeout)))?
            .map_err(Failure::Unreachable)?;
        Ok(Connected { client: GridClient::new(session.clone(), client), session })
    }

    /// Says goodbye, but waits for nobody.
    pub(super) async fn close(self) {
        let session = self.session;
        let closing = tokio::task::spawn_blocking(move || session.close());
        // The process ends: what has not closed by then is cut.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), closing).await;
    }
}
