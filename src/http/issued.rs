//! Answers that say where the bytes of an upload go.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header::ContentType},
};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    ApiError, State,
    json_object::{JsonObject, push_json},
    uploads::UploadView,
};
use crate::domain::{IssuedUpload, UploadTarget};

/// What is expected of an answer, in bytes: a form with the token of a session, twice.
const EXPECTED_SIZE: usize = 8192;

/// The answer to whoever issued or renewed `upload`.
pub(super) fn issued(state: &State, status: StatusCode, upload: &IssuedUpload) -> Result<HttpResponse, ApiError> {
    let body = issued_json(state, upload)?;
    Ok(HttpResponse::build(status).content_type(ContentType::json()).body(body))
}

/// `value` in JSON, of which about `size` bytes are expected.
pub(super) fn json_body(value: &impl Serialize, size: usize) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::with_capacity(size);
    push_json(&mut body, value)?;
    Ok(body)
}

/// An upload with where its bytes go, as the client that it is issued to sees it.
pub(super) fn issued_json(state: &State, upload: &IssuedUpload) -> Result<Vec<u8>, ApiError> {
    let mut object = JsonObject::of(&UploadView::from(&*upload.intent), EXPECTED_SIZE)?;
    match &upload.target {
        Some(UploadTarget::Post(form)) => {
            // Most of the answer, and it stands there twice.
            let fields = form.fields_json();
            let expires_at = form.expires_at;
            object
                .object("upload", |target| {
                    target.member("method", &"POST")?.member("url", &form.url)?.raw("fields", fields.as_bytes());
                    target.member("headers", &NoMembers {})?.member("expires_at", &expires_at).map(drop)
                })?
                .object("presigned_post_data", |data| {
                    data.member("url", &form.url)?.raw("fields", fields.as_bytes());
                    Ok(())
                })?;
        }
        target => {
            let view = target.as_ref().map(|target| TargetView::new(state, upload, target));
            object.member("upload", &view)?.member("presigned_post_data", &())?;
        }
    }
    object.member("callback", &CallbackView::of(state, upload))?;
    Ok(object.finish())
}

#[derive(Serialize)]
#[serde(untagged)]
enum TargetView<'a> {
    /// One request.
    Request { method: &'static str, url: &'a str, fields: NoMembers, headers: Headers<'a>, expires_at: DateTime<Utc> },
    /// Whatever the client signs itself, with credentials whose members have the names that the AWS SDK for JavaScript
    /// and Uppy read.
    Credentials {
        method: &'static str,
        url: String,
        bucket: &'a str,
        key: &'a str,
        region: &'a str,
        credentials: CredentialsView<'a>,
        expires_at: DateTime<Utc>,
    },
    /// A request for each part, of which the URLs have to be asked for.
    Parts {
        method: &'static str,
        part_size: Option<u64>,
        part_count: Option<u16>,
        part_checksums: bool,
        parts_url: String,
        expires_at: DateTime<Utc>,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CredentialsView<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: Option<&'a str>,
    expiration: DateTime<Utc>,
}

/// `{}`
#[derive(Serialize)]
struct NoMembers {}

#[derive(Serialize)]
pub(super) struct CallbackView<'a> {
    url: String,
    token: &'a str,
}

impl<'a> CallbackView<'a> {
    /// What confirms `upload` without a JWT; none for what is settled already.
    pub(super) fn of(state: &State, upload: &'a IssuedUpload) -> Option<Self> {
        let url = format!("{}/complete", upload_url(state, upload));
        upload.callback_token.as_ref().map(|token| Self { url, token: token.expose_secret() })
    }
}

/// Headers that the client has to send. `Content-Length` is signed as well, but every client sends the one of its
/// body by itself, and browsers refuse to be told.
pub(super) struct Headers<'a>(pub &'a [(String, String)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter().filter(|(name, _)| name != "content-length") {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'a> TargetView<'a> {
    /// Of any target but a form.
    fn new(state: &'a State, upload: &'a IssuedUpload, target: &'a UploadTarget) -> Option<Self> {
        match target {
            UploadTarget::Put(put) => Some(Self::Request {
                method: "PUT",
                url: put.url(),
                fields: NoMembers {},
                headers: Headers(&put.headers),
                expires_at: put.expires_at,
            }),
            UploadTarget::Post(_) => None,
            UploadTarget::Credentials(signer) => {
                let credentials = signer.credentials();
                let expires_at = upload.intent.expires_at;
                Some(Self::Credentials {
                    method: "CREDENTIALS",
                    url: signer.endpoint().form_url(),
                    bucket: signer.endpoint().bucket(),
                    key: upload.intent.object_key.as_str(),
                    region: signer.region(),
                    credentials: CredentialsView {
                        access_key_id: credentials.access_key_id(),
                        secret_access_key: credentials.secret_access_key().expose_secret(),
                        session_token: credentials.session_token().map(ExposeSecret::expose_secret),
                        expiration: expires_at,
                    },
                    expires_at,
                })
            }
            UploadTarget::Multipart { plan, has_checksums, expires_at } => Some(Self::Parts {
                method: "MULTIPART",
                part_size: plan.map(|plan| plan.part_size()),
                part_count: plan.map(|plan| plan.part_count()),
                part_checksums: *has_checksums,
                parts_url: format!("{}/parts", upload_url(state, upload)),
                expires_at: *expires_at,
            }),
        }
    }
}

fn upload_url(state: &State, upload: &IssuedUpload) -> String {
    format!("{}/api/v1/uploads/{}", state.base_url, upload.intent.id)
}
