//! `odgm collection|cluster|node|shard|snapshot`.

use std::path::PathBuf;

use clap::Subcommand;
use odgm_shard::object::CollectionName;

use super::keys::{ShardArgument, collection};

/// `odgm collection`.
#[derive(Debug, Subcommand)]
pub enum Collection {
    /// Create a collection.
    Create {
        /// Its name.
        #[arg(value_parser = collection)]
        name: CollectionName,
        /// Its whole description, JSON or YAML; - reads stdin.
        #[arg(long, conflicts_with_all = ["partitions", "replicas", "replication"])]
        file: Option<PathBuf>,
        /// How many partitions; they never change.
        #[arg(long)]
        partitions: Option<u32>,
        /// How many replicas each.
        #[arg(long)]
        replicas: Option<u32>,
        /// raft, mst, eventual or none.
        #[arg(long)]
        replication: Option<String>,
    },
    /// Change a collection.
    Update {
        /// Its name.
        #[arg(value_parser = collection)]
        name: CollectionName,
        /// What to change, JSON or YAML; - reads stdin.
        #[arg(long)]
        file: PathBuf,
    },
    /// List the collections.
    List,
    /// Print one.
    Describe {
        /// Its name.
        #[arg(value_parser = collection)]
        name: CollectionName,
    },
    /// Delete one with everything in it.
    Delete {
        /// Its name.
        #[arg(value_parser = collection)]
        name: CollectionName,
    },
}

/// `odgm cluster`.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Print nodes, collections and who serves which shard.
    Status,
}

/// `odgm node`.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List the nodes.
    List,
    /// Move everything off a node.
    Drain {
        /// The node.
        name: String,
    },
    /// Let a node hold shards again.
    Undrain {
        /// The node.
        name: String,
    },
    /// Forget a node.
    Remove {
        /// The node.
        name: String,
    },
    /// Give the place of a lost node to an empty one of the same or another name.
    Replace {
        /// The lost node.
        name: String,
        /// The node that takes its place; by default an empty one of the same name.
        #[arg(long)]
        with: Option<String>,
    },
}

/// `odgm shard`.
#[derive(Debug, Subcommand)]
pub enum Shard {
    /// Print the state of a shard's serving replica.
    Status {
        /// collection/partition
        shard: ShardArgument,
    },
    /// Have another replica serve.
    Transfer {
        /// collection/partition
        shard: ShardArgument,
        /// The node that shall serve; by default the best.
        #[arg(long)]
        to: Option<String>,
    },
    /// Take a snapshot now.
    Snapshot {
        /// collection/partition
        shard: ShardArgument,
    },
    /// Compact the data now.
    Compact {
        /// collection/partition
        shard: ShardArgument,
    },
}

/// `odgm snapshot`.
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// List the snapshot files of a shard's serving replica.
    List {
        /// collection/partition
        shard: ShardArgument,
    },
    /// Write a shard's data, as of now, to a file.
    Export {
        /// collection/partition
        shard: ShardArgument,
        /// The file; it must not exist.
        file: PathBuf,
    },
    /// Write the objects of a file into a collection; those that exist stay as they are.
    Import {
        /// A file that was exported, or one of a node's directory.
        file: PathBuf,
        /// The collection, which must exist.
        #[arg(value_parser = collection)]
        collection: CollectionName,
        /// Overwrite objects that exist.
        #[arg(long)]
        overwrite: bool,
    },
    /// Read all of a file and compare every checksum; asks nobody.
    Verify {
        /// The file.
        file: PathBuf,
    },
}
