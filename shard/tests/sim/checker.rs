//! The checker of linearizability, on histories known good and bad.
