//! The transport through its boundary: zenoh and the simulated network.

mod zenoh;
