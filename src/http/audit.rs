//! The audit, for administrators.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use serde::Serialize;

use super::{
    ApiError, ErrorCode, FieldError, State,
    extract::{Authenticated, Query},
    list::{Paging, Rule, broken, cursor},
};
use crate::{
    db::{AuditFilter, AuditRecord},
    model::{AuditKind, ClientNetwork, IntentId, NAME_RULE, is_name},
};

/// Records in one page, unless the client asks for another number.
const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// `GET /api/v1/audit`
pub(super) async fn list(state: web::Data<State>, user: Authenticated, query: Query) -> Result<HttpResponse, ApiError> {
    let page = state.service.audit(&user.0, filter(&query.0)?).await?;
    let records = page.records.iter().map(AuditView::from).collect();
    Ok(HttpResponse::Ok().json(AuditListView { records, next_cursor: page.next.map(cursor) }))
}

fn filter(query: &BTreeMap<String, String>) -> Result<AuditFilter, ApiError> {
    let mut page = Paging::new(DEFAULT_PAGE, LARGEST_PAGE);
    let mut filter = AuditFilter::default();
    let (mut issuer, mut subject, mut until) = (None, None, None);
    let mut errors = broken(query, |name, text| match name {
        "issuer" => take(&mut issuer, name_of(text), NAME_RULE),
        "subject" => take(&mut subject, name_of(text), NAME_RULE),
        "upload_id" => take(&mut filter.upload_id, text.parse().ok(), "must be an upload's id"),
        "network" => take(&mut filter.network, network(text), "must be an address, or a network such as 10.0.0.0/8"),
        "kind" => take(&mut filter.kind, text.parse().ok(), AuditKind::RULE),
        "since" => take(&mut filter.since, lowest(text), INSTANT),
        "until" => take(&mut until, lowest(text), INSTANT),
        _ => page.read(name, text, "issuer, subject, upload_id, network, kind, since, until, "),
    });
    match (issuer, subject) {
        (Some(issuer), Some(subject)) => filter.user = Some((issuer, subject)),
        (None, None) => {}
        (Some(_), None) => {
            errors.push(FieldError::new("issuer", "must come with subject: together they name a user"));
        }
        (None, Some(_)) => {
            errors.push(FieldError::new("subject", "must come with issuer: together they name a user"));
        }
    }
    filter.limit = page.limit;
    // A cursor lies before the end that was asked for with the first page.
    filter.before = page.before.into_iter().chain(until).min();
    if errors.is_empty() { Ok(filter) } else { Err(ApiError::fields(ErrorCode::InvalidRequest, errors)) }
}

/// A name that a row may have.
fn name_of(text: &str) -> Option<String> {
    is_name(text).then(|| text.to_owned())
}

const INSTANT: &str = "must be an instant of RFC 3339, such as 2026-11-21T00:00:00Z";

fn take<T>(target: &mut Option<T>, read: Option<T>, rule: &'static str) -> Result<(), Rule> {
    *target = Some(read.ok_or(rule)?);
    Ok(())
}

/// The lowest id of the instant.
fn lowest(text: &str) -> Option<IntentId> {
    text.parse::<DateTime<Utc>>().ok().map(IntentId::lowest_at)
}

/// A network, or an address as the network of that alone.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.to_canonical().into()))
}

/// A record as administrators see it.
#[derive(Debug, Serialize)]
struct AuditView<'a> {
    id: IntentId,
    at: Option<DateTime<Utc>>,
    kind: AuditKind,
    issuer: Option<&'a str>,
    subject: Option<&'a str>,
    tenant: Option<&'a str>,
    upload_id: Option<IntentId>,
    download_id: Option<IntentId>,
    policy: Option<&'a str>,
    client_network: Option<ClientNetwork>,
    reason: Option<&'a str>,
    prefix: Option<&'a str>,
    actor: Option<ActorView<'a>>,
}

#[derive(Debug, Serialize)]
struct ActorView<'a> {
    issuer: &'a str,
    subject: &'a str,
}

#[derive(Debug, Serialize)]
struct AuditListView<'a> {
    records: Vec<AuditView<'a>>,
    next_cursor: Option<String>,
}

impl<'a> From<&'a AuditRecord> for AuditView<'a> {
    fn from(record: &'a AuditRecord) -> Self {
        let actor = record.actor_issuer.as_deref().zip(record.actor_subject.as_deref());
        Self {
            id: record.id,
            at: record.id.issued_at(),
            kind: record.kind,
            issuer: record.issuer.as_deref(),
            subject: record.subject.as_deref(),
            tenant: record.tenant.as_deref(),
            upload_id: record.upload_id,
            download_id: record.download_id,
            policy: record.policy.as_deref(),
            client_network: record.client_network,
            reason: record.reason.as_deref(),
            prefix: record.prefix.as_deref(),
            actor: actor.map(|(issuer, subject)| ActorView { issuer, subject }),
        }
    }
}
