//! A client's way into the grid: a session to the first node that answers, and another when that one is silent.

use std::time::Duration;

use odgm_shard::client::{ClientOptions, GridClient};
use odgm_transport::options::SessionOptions;
use odgm_transport::zenoh::ZenohSession;

/// How long one session is asked for one answer.
pub(crate) const ROUND: Duration = Duration::from_secs(6);
/// How long one attempt waits: shorter, so that a frozen node is asked no more.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a node may take to let somebody in.
const OPENING: Duration = Duration::from_secs(3);
/// How long a session may take to say goodbye.
const CLOSING: Duration = Duration::from_secs(1);
/// After a session could not be opened.
const PAUSE: Duration = Duration::from_millis(200);

/// A session that can be had anew.
#[derive(Debug)]
pub(crate) struct Door {
    endpoints: Vec<String>,
    client: Option<GridClient>,
}

impl Door {
    /// Into the node of the first endpoint, else another.
    pub(crate) fn new(endpoints: Vec<String>) -> Self {
        Door { endpoints, client: None }
    }

    /// The client; `None` when nobody let it in.
    pub(crate) async fn client(&mut self) -> Option<&GridClient> {
        if self.client.is_none() {
            let options = SessionOptions {
                connect_timeout: Some(OPENING),
                ..SessionOptions::client(self.endpoints.clone())
            };
            let opened = tokio::time::timeout(OPENING * 2, ZenohSession::open(&options, "torture")).await;
            let Ok(Ok(session)) = opened else {
                self.endpoints.rotate_left(1);
                tokio::time::sleep(PAUSE).await;
                return None;
            };
            let options = ClientOptions { deadline: ROUND, attempt: ATTEMPT, ..ClientOptions::default() };
            self.client = Some(GridClient::new(session, options));
        }
        self.client.as_ref()
    }

    /// Another session, to the next node: the present one gave no answer.
    pub(crate) async fn reopen(&mut self) {
        self.endpoints.rotate_left(1);
        self.close().await;
    }

    /// Says goodbye, but waits for nobody.
    pub(crate) async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            let session = client.session().clone();
            let closing = tokio::task::spawn_blocking(move || session.close());
            // What has not closed by then ends with the process.
            let _ = tokio::time::timeout(CLOSING, closing).await;
        }
    }
}
