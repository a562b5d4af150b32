//! How the vocabulary is stored. What is read back passes the same constructors as what comes in, so a row that
//! somebody edited by hand cannot carry a key or a name that the rules forbid.
//!
//! States and methods are TEXT under a CHECK, because PostgreSQL enums cost two catalogue look-ups on every
//! connection and are painful to change.

use diesel::{
    deserialize::{self, FromSql, Queryable},
    pg::{Pg, PgValue},
    sql_types,
};

use crate::model::{
    AuditKind, ByteSize, ClientNetwork, ContentType, Delivery, ETag, FileName, IntentId, IntentState, Metadata,
    ObjectKey, Sha256Digest, UploadMethod,
};

/// Reads `$type` from a column of `$sql_type`, by way of the `$stored` value that diesel knows.
macro_rules! stored_as {
    ($type:ty, $sql_type:ty, |$stored:ident: $stored_type:ty| $build:expr) => {
        impl FromSql<$sql_type, Pg> for $type {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                let $stored = <$stored_type as FromSql<$sql_type, Pg>>::from_sql(value)?;
                Ok($build)
            }
        }

        impl Queryable<$sql_type, Pg> for $type {
            type Row = Self;

            fn build(row: Self) -> deserialize::Result<Self> {
                Ok(row)
            }
        }
    };
}

stored_as!(IntentId, sql_types::Uuid, |id: uuid::Uuid| Self::from_uuid(id));
stored_as!(AuditKind, sql_types::Text, |kind: String| kind.parse()?);
stored_as!(IntentState, sql_types::Text, |state: String| state.parse()?);
stored_as!(UploadMethod, sql_types::Text, |method: String| method.parse()?);
stored_as!(ObjectKey, sql_types::Text, |key: String| Self::parse(key)?);
stored_as!(Delivery, sql_types::Text, |delivery: String| delivery.parse()?);
stored_as!(FileName, sql_types::Text, |name: String| Self::parse(&name)?);
stored_as!(ContentType, sql_types::Text, |content_type: String| Self::recorded(&content_type)?);
// As text: PostgreSQL's binary form of addresses depends on the operating system that the server was built for, and
// not every database that speaks its protocol has both of its types.
stored_as!(ClientNetwork, sql_types::Text, |network: String| network.parse()?);
stored_as!(ETag, sql_types::Text, |etag: String| Self::parse(&etag)?);
stored_as!(ByteSize, sql_types::BigInt, |bytes: i64| Self::from_bytes(bytes.try_into()?));
stored_as!(Sha256Digest, sql_types::Binary, |digest: Vec<u8>| {
    Self::from_bytes(digest.try_into().map_err(|_| "a SHA-256 digest has 32 bytes")?)
});
stored_as!(Metadata, sql_types::Jsonb, |json: serde_json::Value| {
    Self::parse(serde_json::from_value(json)?).map_err(|(name, invalid)| format!("{name}: {invalid}"))?
});
