//! Tests of the node from the outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cli;
mod cli_node;
mod config;
#[allow(dead_code, reason = "what a node can be made to suffer, whoever needs it")]
mod processes;
