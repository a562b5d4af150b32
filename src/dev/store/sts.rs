//! `sts:AssumeRole` at the store's own endpoint, for its one role.
//!
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    http::Extensions,
};
use s3s::{
    Body, S3Request, S3Response, S3Result,
    dto::{AssumeRoleOutput, AssumedRoleUser, Credentials as SessionCredentials},
    route::S3Route,
    s3_error,
    xml::{Serialize, Serializer},
};
use secrecy::ExposeSecret as _;

use super::{
    session::{Credentials, Identity},
    session_policy::SessionPolicy,
    signed_request::{HoistedHeaders, SignedRequest},
};
use crate::clock::Clock;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// The longest request: a policy of 2,048 characters, percent-encoded, and the rest.
const MAX_BODY_BYTES: usize = 16 << 10;

/// The longest inline session policy, in characters.
const MAX_POLICY_CHARS: usize = 2048;

/// How long a session lasts, in seconds, when the request does not say.
const DEFAULT_DURATION_SECONDS: u64 = 3600;

/// Answers `AssumeRole`.
#[derive(Debug)]
pub(super) struct AssumeRole {
    pub(super) credentials: Arc<Credentials>,
    pub(super) region: String,
    pub(super) role_arn: String,
}

/// An error of the STS query protocol: its code, and what to tell the client.
struct StsError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl StsError {
    fn validation(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "ValidationError", message: message.into() }
    }
}

#[async_trait::async_trait]
impl S3Route for AssumeRole {
    fn is_match(&self, method: &Method, uri: &Uri, headers: &HeaderMap, _: &mut Extensions) -> bool {
        let is_form = headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
        method == Method::POST && uri.path() == "/" && is_form
    }

    async fn check_access(&self, req: &mut S3Request<Body>) -> S3Result<()> {
        let access_key =
            &req.credentials.as_ref().ok_or_else(|| s3_error!(AccessDenied, "Signature is required"))?.access_key;
        if !req.headers.contains_key(AUTHORIZATION) {
            return Err(s3_error!(AccessDenied, "Sign AssumeRole in the Authorization header"));
        }
        let signed =
            SignedRequest::of_request(&req.uri, &req.headers, &HoistedHeaders::default(), Clock::System.now())?;
        signed.require_scope(&self.region, "sts")?;
        match self.credentials.identify(access_key, signed.token.as_deref())? {
            Identity::Root => Ok(()),
            Identity::Session(_) => Err(s3_error!(AccessDenied, "A session may not assume the role again")),
        }
    }

    async fn call(&self, mut req: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let body = req
            .input
            .store_all_limited(MAX_BODY_BYTES)
            .await
            .map_err(|error| s3s::S3Error::with_source(s3s::S3ErrorCode::IncompleteBody, error))?;
        let (status, text) = match self.assume(&body) {
            Ok(output) => (StatusCode::OK, xml(|s| output.serialize(s))?),
            Err(error) => (
                error.status,
                xml(|s| {
                    s.element_with_ns("ErrorResponse", NAMESPACE, |s| {
                        s.element("Error", |s| {
                            s.content("Type", "Sender")?;
                            s.content("Code", error.code)?;
                            s.content("Message", error.message.as_str())
                        })
                    })
                })?,
            ),
        };
        let mut response = S3Response::with_status(Body::from(text), status);
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        Ok(response)
    }
}

impl AssumeRole {
    fn assume(&self, body: &[u8]) -> Result<AssumeRoleOutput, StsError> {
        let parameters = Parameters::parse(body)?;
        if parameters.role_arn != self.role_arn {
            return Err(StsError {
                status: StatusCode::FORBIDDEN,
                code: "AccessDenied",
                message: "not authorized to perform: sts:AssumeRole on this resource".to_owned(),
            });
        }
        let (access_key_id, session) =
            self.credentials.open_session(parameters.duration, parameters.policy).map_err(|error| StsError {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "Throttling",
                message: error.message().unwrap_or("try again later").to_owned(),
            })?;
        Ok(AssumeRoleOutput {
            assumed_role_user: Some(AssumedRoleUser {
                arn: assumed_role_arn(&self.role_arn, &parameters.role_session_name),
                assumed_role_id: format!("AROADEV:{}", parameters.role_session_name),
            }),
            credentials: Some(SessionCredentials {
                access_key_id,
                expiration: timestamp(session.expires_at),
                secret_access_key: session.secret_access_key.expose_secret().to_owned(),
                session_token: session.token.expose_secret().to_owned(),
            }),
            ..AssumeRoleOutput::default()
        })
    }
}

struct Parameters {
    role_arn: String,
    role_session_name: String,
    duration: Duration,
    policy: Option<SessionPolicy>,
}

impl Parameters {
    fn parse(body: &[u8]) -> Result<Self, StsError> {
        let mut given = HashMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            if given.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(StsError::validation(format!("{name} is there twice")));
            }
        }
        if given.remove("Action").as_deref() != Some("AssumeRole") {
            return Err(StsError {
                status: StatusCode::BAD_REQUEST,
                code: "InvalidAction",
                message: "the only action here is AssumeRole".to_owned(),
            });
        }
        given.remove("Version");
        let duration = match given.remove("DurationSeconds") {
            None => DEFAULT_DURATION_SECONDS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|seconds| (900..=43_200).contains(seconds))
                .ok_or_else(|| StsError::validation("DurationSeconds must be 900 to 43200"))?,
        };
        let policy = given.remove("Policy").map(|text| parse_policy(&text)).transpose()?;
        let role_session_name = given.remove("RoleSessionName").unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if !(2..=64).contains(&role_session_name.len()) || !role_session_name.chars().all(allowed) {
            return Err(StsError::validation("RoleSessionName must be 2 to 64 of A-Z, a-z, 0-9 and _+=,.@-"));
        }
        let role_arn = given.remove("RoleArn").unwrap_or_default();
        // PolicyArns, for one, would restrict the session: ignoring it would hand out more than was asked for.
        if let Some(name) = given.keys().next() {
            return Err(StsError::validation(format!("{name} is not supported")));
        }
        Ok(Self { role_arn, role_session_name, duration: Duration::from_secs(duration), policy })
    }
}

fn parse_policy(text: &str) -> Result<SessionPolicy, StsError> {
    if text.chars().count() > MAX_POLICY_CHARS {
        return Err(StsError::validation("Policy must have length less than or equal to 2048"));
    }
    SessionPolicy::parse(text).map_err(|error| StsError {
        status: StatusCode::BAD_REQUEST,
        code: "MalformedPolicyDocument",
        message: error.to_string(),
    })
}

/// `arn:aws:iam::<account>:role/<name>` as `arn:aws:sts::<account>:assumed-role/<name>/<session>`.
fn assumed_role_arn(role_arn: &str, session_name: &str) -> String {
    let arn = role_arn.replacen(":iam:", ":sts:", 1).replacen(":role/", ":assumed-role/", 1);
    format!("{arn}/{session_name}")
}

pub(super) fn timestamp(at: DateTime<Utc>) -> s3s::dto::Timestamp {
    std::time::SystemTime::from(at).into()
}

fn xml(write: impl FnOnce(&mut Serializer<&mut Vec<u8>>) -> s3s::xml::SerResult) -> S3Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer = Serializer::new(&mut text);
    serializer.decl().and_then(|()| write(&mut serializer)).map_err(s3s::S3Error::internal_error)?;
    Ok(text)
}
