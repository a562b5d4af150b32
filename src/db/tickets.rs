//! The table `download_tickets`.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::{
    ExpressionMethods as _, OptionalExtension as _, QueryDsl as _, QueryableByName,
    pg::Pg,
    result::Error as DieselError,
    sql_types::{self, Binary, Bool, Nullable, Text, Timestamptz},
};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _};

use super::{
    AccessEvent, Database, DbError, DownloadIntent, access_events, revocations::is_revoked, schema::download_tickets,
};
use crate::model::{AuditKind, ClientNetwork, FileName, IntentId};

/// How long after its end a ticket is remembered, so that whoever comes late is told what is wrong.
pub const RETENTION: TimeDelta = TimeDelta::days(7);

/// SHA-256 of a ticket. Who looks a ticket up by this learns from the time that it takes nothing to make another of:
/// what they would have to come closer to is a digest, and they cannot choose those.
pub type TokenDigest = [u8; 32];

/// A ticket as it is recorded.
#[derive(Debug, Clone)]
pub struct NewTicket {
    /// What it is found by.
    pub token_sha256: TokenDigest,
    /// The download.
    pub download_id: IntentId,
    /// Whether the file is shown, and not saved.
    pub is_inline: bool,
    /// Name to save it under.
    pub file_name: Option<FileName>,
    /// How often it can be redeemed.
    pub uses: u16,
    /// Until when.
    pub expires_at: DateTime<Utc>,
}

/// A ticket, with the download that it is for.
#[derive(Debug, Clone, QueryableByName)]
#[diesel(check_for_backend(Pg))]
pub struct Ticket {
    /// The download that it is for.
    #[diesel(embed)]
    pub intent: DownloadIntent,
    /// Whether the file is shown, and not saved.
    #[diesel(sql_type = Bool)]
    pub is_inline: bool,
    /// Name to save it under.
    #[diesel(sql_type = Nullable<Text>)]
    pub file_name: Option<FileName>,
    /// How often it can be redeemed.
    #[diesel(sql_type = sql_types::Integer)]
    pub uses: i32,
    /// How often it has been.
    #[diesel(sql_type = sql_types::Integer)]
    pub used: i32,
    /// Whether it, or what it is for, was taken back.
    #[diesel(sql_type = Bool)]
    pub is_revoked: bool,
}

impl Ticket {
    /// Why it is not redeemed by a client at `address` at `now`; none where it could be. That it was given to another
    /// network comes first: there nothing else is told of it.
    pub fn refusal(&self, address: IpAddr, now: DateTime<Utc>) -> Option<TicketRefusal> {
        if self.intent.client_network.is_some_and(|network| !network.contains(address)) {
            Some(TicketRefusal::Elsewhere)
        } else if self.is_revoked {
            Some(TicketRefusal::Revoked)
        } else if self.used >= self.uses {
            Some(TicketRefusal::Used)
        } else if self.intent.expires_at <= now {
            Some(TicketRefusal::Expired)
        } else {
            None
        }
    }
}

/// Why a ticket is not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketRefusal {
    /// It was given to another network.
    Elsewhere,
    /// It, or what it is for, was taken back.
    Revoked,
    /// It has been redeemed as often as it can be.
    Used,
    /// Its time has run out.
    Expired,
}

impl TicketRefusal {
    /// The name in the audit, which is the code that the client is told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elsewhere => "ticket_elsewhere",
            Self::Revoked => "revoked",
            Self::Used => "ticket_used",
            Self::Expired => "ticket_expired",
        }
    }
}

/// The columns of [`Ticket`], of `download_intents d` and `download_tickets t`.
fn columns() -> String {
    format!(
        "d.id, d.upload_id, d.issuer, d.subject, d.tenant, d.policy, d.policy_version, d.delivery, d.client_network, \
         d.created_at, d.expires_at, t.is_inline, t.file_name, t.uses, t.used, \
         (t.revoked_at IS NOT NULL OR {}) AS is_revoked",
        is_revoked("d", "upload_id")
    )
}

