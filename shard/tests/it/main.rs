//! The tests of this crate, through its public boundary.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod kinds;
mod mst;
mod protocol;
mod raft;
mod serve;
mod state;
