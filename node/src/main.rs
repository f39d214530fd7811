//! odgm.
fn main() {}
