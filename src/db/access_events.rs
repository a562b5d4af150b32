//! The table `access_events`, to which rows are only ever added.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use diesel::{
    QueryResult,
    sql_types::{self, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::{Database, DbError, group_insert::group_insert};
use crate::model::{AuditKind, ClientNetwork, IntentId, ObjectKey, Principal};

/// A row: what became of a permission, where no other row says so.
#[derive(Debug, Clone)]
pub struct AccessEvent {
    /// Identifies the event, and says when it happened.
    pub id: IntentId,
    /// What happened: any kind but those that an intent records.
    pub kind: AuditKind,
    /// `iss` of whom it is about.
    pub issuer: Option<String>,
    /// `sub` of the same.
    pub subject: Option<String>,
    /// Tenant of the same.
    pub tenant: Option<String>,
    /// The upload that it is about.
    pub upload_id: Option<IntentId>,
    /// The download that it is about.
    pub download_id: Option<IntentId>,
    /// Name of the policy that had decided.
    pub policy: Option<String>,
    /// Where the request came from; of cookies, whom they are held to.
    pub client_network: Option<ClientNetwork>,
    /// Why, in a word for programs; of a revocation, what the operator wrote.
    pub reason: Option<String>,
    /// By whose token: issuer and subject.
    pub actor: Option<(String, String)>,
    /// Of cookies, what they open.
    pub prefix: Option<ObjectKey>,
    /// Of cookies, their end.
    pub expires_at: Option<DateTime<Utc>>,
}

impl AccessEvent {
    /// An event of `kind` at `now`, of which nothing more is known.
    pub fn new(kind: AuditKind, now: DateTime<Utc>) -> Self {
        Self {
            id: IntentId::at(now),
            kind,
            issuer: None,
            subject: None,
            tenant: None,
            upload_id: None,
            download_id: None,
            policy: None,
            client_network: None,
            reason: None,
            actor: None,
            prefix: None,
            expires_at: None,
        }
    }

    /// The same about `principal`.
    #[must_use]
    pub fn about(mut self, principal: &Principal) -> Self {
        self.issuer = Some(principal.issuer.clone());
        self.subject = Some(principal.subject.clone());
        self.tenant.clone_from(&principal.tenant);
        self
    }

    /// The same, asked for from `address`.
    #[must_use]
    pub fn from_address(mut self, address: IpAddr) -> Self {
        self.client_network = Some(ClientNetwork::of_one(address));
        self
    }
}

impl Database {
    /// Writes an event that somebody waits for.
    ///
    /// # Errors
    /// When the database does not answer. The row may be there then.
    pub async fn record_event(&self, event: &AccessEvent) -> Result<(), DbError> {
        self.query(async |connection| insert(&[event], connection).await).await?;
        Ok(())
    }
}

/// Writes all of `rows` with one statement.
pub(super) async fn insert(rows: &[&AccessEvent], connection: &mut AsyncPgConnection) -> QueryResult<usize> {
    InsertAccessEvents::new(rows).execute(connection).await
}

group_insert! {
    InsertAccessEvents(row: AccessEvent) into "access_events" {
        id: Uuid as sql_types::Uuid = row.id.uuid();
        kind: &'static str as Text = row.kind.as_str();
        issuer: Option<&'a str> as Nullable<Text> = row.issuer.as_deref();
        subject: Option<&'a str> as Nullable<Text> = row.subject.as_deref();
        tenant: Option<&'a str> as Nullable<Text> = row.tenant.as_deref();
        upload_id: Option<Uuid> as Nullable<sql_types::Uuid> = row.upload_id.map(IntentId::uuid);
        download_id: Option<Uuid> as Nullable<sql_types::Uuid> = row.download_id.map(IntentId::uuid);
        policy: Option<&'a str> as Nullable<Text> = row.policy.as_deref();
        client_network: Option<String> as Nullable<Text> = row.client_network.map(|network| network.to_string());
        reason: Option<&'a str> as Nullable<Text> = row.reason.as_deref();
        actor_issuer: Option<&'a str> as Nullable<Text> = row.actor.as_ref().map(|(issuer, _)| issuer.as_str());
        actor_subject: Option<&'a str> as Nullable<Text> = row.actor.as_ref().map(|(_, subject)| subject.as_str());
        prefix: Option<&'a str> as Nullable<Text> = row.prefix.as_ref().map(ObjectKey::as_str);
        expires_at: Option<DateTime<Utc>> as Nullable<Timestamptz> = row.expires_at;
    }
}
