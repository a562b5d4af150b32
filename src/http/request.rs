//! What happens around every request: an id, an answer to every failure, a count, a log line.

use std::{ops::Deref, rc::Rc, time::Instant};

use actix_cors::Cors;
use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode, Uri,
        header::{self, HeaderName, HeaderValue},
        uri::PathAndQuery,
    },
    middleware::Next,
    web,
};
use uuid::Uuid;

use super::{ApiError, Dialect, RoutePattern, State};
use crate::config::server::ServerConfig;

/// What stands before a capability.
const CAPABILITIES: &str = "/u/";

/// The contract of Companion.
const COMPANION: &str = "/s3/";

/// The contract of Active Storage.
const RAILS: &str = "/rails/";

/// What stands before a ticket.
const TICKETS: &str = "/t/";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request, for answers that name it in their body.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Rc<str>);

impl RequestId {
    /// The id that [`finish`] gave to `request`.
    pub(super) fn of(request: &HttpRequest) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| Self("".into()))
    }
}

impl Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Gives the request an id and the one spelling of its path, and turns every failure into a problem that names the id.
pub async fn finish(
    state: web::Data<State>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let began = Instant::now();
    let request_id = request_id(&request);
    request.extensions_mut().insert(request_id.clone());
    take_off_trailing_slash(&mut request);
    let answered = next.call(request).await;
    let mut response = match answered {
        Ok(response) => match response.response().error().and_then(|error| error.as_error::<ApiError>()) {
            None => response.map_into_left_body(),
            Some(error) => {
                let answer = problem(&state, error, &request_id, response.request());
                let headers = response.headers().clone();
                let mut answer = answer.map_into_right_body();
                // What a middleware inside this one has added, such as CORS headers, belongs to the answer as well.
                for (name, value) in headers.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
                    if !answer.headers().contains_key(name) || *name == header::VARY {
                        answer.headers_mut().append(name.clone(), value.clone());
                    }
                }
                ServiceResponse::new(response.request().clone(), answer)
            }
        },
        Err(error) => return Err(error),
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let path = routed_path(response.request());
    let is_api = ["/api/", CAPABILITIES, COMPANION, RAILS, TICKETS].iter().any(|api| path.starts_with(api));
    let is_secret = holds_secret(path);
    if is_api && !response.headers().contains_key(header::CACHE_CONTROL) {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if is_secret {
        // The address is a secret, and a page that a browser is sent on to would be told it.
        response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    observe(&state, &response, &request_id, began);
    Ok(response)
}

/// The proxy's id, so that its log and ours can be read together, if it is one; else a new one.
fn request_id(request: &ServiceRequest) -> RequestId {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    RequestId(given.filter(usable).map_or_else(|| Uuid::now_v7().simple().to_string().into(), Rc::from))
}

/// Every path is served with and without a trailing slash, and the route table knows it without: a second pattern would
/// turn each comparison of texts there into two regular expressions.
fn take_off_trailing_slash(request: &mut ServiceRequest) {
    let uri = request.uri();
    let Some(path) = uri.path().strip_suffix('/').filter(|path| !path.is_empty()) else { return };
    let query = uri.query().map(|query| ["?", query].concat()).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from([path, &query].concat()).ok();
    // Of what it was made of, without a slash: it is one.
    let Ok(uri) = Uri::from_parts(parts) else { return };
    request.match_info_mut().get_mut().update(&uri);
    request.head_mut().uri = uri;
}

/// The path that the route table was asked for. It is not the one that was sent: `/%75/…` leads to `/u/…` as well, and
/// would pass for harmless.
fn routed_path(request: &HttpRequest) -> &str {
    request.match_info().as_str()
}

/// Whether there may be a secret in the path, also in one that leads nowhere: a doubled slash or a prefix too many is
/// easily written, and the secret is as good as before.
fn holds_secret(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "callbacks" | "u" | "t"))
}

