//! What AWS demands of a signed request beyond a signature that is right.
//!
//! The signature layer has verified the signature when these functions run. They add what it does not look at: the
//! region and service of the scope, how long a URL may live, that no `x-amz-*` header was slipped in unsigned, and the
//! session token. <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>

use std::borrow::Cow;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use hyper::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, HeaderName},
};
use s3s::{S3Error, S3Result, s3_error};

use super::post_form::PostForm;

/// The longest life of a presigned URL: seven days, in seconds.
const MAX_EXPIRES_SECONDS: u64 = 604_800;

/// How far a client's clock may be off.
const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::minutes(15);

/// `x-amz-*` headers that may come unsigned: the first is held against the body, the second means nothing to S3.
const UNSIGNED_ALLOWED: [&str; 2] = ["x-amz-content-sha256", "x-amz-user-agent"];

/// Query parameters of a presigned URL that stand for headers, and were made headers before the request got here.
#[derive(Debug, Clone, Default)]
pub(super) struct HoistedHeaders(pub(super) Vec<HeaderName>);

/// A credential scope and the session token that came with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignedRequest<'a> {
    pub(super) region: Cow<'a, str>,
    pub(super) service: Cow<'a, str>,
    pub(super) token: Option<Cow<'a, str>>,
}

impl<'a> SignedRequest<'a> {
    /// Reads a request that is signed in its query or its `Authorization` header.
    ///
    /// # Errors
    /// When it is signed in any other way, in two ways, or breaks a rule of the one it uses.
    pub(super) fn of_request(
        uri: &'a Uri,
        headers: &'a HeaderMap,
        hoisted: &HoistedHeaders,
        now: DateTime<Utc>,
    ) -> S3Result<Self> {
        let query = Query(uri.query().unwrap_or_default());
        let authorization = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        // Signature version 2 knows no session tokens and no regions, so nothing here could hold it to them.
        if query.get("Signature").is_some() {
            return Err(version_2());
        }
        match (query.get("X-Amz-Signature"), authorization) {
            (Some(_), Some(_)) => Err(s3_error!(InvalidArgument, "Only one auth mechanism allowed")),
            (Some(_), None) => Self::of_query(query, headers, hoisted, now),
            (None, Some(authorization)) => Self::of_header(authorization, headers, now),
            (None, None) => Err(s3_error!(AccessDenied)),
        }
    }

    fn of_query(query: Query<'a>, headers: &HeaderMap, hoisted: &HoistedHeaders, now: DateTime<Utc>) -> S3Result<Self> {
        let malformed = |what| s3_error!(AuthorizationQueryParametersError, "{what} is missing or malformed");
        let expires = query.get("X-Amz-Expires").and_then(|text| text.parse::<u64>().ok());
        if expires.ok_or_else(|| malformed("X-Amz-Expires"))? > MAX_EXPIRES_SECONDS {
            return Err(s3_error!(
                AuthorizationQueryParametersError,
                "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less \
                 than 604800 seconds"
            ));
        }
        let date = query.get("X-Amz-Date").and_then(|date| parse_date(&date)).ok_or_else(|| malformed("X-Amz-Date"))?;
        if date - now > MAX_CLOCK_SKEW {
            return Err(s3_error!(RequestTimeTooSkewed, "X-Amz-Date is too far in the future"));
        }
        let signed = query.get("X-Amz-SignedHeaders").ok_or_else(|| malformed("X-Amz-SignedHeaders"))?;
        refuse_unsigned(headers, &signed, hoisted)?;
        let credential = query.get("X-Amz-Credential").ok_or_else(|| malformed("X-Amz-Credential"))?;
        let (region, service) = scope(&credential).ok_or_else(|| malformed("X-Amz-Credential"))?;
        Ok(Self {
            region: region.to_owned().into(),
            service: service.to_owned().into(),
            token: query.get("X-Amz-Security-Token"),
        })
    }

