//! Tests of the node from the outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cli;
mod cli_node;
mod config;
