//! Query authentication: a URL that carries its own signature.

use std::{borrow::Cow, fmt, time::Duration};

use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;

use crate::model::ObjectKey;

use super::{
    ALGORITHM, Signer, SigningError, Validity,
    canonical_request::{SignedHeaders, canonical_request},
    encode,
    signing_key::SigningKey,
    string_to_sign::string_to_sign,
};

/// Names that a query signature gives its own values, in lower case.
const RESERVED: [&str; 7] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// A method that S3 has object operations for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are HTTP's own")]
pub enum Method {
    Get,
    Head,
    Put,
    Post,
    Delete,
}

impl Method {
    /// The method as it stands in a request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// A request that somebody else will send.
#[derive(Debug, Clone)]
pub struct PresignRequest<'a> {
    /// The request's method. A URL signed for one method is good for no other.
    pub method: Method,
    /// The object.
    pub key: &'a ObjectKey,
    /// Parameters of the operation, such as `response-content-disposition`, `versionId` or `partNumber`, not encoded.
    pub query: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Headers that the client must send, with lower-case names. All are signed, and so is `host`.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// A URL that needs no other authentication. Whoever holds it may use it until it expires, so it never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedUrl {
    pub(super) url: String,
    /// Headers that the client must send beside `host`: without one of them the signature does not verify.
    pub headers: Vec<(String, String)>,
    /// When the store starts to refuse the URL. A transfer that runs by then may finish.
    pub expires_at: DateTime<Utc>,
}

impl PresignedUrl {
    /// The URL, signature included.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL, signature included.
    pub fn into_url(self) -> String {
        self.url
    }
}

