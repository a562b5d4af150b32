//! The table `idempotency_keys`.

use std::collections::HashMap;

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
pub enum Recorded<T = Box<UploadIntent>> {
    /// The same request: this is what it led to.
    Replay(T),
    /// Another request.
    Mismatch,
}

/// For each place in a batch, the id of its upload, if it has one.
type UploadIds = Vec<Option<Uuid>>;

/// For each place in a batch, the upload that an earlier request with the same key has led to, if it has.
pub type EarlierUploads = Vec<Option<Box<UploadIntent>>>;

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
                    forget_outdated(&intent.issuer, &intent.subject, key, intent.created_at, connection).await?;
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

    /// The same for the files of a batch, of which those that are `None` were refused: writes, together with `key`, all
    /// that no earlier call with it has written in their place, and finds what is there already. A key stays unused
    /// while nothing is written under it.
    ///
    /// # Errors
    /// When the database does not answer; then all of it is written, or nothing.
    pub async fn record_batch_once(
        &self,
        owner: &Principal,
        intents: &[Option<&UploadIntent>],
        key: &IdempotencyKey,
        now: DateTime<Utc>,
    ) -> Result<Recorded<EarlierUploads>, DbError> {
        self.query(async |connection| {
            connection
                .transaction::<_, DieselError, _>(async |connection| {
                    forget_outdated(&owner.issuer, &owner.subject, key, now, connection).await?;
                    let ids: Vec<Option<Uuid>> =
                        intents.iter().map(|intent| Some(intent.as_ref()?.id.uuid())).collect();
                    let Some(first) = ids.iter().flatten().next() else {
                        let earlier = earlier_in_batch(owner, intents, key, now, connection).await?;
                        return Ok(earlier.unwrap_or_else(|| Recorded::Replay(nothing(intents))));
                    };
                    let inserted = diesel::insert_into(idempotency_keys::table)
                        .values((
                            idempotency_keys::issuer.eq(&owner.issuer),
                            idempotency_keys::subject.eq(&owner.subject),
                            idempotency_keys::key.eq(&key.key),
                            idempotency_keys::request_sha256.eq(&key.request_sha256[..]),
                            idempotency_keys::upload_id.eq(first),
                            idempotency_keys::upload_ids.eq(&ids),
                            idempotency_keys::created_at.eq(now),
                        ))
                        .on_conflict_do_nothing()
                        .execute(connection)
                        .await?;
                    if inserted == 1 {
                        let rows: Vec<&UploadIntent> = intents.iter().copied().flatten().collect();
                        uploads::insert(&rows, connection).await?;
                        return Ok(Recorded::Replay(nothing(intents)));
                    }
                    let earlier = earlier_in_batch(owner, intents, key, now, connection).await?;
                    earlier.ok_or(DieselError::NotFound)
                })
                .await
        })
        .await
    }

    /// Forgets keys older than [`RETENTION`].
    ///
    /// # Errors
    /// When the database does not answer; some may have been forgotten by then.
    pub async fn forget_old_idempotency_keys(&self, now: DateTime<Utc>) -> Result<usize, DbError> {
        self.delete_in_batches("idempotency_keys", "created_at", now - RETENTION).await
    }
}

/// An outdated key is as good as none.
async fn forget_outdated(
    issuer: &str,
    subject: &str,
    key: &IdempotencyKey,
    now: DateTime<Utc>,
    connection: &mut AsyncPgConnection,
) -> QueryResult<usize> {
    diesel::delete(idempotency_keys::table)
        .filter(idempotency_keys::issuer.eq(issuer))
        .filter(idempotency_keys::subject.eq(subject))
        .filter(idempotency_keys::key.eq(&key.key))
        .filter(idempotency_keys::created_at.lt(now - RETENTION))
        .execute(connection)
        .await
}

fn nothing(intents: &[Option<&UploadIntent>]) -> EarlierUploads {
    intents.iter().map(|_| None).collect()
}

/// What a batch with `key` has led to before, if there was one; the places where it has led to nothing are filled with those of `intents`
/// that are allowed by now. The key's row is locked, so that two calls cannot both fill a place.
async fn earlier_in_batch(
    owner: &Principal,
    intents: &[Option<&UploadIntent>],
    key: &IdempotencyKey,
    now: DateTime<Utc>,
    connection: &mut AsyncPgConnection,
) -> QueryResult<Option<Recorded<EarlierUploads>>> {
    let row = idempotency_keys::table
        .filter(idempotency_keys::issuer.eq(&owner.issuer))
        .filter(idempotency_keys::subject.eq(&owner.subject))
        .filter(idempotency_keys::key.eq(&key.key))
        .filter(idempotency_keys::created_at.ge(now - RETENTION));
    let found: Option<(Vec<u8>, Option<UploadIds>)> = row
        .select((idempotency_keys::request_sha256, idempotency_keys::upload_ids))
        .for_update()
        .first(connection)
        .await
        .optional()?;
    let Some((request_sha256, ids)) = found else { return Ok(None) };
    let Some(ids) = ids.filter(|ids| request_sha256 == key.request_sha256 && ids.len() == intents.len()) else {
        return Ok(Some(Recorded::Mismatch));
    };
    let wanted: Vec<Uuid> = ids.iter().copied().flatten().collect();
    let found = uploads::find_all(&wanted, connection).await?;
    if found.len() != wanted.len() {
        // Its month was dropped, or somebody has removed it: nothing may be signed in its place.
        return Err(diesel::result::Error::NotFound);
    }
    let missing = ids.iter().zip(intents).filter(|(id, _)| id.is_none());
    let rows: Vec<&UploadIntent> = missing.filter_map(|(_, intent)| *intent).collect();
    if !rows.is_empty() {
        let filled = ids.iter().zip(intents).map(|(id, intent)| id.or_else(|| Some(intent.as_ref()?.id.uuid())));
        let filled: Vec<Option<Uuid>> = filled.collect();
        uploads::insert(&rows, connection).await?;
        diesel::update(idempotency_keys::table)
            .filter(idempotency_keys::issuer.eq(&owner.issuer))
            .filter(idempotency_keys::subject.eq(&owner.subject))
            .filter(idempotency_keys::key.eq(&key.key))
            .set(idempotency_keys::upload_ids.eq(filled))
            .execute(connection)
            .await?;
    }
    let mut earlier: HashMap<Uuid, UploadIntent> = found.into_iter().map(|upload| (upload.id.uuid(), upload)).collect();
    Ok(Some(Recorded::Replay(ids.iter().map(|id| earlier.remove(&(*id)?).map(Box::new)).collect())))
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
