//! `presignd serve`

use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};

use super::{Failure, start_logging};
use crate::{
    app::{self, Running},
    clock::Clock,
    config::Config,
};

pub(super) async fn run(config: &Config, runtime: &Handle) -> Result<(), Failure> {
    start_logging(config);
    let running = app::start(config, Clock::System, runtime.clone()).await?;
    until_stopped(running).await
}

/// Serves until SIGTERM or SIGINT, then stops in order.
pub(super) async fn until_stopped(mut running: Running) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = running.failed() => return Ok(ended?),
        _ = terminate.recv() => log::info!("SIGTERM: finishing requests in flight"),
        _ = interrupt.recv() => log::info!("SIGINT: finishing requests in flight"),
    }
    running.stop().await;
    Ok(())
}
