//! What handlers ask for: a caller that has been authenticated, a body that has been read.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    future::Future,
    marker::PhantomData,
    net::IpAddr,
    pin::Pin,
    time::Duration,
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header,
    web::{self, Bytes, BytesMut},
};
use futures_util::StreamExt as _;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{ApiError, ErrorCode, FieldError, State};
use crate::{
    domain::{Caller, Capability},
    model::{IntentId, Principal},
};

/// The policy of whoever names none.
pub(super) const DEFAULT_POLICY: &str = "default";

type Extracting<T> = Pin<Box<dyn Future<Output = Result<T, ApiError>>>>;

/// The application's state, which every request has.
pub(super) fn state(request: &HttpRequest) -> Result<&State, ApiError> {
    request
        .app_data::<web::Data<State>>()
        .map(web::Data::get_ref)
        .ok_or_else(|| ApiError::with_detail(ErrorCode::Internal, "the route is served without its state"))
}

/// A user whose token was verified.
#[derive(Debug)]
pub(super) struct Authenticated(pub Principal);

impl FromRequest for Authenticated {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let header = request.headers().get(header::AUTHORIZATION);
            // A header that is not text is no token; saying so is as good as reading it.
            let header = header.map(|value| value.to_str().unwrap_or_default());
            Ok(Self(state(&request)?.authenticator.authenticate(header).await?))
        })
    }
}

/// The client's address, as far as it can be trusted.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub IpAddr);

impl FromRequest for ClientAddress {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let unknown = || ApiError::new(ErrorCode::ClientAddressUnknown);
        let address = request.peer_addr().ok_or_else(unknown).and_then(|peer| {
            let proxies = &state(request)?.proxies;
            proxies.client_address(peer.ip(), request.headers()).map_err(|_| unknown())
        });
        std::future::ready(address.map(Self))
    }
}

impl Authenticated {
    /// This user at `address`.
    pub(super) fn at(&self, address: ClientAddress) -> Caller<'_> {
        Caller { principal: &self.0, address: address.0 }
    }
}

/// Who uploads by the contract of a client that this service did not invent, and under which policy: whom the capability
/// in the path stands for, or else the user of the token, under the default policy.
#[derive(Debug)]
pub(super) struct Uploader {
    /// The user.
    pub principal: Principal,
    /// The policy.
    pub policy: String,
    address: IpAddr,
}

impl Uploader {
    /// This user, where they are.
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller { principal: &self.principal, address: self.address }
    }
}

impl FromRequest for Uploader {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let address = ClientAddress::from_request(&request, payload).into_inner();
        Box::pin(async move {
            let address = address?.0;
            let Some(token) = request.match_info().get("capability") else {
                let principal = Authenticated::extract(&request).await?.0;
                return Ok(Self { principal, policy: DEFAULT_POLICY.to_owned(), address });
            };
            let service = &state(&request)?.service;
            let about = request.match_info().get("id").is_some();
            let id = if about { Some(UploadId::extract(&request).await?.0) } else { None };
            let Capability { principal, policy, .. } = service.capability(token, address, id).await?;
            // Here, so that no route can forget it: the user's uploads under other policies are none of its business.
            if let Some(id) = id
                && service.owned_upload(&principal, id).await?.policy != policy
            {
                return Err(ApiError::new(ErrorCode::NotFound));
            }
            Ok(Self { principal, policy, address })
        })
    }
}

/// The id in the path. One that this service cannot have given out is nobody's upload.
#[derive(Debug, Clone, Copy)]
pub(super) struct UploadId(pub IntentId);

impl FromRequest for UploadId {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let id = request.match_info().get("id").and_then(|id| id.parse().ok());
        std::future::ready(id.map(Self).ok_or_else(|| ApiError::new(ErrorCode::NotFound)))
    }
}

/// A JSON body of type `T`, and its bytes. It may have `AT_LEAST` bytes even where the settings allow fewer.
#[derive(Debug)]
pub(super) struct JsonBody<T, const AT_LEAST: usize = 0> {
    /// What was read.
    pub value: T,
    /// What it was read from.
    pub bytes: Bytes,
}

impl<T: DeserializeOwned, const AT_LEAST: usize> FromRequest for JsonBody<T, AT_LEAST> {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let payload = payload.take();
        Box::pin(async move {
            let bytes = read_body(&request, payload, state(&request)?.body_limit.max(AT_LEAST)).await?;
            require_json(&request)?;
            Ok(Self { value: parse(&bytes)?, bytes })
        })
    }
}

