//! Options of the data layer: one record for all stores of a node.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How much memory the data layer of a node may take. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataOptions {
    /// Block cache shared by all shards of the node. At least 1 MiB; default 64 MiB.
    pub cache_bytes: u64,
    /// What all shards of the node may hold in memtables before the largest is flushed. At least
    /// 8 MiB; default 256 MiB.
    pub write_buffer_bytes: u64,
    /// Threads of each Fjall shard that flush and compact. 2 to 64; default 2. With one, a flush that
    /// asks for a compaction can wait for itself: Fjall then never writes its memtables again.
    pub worker_threads: usize,
    /// What one shard may hold in the memory store, rows with their overhead; writes beyond it are
    /// refused. At least 1 MiB; default 512 MiB.
    pub max_bytes: u64,
}

impl Default for DataOptions {
    fn default() -> Self {
        DataOptions {
            cache_bytes: 64 << 20,
            write_buffer_bytes: 256 << 20,
            worker_threads: 2,
            max_bytes: 512 << 20,
        }
    }
}

impl DataOptions {
    /// Checks the limits given in the fields' documentation.
    ///
    /// # Errors
    /// [`Error::Options`], naming the field.
    pub fn validate(&self) -> Result<()> {
        let fields = [
            ("cache_bytes", self.cache_bytes, 1 << 20),
            ("write_buffer_bytes", self.write_buffer_bytes, 8 << 20),
            ("max_bytes", self.max_bytes, 1 << 20),
        ];
        for (option, found, least) in fields {
            if found < least {
                return Err(Error::Options { option, reason: format!("{found} is below {least}") });
            }
        }
        let option = "worker_threads";
        if self.worker_threads < 2 {
            let reason = format!(
                "{} is below 2: a single worker that waits for room in its own queue stops for ever",
                self.worker_threads
            );
            return Err(Error::Options { option, reason });
        }
        if self.worker_threads > 64 {
            return Err(Error::Options { option, reason: format!("{} is above 64", self.worker_threads) });
        }
        Ok(())
    }
}
