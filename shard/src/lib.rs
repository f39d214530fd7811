//! odgm shard.
