//! Delivering: one permission to read a confirmed upload, and the ways of handing it out.
//!
//! [`Service::authorize_download`] decides and records, the same for every way. [`Service::hand_out`] decides nothing.

mod accel;
mod cdn;
mod hand_over;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound as _, Utc};

pub use accel::{Accel, AccelPlace, AcceleratedFile};
pub use hand_over::{FileFacts, HandOver, StreamedFile};

use super::{Caller, Disposition, DomainError, Service, disposition::is_active, url_end};
use crate::{
    db::{DownloadIntent, UploadIntent},
    model::{ClientNetwork, Delivery, FileName, IntentId, IntentState, Scope},
    s3::{Access, ReadPlace},
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
    /// How it shall reach the client; the policy's first way when absent.
    pub delivery: Option<Delivery>,
}

/// A committed permission to read one upload.
#[derive(Debug)]
pub struct Permit {
    /// The committed intent.
    pub intent: Box<DownloadIntent>,
    /// The confirmed upload.
    pub upload: Box<UploadIntent>,
    /// Save or show.
    pub disposition: Disposition,
    /// Name to save it under; the original one when absent.
    pub file_name: Option<FileName>,
    /// How often it may be redeemed, where the policy makes tickets of downloads. Then this service has compared the
    /// client's address with the network of the intent, or does when the ticket is redeemed.
    pub uses: Option<u16>,
    /// The place of a stream that was kept for it.
    pub place: Option<Arc<ReadPlace>>,
    /// From when it holds.
    pub from: DateTime<Utc>,
    /// Until when it may be begun to be used: whole seconds after `from` cut to a second, and not after the end of the
    /// intent.
    pub until: DateTime<Utc>,
}

impl Service {
    /// Decides whether the caller may download a confirmed upload, and in which way. The intent is committed when this
    /// returns: nothing is handed out without a row.
    ///
    /// # Errors
    /// When there is no such upload for this caller, it is not confirmed, or the policy refuses.
    pub async fn authorize_download(
        &self,
        caller: Caller<'_>,
        request: &DownloadRequest,
    ) -> Result<Permit, DomainError> {
        caller.require(Scope::Download).inspect_err(|_| {
            self.note_refusal(caller.principal, caller.address, Some(request.upload_id), "scope_missing");
        })?;
        let now = self.clock.now();
        let upload = Box::new(self.database.upload(request.upload_id).await?.ok_or(DomainError::NotFound)?);
        let document = self.policies.current();
        let rules = document.policy(&upload.policy, now);
        let may_read = rules.as_ref().is_some_and(|rules| {
            rules.may_read(caller.principal, &upload.issuer, &upload.subject, upload.tenant.as_deref())
        });
        // To whoever may not read it, it does not exist, in any state.
        if !may_read && !upload.is_owned_by(caller.principal) {
            self.note_refusal(caller.principal, caller.address, Some(upload.id), "not_found");
            return Err(DomainError::NotFound);
        }
        let Some(rules) = rules else { return Err(DomainError::PolicyWithdrawn(upload.policy)) };
        if upload.state != IntentState::Confirmed {
            return Err(DomainError::NotConfirmed(upload.state));
        }
        self.require_bucket(&upload)?;
        if request.disposition == Disposition::Inline && is_active(&upload.content_type) {
            return Err(DomainError::InlineRefused(upload.content_type.to_string()));
        }
        let delivery = rules.decide_delivery(request.delivery)?;
        let network = ClientNetwork::of(caller.address, rules.download_ip_scope());
        if delivery == Delivery::Cdn {
            self.cdn_for(network)?;
        }
        let (uses, allowed) = (rules.download_uses, rules.decide_download(request.expires_in));
        let expires_at = if delivery.is_signed_by_session() && uses.is_none() {
            let signer = self.sessions.signer(network, Access::Download, document.longest_expiry()).await?;
            url_end(now, allowed, &signer).1
        } else {
            // A ticket is shown to this service, and so is a permission to have the bytes from here: no session bounds
            // how long they are good.
            now.trunc_subsecs(0) + allowed
        };
        let intent = Box::new(DownloadIntent {
            id: IntentId::at(now),
            upload_id: upload.id,
            issuer: caller.principal.issuer.clone(),
            subject: caller.principal.subject.clone(),
            tenant: caller.principal.tenant.clone(),
            policy: upload.policy.clone(),
            policy_version: document.version().to_owned(),
            delivery,
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
        let (disposition, file_name) = (request.disposition, request.file_name.clone());
        let until = if uses.is_some() { Permit::shortly(now, expires_at) } else { expires_at };
        Ok(Permit { intent, upload, disposition, file_name, uses, place: None, from: now, until })
    }
}
