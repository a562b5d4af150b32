//! The error contract: one closed table of codes, and the only place that turns failures into HTTP.
//!
//! Errors are `application/problem+json` (RFC 9457) with a stable `code`. What went wrong inside the service is
//! logged with the request id and never sent: every 5xx body is constant.

use std::fmt;

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;

use super::s3_xml;
use crate::{
    auth::{AuthError, SnsError},
    db::DbError,
    domain::{BrokenRule, DomainError, Mismatch, NotificationError},
    policy::Refusal,
    s3::S3Error,
};

macro_rules! error_codes {
    ($($variant:ident = $code:literal, $status:ident, $title:literal, $help:literal;)+) => {
        /// A stable name for a failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(
                #[doc = $title]
                $variant,
            )+
        }

        impl ErrorCode {
            /// All codes, for the documentation and the tests that hold it to this table.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code in JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The status it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status),+ }
            }

            /// What it says, in a few words that never change.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }

            /// What a client developer should do about it.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),+ }
            }
        }
    };
}

error_codes! {
    InvalidJson = "invalid_json", BAD_REQUEST, "The body is not the JSON that is expected",
        "Send one JSON object with the documented fields; detail names the place that could not be read.";
    InvalidXml = "invalid_xml", BAD_REQUEST, "The body is not the XML that is expected",
        "Send the CompleteMultipartUpload of Amazon S3; detail says what could not be read.";
    ClientAddressUnknown = "client_address_unknown", BAD_REQUEST, "The client's address cannot be told",
        "The reverse proxy in front sent a forwarding header without a usable address. An operator has to look at it.";
    TokenMissing = "token_missing", UNAUTHORIZED, "No token was sent",
        "Send your JSON Web Token as \"Authorization: Bearer …\".";
    TokenInvalid = "token_invalid", UNAUTHORIZED, "The token is not valid",
        "reason says which check failed. Get a fresh token from your identity provider.";
    CallbackTokenInvalid = "callback_token_invalid", UNAUTHORIZED, "The callback token is not valid",
        "Send callback.token of this very upload, before its time runs out, or confirm with the owner's JWT.";
    EventSenderUnknown = "event_sender_unknown", UNAUTHORIZED, "It is not known who sends these events",
        "Send one of the tokens under [events] as \"Authorization: Bearer …\" or as the password of Basic, or a message that Amazon SNS signed for a listed topic.";
    CapabilityInvalid = "capability_invalid", UNAUTHORIZED, "The capability in the path is not valid",
        "It is forged, it has been revoked, or its time has run out. Get a new one with POST /api/v1/capabilities.";
    CapabilityElsewhere = "capability_elsewhere", FORBIDDEN, "The capability in the path was given to another network",
        "A capability works from the network that asked for it. After a change of network, get a new one with POST /api/v1/capabilities.";
    ScopeMissing = "scope_missing", FORBIDDEN, "The token lacks a scope",
        "detail names what the token may not do. Ask your identity provider for the scope.";
    TenantBound = "tenant_bound", FORBIDDEN, "The token administers one tenant only",
        "What is asked for may be of several tenants. Use the token of an administrator that names none.";
    TicketElsewhere = "ticket_elsewhere", FORBIDDEN, "The ticket was given to another network",
        "A ticket works from the network that asked for it. Ask for the download anew from where you are.";
    PrefetchRefused = "prefetch_refused", FORBIDDEN, "Tickets are not prefetched",
        "A ticket can be used a limited number of times. Ask for it when somebody wants the file.";
    TicketUnknown = "ticket_unknown", NOT_FOUND, "There is no such ticket",
        "Check that the address is whole. A ticket is forgotten a week after its end.";
    NotBehindProxy = "not_behind_proxy", FORBIDDEN, "The file is handed out by the web server in front of this service",
        "Ask there, and not the service itself.";
    NotFound = "not_found", NOT_FOUND, "There is no such upload or download",
        "Check the id. What other users have does not exist for you.";
    RouteNotFound = "route_not_found", NOT_FOUND, "There is nothing at this path",
        "See /openapi.yaml for the paths.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The path does not take this method",
        "The Allow header lists the methods that it takes.";
    CredentialsNotGiven = "credentials_not_given", BAD_REQUEST, "No credentials are given that no upload records: use companionEndpoint, signRequest, or uploads by credentials",
        "Issue uploads with the method \"credentials\", which docs/CLIENTS.md shows for getCredentials, or let Uppy use companionEndpoint or signRequest.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The body did not arrive in time",
        "Try again over a better connection. Nothing was recorded.";
    UploadIncomplete = "upload_incomplete", CONFLICT, "The upload is not complete yet",
        "Upload the bytes first, then confirm. After a broken upload, renew the URL and send them again; of a multipart upload only the parts that detail names.";
    InvalidState = "invalid_state", CONFLICT, "The upload is in a state that forbids this",
        "detail names the state. Final states (confirmed, rejected, aborted, expired) never change: issue a new upload.";
    NotMultipart = "not_multipart", CONFLICT, "The upload has no parts",
        "Only uploads whose method is multipart have them. Send this one as upload.method of its issue says.";
    NotATicket = "not_a_ticket", CONFLICT, "The download is a presigned URL, which nothing takes back",
        "It works until its expires_at. Downloads of policies with download.uses can be taken back.";
    NetworkChanged = "network_changed", CONFLICT, "The client is in another network than the upload was issued for",
        "Renew the upload and ask again. The parts that were sent are kept.";
    RenewRequired = "renew_required", CONFLICT, "The URLs of the upload have ended",
        "Renew the upload and ask again. The parts that were sent are kept.";
    PartsGone = "parts_gone", CONFLICT, "The store has no parts of the upload any more",
        "Complete the upload: they may have been put together already. If that says the same, issue a new upload.";
    UploadNotConfirmed = "upload_not_confirmed", CONFLICT, "The upload is not confirmed",
        "Confirm it first; only confirmed uploads can be downloaded.";
    PolicyWithdrawn = "policy_withdrawn", CONFLICT, "The policy of this upload has been withdrawn",
        "An operator removed the policy that this upload was issued under. Issue a new upload under another.";
    Ipv4Required = "ipv4_required", CONFLICT, "The file can be delivered to IPv4 addresses only",
        "The content delivery network cannot hold a URL to an IPv6 network. Ask again over IPv4, or for another delivery that the policy allows.";
    UploadExpired = "upload_expired", GONE, "The time of the upload has run out",
        "Issue a new upload.";
    TicketUsed = "ticket_used", GONE, "The ticket has been used",
        "Ask whoever gave it to you for another, or ask for the download anew.";
    TicketExpired = "ticket_expired", GONE, "The time of the ticket has run out",
        "Ask whoever gave it to you for another, or ask for the download anew.";
    Revoked = "revoked", GONE, "What was handed out has been revoked",
        "An administrator has stopped it. Ask anew; whether that is allowed is for the policy and your identity provider to say.";
    FileGone = "file_gone", GONE, "The file is not there any more as it was confirmed",
        "Somebody has changed or removed it behind the service's back. An operator has to look at it: presignd drift names what is missing.";
    PreconditionFailed = "precondition_failed", PRECONDITION_FAILED, "The file is another than the request means",
        "If-Match or If-Unmodified-Since names another version. Ask without it.";
    RangeNotSatisfiable = "range_not_satisfiable", RANGE_NOT_SATISFIABLE, "The file has none of the bytes asked for",
        "Content-Range tells its size.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The request body is too large",
        "Files go to the store, not here: the body only describes them.";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body is not declared as JSON",
        "Send the header \"Content-Type: application/json\".";
    InvalidRequest = "invalid_request", UNPROCESSABLE_ENTITY, "A field breaks a rule",
        "errors lists every field with its rule and what arrived.";
    PolicyRefused = "policy_refused", UNPROCESSABLE_ENTITY, "The policy does not allow this file",
        "errors names the field, what the policy allows and what arrived. GET /api/v1/policies shows all rules.";
    UploadMismatch = "upload_mismatch", UNPROCESSABLE_ENTITY, "What was uploaded is not what was promised",
        "errors lists what differs. What was compared to be confirmed is rejected for good: issue a new upload and send exactly the declared bytes.";
    EtagMismatch = "etag_mismatch", UNPROCESSABLE_ENTITY, "The store holds another object",
        "The ETag that you sent is not the stored object's. Nothing was changed; confirm without etag to accept what is stored.";
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY, "The idempotency key was used with another request",
        "Use a new Idempotency-Key for a new request, and the same body when you repeat one.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something went wrong inside the service",
        "Report the request_id. Trying again will probably not help.";
    DatabaseUnavailable = "database_unavailable", SERVICE_UNAVAILABLE, "The service cannot record anything at the moment",
        "Try again after the seconds in Retry-After.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The service has too much to do at the moment",
        "Try again after the seconds in Retry-After.";
    StorageUnavailable = "storage_unavailable", SERVICE_UNAVAILABLE, "The store cannot be reached at the moment",
        "Try again after the seconds in Retry-After.";
    KeysUnavailable = "keys_unavailable", SERVICE_UNAVAILABLE, "Tokens cannot be verified at the moment",
        "Try again after the seconds in Retry-After.";
    SnsUnavailable = "sns_unavailable", SERVICE_UNAVAILABLE, "Amazon SNS cannot be asked at the moment",
        "Try again after the seconds in Retry-After; Amazon SNS does so by itself.";
}

