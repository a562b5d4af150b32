//! What the database knows of the uploads that keys in the bucket name. Others may use the bucket as well, and what is
//! theirs stays.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::{DomainError, Service};
use crate::{
    db::UploadAccount,
    model::{IntentId, ObjectKey},
};

/// Before any upload was issued anywhere: 2026-01-01, in seconds since 1970.
const FIRST_ISSUED: i64 = 1_767_225_600;

/// The uploads that some keys name.
pub(super) struct KnownUploads<'a> {
    pub(super) bucket: &'a str,
    pub(super) now: DateTime<Utc>,
    uploads: HashMap<IntentId, UploadAccount>,
    oldest: Option<IntentId>,
    /// The lowest ids of months that have uploads: others may have been dropped, whatever is older than they.
    months: HashSet<IntentId>,
}

/// What lies under a key that no upload of the database accounts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unaccounted {
    /// Left behind by this service, for an upload with that id where there is one.
    LeftBehind(Option<IntentId>),
    /// Of an upload older than all that the database knows, or of a month of which it knows none.
    Forgotten(IntentId),
    /// Not this service's.
    Foreign,
}

impl Service {
    /// Looks up every upload that `keys` may name.
    pub(super) async fn known_uploads(
        &self,
        keys: impl Iterator<Item = &str>,
    ) -> Result<KnownUploads<'_>, DomainError> {
        let ids: Vec<_> = keys.flat_map(IntentId::all_in).collect();
        let now = self.clock.now();
        let uploads = self.database.upload_accounts(&ids).await?;
        let uploads: HashMap<_, _> = uploads.into_iter().map(|upload| (upload.id, upload)).collect();
        let unknown = ids.into_iter().filter(|id| !uploads.contains_key(id));
        let months: HashSet<_> = unknown.filter(|id| is_of_service(*id, now)).filter_map(month_of).collect();
        let months: Vec<_> = months.into_iter().collect();
        Ok(KnownUploads {
            bucket: self.store.bucket(),
            now,
            uploads,
            oldest: self.database.oldest_upload().await?,
            months: self.database.spans_with_uploads(&months).await?.into_iter().collect(),
        })
    }
}

impl KnownUploads<'_> {
    /// The uploads that have something under `key`.
    pub(super) fn owners(&self, key: &ObjectKey) -> impl Iterator<Item = &UploadAccount> {
        let named = IntentId::all_in(key.as_str()).into_iter().filter_map(|id| self.uploads.get(&id));
        named.filter(|upload| upload.owns(self.bucket, key))
    }

    /// What was written to `key`, at `written_at` by the store's clock, if nobody is an owner.
    pub(super) fn unaccounted(&self, key: &ObjectKey, written_at: Option<DateTime<Utc>>) -> Unaccounted {
        let ids = IntentId::all_in(key.as_str());
        // Beside an upload lies what others derived from it, such as a thumbnail. Into the staging area only this
        // service's clients write.
        if !key.is_staged() && ids.iter().any(|id| self.uploads.contains_key(id)) {
            return Unaccounted::Foreign;
        }
        match ids.into_iter().find(|id| self.is_plausible(*id, key, written_at)) {
            // An empty or another service's database must not make leftovers of everything.
            Some(id) if !self.could_know(id) => Unaccounted::Forgotten(id),
            Some(id) => Unaccounted::LeftBehind(Some(id)),
            None if key.is_staged() && self.oldest.is_some() => Unaccounted::LeftBehind(None),
            None => Unaccounted::Foreign,
        }
    }

    /// Whether the database would know the upload, if there had been one that was recorded. A single old row says
    /// nothing of months between it and now, which are dropped one by one.
    fn could_know(&self, id: IntentId) -> bool {
        let month = month_of(id).map(|(first, _)| first);
        self.oldest.is_some_and(|oldest| id >= oldest) && month.is_some_and(|first| self.months.contains(&first))
    }

    /// Whether the id may be one that this service gave out and whose key this is. In a bucket of others' files, named by
    /// their hashes, some look like one: those in longer runs of digits, and those of another time.
    fn is_plausible(&self, id: IntentId, key: &ObjectKey, written_at: Option<DateTime<Utc>>) -> bool {
        let hex = id.hex();
        let stands_alone = key.as_str().split(|c: char| !c.is_ascii_hexdigit()).any(|run| run == hex);
        stands_alone && is_of_service(id, written_at.map_or(self.now, |at| at.min(self.now)))
    }
}

/// Whether the id carries a time at which it could have been given out, by `now`.
fn is_of_service(id: IntentId, now: DateTime<Utc>) -> bool {
    let from = DateTime::from_timestamp(FIRST_ISSUED, 0).unwrap_or_default();
    // Clocks differ a little.
    id.issued_at().is_some_and(|at| (from..=now + TimeDelta::minutes(5)).contains(&at))
}

/// The month that the id is of: from the lowest id in it to below that of the next.
fn month_of(id: IntentId) -> Option<(IntentId, IntentId)> {
    IntentId::month_of(id.issued_at()?.date_naive())
}
