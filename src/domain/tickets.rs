//! Tickets: downloads that are redeemed here, a limited number of times, from one network, and can be taken back.

use std::{net::IpAddr, sync::Arc};

use aws_lc_rs::{digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use secrecy::SecretString;

use super::{Caller, Disposition, DomainError, Permit, Service};
use crate::{
    db::{
        AccessEvent,
        tickets::{NewTicket, Ticket, TicketRefusal, TokenDigest},
    },
    model::{AuditKind, Delivery, IntentId},
};

/// How long a URL of the store lives that a redeemed ticket, or a file of a policy with tickets, leads to. The client
/// follows it at once, so this is for its way and for clocks that differ: whatever the ticket was bound to does not bind
/// the URL where the store has no STS, and nothing takes it back.
const URL_LIFE: TimeDelta = TimeDelta::seconds(10);

/// Bytes of a ticket: 256 bits that nobody guesses.
const TICKET_BYTES: usize = 32;

/// A download that was taken back.
#[derive(Debug)]
pub struct RevokedDownload {
    /// The download.
    pub id: IntentId,
    /// The upload that it was of.
    pub upload_id: IntentId,
    /// When it was taken back first.
    pub revoked_at: DateTime<Utc>,
}

impl Permit {
    /// The end of what is handed out at `now` under a policy with tickets.
    pub(super) fn shortly(now: DateTime<Utc>, end: DateTime<Utc>) -> DateTime<Utc> {
        end.min(now.trunc_subsecs(0) + URL_LIFE)
    }
}

impl Service {
    /// A ticket for what `permit` allows, which can be redeemed `uses` times. What is stored is its digest.
    ///
    /// # Errors
    /// When the database does not answer, or there is no randomness.
    pub async fn issue_ticket(&self, permit: &Permit, uses: u16) -> Result<SecretString, DomainError> {
        let mut ticket = [0; TICKET_BYTES];
        rand::fill(&mut ticket).map_err(|_| DomainError::NoRandomness)?;
        let recorded = NewTicket {
            token_sha256: sha256(&ticket),
            download_id: permit.intent.id,
            is_inline: permit.disposition == Disposition::Inline,
            file_name: permit.file_name.clone(),
            uses,
            expires_at: permit.intent.expires_at,
        };
        self.database.record_ticket(&recorded).await?;
        Ok(SecretString::from(URL_SAFE_NO_PAD.encode(ticket)))
    }

    /// What a ticket gives a client at `address`. It is not used yet: what cannot be handed out after all must not cost a
    /// use. Nothing may be sent before [`Service::use_ticket`].
    ///
    /// # Errors
    /// When there is no such ticket, or it is used up, outdated, revoked, or of another network: all but the first is
    /// told to the audit. [`DomainError::TooManyStreams`] when it is for a stream and no place is left.
    pub async fn open_ticket(&self, ticket: &str, address: IpAddr) -> Result<Permit, DomainError> {
        let ticket = self.usable_ticket(ticket, address).await?;
        let place = if ticket.intent.delivery == Delivery::Stream {
            Some(self.reader.place().ok_or(DomainError::TooManyStreams)?)
        } else {
            None
        };
        let upload = self.database.upload(ticket.intent.upload_id).await?.ok_or(DomainError::NotFound)?;
        self.require_bucket(&upload)?;
        let now = self.clock.now();
        Ok(Permit {
            upload: Box::new(upload),
            disposition: if ticket.is_inline { Disposition::Inline } else { Disposition::Attachment },
            file_name: ticket.file_name,
            uses: u16::try_from(ticket.uses).ok(),
            place: place.map(Arc::new),
            from: now,
            until: Permit::shortly(now, ticket.intent.expires_at),
            intent: Box::new(ticket.intent),
        })
    }

    /// Uses a ticket once, for a client at `address`.
    ///
    /// # Errors
    /// As [`Service::open_ticket`]: it may have been used up or revoked since.
    pub async fn use_ticket(&self, ticket: &str, address: IpAddr) -> Result<(), DomainError> {
        let digest = digest_of(ticket).ok_or(DomainError::TicketUnknown)?;
        let now = self.clock.now();
        if self.database.redeem_ticket(&digest, address, now).await? {
            return Ok(());
        }
        let known = self.database.ticket(&digest).await?.ok_or(DomainError::TicketUnknown)?;
        // Whatever it was that the statement saw: the ticket can be used no more than it allowed.
        let refusal = known.refusal(address, now).unwrap_or(TicketRefusal::Used);
        Err(self.refuse_ticket(&known, refusal, address))
    }

    /// Whether a ticket could be used by a client at `address`.
    ///
    /// # Errors
    /// As [`Service::open_ticket`].
    pub async fn check_ticket(&self, ticket: &str, address: IpAddr) -> Result<(), DomainError> {
        self.usable_ticket(ticket, address).await.map(drop)
    }

    async fn usable_ticket(&self, ticket: &str, address: IpAddr) -> Result<Ticket, DomainError> {
        let digest = digest_of(ticket).ok_or(DomainError::TicketUnknown)?;
        let ticket = self.database.ticket(&digest).await?.ok_or(DomainError::TicketUnknown)?;
        match ticket.refusal(address, self.clock.now()) {
            None => Ok(ticket),
            Some(refusal) => Err(self.refuse_ticket(&ticket, refusal, address)),
        }
    }

    /// Takes the ticket of a download back: for whoever asked for the download, or an administrator.
    ///
    /// # Errors
    /// When there is no such download for this caller, or it is a presigned URL, which nothing takes back.
    pub async fn revoke_download(&self, caller: Caller<'_>, id: IntentId) -> Result<RevokedDownload, DomainError> {
        let principal = caller.principal;
        let intent = self.database.download(id).await?.ok_or(DomainError::NotFound)?;
        let tenant = intent.tenant.as_deref();
        if !principal.is(&intent.issuer, &intent.subject, tenant) && !principal.administers(&intent.issuer, tenant) {
            return Err(DomainError::NotFound);
        }
        let now = self.clock.now();
        let event = AccessEvent {
            actor: Some((principal.issuer.clone(), principal.subject.clone())),
            ..intent.event(AuditKind::Revoked, now).from_address(caller.address)
        };
        let revoked_at = self.database.revoke_ticket(id, now, &event).await?.ok_or(DomainError::NotATicket)?;
        Ok(RevokedDownload { id, upload_id: intent.upload_id, revoked_at })
    }

    fn refuse_ticket(&self, ticket: &Ticket, refusal: TicketRefusal, address: IpAddr) -> DomainError {
        let event = ticket.intent.event(AuditKind::Refused, self.clock.now()).from_address(address);
        self.ledger.note(AccessEvent { reason: Some(refusal.as_str().to_owned()), ..event });
        match refusal {
            TicketRefusal::Elsewhere => DomainError::TicketElsewhere,
            TicketRefusal::Revoked => DomainError::Revoked,
            TicketRefusal::Used => DomainError::TicketUsed,
            TicketRefusal::Expired => DomainError::TicketExpired,
        }
    }
}

fn digest_of(ticket: &str) -> Option<TokenDigest> {
    let bytes = URL_SAFE_NO_PAD.decode(ticket).ok().filter(|bytes| bytes.len() == TICKET_BYTES)?;
    Some(sha256(&bytes))
}

fn sha256(bytes: &[u8]) -> TokenDigest {
    digest::digest(&digest::SHA256, bytes).as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_a_ticket_has_a_digest() {
        let ticket = URL_SAFE_NO_PAD.encode([7; TICKET_BYTES]);
        assert_eq!(ticket.len(), 43);
        assert_eq!(digest_of(&ticket).unwrap()[..], *digest::digest(&digest::SHA256, &[7; 32]).as_ref());
        let short = URL_SAFE_NO_PAD.encode([7; TICKET_BYTES - 1]);
        for other in ["", "x", &short, &ticket[1..], &format!("{ticket}A"), &format!("{ticket}="), "ü"] {
            assert_eq!(digest_of(other), None, "{other}");
        }
    }
}
