//! `presignd probe`

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::{Failure, print};
use crate::outgoing;

/// Longest wait for the answer, below the interval at which orchestrators usually ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to ask.
#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// The URL to ask.
    #[arg(long, default_value = "http://127.0.0.1:8080/readyz")]
    url: String,
}

pub(super) async fn run(args: &ProbeArgs) -> Result<ExitCode, Failure> {
    let client = outgoing::client(PATIENCE).no_proxy().build()?;
    let answer = client.get(&args.url).send().await?;
    let ready = answer.status().is_success();
    print(answer.text().await?);
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
