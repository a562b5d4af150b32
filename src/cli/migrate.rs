//! `presignd migrate`

use std::num::NonZeroUsize;

use clap::Args;
use tokio::runtime::Handle;

use super::{ConfigArgs, Failure, print, start_logging};
use crate::{
    app::StartError,
    clock::Clock,
    db::{Database, MovedRows, SchemaState},
};

/// What to migrate.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    status: bool,
    /// Take back the last COUNT migrations. Their data is lost.
    #[arg(long, value_name = "COUNT", conflicts_with = "status")]
    revert: Option<NonZeroUsize>,
    /// Move rows out of the default partitions, to partitions of their months.
    ///
    /// They get there when a month has no partition in time, and keep it from being made. Requests that need the table
    /// wait meanwhile, and fail with 503 where a statement waits longer than it may.
    #[arg(long, conflicts_with_all = ["status", "revert"])]
    repartition: bool,
}

pub(super) async fn run(args: &MigrateArgs, runtime: &Handle) -> Result<(), Failure> {
    let config = args.config.load()?;
    start_logging(&config);
    let database = Database::new(&config.database, runtime)?;
    if args.status {
        match database.schema_state().await? {
            SchemaState::Current => print("up to date"),
            SchemaState::Pending(versions) => {
                for version in versions {
                    print(format_args!("pending {version}"));
                }
            }
            SchemaState::Newer(versions) => {
                for version in versions {
                    print(format_args!("unknown {version}"));
                }
            }
        }
        return Ok(());
    }
    if let Some(count) = args.revert {
        let reverted = database.revert(count.get()).await?;
        if reverted.is_empty() {
            print("nothing to revert");
        }
        for version in reverted {
            print(format_args!("reverted {version}"));
        }
        return Ok(());
    }
    if let SchemaState::Newer(versions) = database.schema_state().await? {
        return Err(StartError::SchemaNewer(versions).into());
    }
    let applied = database.migrate().await?;
    // Told before anything else can fail: they are applied.
    for version in &applied {
        print(format_args!("applied {version}"));
    }
    let mut has_moved = false;
    while args.repartition
        && let Some(MovedRows { from, to, rows }) = database.move_from_default().await?
    {
        print(format_args!("moved {rows} of {from} to {to}"));
        has_moved = true;
    }
    database.ensure_partitions(Clock::System.now()).await?;
    if applied.is_empty() && !has_moved {
        print("up to date");
    }
    Ok(())
}
