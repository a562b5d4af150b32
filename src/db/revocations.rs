//! The table `revocations`, and the condition by which everything that was issued looks at it.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use diesel::{
    ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, QueryResult, Queryable, QueryableByName, Selectable,
    SelectableHelper as _,
    pg::Pg,
    result::Error as DieselError,
    sql_types::{self, Array, BigInt, Bool, Double, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use tokio::sync::watch;
use uuid::Uuid;

use super::{AccessEvent, Database, DbError, access_events, schema::revocations};
use crate::model::{Delivery, IntentId};

/// Where revocations are announced.
pub(super) const CHANNEL: &str = "presignd_revocations";

/// What is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationTarget {
    /// Everything.
    All,
    /// What users of this tenant were given.
    Tenant {
        /// The issuer that names it.
        issuer: String,
        /// The tenant.
        tenant: String,
    },
    /// What this user was given.
    User {
        /// `iss`.
        issuer: String,
        /// `sub`.
        subject: String,
    },
    /// What this user was given as one of this tenant.
    Member {
        /// `iss`.
        issuer: String,
        /// The tenant.
        tenant: String,
        /// `sub`.
        subject: String,
    },
    /// What has to do with this upload.
    Upload(IntentId),
}

impl RevocationTarget {
    /// What stands for it in the table.
    fn key(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Tenant { issuer, tenant } => format!("tenant\n{issuer}\n{tenant}"),
            Self::User { issuer, subject } => format!("user\n{issuer}\n{subject}"),
            Self::Member { issuer, tenant, subject } => format!("member\n{issuer}\n{tenant}\n{subject}"),
            Self::Upload(id) => format!("upload {id}"),
        }
    }

    /// Every target that stops what this user was given, about `upload` if it is about one.
    pub fn all_of(issuer: &str, subject: &str, tenant: Option<&str>, upload: Option<IntentId>) -> Vec<Self> {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        let mut targets = vec![Self::All, Self::User { issuer: issuer.clone(), subject: subject.clone() }];
        targets.extend(upload.map(Self::Upload));
        if let Some(tenant) = tenant.map(str::to_owned) {
            targets.push(Self::Tenant { issuer: issuer.clone(), tenant: tenant.clone() });
            targets.push(Self::Member { issuer, tenant, subject });
        }
        targets
    }
}

/// A condition in SQL: a revocation stops the row of `table`, which was issued for the upload in its column `upload_id`.
/// Each part is a key of the table, so this is a few look-ups however many rows there are.
pub(super) fn is_revoked(table: &str, upload_id: &str) -> String {
    let name = |column: &str| format!("chr(10) || {table}.{column}");
    let (issuer, subject, tenant) = (name("issuer"), name("subject"), name("tenant"));
    format!(
        "EXISTS (SELECT 1 FROM revocations WHERE revocations.issued_before > {table}.created_at \
         AND revocations.target IN ('all', 'upload ' || {table}.{upload_id}::text, 'user' || {issuer} || {subject}, \
         'tenant' || {issuer} || {tenant}, 'member' || {issuer} || {tenant} || {subject}))"
    )
}

/// A row: what is stopped, and why.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = revocations, check_for_backend(Pg))]
pub struct Revocation {
    /// The last request that moved the instant; when that was is in it.
    pub id: IntentId,
    /// `iss` of the user, of the tenant, or of the upload's owner.
    pub issuer: Option<String>,
    /// `sub` of the user.
    pub subject: Option<String>,
    /// The tenant, or that of the upload's owner.
    pub tenant: Option<String>,
    /// The upload.
    pub upload_id: Option<IntentId>,
    /// What was issued before this instant is stopped.
    pub issued_before: DateTime<Utc>,
    /// What the administrator wrote of it.
    pub reason: Option<String>,
    /// `iss` of the administrator.
    pub actor_issuer: String,
    /// `sub` of the administrator.
    pub actor_subject: String,
}

/// Which revocations a list shows.
#[derive(Debug, Clone, Default)]
pub struct RevocationFilter {
    /// Only those of this tenant: issuer and tenant.
    pub tenant: Option<(String, String)>,
    /// Only ids below this one.
    pub before: Option<IntentId>,
    /// At most this many.
    pub limit: i64,
}

impl Database {
    /// Puts `revocation` into force for `target`, and `event` into the audit. Where the target is stopped to that
    /// instant or beyond already, changes nothing. Gives what is in force.
    ///
    /// # Errors
    /// When the database does not answer; repeating is safe.
    pub async fn revoke(
        &self,
        target: &RevocationTarget,
        revocation: &Revocation,
        event: &AccessEvent,
    ) -> Result<Revocation, DbError> {
        let key = target.key();
        let in_force = self
            .query(async |connection| {
                connection
                    .transaction::<_, DieselError, _>(async |connection| {
                        if upsert(&key, revocation, connection).await? > 0 {
                            access_events::insert(&[event], connection).await?;
                        }
                        revocations::table
                            .select(Revocation::as_select())
                            .filter(revocations::target.eq(&key))
                            .first(connection)
                            .await
                    })
                    .await
            })
            .await?;
        self.announce_revocations().await;
        Ok(in_force)
    }

