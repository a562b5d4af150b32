//! The CORS rules of every bucket: the configured origins may use the methods and headers of uploads and downloads.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ManageCorsUsing.html>

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HeaderValue, ORIGIN, VARY,
    },
};
use s3s::Body;

const METHODS: &str = "GET, PUT, POST, HEAD, DELETE";

/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: &str = "3000";

const VARY_ON: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";

/// Which origins may use the store from a browser.
#[derive(Debug)]
pub(super) struct Cors {
    allowed_origins: Vec<String>,
}

/// What the rules say to the origin of one request.
#[derive(Debug, Clone)]
pub(super) struct Grant(HeaderValue);

impl Cors {
    pub(super) fn new(allowed_origins: Vec<String>) -> Self {
        Self { allowed_origins }
    }

    /// The grant for the origin that `headers` name; `None` without an origin, or for one that is not allowed.
    pub(super) fn grant(&self, headers: &HeaderMap) -> Option<Grant> {
        let origin = headers.get(ORIGIN)?;
        if self.allowed_origins.iter().any(|allowed| allowed == "*") {
            return Some(Grant(HeaderValue::from_static("*")));
        }
        let allowed = self.allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
        allowed.then(|| Grant(origin.clone()))
    }

    /// The answer to a preflight; a request of any other kind has none.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        if request.method() != Method::OPTIONS {
            return None;
        }
        let wanted = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD);
        let method_allowed = wanted
            .and_then(|wanted| wanted.to_str().ok())
            .is_some_and(|wanted| METHODS.split(", ").any(|m| m == wanted));
        let mut response = Response::new(Body::empty());
        if let Some(grant) = self.grant(request.headers()).filter(|_| method_allowed) {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
            if let Some(wanted) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            }
            grant.apply(headers);
        } else {
            *response.status_mut() = StatusCode::FORBIDDEN;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            *response.body_mut() = Body::from(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>AccessForbidden</Code><Message>\
                 CORSResponse: This CORS request is not allowed.</Message></Error>"
                    .to_owned(),
            );
        }
        response.headers_mut().insert(VARY, HeaderValue::from_static(VARY_ON));
        Some(response)
    }

    /// Adds to the response of an actual request what a browser needs in order to show it to the page.
    pub(super) fn finish(grant: Option<Grant>, headers: &mut HeaderMap) {
        if let Some(grant) = grant {
            grant.apply(headers);
        }
        headers.insert(VARY, HeaderValue::from_static(VARY_ON));
    }
}

impl Grant {
    fn apply(self, headers: &mut HeaderMap) {
        // A page sees the headers named here and no others; the standard has no pattern for x-amz-*.
        let exposed = headers.keys().map(hyper::header::HeaderName::as_str).filter(|name| name.starts_with("x-amz-"));
        let exposed = ["ETag", "Location"].into_iter().chain(exposed).collect::<Vec<_>>().join(", ");
        if let Ok(exposed) = HeaderValue::try_from(exposed) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        if self.0 != "*" {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.0);
    }
}
