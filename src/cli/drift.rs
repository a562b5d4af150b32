//! `presignd drift`

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::runtime::Handle;

use super::{ConfigArgs, Failure, bar, print, start_logging};
use crate::{
    app,
    clock::Clock,
    config::duration,
    domain::{DriftCounts, DriftEvent, DriftKind, DriftOptions, Finding},
};

/// What to compare, and what to do about it.
#[derive(Debug, Args)]
pub(super) struct DriftArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Remove orphans, each after a second look.
    #[arg(long)]
    repair: bool,
    /// Go on with the last run that was interrupted.
    #[arg(long)]
    resume: bool,
    /// Leave out objects that are younger.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration::parse)]
    min_age: Duration,
    /// One JSON object a line: what was found, then a summary.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &DriftArgs, runtime: &Handle) -> Result<ExitCode, Failure> {
    let config = args.config.load()?;
    start_logging(&config);
    let assembly = app::assemble(&config, Clock::System, runtime).await?;
    app::prepare_schema(
        &assembly.service.database,
        config.database.migrate_on_start && args.repair,
        Clock::System.now(),
    )
    .await?;
    let mut service = assembly.service.clone();
    service.store = service.store.paced(config.sweeper.requests_per_second);
    let bar = bar::counting("objects");
    let began = Instant::now();
    let options = DriftOptions { repair: args.repair, resume: args.resume, min_age: args.min_age };
    let mut resumed_from = 0;
    let compared = service
        .drift(&service.store, options, |event| match event {
            DriftEvent::Resumed(counts) => resumed_from = counts.objects,
            DriftEvent::Found(finding) => show(finding, args.json, &bar),
            DriftEvent::Progress(counts) => bar.set_position(counts.objects),
        })
        .await;
    bar.finish_and_clear();
    drop(service);
    assembly.stop().await;
    let counts = compared?;
    summarize(&counts, counts.objects - resumed_from, began.elapsed(), args.json);
    Ok(if counts.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(finding: &Finding, as_json: bool, bar: &ProgressBar) {
    if as_json {
        return bar::print_above(bar, json!({ "finding": finding }));
    }
    let kind = match finding.kind {
        DriftKind::Orphan if finding.removed => "orphan, removed",
        DriftKind::Orphan => "orphan",
        DriftKind::Forgotten => "forgotten",
        DriftKind::Missing => "missing",
        DriftKind::Replaced => "replaced",
    };
    let state = finding.state.map(|state| format!(" (upload is {state})")).unwrap_or_default();
    // A key of somebody else's may hold anything, and this goes to a terminal.
    bar::print_above(bar, format_args!("{kind}: {}{state}", finding.key.escape_debug()));
}

fn summarize(counts: &DriftCounts, compared: u64, took: Duration, as_json: bool) {
    if as_json {
        return print(json!({ "summary": counts, "seconds": took.as_secs_f64() }));
    }
    let DriftCounts { objects, accounted, pending, foreign, young, forgotten, orphans, removed, missing, replaced } =
        *counts;
    let rate = u128::from(compared) * 1000 / took.as_millis().max(1);
    print(format_args!("{objects} objects, {rate} a second"));
    print(format_args!("  {accounted} accounted for"));
    print(format_args!("  {pending} leftovers that the sweeper is going to remove"));
    print(format_args!("  {foreign} of others"));
    print(format_args!("  {young} too young to be judged"));
    print(format_args!("  {forgotten} of uploads of a time of which the database knows none"));
    print(format_args!("  {orphans} orphans, {removed} of them removed"));
    print(format_args!("{missing} confirmed uploads without their object, {replaced} with another one"));
}
