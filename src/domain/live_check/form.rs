//! Objects by POST form.

use super::{
    BODY, CONTENT_TYPE, LIFE, LONGER_BODY, LiveCheck, StoreCapability,
    put::{no_sts, refused, settled},
    report::Verdict,
};
use crate::{
    model::{Metadata, ObjectKey},
    s3::Access,
    signing::{PostForm, PresignedPost, Signer, SuccessAction},
};

impl LiveCheck {
    pub(super) async fn try_forms(&self) -> Vec<(StoreCapability, Verdict)> {
        let has_sts = self.service.sessions.can_scope();
        let by_session = if has_sts { settled(self.form_of_session().await) } else { no_sts() };
        let by_own = settled(self.form_of_own_credentials().await);
        // What clients get is signed by one of both.
        let as_configured = match if has_sts { &by_session } else { &by_own } {
            Verdict::Works(found) => Verdict::works(found.as_str()),
            Verdict::Lacks(found) | Verdict::Failed { found, .. } | Verdict::Untried(found) => {
                Verdict::lacks(found.as_str())
            }
        };
        let mut rows = vec![];
        let works = matches!(as_configured, Verdict::Works(_));
        rows.push((StoreCapability::Form, as_configured));
        if works {
            rows.push((StoreCapability::FormLength, settled(self.form_too_large().await)));
        }
        rows.extend([(StoreCapability::FormOfSession, by_session), (StoreCapability::FormOfOwnCredentials, by_own)]);
        rows
    }

    async fn form_of_session(&self) -> Result<Verdict, Verdict> {
        let signer = self.signer(None, Access::Upload).await?;
        self.form(&signer, "form-by-session", "a session").await
    }

    async fn form_of_own_credentials(&self) -> Result<Verdict, Verdict> {
        let signer = self.own.signer(None, Access::Upload, LIFE).await;
        let signer = signer.map_err(|error| Verdict::failed(&error, super::mend_of(&error)))?;
        self.form(&signer, "form-by-own-credentials", "the service's own credentials").await
    }

    async fn form(&self, signer: &Signer, name: &str, whose: &str) -> Result<Verdict, Verdict> {
        let key = self.fresh_staged_key(name)?;
        let answer = self.visitor.post(&self.signed_form(signer, &key)?, BODY).await?;
        let told = answer.told();
        if !answer.is_success() {
            return Ok(Verdict::lacks(format!("a form signed by {whose} is refused: {told}")));
        }
        // Ceph RGW 16 answers 201 to forms of sessions, and stores nothing.
        let head = self.service.store.head(&key).await;
        let head = head.map_err(|error| Verdict::failed(&error, super::mend_of(&error)))?;
        Ok(match head {
            Some(head) if usize::try_from(head.size).is_ok_and(|size| size == BODY.len()) => {
                Verdict::works(format!("a form signed by {whose} is taken: {told}"))
            }
            Some(head) => Verdict::lacks(format!("a form of {} bytes is stored as {} bytes", BODY.len(), head.size)),
            None => Verdict::lacks(format!("a form signed by {whose} is answered {told}, and nothing is stored")),
        })
    }

    async fn form_too_large(&self) -> Result<Verdict, Verdict> {
        let signer = self.signer(None, Access::Upload).await?;
        let key = self.fresh_staged_key("form-length")?;
        let answer = self.visitor.post(&self.signed_form(&signer, &key)?, LONGER_BODY).await?;
        Ok(refused(&answer, "a form whose file is too large"))
    }

    /// The same form as for an upload of [`BODY`].
    fn signed_form(&self, signer: &Signer, key: &ObjectKey) -> Result<PresignedPost, Verdict> {
        let length = u64::try_from(BODY.len()).unwrap_or_default();
        let form = PostForm {
            key,
            content_length: length..=length,
            content_type: CONTENT_TYPE,
            checksum_sha256: None,
            metadata: &Metadata::default(),
            success_action: SuccessAction::Status(201),
        };
        let presigned = signer.presign_post(&form, self.now(), LIFE);
        presigned.map_err(|error| Verdict::failed(&error, "lengthen s3.sts.session_duration"))
    }
}
