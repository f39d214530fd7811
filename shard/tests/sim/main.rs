//! The simulation: clean seeds, planted bugs, and its own parts.

mod checker;
mod kinds;
mod planted;
mod regressions;
mod seeds;