impl Database {
    /// Writes a ticket, whose download is recorded already.
    ///
    /// # Errors
    /// When the database does not answer; then nobody has the ticket.
    pub async fn record_ticket(&self, ticket: &NewTicket) -> Result<(), DbError> {
        self.query(async |connection| {
            diesel::insert_into(download_tickets::table)
                .values((
                    download_tickets::token_sha256.eq(&ticket.token_sha256[..]),
                    download_tickets::download_id.eq(ticket.download_id.uuid()),
                    download_tickets::is_inline.eq(ticket.is_inline),
                    download_tickets::file_name.eq(ticket.file_name.as_ref().map(FileName::as_str)),
                    download_tickets::uses.eq(i32::from(ticket.uses)),
                    download_tickets::expires_at.eq(ticket.expires_at),
                ))
                .execute(connection)
                .await
        })
        .await?;
        Ok(())
    }

    /// Uses a ticket once, for a client at `address`, and tells the audit: both, or neither. False when it cannot be used.
    ///
    /// Everything that can be wrong with it is a condition of one UPDATE. PostgreSQL lets one at a time change a row, and
    /// has each look at the conditions again that waited for another: so many as the ticket has uses win, however many
    /// come at once and in however many processes.
    ///
    /// # Errors
    /// When the database does not answer. The use may be counted then, and nobody has got anything for it.
    pub async fn redeem_ticket(
        &self,
        token: &TokenDigest,
        address: IpAddr,
        now: DateTime<Utc>,
    ) -> Result<bool, DbError> {
        let statement = format!(
            "WITH redeemed AS (UPDATE download_tickets t SET used = t.used + 1 FROM download_intents d \
             WHERE t.token_sha256 = $1 AND d.id = t.download_id AND t.used < t.uses AND t.expires_at > $2 \
             AND t.revoked_at IS NULL AND NOT {} \
             AND (d.client_network IS NULL OR $3::inet <<= d.client_network::inet) \
             RETURNING d.*) \
             INSERT INTO access_events \
             (id, kind, issuer, subject, tenant, upload_id, download_id, policy, client_network) \
             SELECT $4, $5, issuer, subject, tenant, upload_id, id, policy, $3 FROM redeemed",
            is_revoked("d", "upload_id")
        );
        let told = self
            .query(async |connection| {
                diesel::sql_query(statement)
                    .bind::<Binary, _>(&token[..])
                    .bind::<Timestamptz, _>(now)
                    .bind::<Text, _>(ClientNetwork::of_one(address).to_string())
                    .bind::<sql_types::Uuid, _>(IntentId::at(now).uuid())
                    .bind::<Text, _>(AuditKind::Redeemed.as_str())
                    .execute(connection)
                    .await
            })
            .await?;
        Ok(told > 0)
    }

    /// The ticket as it is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ticket(&self, token: &TokenDigest) -> Result<Option<Ticket>, DbError> {
        let statement = format!(
            "SELECT {} FROM download_tickets t JOIN download_intents d ON d.id = t.download_id WHERE t.token_sha256 = $1",
            columns()
        );
        self.query(async |connection| {
            diesel::sql_query(statement).bind::<Binary, _>(&token[..]).get_result(connection).await.optional()
        })
        .await
    }

    /// Takes the ticket of the download `id` back at `now`, and tells the audit `event`, unless that was done before.
    /// Gives when it was done first; none where the download has no ticket.
    ///
    /// # Errors
    /// When the database does not answer; repeating is safe.
    pub async fn revoke_ticket(
        &self,
        id: IntentId,
        now: DateTime<Utc>,
        event: &AccessEvent,
    ) -> Result<Option<DateTime<Utc>>, DbError> {
        self.query(async |connection| {
            connection
                .transaction::<_, DieselError, _>(async |connection| {
                    let ticket = download_tickets::table.filter(download_tickets::download_id.eq(id.uuid()));
                    let changed = diesel::update(ticket.filter(download_tickets::revoked_at.is_null()))
                        .set(download_tickets::revoked_at.eq(now))
                        .execute(connection)
                        .await?;
                    if changed > 0 {
                        access_events::insert(&[event], connection).await?;
                    }
                    let revoked_at: Option<Option<DateTime<Utc>>> =
                        ticket.select(download_tickets::revoked_at).first(connection).await.optional()?;
                    Ok(revoked_at.flatten())
                })
                .await
        })
        .await
    }

    /// Forgets tickets that ended longer ago than [`RETENTION`].
    ///
    /// # Errors
    /// When the database does not answer; some may have been forgotten by then.
    pub async fn forget_old_tickets(&self, now: DateTime<Utc>) -> Result<usize, DbError> {
        self.delete_in_batches("download_tickets", "expires_at", now - RETENTION).await
    }
}
