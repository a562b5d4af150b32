//! Aborting: the owner gives an upload up.

use super::{DomainError, Service, require};
use crate::{
    db::{Outcome, SettledVia, Settlement, UploadIntent},
    model::{IntentEvent, IntentId, Principal, Scope},
};

impl Service {
    /// Gives an upload up and removes what was uploaded. The state comes first: from then on nothing can confirm it,
    /// whatever arrives. Repeating it repeats the removal, so an answer that was lost on the way loses nothing.
    ///
    /// # Errors
    /// When the caller does not own it or it is settled otherwise, or the database or the store cannot serve now.
    pub async fn abort_upload(&self, principal: &Principal, id: IntentId) -> Result<UploadIntent, DomainError> {
        require(principal, Scope::Upload)?;
        let intent = self.owned_upload(principal, id).await?;
        self.require_bucket(&intent)?;
        let settlement = Settlement {
            event: IntentEvent::Abort,
            via: Some(SettledVia::Owner),
            at: self.clock.now(),
            object: None,
            mismatches: None,
            has_leftovers: true,
        };
        let intent = match self.transition(intent.id, &settlement).await? {
            Outcome::Changed(intent) | Outcome::AlreadyThere(intent) => intent,
            Outcome::NotAllowed(intent) => return Err(DomainError::InvalidState(intent.state)),
            Outcome::Absent => return Err(DomainError::NotFound),
        };
        if let Some(multipart) = intent.multipart() {
            self.store.abort_multipart(intent.object_key.as_str(), multipart.upload_id).await?;
        }
        self.store.delete(&intent.object_key).await?;
        if let Some(copy) = &intent.stored_key {
            self.store.delete(copy).await?;
        }
        Ok(intent)
    }

    /// The upload, if `principal` owns it. That it exists is nobody else's business.
    ///
    /// # Errors
    /// [`DomainError::NotFound`] for everybody else.
    pub async fn owned_upload(&self, principal: &Principal, id: IntentId) -> Result<UploadIntent, DomainError> {
        let intent = self.database.upload(id).await?;
        intent.filter(|intent| intent.is_owned_by(principal)).ok_or(DomainError::NotFound)
    }

    /// Refuses an upload of another bucket than this service is for: what it found, wrote or removed under the upload's
    /// key would be another object.
    pub(super) fn require_bucket(&self, upload: &UploadIntent) -> Result<(), DomainError> {
        if upload.bucket == self.store.bucket() {
            return Ok(());
        }
        Err(DomainError::OtherBucket { upload: upload.id, bucket: upload.bucket.clone() })
    }
}
