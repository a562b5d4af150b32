//! Revoking: what was issued before an instant, and passes through this service, is not honoured any more.
//!
//! A presigned URL does not pass through it, and nothing takes one back. What can be done is to sign nothing more with
//! the sessions at hand, and to say until when such URLs are good.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

use super::{Caller, DomainError, Service, require};
use crate::{
    db::{
        AccessEvent, SettledVia, Settlement, UploadIntent,
        revocations::{Revocation, RevocationFilter, RevocationTarget},
    },
    model::{AuditKind, IntentEvent, IntentId, Principal, Scope},
    policy::Rules,
};

/// How long a revocation of another process may go unnoticed where nobody announces it. Only sessions wait for that:
/// everything else asks the database.
const POLL: Duration = Duration::from_secs(5);

/// Whom or what an administrator wants to stop.
#[derive(Debug, Clone)]
pub enum RevocationSubject {
    /// Everything.
    All,
    /// What users of a tenant were given: issuer and tenant.
    Tenant(String, String),
    /// What a user was given: issuer and subject.
    User(String, String),
    /// What has to do with an upload.
    Upload(IntentId),
}

/// A request to stop what is outstanding.
#[derive(Debug, Clone)]
pub struct RevocationRequest {
    /// Of whom or what.
    pub subject: RevocationSubject,
    /// What was issued before this instant; before the request where there is none.
    pub issued_before: Option<DateTime<Utc>>,
    /// Why, for the audit.
    pub reason: Option<String>,
}

/// A revocation, and what it cannot stop.
#[derive(Debug)]
pub struct Revoked {
    /// What is in force.
    pub revocation: Revocation,
    /// Until when presigned URLs that were handed out before may still work; none where there are none.
    pub urls_live_until: Option<DateTime<Utc>>,
}

impl Service {
    /// Stops what was issued. Repeating it is safe, and stops what was issued since, unless the request names an
    /// instant.
    ///
    /// # Errors
    /// When the caller is no administrator of what it is about, or the database does not answer.
    pub async fn revoke(&self, caller: Caller<'_>, request: RevocationRequest) -> Result<Revoked, DomainError> {
        caller.require(Scope::Admin)?;
        let principal = caller.principal;
        let now = self.clock.now();
        // What was issued in this very millisecond may have been issued before the request.
        let issued_before = request.issued_before.map_or(now + TimeDelta::milliseconds(1), |at| at.trunc_subsecs(3));
        let broken = match request.issued_before {
            Some(at) if at > now => Some("must not lie in the future: what is issued later is decided by policies"),
            Some(at) if at < DateTime::UNIX_EPOCH => Some("must not lie before 1970: nothing was issued then"),
            _ => None,
        };
        if let Some(rule) = broken {
            return Err(DomainError::broken_rule("issued_before", rule, serde_json::json!(issued_before)));
        }
        let (target, upload) = self.target(principal, request.subject).await?;
        let id = IntentId::at(now);
        let (issuer, subject, tenant) = match (&target, &upload) {
            (_, Some(upload)) => (Some(upload.issuer.clone()), None, upload.tenant.clone()),
            (RevocationTarget::Tenant { issuer, tenant }, _) => (Some(issuer.clone()), None, Some(tenant.clone())),
            (RevocationTarget::User { issuer, subject }, _) => (Some(issuer.clone()), Some(subject.clone()), None),
            (RevocationTarget::Member { issuer, tenant, subject }, _) => {
                (Some(issuer.clone()), Some(subject.clone()), Some(tenant.clone()))
            }
            (RevocationTarget::All | RevocationTarget::Upload(_), None) => (None, None, None),
        };
        let revocation = Revocation {
            id,
            issuer: issuer.clone(),
            subject: subject.clone(),
            tenant: tenant.clone(),
            upload_id: upload.as_ref().map(|upload| upload.id),
            issued_before,
            reason: request.reason.clone(),
            actor_issuer: principal.issuer.clone(),
            actor_subject: principal.subject.clone(),
        };
        let event = AccessEvent {
            id,
            issuer,
            subject,
            tenant,
            upload_id: revocation.upload_id,
            policy: upload.map(|upload| upload.policy),
            reason: request.reason,
            actor: Some((principal.issuer.clone(), principal.subject.clone())),
            ..AccessEvent::new(AuditKind::Revoked, now).from_address(caller.address)
        };
        let revocation = self.database.revoke(&target, &revocation, &event).await?;
        self.sessions.forget();
        let document = self.policies.current();
        let mut graces = BTreeMap::new();
        for (policy, rules) in document.all_rules() {
            let shortest = graces.entry(policy).or_insert(rules.confirm_grace);
            *shortest = rules.confirm_grace.min(*shortest);
        }
        let known = self.database.urls_live_until(&target, revocation.issued_before, now, &graces).await;
        // It is in force. An error would make its administrator think that it is not.
        let urls_live_until = known.unwrap_or_else(|error| {
            log::warn!("the end of what a revocation leaves is said later than it may be: {error}");
            Some(revocation.issued_before.min(now) + Rules::MAX_EXPIRES_IN)
        });
        Ok(Revoked { revocation, urls_live_until })
    }

