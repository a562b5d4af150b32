//! The table `download_intents`.

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    result::Error as DieselError,
    sql_types::{self, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::{
    Database, DbError,
    group_insert::group_insert,
    webhooks::{self, NewDelivery},
};
use crate::model::{ClientNetwork, Delivery, IntentId};

/// A row: who was given a download of what.
#[derive(Debug, Clone)]
pub struct DownloadIntent {
    /// Identifies the download.
    pub id: IntentId,
    /// The upload that is read.
    pub upload_id: IntentId,
    /// `iss` of the reader.
    pub issuer: String,
    /// `sub` of the reader.
    pub subject: String,
    /// Tenant of the reader.
    pub tenant: Option<String>,
    /// Name of the policy that decided.
    pub policy: String,
    /// Version of the policy file that decided.
    pub policy_version: String,
    /// How it reaches the reader.
    pub delivery: Delivery,
    /// Network that the download is scoped to.
    pub client_network: Option<ClientNetwork>,
    /// Time of issue.
    pub created_at: DateTime<Utc>,
    /// End of the URL, or of the time in which the download may begin.
    pub expires_at: DateTime<Utc>,
}

impl Database {
    /// Writes `download` and `deliveries` together.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn record_download_and_tell(
        &self,
        download: &DownloadIntent,
        deliveries: &[NewDelivery],
    ) -> Result<(), DbError> {
        self.query(async |connection| {
            connection
                .transaction::<_, DieselError, _>(async |connection| {
                    insert(&[download], connection).await?;
                    webhooks::insert(deliveries, connection).await
                })
                .await
        })
        .await?;
        self.announce_webhooks().await;
        Ok(())
    }
}

/// Writes all of `rows` with one statement.
pub(super) async fn insert(rows: &[&DownloadIntent], connection: &mut AsyncPgConnection) -> QueryResult<usize> {
    InsertDownloads::new(rows).execute(connection).await
}

group_insert! {
    InsertDownloads(row: DownloadIntent) into "download_intents" {
        id: Uuid as sql_types::Uuid = row.id.uuid();
        upload_id: Uuid as sql_types::Uuid = row.upload_id.uuid();
        issuer: &'a str as Text = row.issuer.as_str();
        subject: &'a str as Text = row.subject.as_str();
        tenant: Option<&'a str> as Nullable<Text> = row.tenant.as_deref();
        policy: &'a str as Text = row.policy.as_str();
        policy_version: &'a str as Text = row.policy_version.as_str();
        delivery: &'a str as Text = row.delivery.as_str();
        client_network: Option<String> as Nullable<Text> = row.client_network.map(|network| network.to_string());
        created_at: DateTime<Utc> as Timestamptz = row.created_at;
        expires_at: DateTime<Utc> as Timestamptz = row.expires_at;
    }
}
