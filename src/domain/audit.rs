//! The audit: who got what, who was turned away, and what was stopped.

use std::net::IpAddr;

use super::{DomainError, Service, require};
use crate::{
    db::{AccessEvent, AuditFilter, AuditPage},
    model::{AuditKind, IntentId, Principal, Scope},
};

impl Service {
    /// The records that `filter` lets through, newest first; to an administrator of one tenant, no others than its.
    ///
    /// # Errors
    /// When `principal` is no administrator, or the database does not answer.
    pub async fn audit(&self, principal: &Principal, filter: AuditFilter) -> Result<AuditPage, DomainError> {
        require(principal, Scope::Admin)?;
        let filter = AuditFilter { tenant: principal.administers_only().or(filter.tenant), ..filter };
        Ok(self.database.audit(&filter).await?)
    }

    /// Has the audit tell that `principal` was turned away at `address`. Nobody waits for it.
    pub(super) fn note_refusal(&self, principal: &Principal, address: IpAddr, upload: Option<IntentId>, reason: &str) {
        let event = AccessEvent::new(AuditKind::Refused, self.clock.now()).about(principal).from_address(address);
        self.ledger.note(AccessEvent { upload_id: upload, reason: Some(reason.to_owned()), ..event });
    }
}
