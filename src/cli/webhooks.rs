//! `presignd webhooks`

use std::process::ExitCode;

use chrono::SecondsFormat;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::{ConfigArgs, Failure, print, start_logging};
use crate::{
    clock::Clock,
    config::Config,
    db::{Database, Delivery, DeliveryFilter, DeliveryState, LastAttempt},
};

/// What to do with webhooks.
#[derive(Debug, Subcommand)]
pub(super) enum WebhooksCommand {
    /// Show what is in the outbox, newest first.
    ///
    /// "not configured" stands beside an endpoint that the configuration does not have: what is pending there waits
    /// until it has one of that name again.
    #[command(after_help = "\
Examples:
  presignd webhooks list --state dead
  presignd webhooks list --endpoint billing --limit 5
  presignd webhooks list --json | jq .last_error

Exit codes: 0 done; 1 it did not work; 2 the command line cannot be understood.")]
    List(ListArgs),
    /// Send again what was given up, with all attempts before it.
    ///
    /// A serving process does the sending, within seconds. What is pending needs no retry, and what was delivered gets
    /// none.
    #[command(after_help = "\
Examples:
  presignd webhooks retry 01a1fdfd-58dc-7462-ab5a-f6bf47687e6e
  presignd webhooks retry --all-dead --endpoint billing

Exit codes: 0 done; 1 it did not work, or that event has nothing to retry; 2 the command line cannot be understood.")]
    Retry(RetryArgs),
}

/// Which deliveries to show.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only those in this state.
    #[arg(long)]
    state: Option<State>,
    /// Only those to this endpoint.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// At most this many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// One JSON object a line, for programs.
    #[arg(long)]
    json: bool,
}

/// Which deliveries to send again.
#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The event (webhook-id), to every endpoint that was given up.
    #[arg(value_name = "EVENT_ID", required_unless_present = "all_dead", conflicts_with = "all_dead")]
    event_id: Option<Uuid>,
    /// Everything that was given up.
    #[arg(long)]
    all_dead: bool,
    /// Only to this endpoint.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    /// It will be tried, again.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// It was given up.
    Dead,
}

impl From<State> for DeliveryState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Delivered => Self::Delivered,
            State::Dead => Self::Dead,
        }
    }
}

pub(super) async fn run(command: &WebhooksCommand, runtime: &Handle) -> Result<ExitCode, Failure> {
    match command {
        WebhooksCommand::List(args) => list(args, runtime).await,
        WebhooksCommand::Retry(args) => retry(args, runtime).await,
    }
}

async fn list(args: &ListArgs, runtime: &Handle) -> Result<ExitCode, Failure> {
    let config = args.config.load()?;
    start_logging(&config);
    let filter = DeliveryFilter {
        state: args.state.map(DeliveryState::from),
        endpoint: args.endpoint.clone(),
        limit: i64::from(args.limit),
    };
    for (delivery, last) in Database::new(&config.database, runtime)?.webhooks(&filter).await? {
        let is_configured = is_configured(&config, &delivery.endpoint);
        if args.json {
            print(as_json(&delivery, &last, is_configured));
        } else {
            print(as_text(&delivery, &last, is_configured));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_configured(config: &Config, name: &str) -> bool {
    config.webhooks.endpoints.iter().any(|endpoint| endpoint.name == name)
}

fn as_json(delivery: &Delivery, (status, error): &LastAttempt, is_configured: bool) -> serde_json::Value {
    json!({
        "event_id": delivery.event_id,
        "endpoint": delivery.endpoint,
        "endpoint_configured": is_configured,
        "event_type": delivery.event_type,
        "upload_id": delivery.upload_id,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "created_at": delivery.created_at,
        "next_attempt_at": delivery.next_attempt_at,
        "settled_at": delivery.settled_at,
        "last_status": status,
        "last_error": error,
    })
}

fn as_text(delivery: &Delivery, last: &LastAttempt, is_configured: bool) -> String {
    let endpoint = &delivery.endpoint;
    let unknown = if is_configured { "" } else { " (not configured)" };
    let last = match last {
        (Some(status), _) => format!("  last: status {status}"),
        (None, Some(error)) => format!("  last: {error}"),
        (None, None) => String::new(),
    };
    let next = delivery.next_attempt_at.map(|next| next.to_rfc3339_opts(SecondsFormat::Secs, true));
    let next = next.map_or_else(String::new, |next| format!("  next {next}"));
    format!(
        "{}  {:<9}  {:<17}  upload {}  to {endpoint}{unknown}  attempts {}{last}{next}",
        delivery.event_id, delivery.state, delivery.event_type, delivery.upload_id, delivery.attempts
    )
}

async fn retry(args: &RetryArgs, runtime: &Handle) -> Result<ExitCode, Failure> {
    let config = args.config.load()?;
    start_logging(&config);
    let database = Database::new(&config.database, runtime)?;
    let revived = database.revive_webhooks(args.event_id, args.endpoint.as_deref(), Clock::System.now()).await?;
    if let (0, Some(event_id)) = (revived, args.event_id) {
        return Err(Failure(format!(
            "no delivery of event {event_id} was given up\n  presignd webhooks list --state dead"
        )));
    }
    print(format_args!("{revived} to be sent again"));
    Ok(ExitCode::SUCCESS)
}
