//! Amazon CloudFront signed URLs and signed cookies with a custom policy.
//!
//! A custom policy names one resource, an end and a network, and CloudFront holds every viewer to it at its edge. Signed
//! with SHA-256, which CloudFront is told by `Hash-Algorithm`: it would expect SHA-1 otherwise.
//!
//! Sources: "Create a signed URL using a custom policy" and "Set signed cookies using a custom policy" in the Amazon
//! CloudFront Developer Guide.

mod key_pair;

use std::{fmt, fmt::Write as _, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, SubsecRound as _, Utc};
use serde::Deserialize;

use crate::model::{ClientNetwork, Invalid, ObjectKey};

use super::{Endpoint, PresignedUrl, SigningError, encode, json};

pub use key_pair::{KeyPair, KeyPairError};

/// What CloudFront is told about the signature.
const HASH_ALGORITHM: &str = "SHA256";

/// One distribution and the keys that its key group trusts. Cheap to share, and safe to use from many threads.
pub struct CloudFront {
    /// `https://domain`
    origin: String,
    /// What the distribution puts before the path of a request, without slashes at its ends; may be empty.
    origin_path: String,
    key_pairs: Vec<KeyPair>,
}

/// How browsers treat signed cookies, beside `Secure` and `HttpOnly`, which they always have.
#[derive(Debug, Clone, Copy)]
pub struct CookieScope<'a> {
    domain: Option<&'a str>,
    same_site: SameSite,
}

impl<'a> CookieScope<'a> {
    /// The cookies go to `domain` and those below it; without one, only to the host that sets them. `same_site` says
    /// whether they are sent with requests that other sites cause.
    ///
    /// # Errors
    /// When the domain is no host name.
    pub fn new(domain: Option<&'a str>, same_site: SameSite) -> Result<Self, Invalid> {
        domain.map(Endpoint::host_origin).transpose()?;
        Ok(Self { domain, same_site })
    }
}

/// The attribute `SameSite` of RFC 6265bis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SameSite {
    /// Only within the site.
    Strict,
    /// Within the site, and when the user follows a link to it.
    #[default]
    Lax,
    /// With every request: for pages that show files of a distribution on another site.
    None,
}

/// What serde reads it by: of itself it would also take an object with one of the names.
impl TryFrom<String> for SameSite {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        match text.as_str() {
            "strict" => Ok(Self::Strict),
            "lax" => Ok(Self::Lax),
            "none" => Ok(Self::None),
            _ => Err(Invalid::new("must be \"strict\", \"lax\" or \"none\"")),
        }
    }
}

impl SameSite {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// `Set-Cookie` headers that open everything below a prefix. Whoever holds them has access, so they never show in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedCookies {
    headers: [String; 4],
    /// When CloudFront starts to refuse them.
    pub expires_at: DateTime<Utc>,
}

impl SignedCookies {
    /// The values of four `Set-Cookie` headers.
    pub fn set_cookie_headers(&self) -> &[String] {
        &self.headers
    }
}

impl fmt::Debug for SignedCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedCookies").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl fmt::Debug for CloudFront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudFront")
            .field("origin", &self.origin)
            .field("origin_path", &self.origin_path)
            .field("key_pairs", &self.key_pairs)
            .finish()
    }
}

impl CloudFront {
    /// The distribution at `domain`, which prepends `origin_path` to the path of every request before it asks S3.
    ///
    /// # Errors
    /// When the domain is no host name, or the path is no prefix that a key could have.
    pub fn new(domain: &str, origin_path: &str, key_pairs: Vec<KeyPair>) -> Result<Self, CloudFrontSetupError> {
        let origin = Endpoint::host_origin(domain).map_err(CloudFrontSetupError::Domain)?;
        let origin_path = origin_path.trim_matches('/');
        if !origin_path.is_empty() {
            ObjectKey::parse(origin_path).map_err(CloudFrontSetupError::OriginPath)?;
        }
        Ok(Self { origin, origin_path: origin_path.to_owned(), key_pairs })
    }

    /// A URL for the object under `key`, with `query` (names and values, not encoded) for S3, good from `now`, cut to
    /// whole seconds, for `expires_in`, and from `network` only unless that is `None`.
    ///
    /// The resource of the policy is this very URL, so neither the object nor a parameter can be exchanged. The key's
    /// own `*` and `?`, which would be wildcards there, are percent-encoded in both.
    ///
    /// # Errors
    /// When the network is an IPv6 one, which CloudFront cannot hold anybody to; when the object is out of the
    /// distribution's reach; when no key pair is active.
    pub fn presign(
        &self,
        key: &ObjectKey,
        query: &[(&str, &str)],
        network: Option<ClientNetwork>,
        now: DateTime<Utc>,
        expires_in: Duration,
    ) -> Result<PresignedUrl, CloudFrontError> {
        let mut url = format!("{}{}", self.origin, self.path(key.as_str())?);
        let mut separator = '?';
        for (name, value) in query {
            url.push(separator);
            separator = '&';
            url.extend([&*encode::component(name), "=", &*encode::component(value)]);
        }
        let signed = self.sign(&url, network, now, expires_in)?;
        for (name, value) in signed.parameters() {
            url.push(separator);
            separator = '&';
            url.extend([name, "=", value]);
        }
        Ok(PresignedUrl { url, headers: Vec::new(), expires_at: signed.expires_at })
    }

