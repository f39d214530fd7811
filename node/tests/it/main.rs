//! Tests of the node from the outside.

mod config;