/// How a failure is told, which depends on whose contract the path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 9457.
    Problem,
    /// The same with the members that clients of Companion read: `error`, and `message`, which they show to users.
    Companion,
    /// The XML of Amazon S3.
    S3,
}

/// Seconds in `Retry-After` of every 503: long enough to help, short enough that a person waits for it.
const RETRY_AFTER_SECONDS: &str = "2";

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldError {
    /// The field, as a path such as `metadata.case`.
    pub field: String,
    /// What is allowed.
    pub rule: String,
    /// What was promised, where this is about an object and not about the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<serde_json::Value>,
    /// What arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<serde_json::Value>,
}

impl FieldError {
    /// `field` breaks `rule`.
    pub fn new(field: impl Into<String>, rule: impl fmt::Display) -> Self {
        Self { field: field.into(), rule: rule.to_string(), expected: None, received: None }
    }

    /// The same, with what arrived.
    #[must_use]
    pub fn with_received(mut self, received: impl Into<serde_json::Value>) -> Self {
        self.received = Some(received.into());
        self
    }
}

/// A failure as clients see it (RFC 9457).
#[derive(Debug, Serialize)]
pub(super) struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// A failure on its way to a client.
#[derive(Debug, Clone)]
pub struct ApiError {
    code: ErrorCode,
    detail: Option<String>,
    reason: Option<&'static str>,
    errors: Vec<FieldError>,
}

