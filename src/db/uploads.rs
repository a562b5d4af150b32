//! The table `upload_intents`.

mod accounts;
mod due;

use aws_lc_rs::digest;
use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    BoolExpressionMethods as _, IntoSql as _,
    dsl::{not, sql},
    pg::Pg,
    prelude::{
        ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, QueryResult, Queryable, Selectable,
        SelectableHelper as _,
    },
    result::Error as DieselError,
    sql_types::{self, BigInt, Binary, Bool, Jsonb, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

pub use accounts::UploadAccount;
pub use due::Backlog;

use super::{
    Database, DbError,
    group_insert::group_insert,
    inspections,
    revocations::is_revoked,
    schema::upload_intents,
    webhooks::{self, NewDelivery},
};
use crate::model::{
    ByteSize, ClientNetwork, ContentType, ETag, FileName, IntentEvent, IntentId, IntentState, Metadata, ObjectKey,
    PartNumber, PartPlan, Principal, Sha256Digest, SizePromise, Transition, UploadMethod,
};

/// A row: what was promised to whom, and what became of it.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = upload_intents, check_for_backend(Pg))]
pub struct UploadIntent {
    /// Identifies the upload.
    pub id: IntentId,
    /// `iss` of the owner.
    pub issuer: String,
    /// `sub` of the owner.
    pub subject: String,
    /// Tenant of the owner.
    pub tenant: Option<String>,
    /// The name as the user wrote it.
    pub original_file_name: FileName,
    /// Fixed prefix of the key template.
    pub upload_to: String,
    /// Bucket of the object.
    pub bucket: String,
    /// Key that the client writes to.
    pub object_key: ObjectKey,
    /// Promised size, or the limit where that is what was promised; of a verified object, its size.
    pub file_size: ByteSize,
    /// Whether [`UploadIntent::file_size`] is a limit.
    pub file_size_is_limit: bool,
    /// Promised media type.
    pub content_type: ContentType,
    /// Promised digest.
    pub checksum_sha256: Option<Sha256Digest>,
    /// Promised user metadata.
    pub metadata: Metadata,
    /// How the bytes travel.
    pub method: UploadMethod,
    /// Name of the policy that decided.
    pub policy: String,
    /// Version of the policy file that decided last.
    pub policy_version: String,
    /// Network that the last URL is scoped to.
    pub client_network: Option<ClientNetwork>,
    /// Where it stands.
    pub state: IntentState,
    /// Time of issue.
    pub created_at: DateTime<Utc>,
    /// End of the last URL.
    pub expires_at: DateTime<Utc>,
    /// Last instant of confirmation.
    pub confirm_until: DateTime<Utc>,
    /// When the final state was reached.
    pub settled_at: Option<DateTime<Utc>>,
    /// What led to the final state, or to the inspection before it.
    pub settled_via: Option<String>,
    /// `ETag` of the verified object.
    pub etag: Option<ETag>,
    /// Version of the verified object.
    pub version_id: Option<String>,
    /// Which promises the object broke; of a confirmed upload, what it was warned about.
    pub mismatches: Option<serde_json::Value>,
    /// Key of the verified object where it is a copy.
    pub stored_key: Option<ObjectKey>,
    /// What is recorded of the parts.
    #[diesel(embed)]
    pub parts: PartColumns,
}

/// The columns that only multipart uploads have. All are there but for the size of parts that the client cuts as it
/// likes, or none.
#[derive(Debug, Clone, Default, Queryable, Selectable)]
#[diesel(table_name = upload_intents, check_for_backend(Pg))]
pub struct PartColumns {
    multipart_upload_id: Option<String>,
    part_size: Option<ByteSize>,
    has_part_checksums: Option<bool>,
}

impl PartColumns {
    /// Those of a multipart upload.
    pub fn of(upload_id: String, plan: Option<&PartPlan>, has_checksums: bool) -> Self {
        Self {
            multipart_upload_id: Some(upload_id),
            part_size: plan.map(|plan| ByteSize::from_bytes(plan.part_size())),
            has_part_checksums: Some(has_checksums),
        }
    }
}

/// The multipart upload that an upload's bytes travel by.
#[derive(Debug, Clone, Copy)]
pub struct MultipartUpload<'a> {
    /// The store's id of it.
    pub upload_id: &'a str,
    /// Which parts it has; none where the client cuts the file as it likes.
    pub plan: Option<PartPlan>,
    /// The highest number that a part may have.
    pub most_parts: u16,
    /// Whether every part is bound to its SHA-256.
    pub has_checksums: bool,
}

