//! What the history costs: the same puts into a collection that keeps its events and into one that does not,
//! in turn.

use std::time::Duration;

use super::{Bench, puts};
use crate::bench::load::Measured;
use crate::bench::report::{Report, Row};
use crate::bench::target::Target;
use crate::output::Failure;

pub(super) const WITH: &str = "with";
pub(super) const WITHOUT: &str = "without";
/// What of the puts' rate must be left.
const LEFT: f64 = 0.95;

/// One of the two collections.
struct Side {
    name: &'static str,
    target: Target,
    measured: Measured,
    /// Of all nodes.
    processor_time: Duration,
}

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<(), Failure> {
    let mut sides = [Side::connect(bench, WITH).await?, Side::connect(bench, WITHOUT).await?];
    for side in &sides {
        side.target.await_served(&bench.nodes).await?;
        // Not counted: what is new costs more than what is there.
        puts(bench, bench.options.duration).run(&side.target).await;
    }
    for _ in 0..bench.options.rounds {
        for side in &mut sides {
            side.turn(bench).await;
        }
        // Who comes first changes.
        sides.reverse();
    }
    sides.sort_by_key(|side| side.name);
    for side in &sides {
        let row = Row::new(format!("puts {} history", side.name), side.measured.rate(), "op/s");
        report.push(row.latencies(&side.measured).errors(&side.measured));
    }
    for side in &sides {
        let name = format!("processor time a put {} history, all nodes", side.name);
        report.push(Row::new(name, side.processor_us(), "µs"));
    }
    let [with, without] = &sides;
    let ratio = with.measured.rate() / without.measured.rate();
    report.push(Row::new("puts with/without history", ratio, "ratio").at_least(LEFT));
    let ratio = with.processor_us() / without.processor_us();
    report.push(Row::new("processor time with/without history", ratio, "ratio").at_most(1.0 / LEFT));
    for side in sides {
        side.target.close().await;
    }
    Ok(())
}

impl Side {
    async fn connect(bench: &Bench<'_>, name: &'static str) -> Result<Self, Failure> {
        let (nodes, echo) = (bench.nodes.endpoints(), bench.echo_servers.endpoints());
        let target = Target::connect(bench.common, bench.shape(), &nodes, &echo, name).await?;
        Ok(Side { name, target, measured: Measured::default(), processor_time: Duration::ZERO })
    }

    async fn turn(&mut self, bench: &Bench<'_>) {
        let before = bench.nodes.processor_time();
        self.measured.add(&puts(bench, bench.options.duration).run(&self.target).await);
        self.processor_time += bench.nodes.processor_time().saturating_sub(before);
    }

    fn processor_us(&self) -> f64 {
        self.processor_time.as_secs_f64() * 1e6 / self.measured.count().max(1) as f64
    }
}
