//! Delivering: a URL to read a confirmed upload.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Caller, Disposition, DomainError, Service, content_disposition, disposition::is_active, url_end};
use crate::{
    db::DownloadIntent,
    model::{ClientNetwork, FileName, IntentId, IntentState, Scope},
    s3::Access,
    signing::{Method, PresignRequest, PresignedUrl},
};

/// What a client wants to download.
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    /// The confirmed upload.
    pub upload_id: IntentId,
    /// Save or show.
    pub disposition: Disposition,
    /// Name to save it under; the original one when absent.
    pub file_name: Option<FileName>,
    /// A shorter life than the policy's.
    pub expires_in: Option<Duration>,
}

/// A download and where its bytes come from.
#[derive(Debug)]
pub struct IssuedDownload {
    /// The committed intent.
    pub intent: Box<DownloadIntent>,
    /// The URL.
    pub url: PresignedUrl,
}

impl Service {
    /// Issues a download of a confirmed upload. The intent is committed before the URL is signed.
    ///
    /// # Errors
    /// When there is no such upload for this caller, it is not confirmed, or the policy refuses.
    pub async fn issue_download(
        &self,
        caller: Caller<'_>,
        request: &DownloadRequest,
    ) -> Result<IssuedDownload, DomainError> {
        caller.require(Scope::Download)?;
        let now: DateTime<Utc> = self.clock.now();
        let upload = self.database.upload(request.upload_id).await?.ok_or(DomainError::NotFound)?;
        let document = self.policies.current();
        let rules = document.policy(&upload.policy, now);
        let may_read = rules.as_ref().is_some_and(|rules| {
            rules.may_read(caller.principal, &upload.issuer, &upload.subject, upload.tenant.as_deref())
        });
        // To whoever may not read it, it does not exist, in any state.
        if !may_read && !upload.is_owned_by(caller.principal) {
            return Err(DomainError::NotFound);
        }
        let Some(rules) = rules else { return Err(DomainError::PolicyWithdrawn(upload.policy)) };
        if upload.state != IntentState::Confirmed {
            return Err(DomainError::NotConfirmed(upload.state));
        }
        if request.disposition == Disposition::Inline && is_active(upload.content_type.essence()) {
            return Err(DomainError::InlineRefused(upload.content_type.to_string()));
        }
        let network = ClientNetwork::of(caller.address, rules.ip_scope);
        let signer = self.sessions.signer(network, Access::Download, document.longest_expiry()).await?;
        let (life, expires_at) = url_end(now, rules.decide_download(request.expires_in), &signer);
        let intent = Box::new(DownloadIntent {
            id: IntentId::at(now),
            upload_id: upload.id,
            issuer: caller.principal.issuer.clone(),
            subject: caller.principal.subject.clone(),
            tenant: caller.principal.tenant.clone(),
            policy: upload.policy.clone(),
            policy_version: document.version().to_owned(),
            client_network: network,
            created_at: now,
            expires_at,
        });
        let deliveries = self.outbox.of_download(&intent, &upload);
        let intent = if deliveries.is_empty() {
            self.ledger.record_download(intent).await?
        } else {
            // Both or neither, which the group commit cannot promise.
            self.database.record_download_and_tell(&intent, &deliveries).await?;
            intent
        };
        let name = request.file_name.as_ref().unwrap_or(&upload.original_file_name);
        let mut query = vec![
            ("response-content-disposition".into(), content_disposition(request.disposition, name).into()),
            ("response-content-type".into(), upload.content_type.as_str().into()),
        ];
        if let Some(version) = &upload.version_id {
            query.push(("versionId".into(), version.as_str().into()));
        }
        let get = PresignRequest { method: Method::Get, key: upload.verified_key(), query, headers: Vec::new() };
        let url = signer.presign(&get, now, life)?;
        Ok(IssuedDownload { intent, url })
    }
}
