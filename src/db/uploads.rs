//! The table `upload_intents`.

use chrono::{DateTime, Utc};
use diesel::{
    pg::Pg,
    prelude::{
        ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, QueryResult, Queryable, Selectable,
        SelectableHelper as _,
    },
    sql_types::{self, BigInt, Binary, Jsonb, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::{Database, DbError, group_insert::group_insert, schema::upload_intents};
use crate::model::{
    ByteSize, ClientNetwork, ContentType, ETag, FileName, IntentEvent, IntentId, IntentState, Metadata, ObjectKey,
    Principal, Sha256Digest, UploadMethod,
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
    /// Key of the object.
    pub object_key: ObjectKey,
    /// Promised size.
    pub file_size: ByteSize,
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
    /// What led to the final state.
    pub settled_via: Option<String>,
    /// `ETag` of the verified object.
    pub etag: Option<ETag>,
    /// Version of the verified object.
    pub version_id: Option<String>,
    /// Which promises the object broke.
    pub mismatches: Option<serde_json::Value>,
}

impl UploadIntent {
    /// Whether `principal` issued this upload.
    pub fn is_owned_by(&self, principal: &Principal) -> bool {
        self.subject == principal.subject && self.issuer == principal.issuer
    }
}

/// What led to a final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettledVia {
    /// The client called back.
    Callback,
    /// The owner gave it up.
    Owner,
}

impl SettledVia {
    /// The name used in JSON and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Owner => "owner",
        }
    }
}

/// A transition with what is recorded along with it.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// What happened.
    pub event: IntentEvent,
    /// What led to it.
    pub via: SettledVia,
    /// When.
    pub at: DateTime<Utc>,
    /// For confirmations: the verified object.
    pub etag: Option<ETag>,
    /// For confirmations in a versioned bucket: its version.
    pub version_id: Option<String>,
    /// For rejections: which promises were broken.
    pub mismatches: Option<serde_json::Value>,
}

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

    /// The uploads of `owner`, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn uploads_of(&self, owner: &Principal, page: &Page) -> Result<Vec<UploadIntent>, DbError> {
        let mut query = upload_intents::table
            .select(UploadIntent::as_select())
            .filter(upload_intents::subject.eq(&owner.subject))
            .filter(upload_intents::issuer.eq(&owner.issuer))
            .order(upload_intents::id.desc())
            .limit(page.limit)
            .into_boxed();
        if let Some(state) = page.state {
            query = query.filter(upload_intents::state.eq(state.as_str()));
        }
        if let Some(before) = page.before {
            query = query.filter(upload_intents::id.lt(before.uuid()));
        }
        self.query(async |connection| query.load(connection).await).await
    }

    /// Moves an issued upload to a final state, in one conditional UPDATE.
    ///
    /// # Errors
    /// When the database does not answer; the transition may or may not have happened, and repeating it is safe.
    pub async fn settle_upload(&self, id: IntentId, settlement: &Settlement) -> Result<Outcome, DbError> {
        let target = settlement.event.target();
        self.query(async |connection| {
            let changed = diesel::update(upload_intents::table)
                .filter(upload_intents::id.eq(id.uuid()))
                .filter(upload_intents::state.eq(IntentState::Issued.as_str()))
                .set((
                    upload_intents::state.eq(target.as_str()),
                    upload_intents::settled_at.eq(settlement.at),
                    upload_intents::settled_via.eq(settlement.via.as_str()),
                    upload_intents::etag.eq(settlement.etag.as_ref().map(ETag::as_str)),
                    upload_intents::version_id.eq(settlement.version_id.as_deref()),
                    upload_intents::mismatches.eq(settlement.mismatches.as_ref()),
                ))
                .returning(UploadIntent::as_returning())
                .get_result(connection)
                .await
                .optional()?;
            if let Some(row) = changed {
                return Ok(Outcome::Changed(row));
            }
            Ok(match find(id, connection).await? {
                Some(row) if row.state == target => Outcome::AlreadyThere(row),
                Some(row) => Outcome::NotAllowed(row),
                None => Outcome::Absent,
            })
        })
        .await
    }

    /// Records that a fresh URL of an issued upload will be handed out.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn renew_upload(&self, id: IntentId, renewal: &Renewal) -> Result<Outcome, DbError> {
        self.query(async |connection| {
            let changed = diesel::update(upload_intents::table)
                .filter(upload_intents::id.eq(id.uuid()))
                .filter(upload_intents::state.eq(IntentState::Issued.as_str()))
                .set((
                    upload_intents::policy_version.eq(&renewal.policy_version),
                    upload_intents::client_network.eq(renewal.network.map(|network| network.to_string())),
                    upload_intents::expires_at.eq(renewal.expires_at),
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

pub(super) async fn find(id: IntentId, connection: &mut AsyncPgConnection) -> QueryResult<Option<UploadIntent>> {
    upload_intents::table
        .select(UploadIntent::as_select())
        .filter(upload_intents::id.eq(id.uuid()))
        .first(connection)
        .await
        .optional()
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
        file_size: i64 as BigInt = row.file_size.bytes().try_into().unwrap_or(i64::MAX);
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
    }
}