    /// Cookies for every object whose key starts with `prefix` and `/`, as [`CloudFront::presign`] otherwise. They have
    /// neither `Expires` nor `Max-Age`, so a browser forgets them when it is closed; CloudFront refuses them after
    /// `expires_in` all the same.
    ///
    /// # Errors
    /// As [`CloudFront::presign`].
    pub fn sign_cookies(
        &self,
        prefix: &ObjectKey,
        network: Option<ClientNetwork>,
        now: DateTime<Utc>,
        expires_in: Duration,
        scope: CookieScope<'_>,
    ) -> Result<SignedCookies, CloudFrontError> {
        let folder = format!("{}/", self.path(prefix.as_str())?);
        let signed = self.sign(&format!("{}{folder}*", self.origin), network, now, expires_in)?;
        let domain = scope.domain.map(|domain| format!("; Domain={domain}")).unwrap_or_default();
        let headers = signed.parameters().map(|(name, value)| {
            let same_site = scope.same_site.as_str();
            format!("CloudFront-{name}={value}{domain}; Path={folder}; Secure; HttpOnly; SameSite={same_site}")
        });
        Ok(SignedCookies { headers, expires_at: signed.expires_at })
    }

    /// The path of a request for `key`, encoded, with its leading slash.
    fn path(&self, key: &str) -> Result<String, CloudFrontError> {
        let rest = if self.origin_path.is_empty() {
            Some(key)
        } else {
            key.strip_prefix(&self.origin_path).and_then(|rest| rest.strip_prefix('/'))
        };
        let mut path = String::from("/");
        encode::push_key(&mut path, rest.ok_or(CloudFrontError::OutOfReach)?);
        Ok(path)
    }

    fn sign(
        &self,
        resource: &str,
        network: Option<ClientNetwork>,
        now: DateTime<Utc>,
        expires_in: Duration,
    ) -> Result<Signed<'_>, CloudFrontError> {
        if network.is_some_and(|network| !network.is_ipv4()) {
            return Err(CloudFrontError::Ipv6Network);
        }
        if expires_in.subsec_nanos() != 0 || expires_in.is_zero() {
            return Err(SigningError::ExpiresIn.into());
        }
        let expires_at = chrono::Duration::from_std(expires_in)
            .ok()
            .and_then(|life| now.trunc_subsecs(0).checked_add_signed(life))
            .ok_or(SigningError::DateOutOfRange)?;
        let key_pair = self.key_pairs.iter().find(|pair| pair.is_active(now)).ok_or(CloudFrontError::NoActiveKey)?;
        let policy = custom_policy(resource, network, expires_at);
        let signature = key_pair.sign(policy.as_bytes()).ok_or(CloudFrontError::Failed)?;
        Ok(Signed { policy: encoded(policy.as_bytes()), signature: encoded(&signature), key_pair, expires_at })
    }
}

/// What travels with a request.
struct Signed<'a> {
    policy: String,
    signature: String,
    key_pair: &'a KeyPair,
    expires_at: DateTime<Utc>,
}

impl Signed<'_> {
    /// As parameters of a URL; cookies have the same with `CloudFront-` before the name.
    fn parameters(&self) -> [(&'static str, &str); 4] {
        [
            ("Policy", &self.policy),
            ("Signature", &self.signature),
            ("Key-Pair-Id", self.key_pair.id()),
            ("Hash-Algorithm", HASH_ALGORITHM),
        ]
    }
}

/// The policy without any white space, in the order of the documented examples.
fn custom_policy(resource: &str, network: Option<ClientNetwork>, expires_at: DateTime<Utc>) -> String {
    let mut policy = String::with_capacity(160 + resource.len());
    policy.push_str(r#"{"Statement":[{"Resource":"#);
    json::push_string(&mut policy, resource);
    policy.push_str(r#","Condition":{"#);
    if let Some(network) = network {
        let _ = write!(policy, r#""IpAddress":{{"AWS:SourceIp":"{network}"}},"#);
    }
    let _ = write!(policy, r#""DateLessThan":{{"AWS:EpochTime":{}}}}}}}]}}"#, expires_at.timestamp());
    policy
}

/// Base64 with the three characters that mean something in a URL exchanged as CloudFront wants them, which is not what
/// RFC 4648 calls base64url.
fn encoded(bytes: &[u8]) -> String {
    let valid = |c| match c {
        '+' => '-',
        '=' => '_',
        '/' => '~',
        other => other,
    };
    STANDARD.encode(bytes).chars().map(valid).collect()
}

/// Why nothing was signed for CloudFront.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CloudFrontError {
    /// Ask over IPv4, or sign without a network.
    #[error("CloudFront can hold a URL to an IPv4 network only")]
    Ipv6Network,
    /// The object lies outside of the distribution's origin path.
    #[error("the object is not below the origin path of the distribution")]
    OutOfReach,
    /// All key pairs are of the future.
    #[error("no key pair is active yet")]
    NoActiveKey,
    /// The key could not sign.
    #[error("the private key could not sign")]
    Failed,
    /// The life or its end cannot be expressed.
    #[error(transparent)]
    Signing(#[from] SigningError),
}

/// Why no distribution was set up.
#[derive(Debug, thiserror::Error)]
pub enum CloudFrontSetupError {
    /// The domain.
    #[error("{0}")]
    Domain(Invalid),
    /// The origin path.
    #[error("{0}")]
    OriginPath(Invalid),
}

#[cfg(test)]
mod tests;
