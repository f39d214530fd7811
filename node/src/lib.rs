//! odgm node.
