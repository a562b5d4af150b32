//! `presignd serve`

use std::io;

use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{Failure, start_logging};
use crate::{
    app::{self, Running},
    clock::Clock,
    config::Config,
};

pub(super) async fn run(config: &Config, runtime: &Handle) -> Result<(), Failure> {
    start_logging(config);
    let mut stop = StopSignals::listen()?;
    let mut starting = Box::pin(app::start(config, Clock::System, runtime.clone()));
    let running = tokio::select! {
        started = &mut starting => started?,
        () = stop.wait() => {
            let patience = config.server.shutdown_timeout;
            log::info!("told to stop during the start, which has {} to end", humantime::format_duration(patience));
            match tokio::time::timeout(patience, starting).await {
                Ok(started) => started?.stop().await,
                Err(_) => log::warn!("the start did not end in time, and was given up"),
            }
            return Ok(());
        }
    };
    stop.serve(running).await
}

/// SIGTERM and SIGINT, listened to from before the start: one that comes during it must neither be lost, as it would
/// be for the first process of a container, nor end the process half-way.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits until one of them comes.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Serves until one of them comes, then stops in order.
    pub(super) async fn serve(mut self, mut running: Running) -> Result<(), Failure> {
        tokio::select! {
            failure = running.failed() => return Err(failure.into()),
            _ = self.terminate.recv() => log::info!("SIGTERM: finishing requests in flight"),
            _ = self.interrupt.recv() => log::info!("SIGINT: finishing requests in flight"),
        }
        running.stop().await;
        Ok(())
    }
}