impl ApiError {
    /// `code` and nothing more.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, detail: None, reason: None, errors: Vec::new() }
    }

    /// `code` with a sentence about this very request.
    pub fn with_detail(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(code) }
    }

    /// Fields that break rules.
    pub fn fields(code: ErrorCode, errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(code) }
    }

    /// The fields that break rules.
    pub fn into_fields(self) -> Vec<FieldError> {
        self.errors
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The body of the answer, with the id of the request and documentation at `base_url`.
    pub(super) fn problem<'a>(&'a self, base_url: &str, request_id: &'a str) -> Problem<'a> {
        let status = self.code.status();
        Problem {
            r#type: format!("{base_url}/docs#{}", self.code.as_str()),
            title: self.code.title(),
            status: status.as_u16(),
            code: self.code.as_str(),
            // A detail of a server error could only tell what nobody outside needs to know.
            detail: self.detail.as_deref().filter(|_| !status.is_server_error()),
            reason: self.reason,
            errors: &self.errors,
            request_id,
            error: None,
            message: None,
        }
    }

    /// The answer in `dialect`, with the id of the request and documentation at `base_url`.
    pub fn response(&self, dialect: Dialect, base_url: &str, request_id: &str) -> HttpResponse {
        let status = self.code.status();
        let sentence = self.sentence();
        let mut response = HttpResponse::build(status);
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER_SECONDS));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, self.challenge()));
        }
        if dialect == Dialect::S3 {
            let error = s3_xml::Error { code: self.code.as_str(), message: &sentence, request_id };
            return s3_xml::body(response, &error);
        }
        let mut problem = self.problem(base_url, request_id);
        if dialect == Dialect::Companion {
            problem.error = Some(&sentence);
            problem.message = Some(&sentence);
        }
        match serde_json::to_vec(&problem) {
            Ok(body) => response.content_type("application/problem+json").body(body),
            Err(_) => response.finish(),
        }
    }

    /// All of it in one line, for clients that show users what they read.
    fn sentence(&self) -> String {
        let mut sentence = self.code.title().to_owned();
        if !self.code.status().is_server_error() {
            let fields = self.errors.iter().map(|error| format!("{} {}", error.field, error.rule));
            for detail in self.detail.iter().cloned().chain(fields) {
                sentence.extend([": ", &detail]);
            }
        }
        sentence
    }

    /// RFC 6750 section 3: without a token only the scheme is named, with a bad one the failed check as well.
    fn challenge(&self) -> HeaderValue {
        let challenge = match (self.code, self.reason) {
            (ErrorCode::TokenInvalid, Some(reason)) => {
                format!("Bearer realm=\"presignd\", error=\"invalid_token\", error_description=\"{reason}\"")
            }
            // Amazon SNS sends the password of its URL only when it is asked for in this way.
            (ErrorCode::EventSenderUnknown, _) => "Basic realm=\"presignd\"".to_owned(),
            _ => "Bearer realm=\"presignd\"".to_owned(),
        };
        HeaderValue::try_from(challenge).unwrap_or_else(|_| HeaderValue::from_static("Bearer"))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.as_str())?;
        if let Some(reason) = self.reason {
            write!(f, " ({reason})")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    // Only a stand-in: the request middleware answers with `ApiError::response`, which knows the request's id.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::new(ErrorCode::TokenMissing),
            AuthError::KeysUnavailable => Self::new(ErrorCode::KeysUnavailable),
            other => {
                Self { reason: Some(other.reason()), ..Self::with_detail(ErrorCode::TokenInvalid, other.to_string()) }
            }
        }
    }
}

