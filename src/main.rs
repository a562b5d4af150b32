//! The `presignd` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    presignd::cli::run()
}
