//! `presignd policy`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Subcommand;

use super::{Failure, print};
use crate::policy::{self, LoadError, PolicyDocument};

/// What to do with policy files.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Validate a policy file: every problem with its line, key and rule.
    ///
    /// Whether the rest of the configuration can do what it asks for is for "presignd check" to say.
    #[command(after_help = "\
Example:
  presignd policy check policies.toml

Exit codes: 0 nothing is wrong; 1 something is; 2 the command line cannot be understood.")]
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Say what would change between two policy files, now and at every scheduled instant.
    #[command(after_help = "\
Example:
  presignd policy diff policies.toml policies.new.toml

Exit codes: 0 nothing would change; 1 something would, or a file cannot be used; 2 the command line cannot be understood.")]
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
            let document = load(file)?;
            print(format_args!("{}: ok, version {}", file.display(), document.version()));
            for name in document.names() {
                print(format_args!("  {name}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        PolicyCommand::Diff { old, new } => {
            let changes = policy::diff(&load(old)?, &load(new)?);
            changes.iter().for_each(print);
            Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// By the file's own rules: whether the rest of a configuration can do what it asks for is `presignd check`'s to say.
fn load(file: &Path) -> Result<PolicyDocument, LoadError> {
    policy::load(file, |_| Ok(()))
}
