//! The odgm program.

fn main() -> std::process::ExitCode {
    odgm_node::cli::main()
}
