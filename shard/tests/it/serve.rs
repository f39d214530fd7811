//! The object shard, as a stock zenoh client sees it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod events;
mod grid;
mod lifecycle;
mod lists;
mod reads;
mod single;
mod writes;
