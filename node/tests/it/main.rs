//! Tests of the node from the outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod answer;
mod backends;
mod backup;
mod bench;
mod cli;
mod cli_node;
mod config;
mod contract;
mod copies;
mod cut;
mod divergent;
mod doctor;
mod events;
mod freeze;
mod input;
mod kill;
mod kinds;
#[allow(dead_code, reason = "what a node can be made to suffer, whoever needs it")]
#[path = "../../src/bin/odgm-torture/processes.rs"]
mod processes;
mod removal;
mod replace;
mod stranger;
mod ttl;
mod wires;
