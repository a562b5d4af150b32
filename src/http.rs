//! The HTTP API: the whole route table, and the state that handlers see.

mod active_storage;
mod audit;
mod batch;
mod capabilities;
mod client_address;
mod companion;
mod cookies;
mod documentation;
mod downloads;
mod error;
mod events;
mod extract;
mod files;
mod form_return;
mod health;
mod issued;
mod json_object;
mod list;
mod metrics;
mod page;
mod parts;
mod policies;
mod request;
mod revocations;
mod s3_xml;
mod sign;
mod tickets;
mod timestamp;
mod uploads;

use std::{future::ready, sync::Arc, time::Duration};

use actix_web::{
    HttpResponse, Route,
    http::header,
    web::{self, ServiceConfig},
};

pub use client_address::TrustedProxies;
pub use error::{ApiError, Dialect, ErrorCode, FieldError};
pub use events::EventIntake;
pub use health::Readiness;
pub use metrics::Metrics;
pub use page::Page;
pub use request::{cors, finish};

use crate::{
    auth::{Authenticator, EventSenders},
    config::Config,
    domain::Service,
};

/// What every handler can reach.
#[derive(Debug)]
pub struct State {
    /// The verbs.
    pub service: Service,
    /// Who a token stands for.
    pub authenticator: Authenticator,
    /// Whose forwarding headers are believed.
    pub proxies: TrustedProxies,
    /// How clients reach this service, without a trailing slash.
    pub base_url: Arc<str>,
    /// Largest accepted body, in bytes.
    pub body_limit: usize,
    /// Longest wait for a body.
    pub request_timeout: Duration,
    /// Whether every request gets a log line.
    pub access_log: bool,
    /// Whether everything that is needed answers.
    pub readiness: Readiness,
    /// Who may tell of storage events.
    pub events: EventIntake,
    /// Origins of the pages that forms may lead to.
    pub redirect_origins: Vec<String>,
    /// What is counted.
    pub metrics: Metrics,
}

impl State {
    /// The state for `config`.
    pub fn new(
        config: &Config,
        service: Service,
        authenticator: Authenticator,
        event_senders: EventSenders,
        metrics: Metrics,
    ) -> Self {
        Self {
            readiness: Readiness::new(service.clone(), authenticator.clone()),
            service,
            authenticator,
            proxies: TrustedProxies::new(&config.server),
            base_url: config.server.base_url().into(),
            body_limit: usize::try_from(config.server.body_limit.bytes()).unwrap_or(usize::MAX),
            request_timeout: config.server.request_timeout,
            access_log: config.log.access,
            events: EventIntake::new(&config.events, event_senders),
            redirect_origins: config.server.redirect_allowed_origins.clone(),
            metrics,
        }
    }
}