impl From<SnsError> for ApiError {
    fn from(error: SnsError) -> Self {
        let code = match error {
            SnsError::Unavailable(_) => ErrorCode::SnsUnavailable,
            SnsError::Malformed
            | SnsError::UnknownType
            | SnsError::TopicNotAllowed
            | SnsError::OutOfTime
            | SnsError::ForeignUrl
            | SnsError::UnknownSignatureVersion
            | SnsError::CertificateUnusable
            | SnsError::SignatureInvalid => ErrorCode::EventSenderUnknown,
        };
        Self::with_detail(code, error.to_string())
    }
}

impl From<NotificationError> for ApiError {
    fn from(error: NotificationError) -> Self {
        let code = match error {
            NotificationError::TooManyRecords => ErrorCode::BodyTooLarge,
            NotificationError::Unreadable(_) | NotificationError::UnknownFormat => ErrorCode::InvalidJson,
        };
        Self::with_detail(code, error.to_string())
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        let code = match &error {
            DbError::Unavailable(_) => ErrorCode::DatabaseUnavailable,
            DbError::Overloaded => ErrorCode::Overloaded,
            DbError::RowRefused(_) | DbError::Setting(_) | DbError::Failed(_) => ErrorCode::Internal,
        };
        Self::with_detail(code, error.to_string())
    }
}