    /// The revocations that `filter` lets through, the last first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revocations(&self, filter: &RevocationFilter) -> Result<Vec<Revocation>, DbError> {
        let mut query = revocations::table
            .select(Revocation::as_select())
            .order(revocations::id.desc())
            .limit(filter.limit)
            .into_boxed();
        if let Some((issuer, tenant)) = &filter.tenant {
            query = query.filter(revocations::issuer.eq(issuer)).filter(revocations::tenant.eq(tenant));
        }
        if let Some(before) = filter.before {
            query = query.filter(revocations::id.lt(before.uuid()));
        }
        self.query(async |connection| query.load(connection).await).await
    }

    /// Whether any of `targets` is stopped that far that it concerns what was issued at `issued_at`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn is_revoked(&self, targets: &[RevocationTarget], issued_at: DateTime<Utc>) -> Result<bool, DbError> {
        #[derive(QueryableByName)]
        struct Found {
            #[diesel(sql_type = Bool)]
            found: bool,
        }

        let keys: Vec<String> = targets.iter().map(RevocationTarget::key).collect();
        let found: Found = self
            .query(async |connection| {
                diesel::sql_query(
                    "SELECT EXISTS (SELECT 1 FROM revocations WHERE target = ANY($1) AND issued_before > $2) AS found",
                )
                .bind::<Array<Text>, _>(keys)
                .bind::<Timestamptz, _>(issued_at)
                .get_result(connection)
                .await
            })
            .await?;
        Ok(found.found)
    }

    /// A number that changes with every revocation.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revocations_version(&self) -> Result<i64, DbError> {
        #[derive(QueryableByName)]
        struct Version {
            #[diesel(sql_type = BigInt)]
            version: i64,
        }

        let version: Version = self
            .query(async |connection| {
                diesel::sql_query("SELECT coalesce(sum(version), 0)::bigint AS version FROM revocations")
                    .get_result(connection)
                    .await
            })
            .await?;
        Ok(version.version)
    }

    /// The last end of the presigned URLs that `target` is about, were issued before `issued_before`, and are good at
    /// `now`. None where there are none. Cookies of the content delivery network count for every target, because nobody
    /// can tell whose they are.
    ///
    /// A renewal may have brought an upload's `expires_at` closer, but never its `confirm_until`: `graces` say how long
    /// that is after the end of a URL, by policy. Where they are shorter than at the time, or the policy is not among
    /// them, the end is said later than it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn urls_live_until(
        &self,
        target: &RevocationTarget,
        issued_before: DateTime<Utc>,
        now: DateTime<Utc>,
        graces: &BTreeMap<&str, Duration>,
    ) -> Result<Option<DateTime<Utc>>, DbError> {
        #[derive(QueryableByName)]
        struct End {
            #[diesel(sql_type = Timestamptz)]
            expires_at: DateTime<Utc>,
        }

        let (issuer, subject, tenant, upload_id) = target.columns();
        let (policies, graces): (Vec<&str>, Vec<f64>) =
            graces.iter().map(|(policy, grace)| (*policy, grace.as_secs_f64())).unzip();
        let refused_here = Delivery::ALL.into_iter().filter(|delivery| delivery.passes_through_service());
        let refused_here: Vec<&str> = refused_here.map(Delivery::as_str).collect();
        let common = "created_at < $2 AND ($3 IS NULL OR issuer = $3) \
                      AND ($4 IS NULL OR subject = $4) AND ($5 IS NULL OR tenant = $5)";
        let uploads = |which: &str| {
            format!(
                "(SELECT ends AS expires_at FROM upload_intents \
                 LEFT JOIN unnest($8::text[], $9::float8[]) AS grace (policy, seconds) USING (policy), \
                 LATERAL (SELECT GREATEST(expires_at, confirm_until - make_interval(secs => coalesce(seconds, 0))) AS ends) AS url \
                 WHERE {which} AND ends > $1 AND {common} \
                 AND ($6 IS NULL OR id = $6) ORDER BY ends DESC LIMIT 1)"
            )
        };
        // The sweeper has not finished with an upload whose URLs may still write something, whatever its state; but it
        // does not look at one that the scanner has.
        let unfinished = uploads("look_at IS NOT NULL");
        let inspecting = uploads("id IN (SELECT upload_id FROM inspections) AND stored_key IS NOT NULL");
        let statement = format!(
            "{unfinished} UNION ALL {inspecting} UNION ALL \
             (SELECT expires_at FROM download_intents WHERE expires_at > $1 AND delivery <> ALL ($10) AND {common} AND ($6 IS NULL OR upload_id = $6) \
             AND NOT EXISTS (SELECT 1 FROM download_tickets WHERE download_id = download_intents.id) ORDER BY expires_at DESC LIMIT 1) \
             UNION ALL \
             (SELECT expires_at FROM access_events WHERE kind = 'cookies_issued' AND expires_at > $1 AND id < $7 \
             ORDER BY expires_at DESC LIMIT 1) \
             ORDER BY expires_at DESC LIMIT 1"
        );
        let end: Option<End> = self
            .query(async |connection| {
                diesel::sql_query(statement)
                    .bind::<Timestamptz, _>(now)
                    .bind::<Timestamptz, _>(issued_before)
                    .bind::<Nullable<Text>, _>(issuer)
                    .bind::<Nullable<Text>, _>(subject)
                    .bind::<Nullable<Text>, _>(tenant)
                    .bind::<Nullable<sql_types::Uuid>, _>(upload_id)
                    .bind::<sql_types::Uuid, _>(IntentId::lowest_at(issued_before).uuid())
                    .bind::<Array<Text>, _>(policies)
                    .bind::<Array<Double>, _>(graces)
                    .bind::<Array<Text>, _>(refused_here)
                    .get_result(connection)
                    .await
                    .optional()
            })
            .await?;
        Ok(end.map(|end| end.expires_at))
    }

    /// Wakes whoever follows revocations, in all processes. One that is not woken finds out by polling.
    async fn announce_revocations(&self) {
        self.wake_followers();
        let statement = format!("SELECT pg_notify('{CHANNEL}', '')");
        let told = self.query(async |connection| diesel::sql_query(statement).execute(connection).await).await;
        if let Err(error) = told {
            log::debug!("a revocation was not announced: {error}");
        }
    }

    /// Wakes whoever follows revocations in this process.
    pub(super) fn wake_followers(&self) {
        self.revocations_changed.send_replace(());
    }

    /// Changes whenever there may be another revocation, as far as this process has heard.
    pub fn revocation_changes(&self) -> watch::Receiver<()> {
        self.revocations_changed.subscribe()
    }
}