/// The route table. Every path is served with a trailing slash as well, which [`finish`] takes off.
pub fn routes(app: &mut ServiceConfig) {
    // Uploads: for SPA frontends and mobile clients.
    at(app, "/api/v1/uploads", "GET, POST", [web::post().to(uploads::issue), web::get().to(uploads::list)]);
    // Before the path that would take it for an id.
    at(app, "/api/v1/uploads/batch", "POST", [web::post().to(batch::issue)]);
    at(app, "/api/v1/uploads/{id}", "DELETE, GET", [web::get().to(uploads::show), web::delete().to(uploads::abort)]);
    at(app, "/api/v1/uploads/{id}/renew", "POST", [web::post().to(uploads::renew)]);
    at(app, "/api/v1/uploads/{id}/parts", "GET, POST", [web::get().to(parts::list), web::post().to(parts::sign)]);
    at(app, "/api/v1/uploads/{id}/complete", "POST", [web::post().to(uploads::complete)]);

    // The contracts of clients that others wrote. At /u/, a capability in the path stands for the user.
    at(app, "/api/v1/capabilities", "POST", [web::post().to(capabilities::grant)]);
    at(app, "/u/{capability}/uploads/{id}/complete", "POST", [web::post().to(capabilities::complete)]);
    at(app, "/s3/params", "GET", [web::get().to(companion::params)]);
    at(app, "/u/{capability}/s3/params", "GET", [web::get().to(companion::params)]);
    at(app, "/s3/multipart", "POST", [web::post().to(companion::create)]);
    at(app, "/s3/multipart/{id}", "DELETE, GET", [web::get().to(companion::list), web::delete().to(companion::abort)]);
    at(app, "/s3/multipart/{id}/complete", "POST", [web::post().to(companion::complete)]);
    at(app, "/s3/multipart/{id}/batch", "GET", [web::get().to(companion::sign_batch)]);
    at(app, "/s3/multipart/{id}/{part}", "GET", [web::get().to(companion::sign_part)]);
    at(app, "/u/{capability}/s3/multipart", "POST", [web::post().to(companion::create)]);
    at(
        app,
        "/u/{capability}/s3/multipart/{id}",
        "DELETE, GET",
        [web::get().to(companion::list), web::delete().to(companion::abort)],
    );
    at(app, "/u/{capability}/s3/multipart/{id}/complete", "POST", [web::post().to(companion::complete)]);
    at(app, "/u/{capability}/s3/multipart/{id}/batch", "GET", [web::get().to(companion::sign_batch)]);
    at(app, "/u/{capability}/s3/multipart/{id}/{part}", "GET", [web::get().to(companion::sign_part)]);
    at(app, "/s3/sts", "GET", [web::get().to(companion::sts)]);
    at(app, "/u/{capability}/s3/sts", "GET", [web::get().to(companion::sts)]);
    at(app, "/api/v1/sign", "POST", [web::post().to(sign::sign)]);
    at(app, "/u/{capability}/xml", "POST", [web::post().to(s3_xml::create)]);
    at(
        app,
        "/u/{capability}/xml/{id}",
        "DELETE, GET, POST",
        [web::get().to(s3_xml::list), web::post().to(s3_xml::complete), web::delete().to(s3_xml::abort)],
    );
    at(app, "/rails/active_storage/direct_uploads", "POST", [web::post().to(active_storage::issue)]);
    at(app, "/u/{capability}/rails/active_storage/direct_uploads", "POST", [web::post().to(active_storage::issue)]);

    // Downloads: for whoever a policy lets read.
    at(app, "/api/v1/downloads", "POST", [web::post().to(downloads::issue)]);
    at(app, "/api/v1/files/{id}", "GET, HEAD", [web::get().to(files::deliver), web::head().to(files::deliver)]);

    at(app, "/api/v1/downloads/{id}", "DELETE", [web::delete().to(tickets::revoke)]);
    at(app, "/t/{ticket}", "GET, HEAD", [web::get().to(tickets::redeem), web::head().to(tickets::probe)]);

    // Who got what: for administrators.
    at(app, "/api/v1/audit", "GET", [web::get().to(audit::list)]);

    // What is stopped: by administrators.
    at(
        app,
        "/api/v1/admin/revocations",
        "GET, POST",
        [web::get().to(revocations::list), web::post().to(revocations::revoke)],
    );

    // What lies below a prefix: handed out by administrators.
    at(app, "/api/v1/admin/cdn-cookies", "POST", [web::post().to(cookies::issue)]);

    // What stores say: for stores, their relays, and browsers that stores send here.
    at(app, "/api/v1/callbacks/s3-events", "POST", [web::post().to(events::receive)]);
    at(app, "/api/v1/callbacks/s3-events/{token}", "POST", [web::post().to(events::receive)]);
    at(app, "/api/v1/callbacks/form/{id}/{token}/{page}", "GET", [web::get().to(form_return::receive)]);

    // What is allowed: for anybody with a token.
    at(app, "/api/v1/policies", "GET", [web::get().to(policies::show)]);

    // For operators and developers, without a token.
    at(app, "/healthz", "GET, HEAD", [web::get().to(health::alive), web::head().to(health::alive)]);
    at(app, "/readyz", "GET, HEAD", [web::get().to(health::ready), web::head().to(health::ready)]);
    at(app, "/metrics", "GET", [web::get().to(metrics::show)]);
    at(app, "/openapi.yaml", "GET", [web::get().to(documentation::openapi)]);
    at(app, "/docs", "GET", [web::get().to(documentation::page)]);

    app.default_service(web::to(route_not_found));
}

/// The path of a resource as the route table has it. Kept with the resource, because actix would match the path of
/// every request a second time to tell.
#[derive(Debug, Clone, Copy)]
struct RoutePattern(&'static str);

fn at<const N: usize>(app: &mut ServiceConfig, path: &'static str, allowed: &'static str, routes: [Route; N]) {
    let mut resource = web::resource(path).app_data(RoutePattern(path));
    for route in routes {
        resource = resource.route(route);
    }
    app.service(resource.default_service(web::to(move || ready(method_not_allowed(allowed)))));
}

fn method_not_allowed(allowed: &'static str) -> HttpResponse {
    let error = ApiError::with_detail(ErrorCode::MethodNotAllowed, format!("expected one of: {allowed}"));
    let mut response = HttpResponse::from_error(error);
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    response
}

async fn route_not_found() -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(ErrorCode::RouteNotFound))
}
