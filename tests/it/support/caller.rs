//! Clients: of the service's API, and of the URLs and forms that it hands out.

use std::net::IpAddr;

use reqwest::{
    Client, Method, RequestBuilder, StatusCode,
    header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue},
    multipart::{Form, Part},
};
use serde_json::Value;

/// A client at one address, with or without a token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    base: String,
    token: Option<String>,
    pub(crate) http: Client,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

/// A client whose connections come from `address`.
pub(crate) fn client_at(address: IpAddr) -> Client {
    let redirects = reqwest::redirect::Policy::none();
    Client::builder().local_address(address).no_proxy().redirect(redirects).build().expect("a client")
}

impl Caller {
    pub(crate) fn new(base: String, token: Option<String>, address: IpAddr) -> Self {
        Self { base, token, http: client_at(address) }
    }

    /// The same at another address, such as `127.0.0.11`.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self { http: client_at(address.parse().expect("an address")), ..self.clone() }
    }

    /// The same without a token.
    pub(crate) fn anonymous(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    pub(crate) fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// A request with the token, to be sent with [`Reply::of`].
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::GET, path)).await
    }

    /// The value of a metric with its labels; `None` while there is none.
    pub(crate) async fn metric(&self, series: &str) -> Option<u64> {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().expect("a number"))
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::of(self.request(Method::POST, path).json(body)).await
    }

    /// Without a body and without saying what it would be.
    pub(crate) async fn post_nothing(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::POST, path)).await
    }

    /// Issues an upload of `bytes` under `name`, with `more` fields in the request.
    pub(crate) async fn issue(&self, name: &str, bytes: &[u8], more: &Value) -> Value {
        let mut body = serde_json::json!({ "original_file_name": name, "file_size": bytes.len() });
        body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.post("/api/v1/uploads", &body).await.expect(StatusCode::CREATED)
    }

    /// Sends `bytes` where an issued upload says.
    pub(crate) async fn send(&self, issued: &Value, bytes: &[u8]) -> Reply {
        Reply::of(upload_request(&self.http, &issued["upload"], bytes)).await
    }

    pub(crate) async fn complete(&self, issued: &Value) -> Reply {
        self.post_nothing(&format!("/api/v1/uploads/{}/complete", id(issued))).await
    }

    /// Issues, sends and confirms.
    pub(crate) async fn upload(&self, name: &str, bytes: &[u8], more: &Value) -> Value {
        let issued = self.issue(name, bytes, more).await;
        let sent = self.send(&issued, bytes).await;
        assert!(sent.status.is_success(), "{sent:?}");
        self.complete(&issued).await.expect(StatusCode::OK)
    }

    /// Issues a download of an upload and follows it.
    pub(crate) async fn download(&self, upload: &Value) -> Reply {
        let body = serde_json::json!({ "upload_id": upload["id"] });
        let issued = self.post("/api/v1/downloads", &body).await.expect(StatusCode::CREATED);
        Reply::of(self.http.get(issued["url"].as_str().unwrap())).await
    }
}

/// The id of an issued upload.
pub(crate) fn id(issued: &Value) -> &str {
    issued["id"].as_str().expect("an id")
}

/// The request that `upload` (with method, url, fields and headers) asks for, to be changed by whoever tampers.
pub(crate) fn upload_request(http: &Client, upload: &Value, bytes: &[u8]) -> RequestBuilder {
    let url = upload["url"].as_str().expect("a URL");
    match upload["method"].as_str() {
        Some("PUT") => sized(http.put(url).headers(headers(upload)), bytes),
        Some("POST") => http.post(url).multipart(form(upload, &[], bytes)),
        other => panic!("no such method: {other:?}"),
    }
}

/// `request` with `body` and its length, also when that is 0: browsers and curl state it then, this client library does
/// not, and it is signed.
pub(crate) fn sized(request: RequestBuilder, body: &[u8]) -> RequestBuilder {
    request.header(CONTENT_LENGTH, body.len()).body(body.to_vec())
}

/// The headers that `upload` asks for.
pub(crate) fn headers(upload: &Value) -> HeaderMap {
    let given = upload["headers"].as_object().expect("headers");
    let pairs = given.iter().map(|(name, value)| {
        let name: HeaderName = name.parse().expect("a header name");
        (name, HeaderValue::from_str(value.as_str().unwrap()).expect("a header value"))
    });
    pairs.collect()
}

/// The form that `upload` asks for, with the file last. `changes` replaces fields, adds those that are not there, and
/// leaves out those whose value is `None`.
pub(crate) fn form(upload: &Value, changes: &[(&str, Option<&str>)], bytes: &[u8]) -> Form {
    let mut fields: Vec<(String, String)> = upload["fields"]
        .as_object()
        .expect("fields")
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    for (name, value) in changes {
        fields.retain(|(existing, _)| existing != name);
        if let Some(value) = value {
            fields.insert(0, ((*name).to_owned(), (*value).to_owned()));
        }
    }
    let form = fields.into_iter().fold(Form::new(), |form, (name, value)| form.text(name, value));
    form.part("file", Part::bytes(bytes.to_vec()).file_name("file"))
}

impl Reply {
    /// Sends `request` and reads the answer.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        Self::try_of(request).await.unwrap_or_else(|error| panic!("no answer: {}", error.without_url()))
    }

    /// The same for requests that a server may cut off.
    pub(crate) async fn try_of(request: RequestBuilder) -> Result<Self, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Self { status, headers, bytes: response.bytes().await?.to_vec() })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body, if the status is the one expected.
    pub(crate) fn expect(&self, status: StatusCode) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// Itself, if the status is the one expected: for bodies that are not JSON.
    pub(crate) fn expect_status(&self, status: StatusCode) -> &Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The body of a problem, if status and code are the ones expected.
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> Value {
        let body = self.expect(StatusCode::from_u16(status).unwrap());
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.headers["x-request-id"].to_str().unwrap(), body["request_id"].as_str().unwrap());
        body
    }
}
