//! The transport through its boundary: zenoh and the simulated network.

mod sim;
mod zenoh;
