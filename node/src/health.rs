//! The health of the storage layers: looked at every `storage.health_interval`, told when it changes, counted
//! for `/metrics`; and what follows from a full disk.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use odgm_storage::composite::{Health, LayerMetrics, Status};
use odgm_storage::log::LogSpace;
use tokio::time::{Instant, MissedTickBehavior};

use crate::node::Core;

/// How often it is asked whether a call has changed the health meanwhile; that costs next to nothing.
const POLL: Duration = Duration::from_millis(250);

/// Watches until the node stops.
pub(crate) async fn watch(core: Arc<Core>) {
    let interval = core.config.storage.health_interval.duration();
    let mut polls = tokio::time::interval(POLL.min(interval));
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut known, mut due) = (Health::default(), Instant::now());
    while core.stop.run_until_cancelled(polls.tick()).await.is_some() {
        if Instant::now() >= due {
            due = Instant::now() + interval;
            let stores = core.stores.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || stores.check()).await {
                tracing::error!(%error, "the storage could not be looked at");
            }
            count(&core);
        }
        // What a shard's log cannot take must be refused before it is proposed.
        core.budget.set_disk_full(core.stores.log.space() != LogSpace::Ample);
        let health = core.stores.storage.health();
        if health.version != known.version {
            tell(&known, &health);
            known = health;
        }
    }
}

fn tell(before: &Health, now: &Health) {
    let layers = [
        ("log", &before.log, &now.log),
        ("snapshot", &before.snapshot, &now.snapshot),
        ("data", &before.data, &now.data),
    ];
    for (layer, before, now) in layers {
        if before == now {
            continue;
        }
        match now {
            Status::Healthy => tracing::info!(layer, "healthy again"),
            Status::Degraded { reason } => tracing::warn!(layer, reason, "degraded"),
            Status::Unhealthy { error } => tracing::error!(layer, error, "unhealthy"),
        }
    }
}

fn count(core: &Core) {
    let storage = &core.stores.storage;
    let (health, sums) = (storage.health(), storage.metrics());
    let layers = [
        ("log", &health.log, sums.log),
        ("snapshot", &health.snapshot, sums.snapshot),
        ("data", &health.data, sums.data),
    ];
    for (layer, status, sum) in layers {
        let LayerMetrics { operations, errors, bytes_read, bytes_written, latency } = sum;
        counter!("odgm_storage_operations_total", "layer" => layer).absolute(operations);
        counter!("odgm_storage_errors_total", "layer" => layer).absolute(errors);
        counter!("odgm_storage_read_bytes_total", "layer" => layer).absolute(bytes_read);
        counter!("odgm_storage_written_bytes_total", "layer" => layer).absolute(bytes_written);
        gauge!("odgm_storage_seconds_total", "layer" => layer).set(latency.as_secs_f64());
        gauge!("odgm_storage_healthy", "layer" => layer).set(u8::from(*status == Status::Healthy));
    }
    counter!("odgm_snapshots_created_total").absolute(sums.snapshots_created);
    counter!("odgm_snapshots_restored_total").absolute(sums.snapshots_restored);
    counter!("odgm_log_compactions_total").absolute(sums.log_compactions);
    gauge!("odgm_log_disk_bytes").set(core.stores.log.disk_bytes() as f64);
}