impl UploadIntent {
    /// The multipart upload, if that is the method.
    pub fn multipart(&self) -> Option<MultipartUpload<'_>> {
        let PartColumns { multipart_upload_id, part_size, has_part_checksums } = &self.parts;
        let (upload_id, has_checksums) = (multipart_upload_id.as_deref()?, (*has_part_checksums)?);
        let plan = |size: &ByteSize| PartPlan::with_part_size(self.file_size.bytes(), size.bytes());
        let plan = part_size.as_ref().map(plan).transpose().ok()?;
        // Parts of the smallest size, because S3 takes no more of a file of this size.
        let smallest = self.file_size.bytes().div_ceil(PartPlan::SMALLEST_PART.bytes());
        let most = u16::try_from(smallest).unwrap_or(u16::MAX).clamp(1, PartNumber::MAX);
        let most_parts = plan.map_or(most, |plan| plan.part_count());
        Some(MultipartUpload { upload_id, plan, most_parts, has_checksums })
    }

    /// Where the verified object lies.
    pub fn verified_key(&self) -> &ObjectKey {
        self.stored_key.as_ref().unwrap_or(&self.object_key)
    }

    /// What was promised of the size; of a verified object, what it is.
    pub fn size_promise(&self) -> SizePromise {
        if self.file_size_is_limit { SizePromise::AtMost(self.file_size) } else { SizePromise::Exact(self.file_size) }
    }

    /// Whether `principal` issued this upload, as a member of the tenant that it speaks for now.
    pub fn is_owned_by(&self, principal: &Principal) -> bool {
        principal.is(&self.issuer, &self.subject, self.tenant.as_deref())
    }
}

/// What led to a final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettledVia {
    /// The client called back.
    Callback,
    /// The store said so.
    Event,
    /// The sweeper looked.
    Sweeper,
    /// The owner gave it up.
    Owner,
}

impl SettledVia {
    /// The name used in JSON and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Event => "event",
            Self::Sweeper => "sweeper",
            Self::Owner => "owner",
        }
    }
}

/// A transition with what is recorded along with it. What is `None` stays as it is.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// What happened.
    pub event: IntentEvent,
    /// What led to it.
    pub via: Option<SettledVia>,
    /// When.
    pub at: DateTime<Utc>,
    /// The verified object.
    pub object: Option<VerifiedObject>,
    /// For rejections: which promises were broken. For confirmations: what to warn of.
    pub mismatches: Option<serde_json::Value>,
    /// Whether the store may hold, or still receive, something of this upload that nobody needs.
    pub has_leftovers: bool,
}

/// The object that a confirmation is about.
#[derive(Debug, Clone)]
pub struct VerifiedObject {
    /// Its key, where the client wrote to another.
    pub stored_key: Option<ObjectKey>,
    /// Its size.
    pub size: ByteSize,
    /// Its `ETag`.
    pub etag: ETag,
    /// Its version, where the bucket is versioned.
    pub version_id: Option<String>,
}

/// How long after the end of a URL the sweeper looks for what was uploaded with it, or for what is left of it. Most
/// transfers that began in time are over by then.
pub const FIRST_LOOK: TimeDelta = TimeDelta::minutes(1);

/// The outcome of a conditional update.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// This call changed the row; here it is now.
    Changed(UploadIntent),
    /// The row was there already, by this call's twin; here it is.
    AlreadyThere(UploadIntent),
    /// The row is in a state that forbids the change; here it is.
    NotAllowed(UploadIntent),
    /// There is no such row.
    Absent,
}

