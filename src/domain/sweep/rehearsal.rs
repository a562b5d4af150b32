//! What sweeping would do.

use chrono::{DateTime, Utc};

use super::{Sweeper, superfluous};
use crate::{
    db::UploadIntent,
    domain::{
        DomainError, confirm,
        multipart::{chosen_parts, missing_parts, retain_sent},
    },
    model::IntentState,
    s3::S3Error,
};

/// Uploads read at once.
const PAGE: i64 = 500;

/// What sweeping would do with what is due now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// Uploads that are due.
    pub due: u64,
    /// Uploads that would be confirmed, if their checksum is right as well.
    pub confirm: u64,
    /// Uploads that would be rejected for their size or type.
    pub reject: u64,
    /// Uploads that would be aborted, because they have been revoked.
    pub abort: u64,
    /// Uploads that would expire.
    pub expire: u64,
    /// Uploads that would be waited for.
    pub wait: u64,
    /// Settled uploads that would be looked at for leftovers.
    pub tidy: u64,
    /// Objects that would be removed.
    pub delete: u64,
    /// Multipart uploads that would be aborted.
    pub abort_multiparts: u64,
}

impl Sweeper {
    /// Says what sweeping would do now, and does nothing of it. `watch` is called after each upload.
    ///
    /// # Errors
    /// When the database or the store does not answer.
    pub async fn rehearse(&self, mut watch: impl FnMut(&Rehearsal)) -> Result<Rehearsal, DomainError> {
        let mut rehearsal = Rehearsal::default();
        let now = self.service.clock.now();
        let mut after = None;
        loop {
            let bucket = self.service.store.bucket();
            let page = self.service.database.due_uploads(bucket, now, after, PAGE).await?;
            let Some((at, last)) = page.last() else { break };
            after = Some((*at, last.id));
            for (_, upload) in page {
                self.rehearse_look(&upload, now, &mut rehearsal).await?;
                watch(&rehearsal);
            }
        }
        let mut marker = None;
        loop {
            let (stale, next) = self.stale_multiparts(marker).await?;
            rehearsal.abort_multiparts += u64::try_from(stale.len()).unwrap_or(u64::MAX);
            let Some(next) = next else { return Ok(rehearsal) };
            marker = Some(next);
        }
    }

    /// Whether an upload without an object would be given one, of parts that were written until `sent_until`.
    async fn has_all_parts(
        &self,
        upload: &UploadIntent,
        sent_until: Option<DateTime<Utc>>,
    ) -> Result<bool, DomainError> {
        let Some(multipart) = upload.multipart() else { return Ok(false) };
        let parts = self.service.store.parts(&upload.object_key, multipart.upload_id).await?;
        let (Some(mut parts), Some(plan)) = (parts, multipart.plan) else { return Ok(false) };
        retain_sent(&mut parts, sent_until);
        Ok(missing_parts(&plan, &chosen_parts(parts, &[])).is_none())
    }

    async fn rehearse_look(
        &self,
        upload: &UploadIntent,
        now: DateTime<Utc>,
        rehearsal: &mut Rehearsal,
    ) -> Result<(), DomainError> {
        rehearsal.due += 1;
        let store = &self.service.store;
        match upload.state {
            IntentState::Inspecting => {}
            IntentState::Issued => {
                match self.service.refuse_revoked(upload).await {
                    Err(DomainError::Revoked) => {
                        rehearsal.abort += 1;
                        return Ok(());
                    }
                    refused => refused?,
                }
                let is_over = now > upload.confirm_until;
                let sent_until = is_over.then_some(upload.confirm_until);
                let head = match store.head(&upload.object_key).await {
                    Err(S3Error::KeyRequired { .. }) => {
                        rehearsal.reject += 1;
                        return Ok(());
                    }
                    head => head?,
                };
                match head {
                    Some(head) if is_over && confirm::is_late(upload, &head) => rehearsal.expire += 1,
                    None if self.has_all_parts(upload, sent_until).await? => rehearsal.confirm += 1,
                    None if is_over => rehearsal.expire += 1,
                    None => rehearsal.wait += 1,
                    Some(head) if confirm::size_and_type_mismatches(upload, &head).is_empty() => rehearsal.confirm += 1,
                    Some(_) => rehearsal.reject += 1,
                }
            }
            IntentState::Confirmed | IntentState::Rejected | IntentState::Aborted | IntentState::Expired => {
                rehearsal.tidy += 1;
                let copies = self.service.database.copies_of(upload.id).await?;
                for key in superfluous(upload, &copies, now) {
                    if store.exists(key, None).await? {
                        rehearsal.delete += 1;
                    }
                }
            }
        }
        Ok(())
    }
}
