//! zenoh's threads: how many, which it reads once from the environment.

use std::io;

/// The variable that zenoh reads when its first session opens, and never again.
pub const RUNTIME_VARIABLE: &str = "ZENOH_RUNTIME";

/// What a node wants in it: with fewer receiving threads zenoh is known to deadlock while links come
/// and go.
pub const RUNTIME_VALUE: &str = "(rx: (worker_threads: 4), net: (worker_threads: 2))";

/// Makes sure that zenoh will start enough threads. When the variable is not set, this runs the
/// program anew in the same process, with the same arguments and the variable set: zenoh has no other
/// way in, and to set a variable in a running process is not safe. So call it first thing in `main`.
/// Returns when the variable is set; whatever value somebody chose is kept.
///
/// # Errors
/// When the program cannot be run anew. zenoh then has its default threads, and works.
pub fn prepare_runtime() -> io::Result<()> {
    if std::env::var_os(RUNTIME_VARIABLE).is_some() {
        return Ok(());
    }
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;

        let mut arguments = std::env::args_os();
        let mut again = std::process::Command::new(std::env::current_exe()?);
        if let Some(name) = arguments.next() {
            again.arg0(name);
        }
        Err(again.args(arguments).env(RUNTIME_VARIABLE, RUNTIME_VALUE).exec())
    }
    #[cfg(not(unix))]
    Err(io::Error::new(io::ErrorKind::Unsupported, "set ZENOH_RUNTIME before the start"))
}
