//! The odgm node: configuration, lifecycle, administration and command line.

mod admin;
mod answers;
mod bench;
pub mod cli;
mod collections;
pub mod config;
mod enrolment;
mod founding;
mod health;
pub mod http;
mod identity;
mod messages;
mod meta;
pub mod node;
mod once;
pub mod output;
mod presence;
mod request;
mod serving;
mod shard_admin;
mod shards;
mod status;
mod steering;
mod stores;
mod system;
pub mod telemetry;
