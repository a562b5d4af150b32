//! One endpoint, and one request to it.

use std::{error::Error as _, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, RETRY_AFTER},
};

use super::{
    WebhookSetupError,
    address_guard::{AddressGuard, AddressRefused},
    signature::SigningKeys,
};
use crate::{
    config::{WebhooksConfig, webhooks::WebhookEndpointConfig},
    db::ClaimedDelivery,
    outgoing,
};

/// How much of an answer's body is read: enough for what receivers usually say, so that the connection can be used
/// again.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Who is told.
#[derive(Debug)]
pub(super) struct Endpoint {
    name: String,
    url: Url,
    keys: SigningKeys,
    guard: AddressGuard,
    client: Client,
}

/// What the endpoint said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long it asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// Why it said nothing. Never holds the URL, whose path and query may be secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("not sent: {0}")]
    Refused(#[from] AddressRefused),
    #[error("{}", describe(.0))]
    Http(#[from] reqwest::Error),
}

impl Endpoint {
    pub(super) fn new(
        config: &WebhookEndpointConfig,
        all: &WebhooksConfig,
        guard: AddressGuard,
    ) -> Result<Self, WebhookSetupError> {
        let unusable = || WebhookSetupError::Endpoint(config.name.clone());
        let url = Url::parse(&config.url).map_err(|_| unusable())?;
        let mut keys = Vec::new();
        for key in &config.keys {
            keys.push(key.load()?);
        }
        let client = outgoing::client(all.timeout)
            .dns_resolver(guard.clone())
            // A proxy would connect to wherever it likes.
            .no_proxy()
            .pool_max_idle_per_host(all.concurrency)
            .build()?;
        Ok(Self { name: config.name.clone(), url, keys: SigningKeys::new(&keys), guard, client })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Posts `delivery` once. The time limit covers all of it.
    pub(super) async fn post(&self, delivery: &ClaimedDelivery, now: DateTime<Utc>) -> Result<Answer, SendError> {
        self.guard.check_host(&self.url)?;
        let request = self
            .client
            .post(self.url.clone())
            .header("webhook-id", delivery.event_id.to_string())
            .header("webhook-timestamp", now.timestamp())
            .header("webhook-signature", self.keys.sign(delivery.event_id, now, &delivery.payload))
            .header(CONTENT_TYPE, "application/json")
            .body(delivery.payload.clone());
        let response = request.send().await?;
        let answer = Answer { status: response.status(), retry_after: retry_after(&response, now) };
        drain(response).await;
        Ok(answer)
    }
}

/// Reads what follows the head, within bounds. The status says all, so nothing that goes wrong here matters.
async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER_BYTES {
            return;
        }
    }
}

/// `Retry-After`, in seconds or as a date (RFC 9110, section 10.2.3), where the status gives it a meaning.
fn retry_after(response: &Response, now: DateTime<Utc>) -> Option<Duration> {
    if ![StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&response.status()) {
        return None;
    }
    parse_retry_after(response.headers().get(RETRY_AFTER)?.to_str().ok()?, now)
}

fn parse_retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => (DateTime::parse_from_rfc2822(text).ok()?.to_utc() - now).to_std().ok(),
    }
}

/// A refused address is found by the resolver, deep inside: nothing around it says more.
fn describe(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref::<AddressRefused>() {
            return SendError::Refused(*refused).to_string();
        }
        cause = error.source();
    }
    outgoing::describe(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        let seconds = |text| parse_retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Sat, 21 Nov 2026 10:02:00 GMT"), Some(120));
        for nothing in ["", "soon", "-1", "1.5", "Sat, 21 Nov 2026 09:59:59 GMT"] {
            assert_eq!(seconds(nothing), None, "{nothing}");
        }
    }
}
