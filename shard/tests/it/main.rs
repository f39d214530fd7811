//! The tests of this crate, through its public boundary.

mod raft;
mod protocol;
mod state;
