//! `presignd sweep`

use std::{process::ExitCode, time::Duration};

use clap::Args;
use indicatif::ProgressBar;
use tokio::runtime::Handle;

use super::{ConfigArgs, Failure, bar, print, serve::StopSignals, start_logging};
use crate::{
    app,
    clock::Clock,
    domain::{Rehearsal, SweepStatus, Sweeper},
};

/// How often the bar follows.
const FOLLOW: Duration = Duration::from_millis(100);

/// Why nobody knows whether anything is still due.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what is still due is left to the next sweep")]
struct Interrupted;

/// How to sweep.
#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Say what would be done with what is due now, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// End when nothing is due any more, instead of waiting for what will be.
    #[arg(long)]
    once: bool,
}

pub(super) async fn run(args: &SweepArgs, runtime: &Handle) -> Result<ExitCode, Failure> {
    let config = args.config.load()?;
    start_logging(&config);
    let assembly = app::assemble(&config, Clock::System, runtime).await?;
    let database = &assembly.service.database;
    app::prepare_schema(database, config.database.migrate_on_start && !args.dry_run, Clock::System.now()).await?;
    let sweeper = Sweeper::new(assembly.service.clone(), &config.sweeper);
    let bar = bar::counting("uploads");
    let done = if args.dry_run { rehearse(&sweeper, &bar).await } else { sweep(&sweeper, args.once, &bar).await };
    bar.finish_and_clear();
    drop(sweeper);
    assembly.stop().await;
    done
}

async fn rehearse(sweeper: &Sweeper, bar: &ProgressBar) -> Result<ExitCode, Failure> {
    let Rehearsal { due, confirm, reject, abort, expire, wait, tidy, delete, abort_multiparts } =
        sweeper.rehearse(|so_far| bar.set_position(so_far.due)).await?;
    bar.finish_and_clear();
    print(format_args!("{due} uploads are due; nothing was changed"));
    print(format_args!("  {confirm} would be confirmed, if their checksums are right"));
    print(format_args!("  {reject} would be rejected"));
    print(format_args!("  {abort} would be aborted: they have been revoked"));
    print(format_args!("  {expire} would expire"));
    print(format_args!("  {wait} would be waited for"));
    print(format_args!("  {tidy} are settled: {delete} objects of theirs would be removed"));
    print(format_args!("{abort_multiparts} multipart uploads would be aborted"));
    Ok(ExitCode::SUCCESS)
}

async fn sweep_once(sweeper: &Sweeper) -> Result<(), Failure> {
    sweeper.backlog().await?;
    sweeper.sweep_due().await?;
    sweeper.abort_stale_multiparts().await?;
    Ok(())
}

async fn sweep(sweeper: &Sweeper, once: bool, bar: &ProgressBar) -> Result<ExitCode, Failure> {
    let mut stop = StopSignals::listen()?;
    let work = async {
        if once {
            tokio::select! {
                swept = sweep_once(sweeper) => swept,
                () = stop.wait() => Err(Interrupted.into()),
            }
        } else {
            sweeper.clone().sweep_until(stop.wait()).await;
            Ok(())
        }
    };
    let follow = async {
        loop {
            let SweepStatus { looked, confirmed, expired, due, .. } = sweeper.progress().status();
            bar.set_position(looked);
            bar.set_message(format!("({due} were due; {confirmed} confirmed, {expired} expired)"));
            tokio::time::sleep(FOLLOW).await;
        }
    };
    let worked = tokio::select! {
        worked = work => worked,
        () = follow => Ok(()),
    };
    bar.finish_and_clear();
    let SweepStatus { looked, confirmed, rejected, expired, deleted, multiparts_aborted, failed, .. } =
        sweeper.progress().status();
    print(format_args!("{looked} looks at uploads"));
    print(format_args!("  {confirmed} confirmed, {rejected} rejected, {expired} expired"));
    print(format_args!("  {deleted} objects removed"));
    print(format_args!("{multiparts_aborted} multipart uploads aborted"));
    if failed > 0 {
        print(format_args!("{failed} failed, and will be tried again by the next sweep that finds them due"));
    }
    worked?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