/// Which uploads a list shows.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Only this state.
    pub state: Option<IntentState>,
    /// Only ids below this one.
    pub before: Option<IntentId>,
    /// At most this many.
    pub limit: i64,
}

impl Database {
    /// The upload with this id, whoever owns it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn upload(&self, id: IntentId) -> Result<Option<UploadIntent>, DbError> {
        self.query(async |connection| find(id, connection).await).await
    }

    /// Those of the uploads with these ids that are there, in any order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn uploads(&self, ids: &[IntentId]) -> Result<Vec<UploadIntent>, DbError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        self.query(async |connection| find_all(&ids, connection).await).await
    }

    /// The same for whoever would rather have some of them than none: a row that this version cannot make out, of a later
    /// one or changed by hand, is told of in the log and left out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn readable_uploads(&self, ids: &[IntentId]) -> Result<Vec<UploadIntent>, DbError> {
        match self.uploads(ids).await {
            Err(DbError::Failed(_)) => {}
            all => return all,
        }
        let mut uploads = Vec::new();
        for id in ids {
            match self.upload(*id).await {
                Ok(upload) => uploads.extend(upload),
                Err(DbError::Failed(reason)) => log::error!("upload {id}: its row cannot be read: {reason}"),
                Err(error) => return Err(error),
            }
        }
        Ok(uploads)
    }

    /// The uploads of `owner`, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn uploads_of(&self, owner: &Principal, page: &Page) -> Result<Vec<UploadIntent>, DbError> {
        let mut query = upload_intents::table
            .select(UploadIntent::as_select())
            .filter(upload_intents::owner_key.eq(owner_key(&owner.issuer, &owner.subject)))
            // Owners may share a key.
            .filter(upload_intents::subject.eq(&owner.subject))
            .filter(upload_intents::issuer.eq(&owner.issuer))
            .order(upload_intents::id.desc())
            .limit(page.limit)
            .into_boxed();
        if let Some(tenant) = &owner.tenant {
            // As in `Principal::is`.
            query = query.filter(upload_intents::tenant.is_null().or(upload_intents::tenant.eq(tenant)));
        }
        if let Some(state) = page.state {
            query = query.filter(upload_intents::state.eq(state.as_str()));
        }
        if let Some(before) = page.before {
            query = query.filter(upload_intents::id.lt(before.uuid()));
        }
        self.query(async |connection| query.load(connection).await).await
    }

    /// Moves an upload to another state, in one conditional UPDATE; together with that, and only if this call did it,
    /// writes the `deliveries` that its new row leads to.
    ///
    /// # Errors
    /// When the database does not answer; the transition may or may not have happened, and repeating it is safe.
    pub async fn settle_upload(
        &self,
        id: IntentId,
        settlement: &Settlement,
        deliveries: impl Fn(&UploadIntent) -> Vec<NewDelivery> + Send + Sync,
    ) -> Result<Outcome, DbError> {
        let target = settlement.event.target();
        let (outcome, announced) = self
            .query(async |connection| {
                connection
                    .transaction::<_, DieselError, _>(async |connection| {
                        if let Some(row) = transition(id, settlement, connection).await? {
                            if target == IntentState::Inspecting {
                                inspections::insert(id, settlement.at, connection).await?;
                            }
                            let deliveries = deliveries(&row);
                            webhooks::insert(&deliveries, connection).await?;
                            return Ok((Outcome::Changed(row), !deliveries.is_empty()));
                        }
                        let outcome = match find(id, connection).await? {
                            Some(row) => match row.state.on(settlement.event) {
                                Transition::AlreadyThere => Outcome::AlreadyThere(row),
                                // By the states alone it may be allowed, and something else forbids it.
                                Transition::NotAllowed | Transition::To(_) => Outcome::NotAllowed(row),
                            },
                            None => Outcome::Absent,
                        };
                        Ok((outcome, false))
                    })
                    .await
            })
            .await?;
        if announced {
            self.announce_webhooks().await;
        }
        Ok(outcome)
    }

    /// Records that a fresh URL of an issued upload will be handed out, unless the upload has been revoked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn renew_upload(&self, id: IntentId, renewal: &Renewal) -> Result<Outcome, DbError> {
        self.query(async |connection| {
            let changed = diesel::update(upload_intents::table)
                .filter(upload_intents::id.eq(id.uuid()))
                .filter(upload_intents::state.eq(IntentState::Issued.as_str()))
                .filter(not(sql::<Bool>(&is_revoked("upload_intents", "id"))))
                .set((
                    upload_intents::policy_version.eq(&renewal.policy_version),
                    upload_intents::client_network.eq(renewal.network.map(|network| network.to_string())),
                    upload_intents::expires_at.eq(renewal.expires_at),
                    upload_intents::look_at.eq(renewal.expires_at + FIRST_LOOK),
                    // An earlier URL may still be in use: the deadline never comes closer.
                    upload_intents::confirm_until.eq(diesel::dsl::case_when(
                        upload_intents::confirm_until.gt(renewal.confirm_until),
                        upload_intents::confirm_until,
                    )
                    .otherwise(renewal.confirm_until)),
                ))
                .returning(UploadIntent::as_returning())
                .get_result(connection)
                .await
                .optional()?;
            if let Some(row) = changed {
                return Ok(Outcome::Changed(row));
            }
            Ok(find(id, connection).await?.map_or(Outcome::Absent, Outcome::NotAllowed))
        })
        .await
    }
}

