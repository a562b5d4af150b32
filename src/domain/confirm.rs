//! Confirming: the store is asked, nobody is believed.

use std::fmt;

use serde_json::json;

use super::{DomainError, Mismatch, Service};
use crate::{
    db::{Outcome, SettledVia, Settlement, UploadIntent},
    model::{ETag, IntentEvent, IntentId, IntentState, Principal, Scope},
    s3::ObjectHead,
};

/// Who says that an upload is finished.
#[derive(Clone, Copy)]
pub enum Confirmer<'a> {
    /// Its owner, by JWT.
    Owner(&'a Principal),
    /// Whoever holds the callback token of the upload.
    Token(&'a str),
}

impl fmt::Debug for Confirmer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(principal) => f.debug_tuple("Owner").field(principal).finish(),
            Self::Token(_) => f.debug_tuple("Token").finish_non_exhaustive(),
        }
    }
}

impl Service {
    /// Looks at the stored object, compares it with what was promised, and settles the upload in one conditional
    /// update. Any number of calls, in any order and at once, lead to one transition.
    ///
    /// # Errors
    /// When the confirmer may not, nothing was uploaded yet, it is not what was promised, or the time has run out.
    pub async fn confirm_upload(
        &self,
        id: IntentId,
        confirmer: Confirmer<'_>,
        claimed_etag: Option<&ETag>,
    ) -> Result<UploadIntent, DomainError> {
        let intent = self.upload_for(id, confirmer).await?;
        if intent.state != IntentState::Issued {
            return settled(intent);
        }
        let now = self.clock.now();
        if now > intent.confirm_until {
            return self.settle(id, Verdict::Expired).await;
        }
        let head = self.store.head(&intent.object_key).await?.ok_or(DomainError::Incomplete)?;
        if let Some(claimed) = claimed_etag.filter(|claimed| **claimed != head.etag) {
            return Err(DomainError::EtagMismatch { claimed: claimed.to_string(), found: head.etag.to_string() });
        }
        let mut mismatches = size_and_type_mismatches(&intent, &head);
        if mismatches.is_empty()
            && let Some(promised) = intent.checksum_sha256
        {
            let found = match head.checksum_sha256 {
                Some(found) => found,
                // The store keeps no digest, so the bytes themselves have to tell.
                None => self.store.sha256(&intent.object_key, &head.etag).await?.ok_or(DomainError::Incomplete)?,
            };
            if found != promised {
                mismatches.push(Mismatch {
                    field: "checksum_sha256".to_owned(),
                    expected: promised.to_base64().into(),
                    found: found.to_base64().into(),
                });
            }
        }
        let verdict = if mismatches.is_empty() { Verdict::Confirmed(head) } else { Verdict::Rejected(mismatches) };
        self.settle(id, verdict).await
    }

    async fn upload_for(&self, id: IntentId, confirmer: Confirmer<'_>) -> Result<UploadIntent, DomainError> {
        match confirmer {
            Confirmer::Owner(principal) if principal.has(Scope::Upload) => self.owned_upload(principal, id).await,
            Confirmer::Owner(_) => Err(DomainError::ScopeMissing(Scope::Upload)),
            Confirmer::Token(token) => {
                self.callback_tokens.verify(token, id, self.clock.now())?;
                self.database.upload(id).await?.ok_or(DomainError::NotFound)
            }
        }
    }

    async fn settle(&self, id: IntentId, verdict: Verdict) -> Result<UploadIntent, DomainError> {
        let mut settlement = Settlement {
            event: IntentEvent::Expire,
            via: SettledVia::Callback,
            at: self.clock.now(),
            etag: None,
            version_id: None,
            mismatches: None,
        };
        match verdict {
            Verdict::Confirmed(head) => {
                settlement.event = IntentEvent::Confirm;
                settlement.etag = Some(head.etag);
                settlement.version_id = head.version_id;
            }
            Verdict::Rejected(mismatches) => {
                settlement.event = IntentEvent::Reject;
                settlement.mismatches = Some(json!(mismatches));
            }
            Verdict::Expired => {}
        }
        match self.database.settle_upload(id, &settlement).await? {
            Outcome::Changed(intent) | Outcome::AlreadyThere(intent) | Outcome::NotAllowed(intent) => settled(intent),
            Outcome::Absent => Err(DomainError::NotFound),
        }
    }
}

enum Verdict {
    Confirmed(ObjectHead),
    Rejected(Vec<Mismatch>),
    Expired,
}

/// What the state of a settled upload means to whoever wants it confirmed.
fn settled(intent: UploadIntent) -> Result<UploadIntent, DomainError> {
    match intent.state {
        IntentState::Confirmed => Ok(intent),
        IntentState::Rejected => {
            let mismatches = intent.mismatches.and_then(|stored| serde_json::from_value(stored).ok());
            Err(DomainError::Mismatched(mismatches.unwrap_or_default()))
        }
        IntentState::Expired => Err(DomainError::Expired),
        state @ (IntentState::Aborted | IntentState::Issued) => Err(DomainError::InvalidState(state)),
    }
}

fn size_and_type_mismatches(intent: &UploadIntent, head: &ObjectHead) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    if intent.file_size.bytes() != head.size {
        mismatches.push(Mismatch {
            field: "file_size".to_owned(),
            expected: intent.file_size.bytes().into(),
            found: head.size.into(),
        });
    }
    let found = head.content_type.as_deref().unwrap_or_default();
    if !intent.content_type.equivalent(found) {
        mismatches.push(Mismatch {
            field: "file_type".to_owned(),
            expected: intent.content_type.as_str().into(),
            found: head.content_type.as_deref().into(),
        });
    }
    mismatches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_token() {
        assert_eq!(format!("{:?}", Confirmer::Token("hunter2")), "Token(..)");
    }
}
