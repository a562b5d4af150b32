//! `presignd cors`

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigArgs, Failure, print};
use crate::{
    config::server::{AN_ORIGIN, is_origin},
    domain::BucketCors,
    policy,
};

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
    #[command(flatten)]
    config: ConfigArgs,
    /// Origin of the pages; may be given several times. By default server.cors_allowed_origins and, with web.enabled,
    /// the page of this service.
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
#[error(
    "no page may call this service: server.cors_allowed_origins is empty, and web.enabled is false; name the origins with \
     --origin"
)]
struct NoOrigin;

pub(super) fn run(command: &CorsCommand) -> Result<(), Failure> {
    let CorsCommand::Print(args) = command;
    let config = args.config.load()?;
    let document = policy::load(&config.policies.file, |_| Ok(()))?;
    let origins = if args.origins.is_empty() { config.page_origins() } else { args.origins.clone() };
    if origins.is_empty() {
        return Err(NoOrigin.into());
    }
    let cors = BucketCors::needed(&document, &origins);
    print(match args.format {
        Format::Aws => serde_json::to_string_pretty(&cors)?,
        Format::List => serde_json::to_string_pretty(&cors.rules)?,
    });
    Ok(())
}

fn origin(text: &str) -> Result<String, String> {
    if text == "*" || is_origin(text) { Ok(text.to_owned()) } else { Err(format!("must be \"*\" or {AN_ORIGIN}")) }
}