/// What changes when a URL is renewed.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Version of the policy file that decided.
    pub policy_version: String,
    /// Network that the fresh URL is scoped to.
    pub network: Option<ClientNetwork>,
    /// End of the fresh URL.
    pub expires_at: DateTime<Utc>,
    /// Last instant of confirmation under the fresh URL.
    pub confirm_until: DateTime<Utc>,
}

/// The UPDATE of a transition; the new row if it was allowed.
async fn transition(
    id: IntentId,
    settlement: &Settlement,
    connection: &mut AsyncPgConnection,
) -> QueryResult<Option<UploadIntent>> {
    let target = settlement.event.target();
    let sources: Vec<&str> = settlement.event.sources().map(IntentState::as_str).collect();
    let object = settlement.object.as_ref().map(|object| {
        (
            upload_intents::file_size.eq(stored_bytes(object.size)),
            upload_intents::file_size_is_limit.eq(false),
            upload_intents::etag.eq(object.etag.as_str()),
            upload_intents::version_id.eq(object.version_id.as_deref()),
            upload_intents::stored_key.eq(object.stored_key.as_ref().map(ObjectKey::as_str)),
        )
    });
    let is_final = target != IntentState::Inspecting;
    // A URL that is still good may bring the leftovers back.
    let look_at = sql::<Nullable<Timestamptz>>("CASE WHEN ")
        .bind::<Bool, _>(is_final && settlement.has_leftovers)
        .sql(" THEN GREATEST(expires_at, ")
        .bind::<Timestamptz, _>(settlement.at)
        .sql(&format!(") + interval '{} seconds' END", FIRST_LOOK.num_seconds()));
    diesel::update(upload_intents::table)
        .filter(upload_intents::id.eq(id.uuid()))
        .filter(upload_intents::state.eq_any(sources))
        // Whoever found an object may not know of a revocation since. What is only inspected has arrived before that.
        .filter(
            not(upload_intents::state
                .eq(IntentState::Issued.as_str())
                .and(sql::<Bool>(&is_revoked("upload_intents", "id"))))
            .or((!settlement.event.accepts()).into_sql::<Bool>()),
        )
        // Whoever found that the time has run out may not know of a renewal since.
        .filter(
            upload_intents::confirm_until
                .lt(settlement.at)
                .or((settlement.event != IntentEvent::Expire).into_sql::<Bool>()),
        )
        .set((
            upload_intents::state.eq(target.as_str()),
            is_final.then(|| upload_intents::settled_at.eq(settlement.at)),
            settlement.via.map(|via| upload_intents::settled_via.eq(via.as_str())),
            object,
            settlement.mismatches.as_ref().map(|mismatches| upload_intents::mismatches.eq(mismatches)),
            upload_intents::look_at.eq(look_at),
        ))
        .returning(UploadIntent::as_returning())
        .get_result(connection)
        .await
        .optional()
}

