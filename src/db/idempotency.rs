//! The table `idempotency_keys`.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, QueryResult, result::Error as DieselError,
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::{Database, DbError, UploadIntent, schema::idempotency_keys, uploads};
use crate::model::{IntentId, Principal};

/// How long a key is remembered.
pub const RETENTION: TimeDelta = TimeDelta::hours(24);

/// An `Idempotency-Key` header with the digest of the request that it came with.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The header as sent.
    pub key: String,
    /// SHA-256 of the request.
    pub request_sha256: [u8; 32],
}

/// What a key stands for that was used before.
#[derive(Debug)]
pub enum Recorded {
    /// The same request: this is the upload it led to.
    Replay(Box<UploadIntent>),
    /// Another request.
    Mismatch,
}

impl Database {
    /// What `owner` used `key` for before, if that is not too long ago.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn recorded_upload(
        &self,
        owner: &Principal,
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<Option<Recorded>, DbError> {
        self.query(async |connection| find(&owner.issuer, &owner.subject, key, now, connection).await).await
    }

    /// Writes `intent` and `key` together; or, when somebody was faster, finds what `key` stands for. Calls with one
    /// key wait for each other on the primary key, so exactly one of them writes.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn record_upload_once(
        &self,
        intent: &UploadIntent,
        key: &IdempotencyKey,
    ) -> Result<Option<Recorded>, DbError> {
        self.query(async |connection| {
            connection
                .transaction::<_, DieselError, _>(async |connection| {
                    // An outdated key is as good as none.
                    diesel::delete(idempotency_keys::table)
                        .filter(idempotency_keys::issuer.eq(&intent.issuer))
                        .filter(idempotency_keys::subject.eq(&intent.subject))
                        .filter(idempotency_keys::key.eq(&key.key))
                        .filter(idempotency_keys::created_at.lt(intent.created_at - RETENTION))
                        .execute(connection)
                        .await?;
                    let inserted = diesel::insert_into(idempotency_keys::table)
                        .values((
                            idempotency_keys::issuer.eq(&intent.issuer),
                            idempotency_keys::subject.eq(&intent.subject),
                            idempotency_keys::key.eq(&key.key),
                            idempotency_keys::request_sha256.eq(&key.request_sha256[..]),
                            idempotency_keys::upload_id.eq(intent.id.uuid()),
                            idempotency_keys::created_at.eq(intent.created_at),
                        ))
                        .on_conflict_do_nothing()
                        .execute(connection)
                        .await?;
                    if inserted == 1 {
                        uploads::insert(&[intent], connection).await?;
                        return Ok(None);
                    }
                    let recorded = find(&intent.issuer, &intent.subject, key, intent.created_at, connection).await?;
                    recorded.ok_or(DieselError::NotFound).map(Some)
                })
                .await
        })
        .await
    }

    /// Forgets keys older than [`RETENTION`].
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn forget_old_idempotency_keys(&self, now: DateTime<Utc>) -> Result<usize, DbError> {
        self.query(async |connection| {
            diesel::delete(idempotency_keys::table)
                .filter(idempotency_keys::created_at.lt(now - RETENTION))
                .execute(connection)
                .await
        })
        .await
    }
}

async fn find(
    issuer: &str,
    subject: &str,
    key: &IdempotencyKey,
    now: DateTime<Utc>,
    connection: &mut AsyncPgConnection,
) -> QueryResult<Option<Recorded>> {
    let found: Option<(Vec<u8>, Uuid)> = idempotency_keys::table
        .select((idempotency_keys::request_sha256, idempotency_keys::upload_id))
        .filter(idempotency_keys::issuer.eq(issuer))
        .filter(idempotency_keys::subject.eq(subject))
        .filter(idempotency_keys::key.eq(&key.key))
        .filter(idempotency_keys::created_at.ge(now - RETENTION))
        .first(connection)
        .await
        .optional()?;
    let Some((request_sha256, upload_id)) = found else { return Ok(None) };
    if request_sha256 != key.request_sha256 {
        return Ok(Some(Recorded::Mismatch));
    }
    let earlier = uploads::find(IntentId::from_uuid(upload_id), connection).await?;
    Ok(earlier.map(|earlier| Recorded::Replay(Box::new(earlier))))
}
