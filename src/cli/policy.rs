//! `presignd policy`

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use super::{Failure, print};
use crate::policy;

/// What to do with policy files.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Validate a policy file: every problem with its line, key and rule.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Say what would change between two policy files, now and at every scheduled instant.
    ///
    /// Exit code 0 when nothing would, 1 when something would.
    Diff {
        /// The file in force.
        old: PathBuf,
        /// The file to come.
        new: PathBuf,
    },
}

pub(super) fn run(command: &PolicyCommand) -> Result<ExitCode, Failure> {
    match command {
        PolicyCommand::Check { file } => {
            let document = policy::load(file)?;
            print(format_args!("{}: ok, version {}", file.display(), document.version()));
            document.names().for_each(|name| print(format_args!("  {name}")));
            Ok(ExitCode::SUCCESS)
        }
        PolicyCommand::Diff { old, new } => {
            let changes = policy::diff(&policy::load(old)?, &policy::load(new)?);
            changes.iter().for_each(print);
            Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