    fn of_header(authorization: &'a str, headers: &'a HeaderMap, now: DateTime<Utc>) -> S3Result<Self> {
        let malformed = || s3_error!(AuthorizationHeaderMalformed, "The authorization header is malformed");
        let fields = authorization.strip_prefix("AWS4-HMAC-SHA256").ok_or_else(version_2)?;
        let field = |name: &str| {
            fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('=')).ok_or_else(malformed)
        };
        let date = text(headers, "x-amz-date").and_then(parse_date).ok_or_else(malformed)?;
        if (date - now).abs() > MAX_CLOCK_SKEW {
            return Err(too_skewed());
        }
        refuse_unsigned(headers, field("SignedHeaders")?, &HoistedHeaders::default())?;
        let (region, service) = scope(field("Credential")?).ok_or_else(malformed)?;
        Ok(Self {
            region: region.into(),
            service: service.into(),
            token: text(headers, "x-amz-security-token").map(Cow::from),
        })
    }

    /// Reads a browser form. Its policy says itself until when it holds, so an old `x-amz-date` is no fault.
    pub(super) fn of_form(form: &'a PostForm, now: DateTime<Utc>) -> S3Result<Self> {
        let malformed = |what| s3_error!(InvalidArgument, "The form field {what} is missing or malformed");
        let date = form.field("x-amz-date").and_then(parse_date).ok_or_else(|| malformed("x-amz-date"))?;
        if date - now > MAX_CLOCK_SKEW {
            return Err(too_skewed());
        }
        let (region, service) =
            form.field("x-amz-credential").and_then(scope).ok_or_else(|| malformed("x-amz-credential"))?;
        Ok(Self {
            region: region.into(),
            service: service.into(),
            token: form.field("x-amz-security-token").map(Cow::from),
        })
    }

    /// Refuses a scope other than this store's region and `service`.
    pub(super) fn require_scope(&self, region: &str, service: &str) -> S3Result<()> {
        if self.region != region {
            return Err(s3_error!(
                AuthorizationHeaderMalformed,
                "The credential scope is wrong; expecting region '{region}'"
            ));
        }
        if self.service != service {
            return Err(s3_error!(
                AuthorizationHeaderMalformed,
                "The credential scope is wrong; expecting service '{service}'"
            ));
        }
        Ok(())
    }
}

/// A query string; the signature layer has refused one that has a signing parameter twice.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(self, name: &str) -> Option<Cow<'a, str>> {
        let mut values = form_urlencoded::parse(self.0.as_bytes()).filter(|(key, _)| key == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }
}

/// The query parameters that AWS takes for the headers of the same name, since some SDKs sign them there.
pub(super) fn hoisted_headers(uri: &Uri) -> impl Iterator<Item = (HeaderName, Cow<'_, str>)> {
    let query = Query(uri.query().unwrap_or_default());
    let presigned = query.get("X-Amz-Signature").is_some();
    form_urlencoded::parse(query.0.as_bytes()).filter(move |_| presigned).filter_map(|(name, value)| {
        let name = HeaderName::try_from(name.as_ref()).ok()?;
        let stands_for_header = ["x-amz-meta-", "x-amz-checksum-", "x-amz-sdk-checksum-"]
            .iter()
            .any(|prefix| name.as_str().starts_with(prefix));
        stands_for_header.then_some((name, value))
    })
}

/// AWS refuses `x-amz-*` headers that the signature does not cover: with them, whoever holds a URL could turn an
/// upload into a server-side copy or make its object public.
fn refuse_unsigned(headers: &HeaderMap, signed: &str, hoisted: &HoistedHeaders) -> S3Result<()> {
    let unsigned = headers.keys().find(|name| {
        name.as_str().starts_with("x-amz-")
            && !UNSIGNED_ALLOWED.contains(&name.as_str())
            && !hoisted.0.contains(name)
            && !signed.split(';').any(|signed| signed.eq_ignore_ascii_case(name.as_str()))
    });
    match unsigned {
        Some(name) => Err(s3_error!(
            AccessDenied,
            "There were headers present in the request which were not signed: {}",
            name.as_str()
        )),
        None => Ok(()),
    }
}

/// Region and service of `<access key id>/<date>/<region>/<service>/aws4_request`.
fn scope(credential: &str) -> Option<(&str, &str)> {
    let mut fields = credential.rsplit('/');
    let _terminator = fields.next().filter(|text| *text == "aws4_request")?;
    let service = fields.next()?;
    Some((fields.next()?, service))
}

fn parse_date(text: &str) -> Option<DateTime<Utc>> {
    NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").ok().map(|date| date.and_utc())
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn too_skewed() -> S3Error {
    s3_error!(RequestTimeTooSkewed, "The difference between the request time and the server's time is too large.")
}

fn version_2() -> S3Error {
    s3_error!(InvalidRequest, "Please use AWS4-HMAC-SHA256.")
}
