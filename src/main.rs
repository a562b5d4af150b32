//! The `presignd` binary.

use std::process::ExitCode;

/// Answers of several kilobytes are built and dropped on every core at once, which costs the system's allocator more
/// than the signatures in them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    presignd::cli::run()
}
