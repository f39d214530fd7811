//! The object shard, as a stock zenoh client sees it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod advanced;
mod events;
mod grid;
mod indexes;
mod lifecycle;
mod lists;
mod reads;
mod replays;
mod single;
mod ttl;
mod writes;
