//! The result: rows for people and programs, and how they stand to their targets.

use serde::Serialize;
use serde_json::{Value, json};

use super::Operation;
use super::load::Measured;
use crate::output::{self, Failure};

/// A measured figure. Latencies are milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p999: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
}

impl Row {
    /// A figure by itself.
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Row { name: name.into(), value, unit, ..Row::default() }
    }

    /// The latencies behind it.
    pub(super) fn latencies(self, measured: &Measured) -> Self {
        Row {
            p50: Some(measured.quantile_ms(0.5)),
            p99: Some(measured.quantile_ms(0.99)),
            p999: Some(measured.quantile_ms(0.999)),
            ..self
        }
    }

    /// What failed, if anything did.
    pub(super) fn errors(self, measured: &Measured) -> Self {
        let errors = (measured.errors > 0).then_some(measured.errors);
        Row { errors, first_error: measured.first_error.clone(), ..self }
    }

    /// More is better, and this is asked.
    pub(super) fn at_least(self, target: f64) -> Self {
        Row { target: Some(target), met: Some(self.value >= target), ..self }
    }

    /// Less is better, and this is asked.
    pub(super) fn at_most(self, target: f64) -> Self {
        Row { target: Some(target), met: Some(self.value <= target), ..self }
    }

    /// What the machine allows, measured in the same run.
    pub(super) fn limit(self, limit: f64) -> Self {
        Row { limit: Some(limit), ..self }
    }
}

/// All figures of a run.
pub(super) struct Report {
    rows: Vec<Row>,
}

/// What one client's put may take beside the echo, for each fdatasync of the disk and in milliseconds.
const SYNCS: f64 = 1.5;
const REST_MS: f64 = 0.4;

impl Report {
    pub(super) fn new() -> Self {
        Report { rows: Vec::new() }
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn disk(&mut self, disk: &Measured) {
        self.rate("fdatasync 4KiB".into(), disk);
    }

    pub(super) fn closed(&mut self, operation: Operation, clients: usize, measured: &Measured) {
        self.rate(format!("{} closed {clients}", operation.name()), measured);
    }

    pub(super) fn open(&mut self, operation: Operation, clients: usize, percent: u32, measured: &Measured) {
        self.rate(format!("{} open {clients} at {percent}%", operation.name()), measured);
    }

    fn rate(&mut self, name: String, measured: &Measured) {
        self.rows.push(Row::new(name, measured.rate(), "op/s").latencies(measured).errors(measured));
    }

    /// Puts and gets against the echo of the same number of clients.
    pub(super) fn compare(
        &mut self,
        clients: usize,
        echo: &Measured,
        put: &Measured,
        get: &Measured,
        disk: &Measured,
    ) {
        // Only 64 clients have a limit.
        let bound = |limit: f64| (clients == 64).then_some(limit);
        for (name, measured, limit, target) in
            [("put", put, bound(0.25), bound(0.5)), ("get", get, bound(0.5), None)]
        {
            let value = if echo.rate() > 0.0 { measured.rate() / echo.rate() } else { 0.0 };
            self.rows.push(Row {
                name: format!("{name}/echo {clients}"),
                value,
                unit: "ratio",
                target,
                limit,
                met: limit.map(|limit| value >= limit),
                ..Row::default()
            });
        }
        if clients == 1 {
            let limit = echo.quantile_ms(0.5) + SYNCS * disk.quantile_ms(0.5) + REST_MS;
            let value = put.quantile_ms(0.5);
            self.rows.push(Row {
                name: "put p50 of 1 client".into(),
                value,
                unit: "ms",
                limit: Some(limit),
                met: Some(value <= limit),
                ..Row::default()
            });
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"machine": machine(), "latency_unit": "ms", "rows": self.rows})
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        let number = |value: f64| if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
        let maybe = |value: Option<f64>| value.map(number).unwrap_or_default();
        let row = |row: &Row| {
            let met = row.met.map(|met| if met { "met" } else { "MISSED" }).unwrap_or_default();
            let errors = row
                .errors
                .map(|errors| format!("{errors} errors: {}", row.first_error.as_deref().unwrap_or("")));
            vec![
                row.name.clone(),
                number(row.value),
                row.unit.to_owned(),
                maybe(row.p50),
                maybe(row.p99),
                maybe(row.p999),
                maybe(row.limit),
                maybe(row.target),
                errors.unwrap_or_else(|| met.to_owned()),
            ]
        };
        output::line(machine().to_string())?;
        let header = ["NAME", "VALUE", "UNIT", "P50 ms", "P99 ms", "P99.9 ms", "LIMIT", "TARGET", ""];
        Ok(output::table(&header, self.rows.iter().map(row).collect(), "nothing was measured")?)
    }
}

/// What it ran on.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    json!({
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}
