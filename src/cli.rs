//! The command line.

mod audit;
mod bar;
mod check;
mod cors;
#[cfg(feature = "embedded")]
mod dev;
mod drift;
mod migrate;
mod policy;
mod probe;
mod serve;
mod sweep;
mod token;
mod webhooks;

use std::{
    fmt,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::OnceLock,
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
In production     presignd check && presignd migrate && presignd check --live && presignd serve";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    ///
    /// Needs PostgreSQL and an S3-compatible store. SIGTERM and SIGINT stop it in order: requests in flight finish,
    /// then the ledger writes what is queued. SIGHUP reads the policies again; a changed file is noticed without it.
    #[command(after_help = "\
Examples:
  presignd serve --config /etc/presignd/presignd.toml
  DATABASE_URL=postgres://presignd@db/presignd presignd serve

Exit codes: 0 stopped by a signal; 1 it did not start, or failed; 2 the command line cannot be understood.")]
    Serve(ConfigArgs),
    /// Try everything on this machine, with PostgreSQL and a store inside the process.
    ///
    /// Prints a development token and curl lines to paste. Data lives in ./.presignd. DATABASE_URL or
    /// PRESIGND_S3__ENDPOINT (with the other s3 settings) put a real PostgreSQL or store in the place of the inner
    /// one. Never for production: its keys are made up at the first start and lie beside the data.
    #[cfg(feature = "embedded")]
    #[command(after_help = "\
Examples:
  presignd dev
  presignd dev --ephemeral --listen 127.0.0.1:8081
  DATABASE_URL=postgres://me@localhost/try presignd dev

Exit codes: 0 stopped by a signal; 1 it did not start, or failed; 2 the command line cannot be understood.")]
    #[expect(clippy::doc_markdown, reason = "clap shows it in a terminal, where backticks are noise")]
    Dev(dev::DevArgs),
    /// Apply the migrations that the database lacks.
    ///
    /// Safe to run from several processes at once.
    #[command(after_help = "\
Examples:
  presignd migrate --status
  presignd migrate
  presignd migrate --revert 1
  presignd migrate --repartition

Exit codes: 0 done; 1 it did not work; 2 the command line cannot be understood.")]
    Migrate(migrate::MigrateArgs),
    /// Look at uploads that nobody confirmed, and remove what nobody needs.
    ///
    /// Does what "serve" does by itself unless sweeper.enabled is off: confirms uploads that were finished, lets those
    /// expire whose time has run out, removes leftovers from the bucket, and aborts stale multipart uploads. Goes on
    /// until SIGTERM or SIGINT. Any number of processes may sweep at once.
    #[command(after_help = "\
Examples:
  presignd sweep --dry-run
  presignd sweep --once

Exit codes: 0 done; 1 it did not work, or not for all; 2 the command line cannot be understood.")]
    Sweep(sweep::SweepArgs),
    /// Compare the bucket with the uploads.
    ///
    /// Lists all objects, and reports those that no upload accounts for and the confirmed uploads whose object is not
    /// there. Changes nothing without --repair. What is neither named by an upload's id nor in the staging area belongs
    /// to others, and is counted and never touched.
    #[command(after_help = "\
Examples:
  presignd drift
  presignd drift --resume --json >> drift.jsonl
  presignd drift --repair --min-age 7d

Exit codes: 0 nothing is wrong, or all of it was repaired; 1 something is, or it did not work; 2 the command line cannot be understood.")]
    Drift(drift::DriftArgs),
    /// Tell who got what.
    #[command(
        subcommand,
        after_help = "\
Examples:
  presignd audit export --format csv --since 2026-11-01T00:00:00Z > audit.csv
  presignd audit export --format jsonl --issuer https://id.example.com/ --user alice

Exit codes: 0 done; 1 it did not work; 2 the command line cannot be understood."
    )]
    Audit(audit::AuditCommand),
    /// Look at policy files.
    #[command(
        subcommand,
        after_help = "\
Examples:
  presignd policy check policies.toml
  presignd policy diff policies.toml policies.new.toml

Exit codes: 0 all is well, nothing differs; 1 something is wrong or differs; 2 the command line cannot be understood."
    )]
    Policy(policy::PolicyCommand),
    /// Print the CORS rules that the bucket needs.
    #[command(
        subcommand,
        after_help = "\
Examples:
  presignd cors print > cors.json
  aws s3api put-bucket-cors --bucket files --cors-configuration file://cors.json

