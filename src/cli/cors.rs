//! `presignd cors`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Url;

use super::{Failure, load, print};
use crate::{domain::BucketCors, policy};

/// What to do about CORS.
#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "clap shows it in a terminal, where backticks are noise")]
pub(super) enum CorsCommand {
    /// Print the rules that the bucket needs for pages of your origins.
    ///
    /// They follow from the policies, planned changes included: the methods by which files may be uploaded, the headers
    /// that these take, and downloads. docs/cors.md says what breaks in the browser without each part of them. This
    /// service's own CORS is server.cors_allowed_origins and needs nothing from the bucket.
    #[command(after_help = "\
Examples:
  presignd cors print > cors.json
  aws s3api put-bucket-cors --bucket files --cors-configuration file://cors.json

  presignd cors print --origin https://app.example.com --origin https://admin.example.com
  presignd cors print --format list        # for the AWS console, which takes the list alone

put-bucket-cors replaces all rules of the bucket: add those of other applications to the file first.

Exit codes: 0 printed; 1 the configuration cannot be used, or names no origin; 2 the command line cannot be understood.")]
    Print(PrintArgs),
}

/// For whom to print the rules, and how.
#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "clap shows it in a terminal, where backticks are noise")]
pub(super) struct PrintArgs {
    /// The configuration file.
    #[arg(long, env = "PRESIGND_CONFIG", default_value = "presignd.toml", value_name = "FILE")]
    config: PathBuf,
    /// Origin of the pages; may be given several times. By default server.cors_allowed_origins.
    #[arg(long = "origin", value_name = "ORIGIN", value_parser = origin)]
    origins: Vec<String>,
    /// The spelling.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// JSON for "aws s3api put-bucket-cors".
    #[default]
    Aws,
    /// The list of rules alone, as JSON: for the AWS console.
    List,
}

/// Why there are no rules to print.
#[derive(Debug, thiserror::Error)]
#[error("no page may call this service: server.cors_allowed_origins is empty; name the origins with --origin")]
struct NoOrigin;

pub(super) fn run(command: &CorsCommand) -> Result<(), Failure> {
    let CorsCommand::Print(args) = command;
    let config = load(&args.config)?;
    let document = policy::load(&config.policies.file, |_| Ok(()))?;
    let origins = if args.origins.is_empty() { &config.server.cors_allowed_origins } else { &args.origins };
    if origins.is_empty() {
        return Err(NoOrigin.into());
    }
    let cors = BucketCors::needed(&document, origins);
    print(match args.format {
        Format::Aws => serde_json::to_string_pretty(&cors)?,
        Format::List => serde_json::to_string_pretty(&cors.rules)?,
    });
    Ok(())
}

/// As browsers write it in the `Origin` header, because stores compare the text.
fn origin(text: &str) -> Result<String, String> {
    let canonical = Url::parse(text).ok().map(|url| url.origin().ascii_serialization());
    if text == "*" || canonical.as_deref() == Some(text) && text.starts_with("http") {
        return Ok(text.to_owned());
    }
    Err("must be \"*\" or an origin such as \"https://app.example.com\", in lower case and without a default port"
        .to_owned())
}
