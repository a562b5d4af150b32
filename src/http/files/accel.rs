//! A file that the web server in front of this service hands out: an answer without a body that tells it where.

use actix_web::{HttpRequest, HttpResponse, http::header::HeaderName};

use super::{headers, range::Wanted};
use crate::{
    domain::{AccelPlace, AcceleratedFile},
    http::{ApiError, ErrorCode, State},
};

// What nginx and deploy/nginx/presignd.conf take out of the answer. The client sees none of it.
const ACCEL_REDIRECT: HeaderName = HeaderName::from_static("x-accel-redirect");
const URL: HeaderName = HeaderName::from_static("x-presignd-url");
const RANGE: HeaderName = HeaderName::from_static("x-presignd-range");
const ETAG: HeaderName = HeaderName::from_static("x-presignd-etag");
const LAST_MODIFIED: HeaderName = HeaderName::from_static("x-presignd-last-modified");
const SECURITY_POLICY: HeaderName = HeaderName::from_static("x-presignd-security-policy");

const SENDFILE: HeaderName = HeaderName::from_static("x-sendfile");
const LIGHTTPD_SEND_FILE: HeaderName = HeaderName::from_static("x-lighttpd-send-file");

/// Answers the web server. Whoever reaches this service round it would be shown what only it may see, and is refused.
pub(super) fn answer(
    state: &State,
    request: &HttpRequest,
    file: &AcceleratedFile,
    wanted: &Wanted,
) -> Result<HttpResponse, ApiError> {
    if !request.peer_addr().is_some_and(|peer| state.proxies.trusts(peer.ip())) {
        return Err(ApiError::new(ErrorCode::NotBehindProxy));
    }
    if *wanted == Wanted::Nothing {
        return Ok(headers::not_satisfiable(&file.facts));
    }
    let mut response = HttpResponse::Ok();
    headers::describe(&mut response, &file.facts);
    match &file.place {
        AccelPlace::Nginx { path, url } => {
            response.insert_header((ACCEL_REDIRECT, path.as_str())).insert_header((URL, url.url()));
            // nginx drops them under their own names when it follows a redirect of this kind.
            response
                .insert_header((ETAG, headers::etag(&file.facts)))
                .insert_header((LAST_MODIFIED, headers::last_modified(&file.facts).to_string()));
            if file.facts.is_active {
                response.insert_header((SECURITY_POLICY, headers::SANDBOX));
            }
            // Stores send one range at a time; of several, nginx picks them from the whole.
            if let Wanted::Ranges(ranges) = wanted
                && let [range] = ranges.as_slice()
            {
                response.insert_header((RANGE, format!("bytes={}-{}", range.start(), range.end())));
            }
        }
        AccelPlace::Apache(path) => {
            response.insert_header((SENDFILE, path.as_str()));
        }
        AccelPlace::Lighttpd(path) => {
            response.insert_header((LIGHTTPD_SEND_FILE, path.as_str()));
        }
    }
    Ok(response.finish())
}
