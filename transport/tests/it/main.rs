//! The transport through its boundary: zenoh and the simulated network.

mod links;
mod network;
mod sim;
mod zenoh;
