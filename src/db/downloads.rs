//! The table `download_intents`.

use chrono::{DateTime, Utc};
use diesel::{
    OptionalExtension as _, QueryResult, QueryableByName,
    pg::Pg,
    result::Error as DieselError,
    sql_types::{self, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::{
    AccessEvent, Database, DbError,
    group_insert::group_insert,
    webhooks::{self, NewDelivery},
};
use crate::model::{AuditKind, ClientNetwork, Delivery, IntentId};

/// A row: who was given a download of what.
#[derive(Debug, Clone, QueryableByName)]
#[diesel(check_for_backend(Pg))]
pub struct DownloadIntent {
    /// Identifies the download.
    #[diesel(sql_type = sql_types::Uuid)]
    pub id: IntentId,
    /// The upload that is read.
    #[diesel(sql_type = sql_types::Uuid)]
    pub upload_id: IntentId,
    /// `iss` of the reader.
    #[diesel(sql_type = Text)]
    pub issuer: String,
    /// `sub` of the reader.
    #[diesel(sql_type = Text)]
    pub subject: String,
    /// Tenant of the reader.
    #[diesel(sql_type = Nullable<Text>)]
    pub tenant: Option<String>,
    /// Name of the policy that decided.
    #[diesel(sql_type = Text)]
    pub policy: String,
    /// Version of the policy file that decided.
    #[diesel(sql_type = Text)]
    pub policy_version: String,
    /// How it reaches the reader.
    #[diesel(sql_type = Text)]
    pub delivery: Delivery,
    /// Network that the download is scoped to.
    #[diesel(sql_type = Nullable<Text>)]
    pub client_network: Option<ClientNetwork>,
    /// Time of issue.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// End of the URL, or of the time in which the download may begin.
    #[diesel(sql_type = Timestamptz)]
    pub expires_at: DateTime<Utc>,
}

impl DownloadIntent {
    /// An event of `kind` about it.
    pub fn event(&self, kind: AuditKind, now: DateTime<Utc>) -> AccessEvent {
        AccessEvent {
            issuer: Some(self.issuer.clone()),
            subject: Some(self.subject.clone()),
            tenant: self.tenant.clone(),
            upload_id: Some(self.upload_id),
            download_id: Some(self.id),
            policy: Some(self.policy.clone()),
            ..AccessEvent::new(kind, now)
        }
    }
}

impl Database {
    /// The download with this id, whoever asked for it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn download(&self, id: IntentId) -> Result<Option<DownloadIntent>, DbError> {
        let statement = "SELECT id, upload_id, issuer, subject, tenant, policy, policy_version, delivery, client_network, \
                         created_at, expires_at FROM download_intents WHERE id = $1";
        self.query(async |connection| {
            diesel::sql_query(statement).bind::<sql_types::Uuid, _>(id.uuid()).get_result(connection).await.optional()
        })
        .await
    }

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
