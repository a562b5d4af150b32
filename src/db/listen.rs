//! A connection of its own that hears what other processes announce: something in the outbox, a revocation.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio_postgres::AsyncMessage;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Database, DbError,
    connect::{CONNECT_TIMEOUT, describe, options, tls},
    revocations, webhooks,
};
use crate::config::DatabaseConfig;

/// Wait before a lost connection is made again; polling finds meanwhile what is due.
const RECONNECT: Duration = Duration::from_secs(5);

/// After this silence the kernel asks whether PostgreSQL is still there: nothing is ever sent on this connection, so
/// nothing else would notice that it is not.
const KEEPALIVE: Duration = Duration::from_secs(30);

impl Database {
    /// Wakes those in this process whom it concerns whenever another one announces something, until the task is ended.
    pub async fn listen_for_announcements(self, config: DatabaseConfig) {
        loop {
            if let Err(error) = self.listen(&config).await {
                log::debug!("not listening for what other processes announce: {error}");
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// Listens until the connection ends, which is always a failure.
    async fn listen(&self, config: &DatabaseConfig) -> Result<(), DbError> {
        let unavailable = |error: tokio_postgres::Error| DbError::Unavailable(describe(&error));
        let late = |_| DbError::Unavailable("no connection in time".to_owned());
        let mut options = options(config).map_err(unavailable)?;
        options.keepalives_idle(KEEPALIVE);
        let connecting = options.connect(MakeRustlsConnect::new((*tls(config)?).clone()));
        let (client, mut connection) =
            tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(late)?.map_err(unavailable)?;
        let mut messages = pin!(stream::poll_fn(|context| connection.poll_message(context)));
        let statement = format!("LISTEN {}; LISTEN {}", webhooks::CHANNEL, revocations::CHANNEL);
        let mut listening = pin!(tokio::time::timeout(CONNECT_TIMEOUT, client.batch_execute(&statement)));
        let mut is_listening = false;
        loop {
            tokio::select! {
                done = &mut listening, if !is_listening => {
                    done.map_err(late)?.map_err(unavailable)?;
                    is_listening = true;
                    // What was announced before went unheard.
                    self.wake_dispatchers();
                    self.wake_followers();
                }
                message = messages.next() => match message {
                    Some(Ok(AsyncMessage::Notification(announced))) => match announced.channel() {
                        revocations::CHANNEL => self.wake_followers(),
                        _ => self.wake_dispatchers(),
                    },
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(unavailable(error)),
                    None => return Err(DbError::Unavailable("the connection has ended".to_owned())),
                },
            }
        }
    }
}