pub(super) async fn find(id: IntentId, connection: &mut AsyncPgConnection) -> QueryResult<Option<UploadIntent>> {
    upload_intents::table
        .select(UploadIntent::as_select())
        .filter(upload_intents::id.eq(id.uuid()))
        .first(connection)
        .await
        .optional()
}

pub(super) async fn find_all(ids: &[Uuid], connection: &mut AsyncPgConnection) -> QueryResult<Vec<UploadIntent>> {
    upload_intents::table
        .select(UploadIntent::as_select())
        .filter(upload_intents::id.eq_any(ids))
        .load(connection)
        .await
}

/// What uploads of one owner are found by: eight bytes for each row of the index instead of two texts.
pub(super) fn owner_key(issuer: &str, subject: &str) -> i64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [issuer, "\n", subject] {
        context.update(part.as_bytes());
    }
    context.finish().as_ref().first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}

/// A size as its column holds it. No object comes near the end of that.
fn stored_bytes(size: ByteSize) -> i64 {
    size.bytes().try_into().unwrap_or(i64::MAX)
}

/// Writes all of `rows` with one statement.
pub(super) async fn insert(rows: &[&UploadIntent], connection: &mut AsyncPgConnection) -> QueryResult<usize> {
    InsertUploads::new(rows).execute(connection).await
}

group_insert! {
    InsertUploads(row: UploadIntent) into "upload_intents" {
        id: Uuid as sql_types::Uuid = row.id.uuid();
        issuer: &'a str as Text = row.issuer.as_str();
        subject: &'a str as Text = row.subject.as_str();
        tenant: Option<&'a str> as Nullable<Text> = row.tenant.as_deref();
        original_file_name: &'a str as Text = row.original_file_name.as_str();
        upload_to: &'a str as Text = row.upload_to.as_str();
        bucket: &'a str as Text = row.bucket.as_str();
        object_key: &'a str as Text = row.object_key.as_str();
        file_size: i64 as BigInt = stored_bytes(row.file_size);
        file_size_is_limit: bool as Bool = row.file_size_is_limit;
        content_type: &'a str as Text = row.content_type.as_str();
        checksum_sha256: Option<&'a [u8]> as Nullable<Binary> = row.checksum_sha256.as_ref().map(|digest| &digest.as_bytes()[..]);
        metadata: serde_json::Value as Jsonb = row.metadata.to_json();
        method: &'static str as Text = row.method.as_str();
        policy: &'a str as Text = row.policy.as_str();
        policy_version: &'a str as Text = row.policy_version.as_str();
        client_network: Option<String> as Nullable<Text> = row.client_network.map(|network| network.to_string());
        created_at: DateTime<Utc> as Timestamptz = row.created_at;
        expires_at: DateTime<Utc> as Timestamptz = row.expires_at;
        confirm_until: DateTime<Utc> as Timestamptz = row.confirm_until;
        look_at: DateTime<Utc> as Timestamptz = row.expires_at + FIRST_LOOK;
        owner_key: i64 as BigInt = owner_key(&row.issuer, &row.subject);
        multipart_upload_id: Option<&'a str> as Nullable<Text> = row.parts.multipart_upload_id.as_deref();
        part_size: Option<i64> as Nullable<BigInt> = row.parts.part_size.map(stored_bytes);
        has_part_checksums: Option<bool> as Nullable<Bool> = row.parts.has_part_checksums;
    }
}
