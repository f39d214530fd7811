//! The tests of this crate, through its public boundary.

mod raft;
mod serve;
mod protocol;
mod state;
