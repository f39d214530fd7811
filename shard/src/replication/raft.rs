//! replication/raft
