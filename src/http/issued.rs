//! Answers that say where the bytes of an upload go.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header::ContentType},
};
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::value::RawValue;

use super::{ApiError, ErrorCode, State, uploads::UploadView};
use crate::domain::{IssuedUpload, UploadTarget};

/// The answer to whoever issued or renewed `upload`.
pub(super) fn issued(state: &State, status: StatusCode, upload: &IssuedUpload) -> Result<HttpResponse, ApiError> {
    let body = json_body(&Issued { state, upload }, 8192)?;
    Ok(HttpResponse::build(status).content_type(ContentType::json()).body(body))
}

/// `value` in JSON, of which about `size` bytes are expected.
pub(super) fn json_body(value: &impl Serialize, size: usize) -> Result<Vec<u8>, ApiError> {
    let mut body = Vec::with_capacity(size);
    serde_json::to_writer(&mut body, value)
        .map_err(|error| ApiError::with_detail(ErrorCode::Internal, error.to_string()))?;
    Ok(body)
}

/// An upload with where its bytes go, as the client that it is issued to sees it.
pub(super) struct Issued<'a> {
    pub(super) state: &'a State,
    pub(super) upload: &'a IssuedUpload,
}

impl Serialize for Issued<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { state, upload } = self;
        // The fields of a form are most of the answer and stand in it twice.
        let fields = match &upload.target {
            Some(UploadTarget::Post(form)) => RawValue::from_string(form.fields_json()).ok(),
            _ => None,
        };
        let presigned_post_data = match (&upload.target, fields.as_deref()) {
            (Some(UploadTarget::Post(form)), Some(fields)) => Some(PostDataView { url: &form.url, fields }),
            _ => None,
        };
        let upload_url = format!("{}/api/v1/uploads/{}", state.base_url, upload.intent.id);
        let view = IssuedView {
            view: UploadView::from(&*upload.intent),
            upload: upload.target.as_ref().map(|target| TargetView::new(target, fields.as_deref(), &upload_url)),
            presigned_post_data,
            callback: CallbackView::of(state, upload),
        };
        view.serialize(serializer)
    }
}

#[derive(Serialize)]
struct IssuedView<'a> {
    #[serde(flatten)]
    view: UploadView<'a>,
    upload: Option<TargetView<'a>>,
    presigned_post_data: Option<PostDataView<'a>>,
    callback: Option<CallbackView<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum TargetView<'a> {
    /// One request.
    Request {
        method: &'static str,
        url: &'a str,
        fields: FormFields<'a>,
        headers: Headers<'a>,
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
struct PostDataView<'a> {
    url: &'a str,
    fields: &'a RawValue,
}

/// The fields of a form as JSON, or none.
#[derive(Serialize)]
#[serde(untagged)]
enum FormFields<'a> {
    Some(&'a RawValue),
    None {},
}

#[derive(Serialize)]
pub(super) struct CallbackView<'a> {
    url: String,
    token: &'a str,
}

impl<'a> CallbackView<'a> {
    /// What confirms `upload` without a JWT; none for what is settled already.
    pub(super) fn of(state: &State, upload: &'a IssuedUpload) -> Option<Self> {
        let url = format!("{}/api/v1/uploads/{}/complete", state.base_url, upload.intent.id);
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
    fn new(target: &'a UploadTarget, fields: Option<&'a RawValue>, upload_url: &str) -> Self {
        let fields = fields.map_or(FormFields::None {}, FormFields::Some);
        match target {
            UploadTarget::Put(put) => Self::Request {
                method: "PUT",
                url: put.url(),
                fields,
                headers: Headers(&put.headers),
                expires_at: put.expires_at,
            },
            UploadTarget::Post(form) => {
                let (url, headers) = (&form.url, Headers(&[]));
                Self::Request { method: "POST", url, fields, headers, expires_at: form.expires_at }
            }
            UploadTarget::Multipart { plan, has_checksums, expires_at } => Self::Parts {
                method: "MULTIPART",
                part_size: plan.map(|plan| plan.part_size()),
                part_count: plan.map(|plan| plan.part_count()),
                part_checksums: *has_checksums,
                parts_url: format!("{upload_url}/parts"),
                expires_at: *expires_at,
            },
        }
    }
}
