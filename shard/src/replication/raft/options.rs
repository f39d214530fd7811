//! Options of a Raft shard: timing, batches, budgets, and when it takes a snapshot.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How a leader makes sure that it still leads before it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadMode {
    /// By its lease: a quorum answered within three quarters of `election_max`, for all of which no other can be
    /// elected. Needs clocks that run at the same rate within a tenth, and that do not stand still while
    /// the machine is paused. Without a lease, as `Index`.
    #[default]
    Lease,
    /// By a round to a quorum for each batch of reads (Raft §6.4, ReadIndex): needs no clock.
    Index,
}

/// How a Raft shard behaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftOptions {
    /// How often a leader tells its followers that it lives. Stretch it with the number of shards.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a replica campaigns.
    pub election_min: Duration,
    /// The longest; also for how long a follower trusts a leader it has heard.
    pub election_max: Duration,
    /// How linearizable reads are confirmed. The same on all replicas: a replica that reads by `Index` still
    /// honours the leases of the others.
    pub reads: ReadMode,
    /// After how long a write, a barrier or a change of membership gives up; its outcome is unknown then.
    pub deadline: Duration,
    /// Bytes of commands that may be under way in this shard; more is refused as busy.
    pub inflight_bytes: u64,
    /// The most commands in one log entry.
    pub batch_commands: usize,
    /// Bytes of commands after which a log entry is full; one command always fits.
    pub batch_bytes: usize,
    /// How many log entries may be proposed and not yet applied.
    pub batches_inflight: usize,
    /// How long the state machine remembers answers by request id.
    pub rid_window: Duration,
    /// Applied log entries after which a snapshot is taken and the log purged.
    pub snapshot_entries: u64,
    /// Applied bytes after which a snapshot is taken and the log purged.
    pub snapshot_bytes: u64,
    /// Log entries kept behind a snapshot, for followers that lag a little.
    pub keep_entries: u64,
    /// Bytes of log entries that may be under way to one follower.
    pub window_bytes: usize,
}

impl Default for RaftOptions {
    fn default() -> Self {
        RaftOptions {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(600),
            reads: ReadMode::default(),
            deadline: Duration::from_secs(10),
            inflight_bytes: 64 << 20,
            batch_commands: 1024,
            batch_bytes: 1 << 20,
            batches_inflight: 2,
            rid_window: Duration::from_secs(60),
            snapshot_entries: 100_000,
            snapshot_bytes: 64 << 20,
            keep_entries: 5_000,
            window_bytes: 4 << 20,
        }
    }
}

impl RaftOptions {
    /// How old the last answer of a quorum may be for a read by lease. Voters grant no vote for `election_max`
    /// after they heard their leader: the difference is for clocks that run unlike.
    pub(super) fn lease(&self) -> Duration {
        self.election_max * 3 / 4
    }

    /// From when on an answer of a follower is late: half of what [`RaftOptions::lease`] is shorter than the
    /// followers' trust, so that the rest is left for clocks.
    pub(super) fn late(&self) -> Duration {
        (self.election_max - self.lease()) / 2
    }

    /// After how long without a word of its leader a replica says that it follows nobody: others had the time to
    /// elect one, and it to hear of that.
    pub(super) fn patience(&self) -> Duration {
        self.election_max * 2
    }

    /// For how long after its start a replica takes no part in elections: the lease that it may have granted
    /// before is not on disk.
    pub(super) fn embargo(&self) -> Duration {
        self.election_max * 11 / 10
    }

    /// Refuses values that cannot work together.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the option and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::Invalid(what.to_owned()));
        if self.heartbeat < Duration::from_millis(10) {
            return refuse("raft.heartbeat must be at least 10ms");
        }
        if self.election_min < self.heartbeat * 2 {
            return refuse("raft.election must begin at two heartbeats or more");
        }
        if self.election_max <= self.election_min {
            return refuse("raft.election must be a range, such as 400ms..600ms");
        }
        let positive = [
            self.inflight_bytes > 0,
            self.batch_commands > 0,
            self.batch_bytes > 0,
            self.batches_inflight > 0,
            self.snapshot_entries > 0,
            self.snapshot_bytes > 0,
            self.window_bytes > 0,
            !self.deadline.is_zero(),
        ];
        if positive.contains(&false) {
            return refuse("the counts, sizes and deadlines of a raft shard must not be 0");
        }
        Ok(())
    }
}
