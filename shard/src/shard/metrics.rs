//! The metrics of the object shards: every name once.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::object::{CollectionName, Partition};
use crate::protocol::Plane;

/// Requests answered, by collection, plane (`data`, `cmd`, `near`, `ev`) and `code` (`OK` or the refusal's).
pub const REQUESTS: &str = "odgm_requests_total";
/// Plain puts and deletes taken, by collection.
pub const SAMPLES: &str = "odgm_samples_total";
/// Plain puts and deletes that were refused or lost, by collection and `code`.
pub const SAMPLES_REFUSED: &str = "odgm_samples_refused_total";
/// Events published, by collection.
pub const EVENTS: &str = "odgm_events_total";
/// Events lost to a closed session, or to a history that no longer had them, by collection.
pub const EVENTS_DROPPED: &str = "odgm_events_dropped_total";
/// Keys streamed by lists, by collection.
pub const LISTED: &str = "odgm_listed_keys_total";
/// Changes streamed by replays, by collection.
pub const REPLAYED: &str = "odgm_replayed_events_total";
/// 1 while this replica serves, by collection and partition.
pub const SERVING: &str = "odgm_shard_serving";
/// Time from a command's arrival to its reply, by collection.
pub const COMMAND_SECONDS: &str = "odgm_command_seconds";
/// Time from a read's arrival to its reply, by collection.
pub const READ_SECONDS: &str = "odgm_read_seconds";

/// The handles of one shard, looked up once.
#[derive(Debug)]
pub(crate) struct ShardMetrics {
    collection: String,
    pub(crate) samples: Counter,
    pub(crate) events: Counter,
    pub(crate) events_dropped: Counter,
    pub(crate) listed: Counter,
    pub(crate) replayed: Counter,
    pub(crate) serving: Gauge,
    pub(crate) command_seconds: Histogram,
    pub(crate) read_seconds: Histogram,
    pub(crate) commands_ok: Counter,
    reads_ok: Counter,
    near_ok: Counter,
    events_ok: Counter,
}

impl ShardMetrics {
    pub(crate) fn new(collection: &CollectionName, partition: Partition) -> Self {
        let collection = collection.as_str().to_owned();
        let ok = |plane: Plane| counter!(REQUESTS, "collection" => collection.clone(), "plane" => plane.name(), "code" => "OK");
        ShardMetrics {
            samples: counter!(SAMPLES, "collection" => collection.clone()),
            events: counter!(EVENTS, "collection" => collection.clone()),
            events_dropped: counter!(EVENTS_DROPPED, "collection" => collection.clone()),
            listed: counter!(LISTED, "collection" => collection.clone()),
            replayed: counter!(REPLAYED, "collection" => collection.clone()),
            serving: gauge!(SERVING, "collection" => collection.clone(), "partition" => partition.to_string()),
            command_seconds: histogram!(COMMAND_SECONDS, "collection" => collection.clone()),
            read_seconds: histogram!(READ_SECONDS, "collection" => collection.clone()),
            commands_ok: ok(Plane::Command),
            reads_ok: ok(Plane::Data),
            near_ok: ok(Plane::Near),
            events_ok: ok(Plane::Event),
            collection,
        }
    }

    /// Reads of a plane that were answered.
    pub(crate) fn reads_ok(&self, plane: Plane) -> &Counter {
        match plane {
            Plane::Near => &self.near_ok,
            Plane::Event => &self.events_ok,
            Plane::Data | Plane::Command => &self.reads_ok,
        }
    }

    /// Counts a request that was refused.
    pub(crate) fn refused(&self, plane: &'static str, code: &'static str) {
        counter!(REQUESTS, "collection" => self.collection.clone(), "plane" => plane, "code" => code)
            .increment(1);
    }

    /// Counts a plain put or delete that was refused: nobody else can be told.
    pub(crate) fn sample_refused(&self, code: &'static str) {
        counter!(SAMPLES_REFUSED, "collection" => self.collection.clone(), "code" => code).increment(1);
    }
}
