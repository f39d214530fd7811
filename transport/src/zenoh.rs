//! zenoh