impl From<S3Error> for ApiError {
    fn from(error: S3Error) -> Self {
        let code = match &error {
            S3Error::Unavailable { .. } => ErrorCode::StorageUnavailable,
            // Coming back will not help; somebody has to mend permissions or settings.
            S3Error::Refused { .. } | S3Error::KeyRequired { .. } => ErrorCode::Internal,
        };
        Self::with_detail(code, error.to_string())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let received = match &refusal {
            Refusal::TooLarge { received, .. } | Refusal::TooSmall { received, .. } => Some((*received).into()),
            Refusal::ContentType { received, .. } => Some(received.as_str().into()),
            Refusal::MethodNotAllowed { received, .. } | Refusal::TooLargeForOneRequest { received } => {
                Some(received.as_str().into())
            }
            Refusal::DeliveryNotAllowed { received, .. } => Some(received.as_str().into()),
            Refusal::TooShortForCredentials { received } | Refusal::ExpiresInZero { received } => {
                Some(received.as_secs().into())
            }
            Refusal::SizeRequired { .. }
            | Refusal::ChecksumRequired
            | Refusal::ChecksumOfParts
            | Refusal::NoParts(_) => None,
        };
        let field = FieldError { received, ..FieldError::new(refusal.field(), &refusal) };
        Self::fields(ErrorCode::PolicyRefused, vec![field])
    }
}

impl From<BrokenRule> for FieldError {
    fn from(broken: BrokenRule) -> Self {
        Self { received: Some(broken.received), ..Self::new(broken.field, broken.rule) }
    }
}

impl From<Mismatch> for FieldError {
    fn from(mismatch: Mismatch) -> Self {
        let rule = match mismatch.field.as_str() {
            Mismatch::CONTENT => "the file must be of the type that it was declared as",
            Mismatch::INSPECTION => "the scanner must find the file clean",
            _ => "the stored object must be what the upload promised",
        };
        Self {
            field: mismatch.field,
            rule: rule.to_owned(),
            expected: Some(mismatch.expected),
            received: Some(mismatch.found),
        }
    }
}

