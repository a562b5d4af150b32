//! The command line.

mod check;
#[cfg(feature = "embedded")]
mod dev;
mod migrate;
mod policy;
mod probe;
mod serve;
mod token;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    app::logging,
    config::{Config, environment},
};

/// Issues short-lived, network-scoped presigned S3 URLs, records every intent, and verifies every upload.
#[derive(Debug, Parser)]
#[command(version, about, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Configuration comes from a file (--config, or PRESIGND_CONFIG, or ./presignd.toml) and from the environment:
PRESIGND_S3__BUCKET sets bucket in the section [s3]; DATABASE_URL sets url in [database].

Exit codes: 0 done; 1 it did not work, or what was checked is wrong; 2 the command line cannot be understood.

First time here?  presignd dev      then paste the printed lines
In production     presignd check && presignd migrate && presignd serve";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    ///
    /// Needs PostgreSQL and an S3-compatible store. SIGTERM and SIGINT stop it in order: requests in flight finish,
    /// then the ledger writes what is queued. SIGHUP reads the policies again; a changed file is noticed without it.
    Serve(ConfigArgs),
    /// Try everything on this machine, with PostgreSQL and a store inside the process.
    ///
    /// Prints a development token and curl lines to paste. Data lives in ./.presignd. DATABASE_URL or
    /// PRESIGND_S3__ENDPOINT (with the other s3 settings) put a real PostgreSQL or store in the place of the inner
    /// one. Never for production: its keys are made up at the first start and lie beside the data.
    #[cfg(feature = "embedded")]
    #[expect(clippy::doc_markdown, reason = "clap shows it in a terminal, where backticks are noise")]
    Dev(dev::DevArgs),
    /// Apply the migrations that the database lacks.
    ///
    /// Safe to run from several processes at once.
    Migrate(migrate::MigrateArgs),
    /// Look at policy files.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Mint a token for development.
    ///
    /// Works for an issuer whose key is a shared secret: whoever has that can mint tokens anyway.
    Token(token::TokenArgs),
    /// Validate the whole configuration, without talking to anybody.
    ///
    /// Names every problem with its file, line, key and rule. Exit code 0 when there is none, else 1.
    Check(ConfigArgs),
    /// Ask a running service whether it is ready.
    ///
    /// Exit code 0 when it is, else 1: a health check that needs no other program in the container.
    Probe(probe::ProbeArgs),
}

/// Where the configuration is.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file.
    #[arg(long, env = "PRESIGND_CONFIG", default_value = "presignd.toml", value_name = "FILE")]
    config: PathBuf,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, Failure> {
        load(&self.config)
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    Ok(Config::load(path, &environment::variables())?)
}

/// Why a command did not do what it was asked: the whole chain of reasons, on one line each.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors already quote their cause.
            if !text.contains(&cause_text) {
                text.push_str("\n  because: ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses the command line and does what it says.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::from(error)),
    };
    let handle = runtime.handle().clone();
    let done = runtime.block_on(async move {
        match cli.command {
            Command::Serve(args) => serve::run(&args.load()?, &handle).await.map(|()| ExitCode::SUCCESS),
            #[cfg(feature = "embedded")]
            Command::Dev(args) => dev::run(&args, &handle).await.map(|()| ExitCode::SUCCESS),
            Command::Migrate(args) => migrate::run(&args, &handle).await.map(|()| ExitCode::SUCCESS),
            Command::Policy(command) => policy::run(&command),
            Command::Token(args) => token::run(&args).await.map(|()| ExitCode::SUCCESS),
            Command::Check(args) => check::run(&args, &handle).map(|()| ExitCode::SUCCESS),
            Command::Probe(args) => probe::run(&args).await,
        }
    });
    done.unwrap_or_else(|failure| report(&failure))
}

#[expect(clippy::print_stderr, reason = "the command line's answer")]
fn report(failure: &Failure) -> ExitCode {
    eprintln!("presignd: {failure}");
    ExitCode::FAILURE
}

/// Writes a line to standard output. Whoever closed it, such as `head`, has read enough.
fn print(line: impl fmt::Display) {
    use std::io::Write as _;

    let _ = writeln!(std::io::stdout(), "{line}");
}

fn start_logging(config: &Config) {
    logging::init(&config.log);
}
