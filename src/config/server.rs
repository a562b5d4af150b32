//! `[server]`: where the service listens and how it sees its clients.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use reqwest::Url;
use serde::Deserialize;

use super::{Problem, duration, number};
use crate::model::ByteSize;

/// Settings of the HTTP server.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Worker threads; by default one for each core.
    #[serde(deserialize_with = "number::deserialize_option")]
    pub workers: Option<usize>,
    /// How clients reach this service, without a trailing slash; callback and documentation URLs start with it.
    pub public_url: Option<String>,
    /// Networks of the reverse proxies whose forwarding header is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The one header that those proxies set.
    pub forwarded_header: ForwardedHeader,
    /// Largest accepted request body.
    pub body_limit: ByteSize,
    /// Time within which a client must send its request's head, and then its body.
    #[serde(deserialize_with = "duration::deserialize")]
    pub request_timeout: Duration,
    /// Time for in-flight requests to finish after SIGTERM.
    #[serde(deserialize_with = "duration::deserialize")]
    pub shutdown_timeout: Duration,
    /// Origins that browsers may call this API from; `"*"` for any.
    pub cors_allowed_origins: Vec<String>,
    /// Origins of the pages that a browser may be sent to after a form was uploaded.
    pub redirect_allowed_origins: Vec<String>,
}

/// Which header carries the client's address when the peer is a trusted proxy.
///
/// One, named by the operator: a proxy that sets one of the headers passes the other through as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[serde(rename = "x-forwarded-for")]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    #[serde(rename = "forwarded")]
    Forwarded,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            workers: None,
            public_url: None,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::XForwardedFor,
            body_limit: ByteSize::from_bytes(256 * 1024),
            request_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(30),
            cors_allowed_origins: Vec::new(),
            redirect_allowed_origins: Vec::new(),
        }
    }
}

impl ServerConfig {
    /// The public URL, or the one that follows from the listening address.
    pub fn base_url(&self) -> String {
        self.public_url.clone().unwrap_or_else(|| url_of(self.listen))
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.public_url.as_ref().is_some_and(|url| !is_base_url(url) || url.ends_with('/')) {
            let rule = "must be an http or https URL without a trailing slash, user, query or fragment";
            problems.push(Problem::new("server.public_url", rule));
        }
        if self.workers == Some(0) {
            problems.push(Problem::new("server.workers", "must be at least 1"));
        }
        if self.body_limit.bytes() < 1024 || self.body_limit.bytes() > 16 << 20 {
            problems.push(Problem::new("server.body_limit", "must be 1KiB to 16MiB"));
        }
        if self.shutdown_timeout < Duration::from_secs(1) || self.shutdown_timeout.subsec_nanos() > 0 {
            problems.push(Problem::new("server.shutdown_timeout", "must be at least 1s, in whole seconds"));
        }
        if self.request_timeout.is_zero() {
            problems.push(Problem::new("server.request_timeout", "must be longer than 0"));
        }
        for (index, network) in self.trusted_proxies.iter().enumerate() {
            if matches!(network, IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some()) {
                let rule = "must be written as the IPv4 network that it is, because peers are compared in that form";
                problems.push(Problem::new(format!("server.trusted_proxies[{index}]"), rule));
            }
        }
        for (index, origin) in self.cors_allowed_origins.iter().enumerate() {
            if origin != "*" && !is_origin(origin) {
                let key = format!("server.cors_allowed_origins[{index}]");
                problems.push(Problem::new(key, format!("must be \"*\" or {AN_ORIGIN}")));
            }
        }
        for (index, origin) in self.redirect_allowed_origins.iter().enumerate() {
            if !is_origin(origin) {
                let key = format!("server.redirect_allowed_origins[{index}]");
                problems.push(Problem::new(key, format!("must be {AN_ORIGIN}")));
            }
        }
        problems
    }
}

/// The URL of what listens at `address`. Nobody can connect to the unspecified one, which is then this machine's own.
pub(crate) fn url_of(mut address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("http://{address}")
}

/// What [`is_origin`] takes, for messages.
pub(crate) const AN_ORIGIN: &str =
    "an origin such as \"https://app.example.com\", in lower case and without a default port";

/// Whether `text` is an origin of a page as browsers write it: it is compared byte for byte, by this service and by
/// stores.
pub(crate) fn is_origin(text: &str) -> bool {
    origin_of(text).as_deref() == Some(text) && text.starts_with("http")
}

/// Whether paths can be put behind `text`: an http or https URL with a host and without user, query or fragment.
pub(super) fn is_base_url(text: &str) -> bool {
    !text.contains(['?', '#', ' ']) && Url::parse(text).is_ok_and(|url| is_web_url(&url))
}

/// Whether `url` is http or https, with a host and without user and password.
pub(crate) fn is_web_url(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty() && url.password().is_none()
}

/// The origin of `url` as browsers write it.
pub(super) fn origin_of(url: &str) -> Option<String> {
    Url::parse(url).ok().map(|url| url.origin().ascii_serialization())
}
