//! The HTTP port: probes, metrics, status. Read only, and it never waits for a quorum. Connections are bounded in
//! number and in time, so that those who hold them open can't keep the probes out.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::node::Check;

/// How the port looks into the node.
#[derive(Clone)]
pub struct Views {
    /// What must be well for the node to serve.
    pub checks: Arc<dyn Fn() -> Vec<Check> + Send + Sync>,
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
        Self::bounded(listen, views, Bounds::default()).await
    }

    async fn bounded(listen: &str, views: Views, bounds: Bounds) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router(views), bounds, stop.clone()));
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

/// What connections may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// At once; others wait to be accepted.
    connections: usize,
    /// From the begin of a request, or the end of the one before it, to the end of its head.
    head: Duration,
    /// A connection takes no new request after it.
    age: Duration,
    /// What is under way then, or at the stop, has this long to end.
    end: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: 128,
            head: Duration::from_secs(10),
            age: Duration::from_secs(300),
            end: Duration::from_millis(400),
        }
    }
}

async fn serve(listener: TcpListener, router: Router, bounds: Bounds, stop: CancellationToken) {
    let free = Arc::new(Semaphore::new(bounds.connections));
    let mut open = JoinSet::new();
    let next = async || {
        let place = free.clone().acquire_owned().await;
        (place, listener.accept().await)
    };
    while let Some((place, accepted)) = stop.run_until_cancelled(next()).await {
        while open.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let (router, stop) = (router.clone(), stop.clone());
                open.spawn(async move {
                    answer(stream, router, bounds, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the http port could not accept a connection");
                // Too many open files: others may be closed meanwhile.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    open.join_all().await;
}

/// Answers the requests of one connection.
async fn answer(stream: TcpStream, router: Router, bounds: Bounds, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = timeout(bounds.age, stop.cancelled()) => {
            connection.as_mut().graceful_shutdown();
            timeout(bounds.end, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the http port failed");
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
    let checks = (views.checks)();
    let (status, word) = match checks.iter().all(|check| check.failures.is_empty()) {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let mut lines = String::new();
    for check in checks.iter().filter(|_| verbose) {
        if check.failures.is_empty() {
            lines.push_str(&format!("[+] {} ok\n", check.name));
        }
        lines.extend(check.failures.iter().map(|failure| format!("[-] {}: {failure}\n", check.name)));
    }
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

    fn views() -> Views {
        Views {
            checks: Arc::new(Vec::new),
            status: Arc::new(|| serde_json::json!({})),
            metrics: Arc::new(String::new),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_that_say_nothing_are_closed_and_keep_nobody_out() {
        let bounds = Bounds { connections: 4, head: Duration::from_millis(50), ..Bounds::default() };
        let server = HttpServer::bounded("127.0.0.1:0", views(), bounds).await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..16 {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
            silent.push(stream);
        }
        assert!(fetch(server.address(), "/livez").await.starts_with("HTTP/1.1 200"));
        for mut stream in silent {
            let mut reply = Vec::new();
            // A reset is an end too.
            let _ = stream.read_to_end(&mut reply).await;
        }
        server.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_path_answers_with_what_the_node_says() {
        let ready = Arc::new(AtomicBool::new(false));
        let asked = ready.clone();
        let views = Views {
            checks: Arc::new(move || {
                let unready = (!asked.load(Ordering::SeqCst)).then(|| "there is none".to_owned());
                let log = Check { name: "log", failures: Vec::new() };
                vec![log, Check { name: "cluster", failures: unready.into_iter().collect() }]
            }),
            status: Arc::new(|| serde_json::json!({"node": {"name": "a"}})),
            metrics: Arc::new(|| "odgm_up 1\n".into()),
        };
        let server = HttpServer::start("127.0.0.1:0", views).await.unwrap();
        let at = server.address();
        assert!(fetch(at, "/livez").await.starts_with("HTTP/1.1 200"));
        let unready = fetch(at, "/readyz?verbose").await;
        assert!(
            unready.starts_with("HTTP/1.1 503") && unready.contains("[-] cluster: there is none"),
            "{unready}"
        );
        assert!(unready.contains("[+] log ok"), "{unready}");
        assert!(!fetch(at, "/readyz").await.contains("log"));
        ready.store(true, Ordering::SeqCst);
        assert!(fetch(at, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(at, "/readyz?verbose").await.ends_with("[+] log ok\n[+] cluster ok\nok\n"));
        assert!(fetch(at, "/metrics").await.ends_with("odgm_up 1\n"));
        assert!(fetch(at, "/status").await.ends_with(r#"{"node":{"name":"a"}}"#));
        assert!(fetch(at, "/else").await.starts_with("HTTP/1.1 404"));
        server.stop().await;
        assert!(tokio::net::TcpStream::connect(at).await.is_err());
    }
}
