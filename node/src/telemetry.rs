//! Logs to stderr, and metrics for Prometheus. Set up once a process; nothing here fails a node.

use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise: ours, and what fails below. The libraries' warnings are of
/// what they expect and handle, such as a lost vote, and alarm for nothing.
const NODE_FILTER: &str =
    "error,odgm=info,odgm_node=info,odgm_shard=info,odgm_storage=info,odgm_transport=info";
/// A command says what it has to say itself.
const COMMAND_FILTER: &str = "off";
/// Upper bounds of latency histograms, seconds.
const BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Who logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A node.
    Node,
    /// A command of the command line.
    Command,
}

/// Sends logs to stderr, filtered by `RUST_LOG`. A second call changes nothing.
pub fn log_to_stderr(program: Program, format: LogFormat) {
    let fallback = match program {
        Program::Node => NODE_FILTER,
        Program::Command => COMMAND_FILTER,
    };
    let given = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|given| !given.is_empty());
    let filter = EnvFilter::new(given.as_deref().unwrap_or(fallback));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An earlier subscriber, of an embedding program, stays.
    let _ = match format {
        LogFormat::Text => subscriber.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}

/// The metrics of this process, rendered on demand.
#[derive(Clone)]
pub struct Metrics {
    handle: Option<PrometheusHandle>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("installed", &self.handle.is_some()).finish()
    }
}

impl Metrics {
    /// Collects the metrics of this process from now on. When somebody else in the process does
    /// already, theirs stays and this one renders nothing.
    pub fn install() -> Self {
        let builder = match PrometheusBuilder::new().set_buckets(BUCKETS) {
            Ok(builder) => builder,
            Err(_) => PrometheusBuilder::new(),
        };
        Metrics { handle: builder.install_recorder().ok() }
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.as_ref().map(PrometheusHandle::render).unwrap_or_default()
    }

    /// Keeps histograms that nobody scrapes from growing, until stopped.
    pub async fn upkeep(self, stop: CancellationToken) {
        let Some(handle) = self.handle else { return };
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            handle.run_upkeep();
        }
    }
}
