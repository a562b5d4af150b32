//! Drift: objects that no upload accounts for, and confirmed uploads without their object.
//!
//! First the bucket is listed, page by page, and each page is compared with the uploads that its keys name; then every
//! confirmed upload whose object was not met is looked for by itself. How far it has come is in the database after each
//! page, so that memory stays the same for any number of objects and an interrupted run goes on where it was.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    DomainError, Service,
    known_uploads::{KnownUploads, Unaccounted},
};
use crate::{
    db::{UploadAccount, drift::DriftRun},
    model::{IntentId, IntentState, ObjectKey},
    s3::{ListedObject, Listing, ObjectHead, S3Error},
};

/// Confirmed uploads looked through at once.
const WINDOW: i64 = 10_000;

/// What is done about drift.
#[derive(Debug, Clone, Copy)]
pub struct DriftOptions {
    /// Whether orphans are removed.
    pub repair: bool,
    /// Whether to go on with the last run that was not finished.
    pub resume: bool,
    /// Objects younger than this are left out: what they belong to may be under way.
    pub min_age: Duration,
}

/// How many of each there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriftCounts {
    /// Objects in the bucket.
    pub objects: u64,
    /// Objects of open uploads, and verified objects of confirmed ones.
    pub accounted: u64,
    /// Leftovers of settled uploads that the sweeper is going to remove.
    pub pending: u64,
    /// Objects that are not this service's.
    pub foreign: u64,
    /// Objects that are too young to be judged.
    pub young: u64,
    /// Objects of uploads older than all that the database knows, or of a month of which it knows none. Never removed.
    pub forgotten: u64,
    /// Objects that no upload accounts for.
    pub orphans: u64,
    /// How many of them were removed.
    pub removed: u64,
    /// Confirmed uploads without their object.
    pub missing: u64,
    /// Confirmed uploads under whose key another object lies.
    pub replaced: u64,
}

impl DriftCounts {
    /// Whether bucket and uploads agree, or do after what was removed.
    pub fn is_clean(&self) -> bool {
        self.orphans == self.removed && self.missing == 0 && self.replaced == 0
    }
}

/// What does not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// No upload accounts for the object.
    Orphan,
    /// The object names an upload that is older than all that the database knows, or of a month of which it knows none.
    Forgotten,
    /// The object of a confirmed upload is not there.
    Missing,
    /// Another object lies in its place.
    Replaced,
}

/// One thing that does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: DriftKind,
    /// Key of the object.
    pub key: String,
    /// The upload that the key names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<IntentId>,
    /// State of that upload, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<IntentState>,
    /// Whether the object was removed.
    pub removed: bool,
}

