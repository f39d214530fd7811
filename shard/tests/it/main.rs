//! The tests of this crate, through its public boundary.

mod protocol;
mod raft;
mod serve;
mod state;