/// A JSON body that may be missing altogether. It may have `AT_LEAST` bytes as [`JsonBody`] may.
#[derive(Debug)]
pub(super) struct OptionalJsonBody<T, const AT_LEAST: usize = 0>(pub T);

impl<T: DeserializeOwned + Default, const AT_LEAST: usize> FromRequest for OptionalJsonBody<T, AT_LEAST> {
    type Error = ApiError;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let payload = payload.take();
        Box::pin(async move {
            let bytes = read_body(&request, payload, state(&request)?.body_limit.max(AT_LEAST)).await?;
            if bytes.is_empty() {
                return Ok(Self(T::default()));
            }
            require_json(&request)?;
            parse(&bytes).map(Self)
        })
    }
}

/// A JSON object inside of a body. serde would also take an array of the fields in order, which nobody means and no schema
/// shows.
#[derive(Debug)]
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// The parameters of the query, none of them twice. Not actix's own: it answers what it cannot read without a problem,
/// and logs the path, in which there may be a capability.
#[derive(Debug)]
pub(super) struct Query(pub BTreeMap<String, String>);

impl Query {
    /// The value of `name`; empty where it was not given.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }
}

impl FromRequest for Query {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(parameters(request.query_string()).map(Self))
    }
}

fn parameters(query: &str) -> Result<BTreeMap<String, String>, ApiError> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query).map_err(|error| {
        ApiError::fields(ErrorCode::InvalidRequest, vec![FieldError::new("query", error.to_string())])
    })?;
    let (mut parameters, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, value) in pairs.into_inner() {
        match parameters.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(entry) => {
                let rule = "must not be given more than once";
                errors.push(FieldError::new(entry.key().as_str(), rule).with_received(value));
            }
        }
    }
    if errors.is_empty() { Ok(parameters) } else { Err(ApiError::fields(ErrorCode::InvalidRequest, errors)) }
}

fn require_json(request: &HttpRequest) -> Result<(), ApiError> {
    let declared =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = format!("expected Content-Type application/json, received {declared:?}");
    Err(ApiError::with_detail(ErrorCode::UnsupportedMediaType, detail))
}

/// The whole body, of at most `limit` bytes and within the time that the settings allow.
pub(super) async fn read_body(request: &HttpRequest, mut payload: Payload, limit: usize) -> Result<Bytes, ApiError> {
    let state = state(request)?;
    let too_large = || {
        let detail = format!("expected at most {limit} bytes");
        ApiError::with_detail(ErrorCode::BodyTooLarge, detail)
    };
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: usize| length > limit) {
        return Err(too_large());
    }
    let read = async {
        let mut whole = BytesMut::new();
        while let Some(piece) = payload.next().await {
            let piece = piece.map_err(|_| ApiError::with_detail(ErrorCode::InvalidJson, "the body broke off"))?;
            // Nearly every body arrives in one piece, which then needs no copy.
            if whole.is_empty() && declared == Some(piece.len()) {
                return Ok(piece);
            }
            if whole.len() + piece.len() > limit {
                return Err(too_large());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    };
    with_time_limit(state.request_timeout, read).await
}

async fn with_time_limit<T>(limit: Duration, read: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::RequestTimeout)))
}

/// Reads `bytes`; only a failure pays for finding out where it is.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde would also take an array of the fields in order, which nobody means and no schema shows.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| *byte != b'{') {
        return Err(ApiError::with_detail(ErrorCode::InvalidJson, "expected a JSON object"));
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(value) => match deserializer.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(ApiError::with_detail(ErrorCode::InvalidJson, error.to_string())),
        },
        Err(error) => Err(located(&error.path().to_string(), error.inner())),
    }
}

/// The failure as one of a field, where it is one.
fn located(path: &str, error: &serde_json::Error) -> ApiError {
    // The place in the text helps nobody who is told the field.
    let text = error.to_string();
    let rule = text.split(" at line ").next().unwrap_or_default();
    // A field that is missing or unknown is named by the message alone.
    let named = ["missing field `", "unknown field `"].iter().find_map(|prefix| rule.strip_prefix(prefix));
    let field = match named.and_then(|rest| rest.split_once('`')) {
        Some((name, _)) if path == "." => name.to_owned(),
        Some((name, _)) if path.rsplit('.').next() != Some(name) => format!("{path}.{name}"),
        _ => path.to_owned(),
    };
    if error.classify() == serde_json::error::Category::Data && field != "." {
        return ApiError::fields(ErrorCode::InvalidRequest, vec![FieldError::new(field, rule)]);
    }
    ApiError::with_detail(ErrorCode::InvalidJson, text)
}
