//! The odgm program.

/// A node allocates on many threads and frees on others; glibc's allocator was a tenth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    odgm_node::cli::main()
}
