//! Tests of the node from the outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answer;
mod backends;
mod backup;
mod bench;
mod cli;
mod cli_node;
mod config;
mod contract;
mod copies;
mod divergent;
mod doctor;
mod events;
mod freeze;
mod input;
mod kill;
mod kinds;
#[allow(dead_code, reason = "what a node can be made to suffer, whoever needs it")]
mod processes;
mod replace;
mod stranger;