Exit codes: 0 done; 1 it did not work; 2 the command line cannot be understood."
    )]
    Cors(cors::CorsCommand),
    /// Mint a token for development.
    ///
    /// Works for an issuer whose key is a shared secret: whoever has that can mint tokens anyway.
    #[command(after_help = "\
Examples:
  TOKEN=$(presignd token --subject alice)
  presignd token --tenant acme --scope files:write --lifetime 10m
  presignd token --config .presignd/dev.toml --subject bob    # for presignd dev

Exit codes: 0 done; 1 it did not work; 2 the command line cannot be understood.")]
    Token(token::TokenArgs),
    /// Validate the whole configuration, and on demand try what it names.
    ///
    /// Names every problem with its file, line, key and rule. Without --live nobody is talked to. With it, the database,
    /// the store and its STS are tried as clients and this service use them, and a table says what works, who needs it,
    /// and how to mend what does not. Everything that is written for that is removed again.
    #[command(after_help = "\
Examples:
  presignd check
  presignd check --config /etc/presignd/presignd.toml
  presignd check --live --url https://files.example.com
  presignd check --live --format json | jq '.rows[] | select(.outcome == \"failed\")'

Exit codes: 0 nothing is wrong; 1 something is, or something that policies need does not work; 2 the command line cannot be understood.")]
    Check(check::CheckArgs),
    /// Ask a running service whether it is ready.
    ///
    /// Exit code 0 when it is, else 1: a health check that needs no other program in the container.
    #[command(after_help = "\
Examples:
  presignd probe
  presignd probe --url http://127.0.0.1:9090/readyz

Exit codes: 0 ready; 1 not ready, or no answer; 2 the command line cannot be understood.")]
    Probe(probe::ProbeArgs),
    /// Look at outgoing webhooks, and send again what was given up.
    #[command(
        subcommand,
        after_help = "\
Examples:
  presignd webhooks list --state dead
  presignd webhooks retry --all-dead

Exit codes: 0 done; 1 it did not work, or that event has nothing to retry; 2 the command line cannot be understood."
    )]
    Webhooks(webhooks::WebhooksCommand),
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
        Ok(Config::load(&self.config, &environment::variables())?)
    }
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
            Command::Dev(args) => Box::pin(dev::run(&args, &handle)).await.map(|()| ExitCode::SUCCESS),
            Command::Migrate(args) => migrate::run(&args, &handle).await.map(|()| ExitCode::SUCCESS),
            Command::Sweep(args) => Box::pin(sweep::run(&args, &handle)).await,
            Command::Drift(args) => Box::pin(drift::run(&args, &handle)).await,
            Command::Audit(command) => audit::run(&command, &handle).await,
            Command::Policy(command) => policy::run(&command),
            Command::Cors(command) => cors::run(&command).map(|()| ExitCode::SUCCESS),
            Command::Token(args) => token::run(&args).await.map(|()| ExitCode::SUCCESS),
            Command::Check(args) => Box::pin(check::run(&args, &handle)).await,
            Command::Probe(args) => probe::run(&args).await,
            Command::Webhooks(command) => webhooks::run(&command, &handle).await,
        }
    });
    let code = done.unwrap_or_else(|failure| report(&failure));
    match LOST_OUTPUT.get() {
        Some(error) => report(&Failure(format!("standard output: {error}"))),
        None => code,
    }
}

fn report(failure: &Failure) -> ExitCode {
    for line in failure.0.lines() {
        // A reason belongs to the line above it.
        let prefix = if line.starts_with(' ') { "" } else { "presignd: " };
        // Unlike `eprintln!`, which panics where nobody listens any more.
        let _ = writeln!(io::stderr(), "{prefix}{line}");
    }
    ExitCode::FAILURE
}

/// Why standard output did not take all that was written to it: whoever reads it later has to know.
static LOST_OUTPUT: OnceLock<io::Error> = OnceLock::new();

/// Writes a line to standard output. Whoever closed it, such as `head`, has read enough.
fn print(line: impl fmt::Display) {
    if let Err(error) = writeln!(io::stdout(), "{line}")
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        // The first is enough.
        let _ = LOST_OUTPUT.set(error);
    }
}

fn start_logging(config: &Config) {
    logging::init(&config.log);
}
