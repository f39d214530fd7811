//! odgm examples.