impl fmt::Debug for PresignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedUrl").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl Signer {
    /// Presigns `request` from `now`, cut to whole seconds, for `expires_in`.
    ///
    /// The canonical query string is the query of the URL, byte for byte, so what is signed cannot differ from what is
    /// sent.
    pub fn presign(
        &self,
        request: &PresignRequest<'_>,
        now: DateTime<Utc>,
        expires_in: Duration,
    ) -> Result<PresignedUrl, SigningError> {
        let validity = self.validity(now, expires_in)?;
        let headers = SignedHeaders::new(self.endpoint.host(), &request.headers)?;
        let signing_key = self.signing_key.of_day(&self.credentials, validity.amz_date.date());
        let header_names = headers.names();

        let mut pairs = self.own_parameters(&validity, &signing_key, &header_names, request.query.len());
        for (name, value) in &request.query {
            if RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
                return Err(SigningError::ReservedQueryParameter { name: name.clone().into_owned() });
            }
            pairs.push((encode::component(name), encode::component(value)));
        }

        let path = self.endpoint.object_path(request.key);
        let query = encode::canonical_query(pairs);
        let canonical_request = canonical_request(request.method.as_str(), &path, &query, &headers, &header_names);
        let canonical_request = digest::digest(&digest::SHA256, canonical_request.as_bytes());
        let string_to_sign = string_to_sign(&validity.amz_date, signing_key.scope(), &canonical_request);

        let origin = self.endpoint.origin();
        let signature_len = "&X-Amz-Signature=".len() + 64;
        let mut url = String::with_capacity(origin.len() + path.len() + 1 + query.len() + signature_len);
        for part in [origin, &path, "?", &query, "&X-Amz-Signature="] {
            url.push_str(part);
        }
        signing_key.push_signature(&mut url, &string_to_sign);

        let headers = request.headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Ok(PresignedUrl { url, headers, expires_at: validity.expires_at })
    }

    /// The parameters that a query signature adds, encoded and in order, with room for `more`.
    pub(super) fn own_parameters<'a>(
        &'a self,
        validity: &'a Validity,
        signing_key: &'a SigningKey,
        header_names: &'a str,
        more: usize,
    ) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(more + 6);
        pairs.push(("X-Amz-Algorithm".into(), ALGORITHM.into()));
        pairs.push(("X-Amz-Credential".into(), signing_key.encoded_credential().into()));
        pairs.push(("X-Amz-Date".into(), validity.amz_date.as_str().into()));
        pairs.push(("X-Amz-Expires".into(), validity.seconds.to_string().into()));
        if let Some(token) = &self.encoded_session_token {
            pairs.push(("X-Amz-Security-Token".into(), token.expose_secret().into()));
        }
        pairs.push(("X-Amz-SignedHeaders".into(), encode::component(header_names)));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::{Credentials, published_example};

    const DAY: Duration = Duration::from_hours(24);

    fn request<'a>(
        key: &'a ObjectKey,
        query: &[(&'a str, &'a str)],
        headers: &[(&'a str, &'a str)],
    ) -> PresignRequest<'a> {
        let owned = |pairs: &[(&'a str, &'a str)]| pairs.iter().map(|(n, v)| (Cow::from(*n), Cow::from(*v))).collect();
        PresignRequest { method: Method::Get, key, query: owned(query), headers: owned(headers) }
    }

    #[test]
    fn published_example_has_this_url() {
        let key = ObjectKey::parse("test.txt").unwrap();
        let signed =
            published_example::signer().presign(&request(&key, &[], &[]), published_example::now(), DAY).unwrap();
        let (origin, query, signature) =
            ("https://examplebucket.s3.amazonaws.com", published_example::QUERY, published_example::SIGNATURE);
        assert_eq!(signed.url(), format!("{origin}/test.txt?{query}&X-Amz-Signature={signature}"));
        assert_eq!(signed.headers, []);
        assert_eq!(signed.expires_at.to_rfc3339(), "2013-05-25T00:00:00+00:00");
    }

    #[test]
    fn session_token_is_part_of_the_signed_query() {
        let key = ObjectKey::parse("test.txt").unwrap();
        let sign = |token: &str| {
            let credentials = Credentials::new("AKID", "secret".into(), Some(token.into()), None);
            let signer = Signer::new(credentials, "us-east-1", published_example::endpoint());
            signer.presign(&request(&key, &[], &[]), published_example::now(), DAY).unwrap().into_url()
        };
        let url = sign("to+ken/==");
        assert!(url.contains("&X-Amz-Security-Token=to%2Bken%2F%3D%3D&X-Amz-SignedHeaders=host&"), "{url}");
        let signature = |url: &str| url.rsplit('=').next().unwrap().to_owned();
        assert_ne!(signature(&url), signature(&sign("other")));
    }

    #[test]
    fn the_signers_own_parameters_cannot_be_given() {
        let key = ObjectKey::parse("test.txt").unwrap();
        for name in ["X-Amz-Expires", "x-amz-expires", "X-Amz-Signature", "X-Amz-Security-Token"] {
            let refused =
                published_example::signer().presign(&request(&key, &[(name, "1")], &[]), published_example::now(), DAY);
            assert!(matches!(refused, Err(SigningError::ReservedQueryParameter { .. })), "{name}");
        }
    }

    #[test]
    fn headers_come_back_as_the_client_must_send_them() {
        let key = ObjectKey::parse("test.txt").unwrap();
        let request = request(&key, &[], &[("x-amz-meta-case", "42"), ("content-type", "text/plain")]);
        let signed = published_example::signer().presign(&request, published_example::now(), DAY).unwrap();
        let expected = [("x-amz-meta-case", "42"), ("content-type", "text/plain")];
        assert_eq!(signed.headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(
            signed.url().contains("X-Amz-SignedHeaders=content-type%3Bhost%3Bx-amz-meta-case&"),
            "{}",
            signed.url()
        );
    }

    #[test]
    fn debug_shows_nothing_that_opens_the_object() {
        let key = ObjectKey::parse("test.txt").unwrap();
        let signed =
            published_example::signer().presign(&request(&key, &[], &[]), published_example::now(), DAY).unwrap();
        let shown = format!("{signed:?}");
        assert!(shown.contains("expires_at") && !shown.contains("http") && !shown.contains("Signature"), "{shown}");
    }
}