/// What whoever watches a run is told.
#[derive(Debug, Clone, Copy)]
pub enum DriftEvent<'a> {
    /// An interrupted run goes on, from these counts.
    Resumed(&'a DriftCounts),
    /// Something does not agree.
    Found(&'a Finding),
    /// This is how far it has come.
    Progress(&'a DriftCounts),
}

impl Service {
    /// Compares `listing`, which is of the store's bucket, with the uploads.
    ///
    /// # Errors
    /// When the database or the store does not answer. What has been compared until then can be resumed from.
    pub async fn drift(
        &self,
        listing: &impl Listing,
        options: DriftOptions,
        mut watch: impl FnMut(DriftEvent<'_>),
    ) -> Result<DriftCounts, DomainError> {
        let bucket = self.store.bucket();
        let unfinished = if options.resume { self.database.unfinished_drift_run(bucket).await? } else { None };
        let mut run = if let Some(run) = unfinished {
            watch(DriftEvent::Resumed(&counts_of(&run)));
            run
        } else {
            let none = serde_json::json!(DriftCounts::default());
            self.database.begin_drift_run(bucket, none, self.clock.now()).await?
        };
        let mut counts = counts_of(&run);
        while !run.is_listed {
            let page = listing.page(run.listed_to.as_deref()).await?;
            let met = self.compare(&page.objects, options, &mut counts, &mut watch).await?;
            if let Some(last) = page.objects.last() {
                run.listed_to = Some(last.key.clone());
            }
            // A page without objects is the last whatever the store says: the next would be the same again.
            run.is_listed = page.is_last || page.objects.is_empty();
            self.advance(&mut run, &met, &counts, &mut watch).await?;
        }
        loop {
            let unseen = self.database.unseen_uploads(&run, bucket, WINDOW).await?;
            for upload in unseen.uploads {
                self.look_for(&upload, &mut counts, &mut watch).await?;
            }
            let Some(checked_to) = unseen.checked_to else { break };
            run.checked_to = Some(checked_to);
            self.advance(&mut run, &[], &counts, &mut watch).await?;
        }
        run.counts = serde_json::json!(counts);
        self.database.advance_drift_run(&run, &[], self.clock.now()).await?;
        self.database.finish_drift_run(run.id, self.clock.now()).await?;
        Ok(counts)
    }

    async fn advance(
        &self,
        run: &mut DriftRun,
        met: &[IntentId],
        counts: &DriftCounts,
        watch: &mut impl FnMut(DriftEvent<'_>),
    ) -> Result<(), DomainError> {
        run.counts = serde_json::json!(counts);
        self.database.advance_drift_run(run, met, self.clock.now()).await?;
        watch(DriftEvent::Progress(counts));
        Ok(())
    }

    /// Compares one page. Gives the confirmed uploads whose objects are on it.
    async fn compare(
        &self,
        objects: &[ListedObject],
        options: DriftOptions,
        counts: &mut DriftCounts,
        watch: &mut impl FnMut(DriftEvent<'_>),
    ) -> Result<Vec<IntentId>, DomainError> {
        let mut met = Vec::new();
        let ledger = self.known_uploads(objects.iter().map(|object| object.key.as_str())).await?;
        for object in objects {
            counts.objects += 1;
            match ledger.standing(object, options.min_age) {
                Standing::Accounted => counts.accounted += 1,
                Standing::Verified(id) => {
                    counts.accounted += 1;
                    met.push(id);
                }
                Standing::Pending => counts.pending += 1,
                Standing::Foreign => counts.foreign += 1,
                Standing::Young => counts.young += 1,
                Standing::Forgotten(id) => {
                    counts.forgotten += 1;
                    let key = object.key.clone();
                    let finding =
                        Finding { kind: DriftKind::Forgotten, key, upload_id: Some(id), state: None, removed: false };
                    watch(DriftEvent::Found(&finding));
                }
                Standing::Orphan(id, state) => {
                    counts.orphans += 1;
                    let removed = options.repair && self.try_to_remove_orphan(object, options.min_age).await?;
                    counts.removed += u64::from(removed);
                    let key = object.key.clone();
                    watch(DriftEvent::Found(&Finding { kind: DriftKind::Orphan, key, upload_id: id, state, removed }));
                }
            }
        }
        Ok(met)
    }

    /// One that the store will not give up keeps nobody from the others.
    async fn try_to_remove_orphan(&self, listed: &ListedObject, min_age: Duration) -> Result<bool, DomainError> {
        match self.remove_orphan(listed, min_age).await {
            Err(DomainError::S3(error @ S3Error::Refused { .. })) => {
                log::warn!("{} was not removed: {error}", listed.key);
                Ok(false)
            }
            removed => removed,
        }
    }

    /// Looks again, at the rows and at the object, and removes it if it is an orphan still.
    async fn remove_orphan(&self, listed: &ListedObject, min_age: Duration) -> Result<bool, DomainError> {
        let Ok(key) = ObjectKey::parse(listed.key.as_str()) else { return Ok(false) };
        let object = match self.store.head(&key).await {
            // No look could tell more of it than the listing.
            Err(S3Error::KeyRequired { .. }) => listed.clone(),
            head => {
                let Some(ObjectHead { etag, last_modified, .. }) = head? else { return Ok(false) };
                ListedObject { key: listed.key.clone(), etag: Some(etag), last_modified }
            }
        };
        let ledger = self.known_uploads(std::iter::once(object.key.as_str())).await?;
        if !matches!(ledger.standing(&object, min_age), Standing::Orphan(..)) {
            return Ok(false);
        }
        Ok(self.store.purge(&key).await?)
    }

    /// Looks for the object of a confirmed upload that the listing did not show: it may have been confirmed since.
    async fn look_for(
        &self,
        upload: &UploadAccount,
        counts: &mut DriftCounts,
        watch: &mut impl FnMut(DriftEvent<'_>),
    ) -> Result<(), DomainError> {
        let key = upload.verified_key();
        let kind = match &upload.version_id {
            Some(version) if self.store.exists(key, Some(version)).await? => return Ok(()),
            Some(_) => DriftKind::Missing,
            None => match self.store.head(key).await {
                Err(S3Error::KeyRequired { .. }) => DriftKind::Replaced,
                head => match head? {
                    Some(head) if upload.etag.as_ref() == Some(&head.etag) => return Ok(()),
                    Some(_) => DriftKind::Replaced,
                    None => DriftKind::Missing,
                },
            },
        };
        if kind == DriftKind::Replaced {
            counts.replaced += 1;
        } else {
            counts.missing += 1;
        }
        watch(DriftEvent::Found(&Finding {
            kind,
            key: key.to_string(),
            upload_id: Some(upload.id),
            state: Some(upload.state),
            removed: false,
        }));
        Ok(())
    }
}

fn counts_of(run: &DriftRun) -> DriftCounts {
    serde_json::from_value(run.counts.clone()).unwrap_or_default()
}

/// What an object is to the uploads.
enum Standing {
    /// Of an open upload, or under the key of a confirmed one whose object is still to be looked at.
    Accounted,
    /// What was confirmed.
    Verified(IntentId),
    Pending,
    Foreign,
    Young,
    Forgotten(IntentId),
    Orphan(Option<IntentId>, Option<IntentState>),
}

impl KnownUploads<'_> {
    fn standing(&self, object: &ListedObject, min_age: Duration) -> Standing {
        let Ok(key) = ObjectKey::parse(object.key.as_str()) else { return Standing::Foreign };
        if let Some(upload) = self.owners(&key).next() {
            return match upload.state {
                IntentState::Issued | IntentState::Inspecting => Standing::Accounted,
                IntentState::Confirmed if key == *upload.verified_key() => {
                    if object.etag == upload.etag {
                        Standing::Verified(upload.id)
                    } else {
                        Standing::Accounted
                    }
                }
                _ if upload.look_at.is_some() => Standing::Pending,
                _ => self.unless_young(object, min_age, Standing::Orphan(Some(upload.id), Some(upload.state))),
            };
        }
        match self.unaccounted(&key, object.last_modified) {
            Unaccounted::Forgotten(id) => Standing::Forgotten(id),
            Unaccounted::LeftBehind(id) => self.unless_young(object, min_age, Standing::Orphan(id, None)),
            Unaccounted::Foreign => Standing::Foreign,
        }
    }

    fn unless_young(&self, object: &ListedObject, min_age: Duration, standing: Standing) -> Standing {
        let age = object.last_modified.and_then(|at| (self.now - at).to_std().ok());
        if age.is_some_and(|age| age >= min_age) { standing } else { Standing::Young }
    }
}
