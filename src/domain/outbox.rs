//! What receivers of webhooks are told, and which of them.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    config::WebhooksConfig,
    db::{DownloadIntent, NewDelivery, UploadIntent},
    model::{EventType, IntentId, IntentState, Sha256Digest},
};

/// Which endpoint is told what. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    subscriptions: Arc<[Subscription]>,
    retention: Duration,
}

#[derive(Debug)]
struct Subscription {
    endpoint: String,
    events: Vec<EventType>,
    policies: Vec<String>,
    tenants: Vec<String>,
    issuers: Vec<String>,
}

impl Subscription {
    fn wants(&self, event: EventType, upload: &UploadIntent) -> bool {
        let any_of = |wanted: &[String], value: Option<&str>| {
            wanted.is_empty() || value.is_some_and(|value| wanted.iter().any(|wanted| wanted == value))
        };
        self.events.contains(&event)
            && any_of(&self.policies, Some(&upload.policy))
            && any_of(&self.tenants, upload.tenant.as_deref())
            && any_of(&self.issuers, Some(&upload.issuer))
    }
}

/// Nobody is told anything.
impl Default for Outbox {
    fn default() -> Self {
        Self::new(&WebhooksConfig::default())
    }
}

impl Outbox {
    /// The subscriptions of `config`.
    pub fn new(config: &WebhooksConfig) -> Self {
        let subscriptions = config.endpoints.iter().map(|endpoint| Subscription {
            endpoint: endpoint.name.clone(),
            events: endpoint.events.clone(),
            policies: endpoint.policies.clone(),
            tenants: endpoint.tenants.clone(),
            issuers: endpoint.issuers.clone(),
        });
        Self { subscriptions: subscriptions.collect(), retention: config.retention }
    }

    /// How long what was delivered is kept.
    pub fn retention(&self) -> Duration {
        self.retention
    }

    /// What the new state of `upload`, reached at `at`, leads to.
    pub fn of_upload(&self, upload: &UploadIntent, at: DateTime<Utc>) -> Vec<NewDelivery> {
        let Some(event) = EventType::of(upload.state) else { return Vec::new() };
        self.deliveries(event, upload, at, || UploadData::from(upload))
    }

    /// What a download of `upload` leads to: nothing, unless an endpoint asked for it.
    pub fn of_download(&self, download: &DownloadIntent, upload: &UploadIntent) -> Vec<NewDelivery> {
        // Events of one upload are delivered in the order of their ids, and so of their times. The request may have
        // begun before the upload was confirmed, or the clock that confirmed it may be ahead.
        let confirmed = upload.settled_at.map(|at| at + TimeDelta::milliseconds(1));
        let at = confirmed.map_or(download.created_at, |confirmed| confirmed.max(download.created_at));
        self.deliveries(EventType::DownloadIssued, upload, at, || DownloadData::from(download))
    }

    fn deliveries<D: Serialize>(
        &self,
        event: EventType,
        upload: &UploadIntent,
        at: DateTime<Utc>,
        data: impl FnOnce() -> D,
    ) -> Vec<NewDelivery> {
        // Whoever reads, an endpoint is told about the uploads of its tenants and no others.
        let mut wanting = self.subscriptions.iter().filter(|subscription| subscription.wants(event, upload)).peekable();
        if wanting.peek().is_none() {
            return Vec::new();
        }
        // The same id everywhere: a receiver behind two endpoints sees that it is one event.
        let event_id: Uuid = IntentId::exactly_at(at).uuid();
        let payload = serde_json::to_string(&Payload { r#type: event, timestamp: at, data: data() });
        // Text, numbers and maps with text keys: nothing in it can fail to be written.
        let payload = payload.unwrap_or_default();
        wanting
            .map(|subscription| NewDelivery {
                event_id,
                endpoint: subscription.endpoint.clone(),
                upload_id: upload.id,
                event_type: event.as_str(),
                payload: payload.clone(),
                created_at: at,
            })
            .collect()
    }
}

/// The body of a webhook, in the shape that Standard Webhooks recommends.
#[derive(Serialize)]
struct Payload<D> {
    r#type: EventType,
    timestamp: DateTime<Utc>,
    data: D,
}

/// An upload as receivers see it: for backends, so with bucket and key.
#[derive(Serialize)]
struct UploadData<'a> {
    id: IntentId,
    state: &'static str,
    original_file_name: &'a str,
    file_size: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    file_size_is_limit: bool,
    file_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum_sha256: Option<String>,
    metadata: &'a crate::model::Metadata,
    bucket: &'a str,
    object_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mismatches: Option<&'a serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<&'a serde_json::Value>,
    issuer: &'a str,
    created_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    policy: &'a str,
    created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_via: Option<&'a str>,
}

impl<'a> From<&'a UploadIntent> for UploadData<'a> {
    fn from(upload: &'a UploadIntent) -> Self {
        let (found, rejected) = (upload.mismatches.as_ref(), upload.state == IntentState::Rejected);
        Self {
            id: upload.id,
            state: upload.state.as_str(),
            original_file_name: upload.original_file_name.as_str(),
            file_size: upload.file_size.bytes(),
            file_size_is_limit: upload.file_size_is_limit,
            file_type: upload.content_type.as_str(),
            checksum_sha256: upload.checksum_sha256.map(Sha256Digest::to_base64),
            metadata: &upload.metadata,
            bucket: &upload.bucket,
            object_key: upload.verified_key().as_str(),
            etag: upload.etag.as_ref().map(crate::model::ETag::as_str),
            version_id: upload.version_id.as_deref(),
            mismatches: found.filter(|_| rejected),
            warnings: found.filter(|_| !rejected),
            issuer: &upload.issuer,
            created_by: &upload.subject,
            tenant: upload.tenant.as_deref(),
            policy: &upload.policy,
            created_at: upload.created_at,
            settled_at: upload.settled_at,
            settled_via: upload.settled_via.as_deref(),
        }
    }
}

/// A download as receivers see it.
#[derive(Serialize)]
struct DownloadData<'a> {
    id: IntentId,
    upload_id: IntentId,
    issuer: &'a str,
    created_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    policy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_network: Option<crate::model::ClientNetwork>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl<'a> From<&'a DownloadIntent> for DownloadData<'a> {
    fn from(download: &'a DownloadIntent) -> Self {
        Self {
            id: download.id,
            upload_id: download.upload_id,
            issuer: &download.issuer,
            created_by: &download.subject,
            tenant: download.tenant.as_deref(),
            policy: &download.policy,
            client_network: download.client_network,
            created_at: download.created_at,
            expires_at: download.expires_at,
        }
    }
}
