//! The odgm program.

/// A node allocates on many threads and frees on others; under load a tenth of its sampled time went to
/// the allocator of glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    odgm_node::cli::main()
}
