//! Sends requests as a client would: plain HTTP, without any credentials but those in the URL.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use reqwest::{
    Client, Method, RequestBuilder,
    header::{CONTENT_LENGTH, HeaderMap},
    multipart::{Form, Part},
};

use super::{BODY, CONTENT_TYPE, report::Verdict};
use crate::{
    outgoing,
    signing::{PresignedPost, PresignedUrl},
};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers are a few bytes, or an error in XML.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Somebody at this machine, and somebody at another address of it.
#[derive(Debug)]
pub(super) struct Visitor {
    here: Client,
    elsewhere: Option<Client>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) const fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// Whether the request was refused: neither taken, nor lost in a failure of the store.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self.status, 400..=499)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The status, and the store's code where it gave one.
    pub(super) fn told(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        match code {
            Some((code, _)) if code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                format!("{} {code}", self.status)
            }
            _ => self.status.to_string(),
        }
    }
}

impl Visitor {
    pub(super) fn new(from_address: Option<IpAddr>) -> reqwest::Result<Self> {
        let client = |address: Option<IpAddr>| outgoing::client(PATIENCE).local_address(address).no_proxy().build();
        let elsewhere = from_address.map(|address| client(Some(address))).transpose()?;
        Ok(Self { here: client(None)?, elsewhere })
    }

    pub(super) fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.here.request(method, url)
    }

    /// The signed PUT with `body`, and with `changed` in the place of headers of the same name.
    pub(super) async fn put(
        &self,
        signed: &PresignedUrl,
        body: &'static [u8],
        changed: &[(&str, &str)],
    ) -> Result<Answer, Verdict> {
        send(signed_put(&self.here, signed, body, changed)).await
    }

    /// The same from the other address, if there is one.
    pub(super) async fn put_from_elsewhere(&self, signed: &PresignedUrl) -> Option<Result<Answer, Verdict>> {
        let client = self.elsewhere.as_ref()?;
        Some(send(signed_put(client, signed, BODY, &[])).await)
    }

    pub(super) async fn get(&self, signed: &PresignedUrl, headers: &[(&str, &str)]) -> Result<Answer, Verdict> {
        let request = self.here.get(signed.url());
        send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
    }

    pub(super) async fn post(&self, signed: &PresignedPost, body: &'static [u8]) -> Result<Answer, Verdict> {
        let mut form = Form::new();
        for (name, value) in &signed.fields {
            form = form.text(name.clone(), value.clone());
        }
        let file = Part::bytes(body).file_name("check.txt").mime_str(CONTENT_TYPE);
        let file = file.map_err(|error| Verdict::untried(error.to_string()))?;
        send(self.here.post(&signed.url).multipart(form.part("file", file))).await
    }
}

fn signed_put(client: &Client, signed: &PresignedUrl, body: &'static [u8], changed: &[(&str, &str)]) -> RequestBuilder {
    let mut request = client.put(signed.url()).body(body);
    // The length is that of the body, as with every client.
    let signed = signed.headers.iter().filter(|(name, _)| *name != CONTENT_LENGTH.as_str());
    for (name, value) in signed.filter(|(name, _)| changed.iter().all(|(other, _)| other != name)) {
        request = request.header(name, value);
    }
    changed.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

/// Sends it and reads the answer, as far as it may be needed.
pub(super) async fn send(request: RequestBuilder) -> Result<Answer, Verdict> {
    let failed = |error: reqwest::Error| {
        let mend = "s3.public_endpoint (and --url) have to be reached from here, as clients reach them";
        Verdict::failed(&outgoing::describe(&error), mend)
    };
    let mut response = request.send().await.map_err(failed)?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Vec::new();
    while body.len() < MAX_BODY_BYTES
        && let Some(piece) = response.chunk().await.map_err(failed)?
    {
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status, headers, body: body.into() })
}
