//! Storage events: the store's own word that something was uploaded.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, dev::Payload, http::header, web};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use super::{ApiError, ErrorCode, State, extract::read_body};
use crate::{
    auth::{EventSenders, MAX_SNS_MESSAGE_BYTES, SnsMessage, SnsVerifier},
    config::EventsConfig,
    domain::{EventCounts, Notification},
};

/// Longest time for the events of one call: what was settled by then is settled, and the sender sends the rest again.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// Who may tell of storage events, and how much.
#[derive(Debug)]
pub struct EventIntake {
    senders: EventSenders,
    body_limit: usize,
    check_source_address: bool,
}

impl EventIntake {
    /// What `config` says, for these senders.
    pub fn new(config: &EventsConfig, senders: EventSenders) -> Self {
        Self {
            senders,
            body_limit: usize::try_from(config.body_limit.bytes()).unwrap_or(usize::MAX),
            check_source_address: config.check_source_address,
        }
    }

    /// Whether the request holds a token of a sender.
    fn admits(&self, request: &HttpRequest) -> bool {
        token(request).is_some_and(|token| self.senders.tokens.contains(&token))
    }

    /// What verifies the request's body, if it is a message of Amazon SNS. What SNS delivers raw is not signed.
    fn sns(&self, request: &HttpRequest) -> Option<&SnsVerifier> {
        let has = |name: &str| request.headers().contains_key(name);
        self.senders.sns.as_ref().filter(|_| has("x-amz-sns-message-type") && !has("x-amz-sns-rawdelivery"))
    }
}

/// `POST /api/v1/callbacks/s3-events`, and the same with the token as the last segment of the path.
pub(super) async fn receive(
    state: web::Data<State>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let taken = take(&state, &request, payload.into_inner()).await;
    state.metrics.count_events(taken.as_ref());
    taken.map(|counts| HttpResponse::Ok().json(CountsView::from(counts)))
}

async fn take(state: &State, request: &HttpRequest, payload: Payload) -> Result<EventCounts, ApiError> {
    let mut notification = notification(&state.events, request, payload).await?;
    if !state.events.check_source_address {
        notification = notification.without_addresses();
    }
    match tokio::time::timeout(TIME_LIMIT, state.service.take_events(&notification)).await {
        Ok(taken) => Ok(taken?),
        Err(_) => Err(ApiError::with_detail(ErrorCode::Overloaded, "the events were not looked at in time")),
    }
}

/// The notification in the body, once it is known who sent it: nothing of a stranger's body is read, except for a
/// signature.
async fn notification(intake: &EventIntake, request: &HttpRequest, payload: Payload) -> Result<Notification, ApiError> {
    if let Some(sns) = intake.sns(request) {
        let body = read_body(request, payload, MAX_SNS_MESSAGE_BYTES).await?;
        return match sns.verify(&body).await? {
            SnsMessage::Notification(message) => Ok(Notification::parse(message.as_bytes())?),
            SnsMessage::Subscription(url) => {
                sns.subscribe(url).await?;
                log::info!("accepted a subscription to a topic of Amazon SNS");
                Ok(Notification::default())
            }
            SnsMessage::Unsubscribed => {
                log::warn!("Amazon SNS says that this service was unsubscribed from a topic");
                Ok(Notification::default())
            }
        };
    }
    if !intake.admits(request) {
        return Err(ApiError::new(ErrorCode::EventSenderUnknown));
    }
    let body = read_body(request, payload, intake.body_limit).await?;
    Ok(Notification::parse(&body)?)
}

/// The token: of the `Bearer` scheme, the password of the `Basic` scheme, or in the path, for stores that can be told
/// nothing but a URL.
fn token(request: &HttpRequest) -> Option<String> {
    let Some(authorization) = request.headers().get(header::AUTHORIZATION) else {
        return request.match_info().get("token").map(str::to_owned);
    };
    let (scheme, credentials) = authorization.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let credentials = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    credentials.split_once(':').map(|(_, password)| password.to_owned())
}

/// What became of the records.
#[derive(Serialize)]
struct CountsView {
    received: usize,
    confirmed: usize,
    rejected: usize,
    pending: usize,
    ignored: usize,
}

impl From<EventCounts> for CountsView {
    fn from(EventCounts { received, confirmed, rejected, pending, ignored }: EventCounts) -> Self {
        Self { received, confirmed, rejected, pending, ignored }
    }
}
