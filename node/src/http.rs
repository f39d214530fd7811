//! The HTTP port: probes, metrics, status. Read only, and it never waits for a quorum.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How the port looks into the node.
#[derive(Clone)]
pub struct Views {
    /// Whether the node can serve; else a line for each reason.
    pub readiness: Arc<dyn Fn() -> Result<(), Vec<String>> + Send + Sync>,
    /// The node, its shards and its layers.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Views")
    }
}

/// A port that is being served.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Listens on `host:port` and serves until stopped.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub async fn start(listen: &str, views: Views) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let server =
                axum::serve(listener, router(views)).with_graceful_shutdown(stopped.cancelled_owned());
            if let Err(error) = server.await {
                tracing::error!(%error, "the http port failed");
            }
        });
        Ok(HttpServer { address, stop, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; connections that are idle or slow are dropped.
    pub async fn stop(self) {
        self.stop.cancel();
        let abort = self.task.abort_handle();
        if tokio::time::timeout(std::time::Duration::from_millis(500), self.task).await.is_err() {
            abort.abort();
        }
    }
}

fn router(views: Views) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(|State(views): State<Views>| async move { Json((views.status)()) }))
        .with_state(views)
}

async fn readyz(State(views): State<Views>, RawQuery(query): RawQuery) -> Response {
    let verbose = query.is_some_and(|query| query.split('&').any(|flag| flag.starts_with("verbose")));
    let (status, reasons) = match (views.readiness)() {
        Ok(()) => (StatusCode::OK, Vec::new()),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    };
    let word = if status == StatusCode::OK { "ok" } else { "not ready" };
    if !verbose {
        return (status, format!("{word}\n")).into_response();
    }
    let lines: String = reasons.iter().map(|reason| format!("[-] {reason}\n")).collect();
    (status, format!("{lines}{word}\n")).into_response()
}

async fn metrics(State(views): State<Views>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], (views.metrics)()).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_path_answers_with_what_the_node_says() {
        let ready = Arc::new(AtomicBool::new(false));
        let asked = ready.clone();
        let views = Views {
            readiness: Arc::new(move || {
                if asked.load(Ordering::SeqCst) { Ok(()) } else { Err(vec!["no cluster".into()]) }
            }),
            status: Arc::new(|| serde_json::json!({"node": {"name": "a"}})),
            metrics: Arc::new(|| "odgm_up 1\n".into()),
        };
        let server = HttpServer::start("127.0.0.1:0", views).await.unwrap();
        let at = server.address();
        assert!(fetch(at, "/livez").await.starts_with("HTTP/1.1 200"));
        let unready = fetch(at, "/readyz?verbose").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("[-] no cluster"), "{unready}");
        assert!(!fetch(at, "/readyz").await.contains("no cluster"));
        ready.store(true, Ordering::SeqCst);
        assert!(fetch(at, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(at, "/metrics").await.ends_with("odgm_up 1\n"));
        assert!(fetch(at, "/status").await.ends_with(r#"{"node":{"name":"a"}}"#));
        assert!(fetch(at, "/else").await.starts_with("HTTP/1.1 404"));
        server.stop().await;
        assert!(tokio::net::TcpStream::connect(at).await.is_err());
    }
}
