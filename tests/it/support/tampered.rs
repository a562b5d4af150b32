//! A request to a store as whoever holds its URL or form can change it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Body, Client, Method,
    header::{HeaderMap, HeaderName, HeaderValue},
    multipart::{Form, Part},
};
use serde_json::Value;

use super::{
    Reply,
    caller::{headers, sized},
};

/// Everything that the sender of a request decides.
#[derive(Clone, PartialEq)]
pub(crate) struct Request {
    /// The sender's address.
    pub(crate) from: &'static str,
    pub(crate) method: Method,
    pub(crate) url: String,
    headers: HeaderMap,
    fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Sent in chunks, without saying how long it is.
    pub(crate) chunked: bool,
}

impl Request {
    /// What `upload` (with method, url, fields and headers) asks for.
    pub(crate) fn upload(from: &'static str, upload: &Value, body: &[u8]) -> Self {
        let fields = upload["fields"].as_object().expect("fields").iter();
        Self {
            from,
            method: upload["method"].as_str().unwrap().parse().unwrap(),
            url: upload["url"].as_str().unwrap().to_owned(),
            headers: headers(upload),
            fields: fields.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
            body: body.to_vec(),
            chunked: false,
        }
    }

    /// What an issued download asks for.
    pub(crate) fn download(from: &'static str, issued: &Value) -> Self {
        Self {
            from,
            method: Method::GET,
            url: issued["url"].as_str().unwrap().to_owned(),
            headers: HeaderMap::new(),
            fields: Vec::new(),
            body: Vec::new(),
            chunked: false,
        }
    }

    /// `/{bucket}/{key}`, for stores that are addressed by path.
    pub(crate) fn path(&self) -> &str {
        let end = self.url.find('?').unwrap_or(self.url.len());
        let start = self.url.match_indices('/').nth(2).expect("a URL with a path").0;
        &self.url[start..end]
    }

    /// The object's key.
    pub(crate) fn key(&self) -> &str {
        if !self.fields.is_empty() {
            return self.field("key");
        }
        let (_, key) = self.path()[1..].split_once('/').expect("a bucket and a key");
        key
    }

    pub(crate) fn set_path(&mut self, path: &str) {
        self.url = self.url.replacen(self.path(), path, 1);
    }

    pub(crate) fn change_parameter(&mut self, name: &str, change: impl FnOnce(&str) -> String) {
        let value = change(self.parameter(name));
        self.set_parameter(name, Some(&value));
    }

    pub(crate) fn take_parameter(&mut self, name: &str, other: &Self) {
        self.set_parameter(name, Some(other.parameter(name)));
    }

    /// The parameter's value as the URL has it, encoded.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        let (_, query) = self.url.split_once('?').expect("a query");
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(existing, _)| *existing == name).unwrap_or_else(|| panic!("the URL has no {name}")).1
    }

    /// Replaces the parameter's value, adds the parameter at the end, or leaves it out.
    pub(crate) fn set_parameter(&mut self, name: &str, value: Option<&str>) {
        let (object, query) = self.url.split_once('?').expect("a query");
        let mut pairs: Vec<_> = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
        match (pairs.iter().position(|(existing, _)| *existing == name), value) {
            (Some(at), Some(value)) => pairs[at].1 = value,
            (Some(at), None) => drop(pairs.remove(at)),
            (None, Some(value)) => pairs.push((name, value)),
            (None, None) => panic!("the URL has no {name}"),
        }
        let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.url = format!("{object}?{}", query.join("&"));
    }

    /// Replaces the header's value, adds the header, or leaves it out.
    pub(crate) fn set_header(&mut self, name: &'static str, value: Option<&str>) {
        let name = HeaderName::from_static(name);
        match value {
            Some(value) => drop(self.headers.insert(name, HeaderValue::from_str(value).unwrap())),
            None => assert!(self.headers.remove(&name).is_some(), "the request has no {name}"),
        }
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        &self.fields.iter().find(|(existing, _)| existing == name).unwrap_or_else(|| panic!("no field {name}")).1
    }

    /// Replaces the field's value, adds the field before all others, or leaves it out.
    pub(crate) fn set_field(&mut self, name: &str, value: Option<&str>) {
        match (self.fields.iter().position(|(existing, _)| existing == name), value) {
            (Some(at), Some(value)) => value.clone_into(&mut self.fields[at].1),
            (Some(at), None) => drop(self.fields.remove(at)),
            (None, Some(value)) => self.fields.insert(0, (name.to_owned(), value.to_owned())),
            (None, None) => panic!("the form has no {name}"),
        }
    }

    pub(crate) fn change_field(&mut self, name: &str, change: impl FnOnce(&str) -> String) {
        let value = change(self.field(name));
        self.set_field(name, Some(&value));
    }

    pub(crate) fn take_field(&mut self, name: &str, other: &Self) {
        self.set_field(name, Some(other.field(name)));
    }

    /// Changes what the form's policy says, and leaves its signature as it is.
    pub(crate) fn change_policy(&mut self, change: impl FnOnce(&mut Value)) {
        let mut policy = serde_json::from_slice(&STANDARD.decode(self.field("policy")).unwrap()).unwrap();
        change(&mut policy);
        self.set_field("policy", Some(&STANDARD.encode(policy.to_string())));
    }

    /// Sends it with a client at [`Self::from`]. An error is a server that cut the connection.
    pub(crate) async fn send(&self, client: &Client) -> Result<Reply, reqwest::Error> {
        let request = client.request(self.method.clone(), &self.url).headers(self.headers.clone());
        let request = if !self.fields.is_empty() {
            let fields = self.fields.iter().cloned();
            let form = fields.fold(Form::new(), |form, (name, value)| form.text(name, value));
            request.multipart(form.part("file", Part::bytes(self.body.clone()).file_name("file")))
        } else if self.chunked {
            let pieces: Vec<_> = self.body.chunks(7).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
            request.body(Body::wrap_stream(futures_util::stream::iter(pieces)))
        } else {
            sized(request, &self.body)
        };
        let sent = Reply::try_of(request).await;
        if let Err(error) = &sent {
            assert!(!error.is_builder(), "the request was never sent: {error:?}");
        }
        sent
    }
}

/// `text` with one bit turned in its middle, where no decoder can take it for padding, and of the same alphabet.
pub(crate) fn one_bit_flipped(text: &str) -> String {
    let at = text[..=text.len() / 2].rfind(|c: char| c.is_ascii_alphanumeric()).expect("a letter or digit");
    let mut bytes = text.as_bytes().to_vec();
    // The lowest bit of these has no letter or hexadecimal digit on its other side.
    bytes[at] ^= if b"aAfFzZ".contains(&bytes[at]) { 2 } else { 1 };
    String::from_utf8(bytes).unwrap()
}