impl RevocationTarget {
    /// What rows that it is about have in the columns issuer, subject, tenant and upload; none where anything will do.
    fn columns(&self) -> (Option<&str>, Option<&str>, Option<&str>, Option<Uuid>) {
        match self {
            Self::All => (None, None, None, None),
            Self::Tenant { issuer, tenant } => (Some(issuer), None, Some(tenant), None),
            Self::User { issuer, subject } => (Some(issuer), Some(subject), None, None),
            Self::Member { issuer, tenant, subject } => (Some(issuer), Some(subject), Some(tenant), None),
            Self::Upload(id) => (None, None, None, Some(id.uuid())),
        }
    }
}

/// The number of rows that were written or moved ahead: 0 or 1.
async fn upsert(key: &str, revocation: &Revocation, connection: &mut AsyncPgConnection) -> QueryResult<usize> {
    diesel::sql_query(
        "INSERT INTO revocations (target, id, issuer, subject, tenant, upload_id, issued_before, reason, \
         actor_issuer, actor_subject) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
         ON CONFLICT (target) DO UPDATE SET id = EXCLUDED.id, issued_before = EXCLUDED.issued_before, \
         reason = EXCLUDED.reason, actor_issuer = EXCLUDED.actor_issuer, actor_subject = EXCLUDED.actor_subject, \
         version = revocations.version + 1 WHERE revocations.issued_before < EXCLUDED.issued_before",
    )
    .bind::<Text, _>(key)
    .bind::<sql_types::Uuid, _>(revocation.id.uuid())
    .bind::<Nullable<Text>, _>(&revocation.issuer)
    .bind::<Nullable<Text>, _>(&revocation.subject)
    .bind::<Nullable<Text>, _>(&revocation.tenant)
    .bind::<Nullable<sql_types::Uuid>, _>(revocation.upload_id.map(IntentId::uuid))
    .bind::<Timestamptz, _>(revocation.issued_before)
    .bind::<Nullable<Text>, _>(&revocation.reason)
    .bind::<Text, _>(&revocation.actor_issuer)
    .bind::<Text, _>(&revocation.actor_subject)
    .execute(connection)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_different_kinds_never_share_a_key() {
        let (a, b, c) = ("a".to_owned(), "b".to_owned(), "c".to_owned());
        let targets = [
            RevocationTarget::All,
            RevocationTarget::Tenant { issuer: a.clone(), tenant: b.clone() },
            RevocationTarget::User { issuer: a.clone(), subject: b.clone() },
            RevocationTarget::Member { issuer: a.clone(), tenant: b.clone(), subject: c.clone() },
            RevocationTarget::Member { issuer: a, tenant: c, subject: b },
            RevocationTarget::Upload(IntentId::lowest_at(DateTime::UNIX_EPOCH)),
        ];
        let keys: std::collections::BTreeSet<String> = targets.iter().map(RevocationTarget::key).collect();
        assert_eq!(keys.len(), targets.len());
    }
}
