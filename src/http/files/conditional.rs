//! Conditional requests, in the order of RFC 9110 section 13.2.2. Pure.

use std::time::{Duration, SystemTime};

use actix_web::{
    HttpRequest,
    http::header::{
        self, EntityTag, Header as _, HttpDate, IfMatch, IfModifiedSince, IfNoneMatch, IfRange, IfUnmodifiedSince,
    },
};
use chrono::{DateTime, Utc};

use crate::domain::FileFacts;

/// What the conditions of a request say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send the file. `ranges` tells whether ranges count.
    Send {
        /// False where `If-Range` names another version.
        ranges: bool,
    },
    /// The client has it already: 304.
    NotModified,
    /// It is not the one that the client means: 412.
    PreconditionFailed,
}

/// Judges the conditions of `request` on the file.
pub(super) fn judge(request: &HttpRequest, file: &FileFacts) -> Verdict {
    let has = |name| request.headers().contains_key(name);
    let modified = second(file.last_modified);
    if has(header::IF_MATCH) {
        // What cannot be read names no version, so it does not name this one.
        let matches = match IfMatch::parse(request) {
            Ok(IfMatch::Any) => true,
            Ok(IfMatch::Items(tags)) => tags.iter().any(|tag| is_same(tag, file)),
            Err(_) => false,
        };
        if !matches {
            return Verdict::PreconditionFailed;
        }
    } else if IfUnmodifiedSince::parse(request).is_ok_and(|since| modified > instant(since.0)) {
        return Verdict::PreconditionFailed;
    }
    if has(header::IF_NONE_MATCH) {
        let matches = match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => true,
            // A weak comparison (section 13.1.2).
            Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|tag| tag.tag() == file.etag.as_str()),
            Err(_) => false,
        };
        if matches {
            return Verdict::NotModified;
        }
    } else if IfModifiedSince::parse(request).is_ok_and(|since| modified <= instant(since.0)) {
        return Verdict::NotModified;
    }
    let ranges = !has(header::IF_RANGE)
        || match IfRange::parse(request) {
            Ok(IfRange::EntityTag(tag)) => is_same(&tag, file),
            // Exactly the same (section 13.1.5): a later date says nothing about this version.
            Ok(IfRange::Date(date)) => modified == instant(date),
            Err(_) => false,
        };
    Verdict::Send { ranges }
}

/// The strong comparison of section 8.8.3.2. Confirmed objects have strong tags.
fn is_same(tag: &EntityTag, file: &FileFacts) -> bool {
    !tag.weak && tag.tag() == file.etag.as_str()
}

fn instant(date: HttpDate) -> SystemTime {
    date.into()
}

/// The instant as the header `Last-Modified` can say it.
pub(super) fn second(at: DateTime<Utc>) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.timestamp()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::model::ETag;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn verdict(headers: &[(&str, &str)]) -> Verdict {
        let file = FileFacts {
            content_disposition: String::new(),
            content_type: "text/plain".parse().unwrap(),
            is_active: false,
            size: 10,
            etag: ETag::parse("\"v1\"").unwrap(),
            last_modified: "1994-11-06T08:49:37.9Z".parse().unwrap(),
        };
        let request = headers.iter().fold(TestRequest::get(), |request, header| request.append_header(*header));
        judge(&request.to_http_request(), &file)
    }

    #[test]
    fn conditions_are_judged_in_their_order() {
        let (send, whole) = (Verdict::Send { ranges: true }, Verdict::Send { ranges: false });
        let (failed, unmodified) = (Verdict::PreconditionFailed, Verdict::NotModified);
        for (headers, expected) in [
            (&[][..], send),
            (&[("If-Match", "\"v1\"")], send),
            (&[("If-Match", "\"v0\", \"v1\"")], send),
            (&[("If-Match", "*")], send),
            (&[("If-Match", "\"v0\"")], failed),
            (&[("If-Match", "W/\"v1\"")], failed),
            (&[("If-Match", "garbage")], failed),
            (&[("If-Unmodified-Since", AT)], send),
            (&[("If-Unmodified-Since", BEFORE)], failed),
            (&[("If-Unmodified-Since", "soon")], send),
            // The tag counts and the date does not.
            (&[("If-Match", "\"v1\""), ("If-Unmodified-Since", BEFORE)], send),
            (&[("If-None-Match", "\"v1\"")], unmodified),
            (&[("If-None-Match", "W/\"v1\"")], unmodified),
            (&[("If-None-Match", "\"v0\", \"v1\"")], unmodified),
            (&[("If-None-Match", "*")], unmodified),
            (&[("If-None-Match", "\"v0\"")], send),
            (&[("If-Modified-Since", AT)], unmodified),
            (&[("If-Modified-Since", AFTER)], unmodified),
            (&[("If-Modified-Since", BEFORE)], send),
            (&[("If-Modified-Since", "soon")], send),
            (&[("If-None-Match", "\"v0\""), ("If-Modified-Since", AT)], send),
            (&[("If-Match", "\"v0\""), ("If-None-Match", "\"v1\"")], failed),
            (&[("If-Match", "\"v1\""), ("If-None-Match", "\"v1\"")], unmodified),
            (&[("If-Range", "\"v1\"")], send),
            (&[("If-Range", "\"v0\"")], whole),
            (&[("If-Range", "W/\"v1\"")], whole),
            (&[("If-Range", AT)], send),
            (&[("If-Range", BEFORE)], whole),
            (&[("If-Range", AFTER)], whole),
            (&[("If-Range", "garbage")], whole),
        ] {
            assert_eq!(verdict(headers), expected, "{headers:?}");
        }
    }
}
