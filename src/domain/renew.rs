//! Renewing: a fresh URL for an upload that was issued before.

use std::time::Duration;

use super::{Caller, DomainError, FormReturn, IssuedUpload, Service};
use crate::{
    db::{Outcome, UploadIntent, uploads::Renewal},
    model::{IntentId, IntentState, Scope, UploadMethod},
    policy::{ChecksumRule, FileRequest, Refusal},
};

impl Service {
    /// A fresh URL for the same upload and key, by today's policy and for the network that the caller is in now. A
    /// multipart upload keeps its parts.
    ///
    /// # Errors
    /// When the caller does not own it, it is settled or its time has run out, or today's policy refuses it.
    pub async fn renew_upload(
        &self,
        caller: Caller<'_>,
        id: IntentId,
        form_return: Option<&FormReturn>,
    ) -> Result<IssuedUpload, DomainError> {
        caller.require(Scope::Upload)?;
        let intent = self.owned_upload(caller.principal, id).await?;
        self.renew_intent(caller, intent, None, form_return).await
    }

    pub(super) async fn renew_intent(
        &self,
        caller: Caller<'_>,
        intent: UploadIntent,
        expires_in: Option<Duration>,
        form_return: Option<&FormReturn>,
    ) -> Result<IssuedUpload, DomainError> {
        self.require_bucket(&intent)?;
        let now = self.clock.now();
        match intent.state {
            IntentState::Issued if now <= intent.confirm_until => {}
            IntentState::Issued | IntentState::Expired => return Err(DomainError::Expired),
            state => return Err(DomainError::InvalidState(state)),
        }
        if form_return.is_some() && intent.method != UploadMethod::Post {
            return Err(DomainError::ReturnNeedsForm);
        }
        let document = self.policies.current();
        let rules =
            document.policy(&intent.policy, now).ok_or_else(|| DomainError::PolicyWithdrawn(intent.policy.clone()))?;
        if (now - intent.created_at).to_std().is_ok_and(|age| age > rules.upload_renew_within) {
            return Err(DomainError::Expired);
        }
        self.refuse_excess(&intent).await?;
        let file = FileRequest {
            file_size: intent.size_promise(),
            content_type: &intent.content_type,
            has_checksum: intent.checksum_sha256.is_some(),
            method: Some(intent.method),
            free_parts: intent.multipart().is_some_and(|multipart| multipart.plan.is_none()),
            expires_in,
        };
        // Whether parts have checksums was settled when the store was told of the upload.
        let lacks_checksums = intent.multipart().is_some_and(|multipart| !multipart.has_checksums);
        if lacks_checksums && rules.checksum == ChecksumRule::Required {
            return Err(Refusal::ChecksumRequired.into());
        }
        let grant = self.grant(caller, &document, &rules, &file, intent.object_key.area(), now).await?;
        let renewal = Renewal {
            policy_version: document.version().to_owned(),
            network: grant.network,
            expires_at: grant.expires_at,
            confirm_until: grant.confirm_until,
        };
        match self.database.renew_upload(intent.id, &renewal).await? {
            Outcome::Changed(intent) | Outcome::AlreadyThere(intent) => {
                self.signed(Box::new(intent), &grant, now, form_return, None)
            }
            Outcome::NotAllowed(intent) if intent.state == IntentState::Issued => Err(DomainError::Revoked),
            Outcome::NotAllowed(intent) => Err(DomainError::InvalidState(intent.state)),
            Outcome::Absent => Err(DomainError::NotFound),
        }
    }
}
