//! Multipart uploads that nobody will complete: the store keeps, and bills, their parts until somebody aborts them.

use chrono::TimeDelta;

use super::Sweeper;
use crate::{
    db::UploadAccount,
    domain::{
        DomainError,
        known_uploads::{KnownUploads, Unaccounted},
    },
    model::{IntentState, ObjectKey},
    s3::{MultipartMarker, OpenMultipart},
};

impl Sweeper {
    /// Aborts all multipart uploads of the bucket that are stale. Gives how many. One that cannot be aborted does not
    /// keep back the others.
    ///
    /// # Errors
    /// When the bucket cannot be listed, or the database does not answer.
    pub async fn abort_stale_multiparts(&self) -> Result<u64, DomainError> {
        let (mut aborted, mut marker) = (0, None);
        loop {
            let (stale, next) = self.stale_multiparts(marker).await?;
            for multipart in stale {
                match self.service.store.abort_multipart(&multipart.key, &multipart.upload_id).await {
                    Ok(true) => {
                        aborted += 1;
                        self.progress().multipart_aborted();
                    }
                    Ok(false) => {}
                    Err(error) => {
                        self.progress().failed();
                        log::warn!("a stale multipart upload will be tried again: {error}");
                    }
                }
            }
            let Some(next) = next else { return Ok(aborted) };
            marker = Some(next);
        }
    }

    /// The stale ones on a page of the bucket's multipart uploads, and where the next page begins.
    pub(super) async fn stale_multiparts(
        &self,
        after: Option<MultipartMarker>,
    ) -> Result<(Vec<OpenMultipart>, Option<MultipartMarker>), DomainError> {
        let age = TimeDelta::from_std(self.settings.multipart_after).unwrap_or(TimeDelta::days(1));
        let before = self.service.clock.now() - age;
        let (mut page, next) = self.service.store.open_multiparts(after).await?;
        page.retain(|multipart| multipart.initiated < before);
        if !page.is_empty() {
            let known = self.service.known_uploads(page.iter().map(|multipart| multipart.key.as_str())).await?;
            page.retain(|multipart| is_stale(&known, multipart));
        }
        Ok((page, next))
    }
}

/// Whether `multipart`, which is old, is this service's and nobody's who will complete it.
fn is_stale(known: &KnownUploads<'_>, multipart: &OpenMultipart) -> bool {
    let Ok(key) = ObjectKey::parse(multipart.key.as_str()) else { return false };
    let mut owners = known.owners(&key).peekable();
    if owners.peek().is_some() {
        return !owners.any(|owner| is_wanted(owner, &key, multipart));
    }
    matches!(known.unaccounted(&key, Some(multipart.initiated)), Unaccounted::LeftBehind(_))
}

/// Whether it is the one that the client sends the parts of: the one of this service, or, by credentials, any of its own;
/// or a copy of ours, which takes hours where the file is large and the store slow. One that was begun for an upload which
/// could not be recorded, or was recorded with another, is not.
fn is_wanted(account: &UploadAccount, key: &ObjectKey, multipart: &OpenMultipart) -> bool {
    account.state == IntentState::Issued
        && (account.object_key.has_copy(key)
            || account.object_key == *key
                && (account.object_key.area().is_some()
                    || account.multipart_upload_id.as_deref() == Some(multipart.upload_id.as_str())))
}