    /// The revocations in force, the last first; to an administrator of one tenant, no others than its.
    ///
    /// # Errors
    /// When `principal` is no administrator, or the database does not answer.
    pub async fn revocations(
        &self,
        principal: &Principal,
        filter: RevocationFilter,
    ) -> Result<Vec<Revocation>, DomainError> {
        require(principal, Scope::Admin)?;
        let filter = RevocationFilter { tenant: principal.administers_only(), ..filter };
        Ok(self.database.revocations(&filter).await?)
    }

    /// What `subject` is to this administrator: never more than the tenant that their token names.
    async fn target(
        &self,
        principal: &Principal,
        subject: RevocationSubject,
    ) -> Result<(RevocationTarget, Option<UploadIntent>), DomainError> {
        let bound = principal.administers_only();
        let target = match (subject, bound) {
            (RevocationSubject::All, None) => RevocationTarget::All,
            (RevocationSubject::All, Some((issuer, tenant))) => RevocationTarget::Tenant { issuer, tenant },
            (RevocationSubject::Tenant(issuer, tenant), bound) => {
                if bound.is_some_and(|bound| bound != (issuer.clone(), tenant.clone())) {
                    return Err(DomainError::NotFound);
                }
                RevocationTarget::Tenant { issuer, tenant }
            }
            (RevocationSubject::User(issuer, subject), None) => RevocationTarget::User { issuer, subject },
            (RevocationSubject::User(issuer, subject), Some((own, tenant))) => {
                if issuer != own {
                    return Err(DomainError::NotFound);
                }
                RevocationTarget::Member { issuer, tenant, subject }
            }
            (RevocationSubject::Upload(id), _) => {
                let upload = self.database.upload(id).await?.ok_or(DomainError::NotFound)?;
                if !principal.administers(&upload.issuer, upload.tenant.as_deref()) {
                    return Err(DomainError::NotFound);
                }
                return Ok((RevocationTarget::Upload(id), Some(upload)));
            }
        };
        Ok((target, None))
    }

    /// Refuses an upload that a revocation has stopped.
    pub(super) async fn refuse_revoked(&self, upload: &UploadIntent) -> Result<(), DomainError> {
        let UploadIntent { issuer, subject, tenant, .. } = upload;
        let targets = RevocationTarget::all_of(issuer, subject, tenant.as_deref(), Some(upload.id));
        if self.database.is_revoked(&targets, upload.created_at).await? {
            return Err(DomainError::Revoked);
        }
        Ok(())
    }

    /// Ends an upload that a revocation has stopped, so that what was sent of it is removed.
    pub(super) async fn give_up_revoked(&self, id: IntentId) -> Result<(), DomainError> {
        let settlement = Settlement {
            event: IntentEvent::Abort,
            via: Some(SettledVia::Sweeper),
            at: self.clock.now(),
            object: None,
            mismatches: None,
            has_leftovers: true,
        };
        // Whatever it was settled to meanwhile, it is settled.
        self.transition(id, &settlement).await.map(drop)
    }

    /// Drops the sessions of this process whenever there is a revocation, until the task is ended. At the first answer as
    /// well, if others had failed before it: there may have been sessions for a while, and a revocation of them.
    pub async fn follow_revocations(self) {
        let mut changes = self.database.revocation_changes();
        let (mut known, mut was_cut_off) = (None, false);
        loop {
            match self.database.revocations_version().await {
                Ok(version) => {
                    if known.map_or(was_cut_off, |known| known != version) {
                        self.sessions.forget();
                        log::info!("something was revoked, or may have been: sessions are made anew");
                    }
                    known = Some(version);
                }
                Err(error) => {
                    was_cut_off = true;
                    log::debug!("revocations are looked for again: {error}");
                }
            }
            // A time that runs out is the poll.
            let _ = tokio::time::timeout(POLL, changes.changed()).await;
        }
    }
}
