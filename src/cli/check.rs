//! `presignd check`

use std::{net::IpAddr, process::ExitCode};

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::runtime::Handle;

use super::{ConfigArgs, Failure, bar, print, serve::StopSignals, start_logging};
use crate::{
    app::{self, Assembly},
    clock::Clock,
    config::Config,
    domain::{LiveOptions, LiveReport},
};

/// What to check.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Try the database, the store and its STS.
    #[arg(long)]
    live: bool,
    /// The spelling of the table.
    #[arg(long, value_enum, default_value_t, requires = "live")]
    format: Format,
    /// Address of this machine as the store sees it; by default that of a connection to the store.
    #[arg(long, value_name = "ADDRESS", requires = "live")]
    address: Option<IpAddr>,
    /// A second address of this machine, from which URLs for the first have to be refused.
    #[arg(long, value_name = "ADDRESS", requires = "live")]
    from_address: Option<IpAddr>,
    /// The running service as clients reach it: whether it sees their addresses, whatever they claim.
    #[arg(long, value_name = "URL", requires = "live")]
    url: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Why a run has no table.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what was written has been removed")]
struct Interrupted;

pub(super) async fn run(args: &CheckArgs, runtime: &Handle) -> Result<ExitCode, Failure> {
    let config = args.config.load()?;
    let policies = app::check(&config, runtime.clone()).await?;
    if args.format == Format::Text {
        print(format_args!("{}: ok", args.config.config.display()));
        print(format_args!("{}: ok, version {}", config.policies.file.display(), policies.version()));
        for remark in app::remarks(&policies, &config) {
            print(format_args!("note: {remark}"));
        }
    }
    if !args.live {
        return Ok(ExitCode::SUCCESS);
    }
    start_logging(&config);
    let assembly = app::assemble(&config, Clock::System, runtime).await?;
    let report = Box::pin(tried(&assembly, &config, args, runtime)).await;
    assembly.stop().await;
    let report = report?;
    match args.format {
        Format::Text => {
            print(proxies(&config));
            print(&report);
        }
        Format::Json => print(json!({ "ok": report.is_good(), "proxies": proxies(&config), "rows": report.rows })),
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn tried(
    assembly: &Assembly,
    config: &Config,
    args: &CheckArgs,
    runtime: &Handle,
) -> Result<LiveReport, Failure> {
    let options = LiveOptions {
        address: args.address,
        from_address: args.from_address,
        url: args.url.clone(),
        origins: config.page_origins(),
        store_only: false,
    };
    let mut stop = StopSignals::listen()?;
    let check = app::live_check(&assembly.service, config, options, runtime).await?;
    let bar = bar::counting("groups tried");
    let report = tokio::select! {
        report = check.run(|next| {
            bar.inc(1);
            bar.set_message(next.as_str());
        }) => Ok(report),
        () = stop.wait() => Err(Interrupted),
    };
    bar.finish_and_clear();
    check.clean_up().await?;
    Ok(report?)
}

/// Whose word on addresses is taken, which only the operator can compare with the network.
fn proxies(config: &Config) -> String {
    let server = &config.server;
    if server.trusted_proxies.is_empty() {
        return "clients' addresses are those of their connections: no proxy is trusted (server.trusted_proxies)"
            .to_owned();
    }
    let networks: Vec<String> = server.trusted_proxies.iter().map(ToString::to_string).collect();
    let header = match server.forwarded_header {
        crate::config::server::ForwardedHeader::XForwardedFor => "X-Forwarded-For",
        crate::config::server::ForwardedHeader::Forwarded => "Forwarded",
    };
    format!("clients' addresses are those that {} name in {header} (server.trusted_proxies)", networks.join(", "))
}
