//! `odgm start`: a node from its configuration to its end.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::arguments::Start;
use super::configuration;
use crate::http::{HttpServer, Views};
use crate::node::{self, Node};
use crate::output::{self, Failure};
use crate::telemetry::Metrics;

/// How long a second signal changes nothing.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs a node until it is told to stop, or fails.
pub(super) async fn run(start: Start) -> Result<u8, Failure> {
    let loaded = configuration::load(&start.layers).map_err(|errors| Failure::Refused(errors.to_string()))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut terminate = signals()?;
    let metrics = Metrics::install();
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn(metrics.clone().upkeep(stop.clone()));
    let config = loaded.config;
    let (name, http) = (config.node.name.clone(), config.http.listen.clone());
    tracing::info!(node = name, version = env!("CARGO_PKG_VERSION"), "starting");

    let node = tokio::select! {
        started = Node::start(config) => started.map_err(|error| Failure::Refused(format!("{error:#}")))?,
        () = told(&mut terminate) => return Ok(output::DONE),
    };
    let code = match HttpServer::start(&http, views(&node, metrics)).await {
        Ok(server) => {
            tracing::info!(node = name, http = %server.address(), "started");
            let code = serve(&node, &mut terminate).await;
            server.stop().await;
            code
        }
        Err(error) => {
            Failure::Refused(format!("http.listen {http:?}: {error}")).report(output::Format::Text);
            output::REFUSED
        }
    };
    let impatient = tokio::select! {
        () = node.stop() => false,
        () = insisted(&mut terminate) => true,
    };
    tracing::info!(node = name, impatient, "stopped");
    stop.cancel();
    // It does nothing but wait for the token.
    let _ = upkeep.await;
    Ok(code)
}

/// Until the end; gives the exit code.
async fn serve(node: &Node, terminate: &mut Signals) -> u8 {
    let ready = async {
        if node.ready().await.is_ok() {
            tracing::info!("ready");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = told(terminate) => output::DONE,
        failure = node.failed() => {
            let code = if matches!(failure, node::Failure::Storage(_)) { output::STORAGE } else { output::REFUSED };
            Failure::Refused(failure.to_string()).report(output::Format::Text);
            code
        }
        () = ready => output::DONE,
    }
}

fn views(node: &Node, metrics: Metrics) -> Views {
    let (asked, shown) = (node.probe(), node.probe());
    Views {
        checks: Arc::new(move || asked.checks()),
        status: Arc::new(move || shown.status()),
        metrics: Arc::new(move || metrics.render()),
    }
}

type Signals = [tokio::signal::unix::Signal; 2];

fn signals() -> Result<Signals, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::Refused(format!("signals: {error}")));
    Ok([listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?])
}

/// Told again, later: whoever signals a whole process group signals twice at once.
async fn insisted(signals: &mut Signals) {
    let pause = tokio::time::Instant::now() + PATIENCE;
    loop {
        told(signals).await;
        if tokio::time::Instant::now() > pause {
            return;
        }
    }
}

async fn told([terminate, interrupt]: &mut Signals) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
