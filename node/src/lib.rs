//! The odgm node: configuration, lifecycle, administration and command line.

pub mod config;
pub mod http;
pub mod telemetry;
