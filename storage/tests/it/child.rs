//! Tests that need a process of their own: the test binary runs one of its tests again, with a variable.

use std::process::{Command, Stdio};

/// The command that runs `test` (its path within this binary) in another process.
pub(crate) fn command(test: &str, variable: &str, value: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(variable, value);
    command.stdin(Stdio::null());
    command
}

/// A number from the environment, for the long form of a test.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}
