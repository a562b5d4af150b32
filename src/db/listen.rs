//! A connection of its own that hears what other processes announce: something in the outbox, a revocation.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio_postgres::AsyncMessage;

use super::{
    Database, DbError,
    hosts::{CONNECT_TIMEOUT, describe},
    revocations, webhooks,
};

/// Wait before a lost connection is made again; polling finds meanwhile what is due.
const RECONNECT: Duration = Duration::from_secs(5);

impl Database {
    /// Wakes those in this process whom it concerns whenever another one announces something, until the task is ended.
    pub async fn listen_for_announcements(self) {
        loop {
            if let Err(error) = self.listen().await {
                log::debug!("not listening for what other processes announce: {error}");
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// Listens until the connection ends, which is always a failure.
    async fn listen(&self) -> Result<(), DbError> {
        let unavailable = |error: tokio_postgres::Error| DbError::Unavailable(describe(&error));
        let late = |_| DbError::Unavailable("no connection in time".to_owned());
        let (client, mut connection) = self.hosts.connect().await.map_err(DbError::Unavailable)?;
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