impl From<DomainError> for ApiError {
    fn from(error: DomainError) -> Self {
        let detail = error.to_string();
        let code = match error {
            DomainError::Db(error) => return error.into(),
            DomainError::S3(error) => return error.into(),
            DomainError::Refused(refusal) => return refusal.into(),
            DomainError::NoKey(invalid) => {
                return Self::fields(ErrorCode::PolicyRefused, vec![FieldError::new("policy", invalid)]);
            }
            DomainError::UnknownPolicy(name) => {
                let rule = "must be the name of a policy; GET /api/v1/policies lists them";
                let field = FieldError::new("policy", rule).with_received(name);
                return Self::fields(ErrorCode::InvalidRequest, vec![field]);
            }
            DomainError::InlineRefused(content_type) => {
                let rule = format!("must be \"attachment\" for {content_type}, which a browser would run");
                let field = FieldError::new("disposition", rule).with_received("inline");
                return Self::fields(ErrorCode::InvalidRequest, vec![field]);
            }
            DomainError::ReturnNeedsForm => {
                let rule = "must not be given unless method is \"post\": only a form leads anywhere";
                return Self::fields(ErrorCode::InvalidRequest, vec![FieldError::new("success_action_redirect", rule)]);
            }
            DomainError::Mismatched(mismatches) => {
                let errors = mismatches.into_iter().map(FieldError::from).collect();
                return Self::fields(ErrorCode::UploadMismatch, errors);
            }
            DomainError::BrokenRules(rules) => {
                return Self::fields(ErrorCode::InvalidRequest, rules.into_iter().map(FieldError::from).collect());
            }
            DomainError::EtagMismatch { field, claimed, found } => {
                let field = FieldError {
                    field,
                    rule: "must be the ETag of what the store holds".to_owned(),
                    expected: found.map(Into::into),
                    received: Some(claimed.into()),
                };
                return Self::fields(ErrorCode::EtagMismatch, vec![field]);
            }
            DomainError::ScopeMissing(_) => ErrorCode::ScopeMissing,
            DomainError::TenantBound => ErrorCode::TenantBound,
            DomainError::PolicyWithdrawn(_) => ErrorCode::PolicyWithdrawn,
            DomainError::Revoked => ErrorCode::Revoked,
            DomainError::TicketUnknown => ErrorCode::TicketUnknown,
            DomainError::TicketElsewhere => ErrorCode::TicketElsewhere,
            DomainError::TicketUsed => ErrorCode::TicketUsed,
            DomainError::TicketExpired => ErrorCode::TicketExpired,
            DomainError::NotATicket => ErrorCode::NotATicket,
            DomainError::NotFound => ErrorCode::NotFound,
            DomainError::CallbackTokenInvalid => ErrorCode::CallbackTokenInvalid,
            DomainError::CapabilityInvalid => ErrorCode::CapabilityInvalid,
            DomainError::CapabilityElsewhere => ErrorCode::CapabilityElsewhere,
            DomainError::Incomplete | DomainError::PartsMissing(_) => ErrorCode::UploadIncomplete,
            DomainError::PartsGone => ErrorCode::PartsGone,
            DomainError::NotMultipart => ErrorCode::NotMultipart,
            DomainError::NetworkChanged => ErrorCode::NetworkChanged,
            DomainError::RenewRequired => ErrorCode::RenewRequired,
            DomainError::Expired => ErrorCode::UploadExpired,
            DomainError::InvalidState(_) => ErrorCode::InvalidState,
            DomainError::NotConfirmed(_) => ErrorCode::UploadNotConfirmed,
            DomainError::TooManyStreams => ErrorCode::Overloaded,
            DomainError::FileGone => ErrorCode::FileGone,
            DomainError::IdempotencyMismatch => ErrorCode::IdempotencyMismatch,
            DomainError::Ipv4Required => ErrorCode::Ipv4Required,
            DomainError::Signing(_)
            | DomainError::CloudFront(_)
            | DomainError::NoCdn
            | DomainError::NoRandomness
            | DomainError::OtherBucket { .. }
            | DomainError::NoAccel => ErrorCode::Internal,
        };
        Self::with_detail(code, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_names_and_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            assert!(
                code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{}",
                code.as_str()
            );
            assert!(seen.insert(code.as_str()), "{} twice", code.as_str());
            assert!(!code.title().is_empty() && !code.help().is_empty());
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    #[actix_web::test]
    async fn server_errors_tell_nothing_and_unavailability_says_when_to_come_back() {
        let body = async |error: ApiError| {
            let response = error.response(Dialect::Problem, "https://api.example.com", "r1");
            let retry = response.headers().get(header::RETRY_AFTER).is_some();
            let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
            (String::from_utf8(body.to_vec()).unwrap(), retry)
        };
        let (failed, retry) = body(DbError::Failed("relation \"secret_table\" does not exist".to_owned()).into()).await;
        assert_eq!(
            failed,
            r#"{"type":"https://api.example.com/docs#internal","title":"Something went wrong inside the service","status":500,"code":"internal","request_id":"r1"}"#
        );
        assert!(!retry);
        let (unavailable, retry) = body(DbError::Unavailable("10.0.0.5 refused".to_owned()).into()).await;
        assert!(retry && !unavailable.contains("10.0.0.5"), "{unavailable}");
    }
}
