//! odgm transport.