/// The path, or only its pattern where there may be a secret in it.
fn loggable_path(request: &HttpRequest) -> &str {
    let path = routed_path(request);
    if !holds_secret(path) {
        return path;
    }
    request.app_data::<RoutePattern>().map_or("a secret path", |pattern| pattern.0)
}

/// Whose contract `path` belongs to.
fn dialect(path: &str) -> Dialect {
    // What follows the capability.
    let contract = path.strip_prefix(CAPABILITIES).and_then(|rest| rest.find('/').and_then(|at| rest.get(at..)));
    match contract.unwrap_or(path) {
        path if path.starts_with(COMPANION) => Dialect::Companion,
        path if path.starts_with("/xml") => Dialect::S3,
        _ => Dialect::Problem,
    }
}

fn problem(state: &State, error: &ApiError, request_id: &str, request: &HttpRequest) -> actix_web::HttpResponse {
    // It is decoded, and might write lines of its own.
    let path = loggable_path(request).escape_debug();
    let dialect = dialect(routed_path(request));
    match error.code().status() {
        // It passes, and meanwhile there may be one for every request.
        StatusCode::SERVICE_UNAVAILABLE => log::warn!("request {request_id} to {path} failed: {error}"),
        status if status.is_server_error() => log::error!("request {request_id} to {path} failed: {error}"),
        _ => log::debug!("request {request_id} to {path} was refused: {error}"),
    }
    error.response(dialect, &state.base_url, request_id)
}

fn observe<B>(state: &State, response: &ServiceResponse<B>, request_id: &str, began: Instant) {
    let elapsed = began.elapsed();
    let request = response.request();
    let route = request.app_data::<RoutePattern>().map_or("none", |pattern| pattern.0);
    let status = response.status();
    // Methods are the client's to invent; a series for each invention would be a leak.
    let method = match *request.method() {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    };
    state.metrics.observe(method, route, status.as_str(), elapsed.as_secs_f64());
    if state.access_log {
        log::info!(
            target: "presignd::access",
            request_id = request_id, method = method, route = route, status = status.as_u16(),
            micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
            "{method} {route} {} {:.1}ms {request_id}", status.as_u16(), elapsed.as_secs_f64() * 1000.0
        );
    }
}

/// CORS as configured. Without origins, browsers on other sites are refused by saying nothing.
pub fn cors(config: &ServerConfig) -> Cors {
    let mut cors = Cors::default()
        .allowed_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        .allowed_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT])
        .allowed_headers(["idempotency-key", "x-callback-token", "x-request-id"])
        // What the client of Active Storage sends with every request.
        .allowed_headers(["x-requested-with", "x-csrf-token"])
        // What goes on with a file that has broken off.
        .allowed_headers([header::RANGE, header::IF_RANGE, header::IF_MATCH, header::IF_NONE_MATCH])
        .expose_headers([header::RETRY_AFTER, header::WWW_AUTHENTICATE, REQUEST_ID])
        // What a page needs to know of a file that it fetches itself.
        .expose_headers([header::CONTENT_DISPOSITION, header::CONTENT_RANGE, header::ACCEPT_RANGES, header::ETAG])
        .max_age(3600);
    // Beside "*", no other origin adds anything, and naming one would take "*" back.
    if config.cors_allowed_origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin();
    }
    for origin in &config.cors_allowed_origins {
        cors = cors.allowed_origin(origin);
    }
    cors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_that_may_hold_a_secret_is_logged() {
        for secret in [
            "/t/ticket",
            "//t/ticket",
            "/u/capability/s3/params",
            "/app/u/capability",
            "/api/v1/callbacks/s3-events/token",
            "/api/v1//callbacks/s3-events/token",
            "/callbacks/s3-events/token",
        ] {
            assert!(holds_secret(secret), "{secret}");
        }
        for harmless in ["/", "/healthz", "/api/v1/uploads/01a228a0-4ccb-7308-aa3e-9f33e597f824/complete", "/tx/u1"] {
            assert!(!holds_secret(harmless), "{harmless}");
        }
    }
}
