//! Tests of the node from the outside.

mod cli;
mod cli_node;
mod config;
