//! Load: closed loop (each client asks when it was answered) and open loop (each client asks when it
//! is time). In the open loop a latency counts from when the request was due, so that a server that
//! stalls is seen by all requests that it kept waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Operation;
use super::target::Target;

/// Latencies and counts.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// Nanoseconds.
    latencies: Histogram<u64>,
    elapsed: Duration,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

impl Default for Measured {
    fn default() -> Self {
        let latencies = Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("the bounds are in order");
        Measured { latencies, elapsed: Duration::ZERO, errors: 0, first_error: None }
    }
}

impl Measured {
    pub(super) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(nanos.max(1));
    }

    pub(super) fn fail(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    pub(super) fn took(&mut self, elapsed: Duration) {
        self.elapsed += elapsed;
    }

    /// Counts what another client measured at the same time.
    pub(super) fn beside(&mut self, other: Measured) {
        self.latencies += &other.latencies;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// Counts another round.
    pub(super) fn add(&mut self, round: &Measured) {
        self.beside(round.clone());
        self.elapsed += round.elapsed;
    }

    /// How many answers came.
    pub(super) fn count(&self) -> u64 {
        self.latencies.len()
    }

    /// Answers per second.
    pub(super) fn rate(&self) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { self.latencies.len() as f64 / self.elapsed.as_secs_f64() }
    }

    /// Milliseconds below which this part of the answers came.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e6
    }

    /// The longest, in milliseconds.
    pub(super) fn longest_ms(&self) -> f64 {
        self.latencies.max() as f64 / 1e6
    }

    /// How long all of it took.
    pub(super) fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// What to send.
pub(super) struct Load {
    pub(super) operation: Operation,
    pub(super) clients: usize,
    /// Requests per second of all clients together; `None` is a closed loop.
    pub(super) rate: Option<f64>,
    pub(super) duration: Duration,
}

impl Load {
    /// Runs all clients to the end.
    pub(super) async fn run(&self, target: &Target) -> Measured {
        self.run_until(target, &CancellationToken::new()).await
    }

    /// Runs all clients to the end, or until told to stop.
    pub(super) async fn run_until(&self, target: &Target, stop: &CancellationToken) -> Measured {
        let target = target.shared();
        let start = Instant::now();
        let end = start + self.duration;
        let mut clients = JoinSet::new();
        for client in 0..self.clients {
            let (target, stop) = (Arc::clone(&target), stop.clone());
            let operation = self.operation;
            let due = self.rate.map(|rate| Due { rate, client, clients: self.clients });
            clients.spawn(async move {
                let mut measured = Measured::default();
                let mut turn = 0_u64;
                loop {
                    let begun = match &due {
                        None => Instant::now(),
                        Some(due) => start + due.at(turn),
                    };
                    if begun >= end || stop.is_cancelled() {
                        break;
                    }
                    // A sleep until now would last until the next tick of tokio's timer, a millisecond.
                    if due.is_some() {
                        tokio::time::sleep_until(begun.into()).await;
                    }
                    match target.ask(operation, client, turn).await {
                        Ok(()) => measured.record(begun.elapsed()),
                        Err(error) => measured.fail(error),
                    }
                    turn += 1;
                }
                measured
            });
        }
        let mut all = Measured::default();
        while let Some(client) = clients.join_next().await {
            match client {
                Ok(measured) => all.beside(measured),
                Err(error) => all.fail(error.to_string()),
            }
        }
        all.took(start.elapsed());
        all
    }
}

/// When a client's requests are due, evenly among those of the others.
struct Due {
    rate: f64,
    client: usize,
    clients: usize,
}

impl Due {
    fn at(&self, turn: u64) -> Duration {
        let place = turn as f64 * self.clients as f64 + self.client as f64;
        Duration::from_secs_f64(place / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_all_clients_are_due_evenly() {
        let due = |client, turn| Due { rate: 100.0, client, clients: 4 }.at(turn);
        assert_eq!(due(0, 0), Duration::ZERO);
        assert_eq!(due(3, 0), Duration::from_millis(30));
        assert_eq!(due(0, 1), Duration::from_millis(40));
    }

    #[test]
    fn rounds_add_up_in_count_and_time() {
        let mut round = Measured::default();
        (0..10).for_each(|_| round.record(Duration::from_millis(2)));
        round.took(Duration::from_secs(1));
        let mut all = Measured::default();
        all.add(&round);
        all.add(&round);
        assert!((all.rate() - 10.0).abs() < 1e-9);
        assert!((all.quantile_ms(0.5) - 2.0).abs() < 0.01);
    }
}
