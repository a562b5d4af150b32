//! AWS Signature Version 4 for presigned URLs and POST forms, as S3 verifies it; and CloudFront's own signatures.
//!
//! Sans-IO: the instant is a parameter, and nothing here reads a clock, opens a socket or awaits. One file per stage of
//! the specification, in the order in which a signature comes about; the unit tests of every stage use the same example
//! from the S3 documentation, so a failing test names the stage.
//!
//! Sources: "Authenticating Requests: Using Query Parameters" and "Browser-Based Uploads Using POST" in the Amazon S3
//! API Reference.

mod canonical_request;
pub mod cloudfront;
mod credentials;
mod encode;
mod endpoint;
mod json;
mod part_urls;
mod post_policy;
mod presigned_url;
mod signing_key;
mod string_to_sign;
mod timestamp;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod published_example;

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound as _, Utc};
use secrecy::{ExposeSecret as _, SecretString};

pub use credentials::Credentials;
pub use endpoint::{Addressing, Endpoint, EndpointError};
pub use part_urls::PartSigner;
pub use post_policy::{PostForm, PresignedPost, SuccessAction};
pub use presigned_url::{Method, PresignRequest, PresignedUrl};

use crate::model::{MAX_SIGNATURE_LIFE, ObjectKey};

use self::{signing_key::SigningKeyCache, timestamp::AmzDate};

/// The value of `X-Amz-Algorithm`.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// [`MAX_SIGNATURE_LIFE`] in seconds, in which `X-Amz-Expires` counts.
const MAX_EXPIRES_IN_SECONDS: u64 = MAX_SIGNATURE_LIFE.as_secs();

/// The value of `x-amz-copy-source` for an object: bucket and key, percent-encoded.
pub fn copy_source(bucket: &str, key: &ObjectKey) -> String {
    let mut source = String::with_capacity(bucket.len() + key.as_str().len() + 1);
    source.push_str(bucket);
    source.push('/');
    encode::push_key(&mut source, key.as_str());
    source
}

/// Signs for one set of credentials, one region and one bucket. Cheap to share, and safe to use from many threads.
pub struct Signer {
    credentials: Credentials,
    /// The session token as it stands in a query. It is as long as the rest of the URL and never changes.
    encoded_session_token: Option<SecretString>,
    endpoint: Arc<Endpoint>,
    signing_key: SigningKeyCache,
}

impl Signer {
    /// A signer for the bucket of `endpoint`, which lies in `region`.
    pub fn new(credentials: Credentials, region: impl Into<String>, endpoint: Arc<Endpoint>) -> Self {
        let encoded_session_token =
            credentials.session_token().map(|token| encode::component(token.expose_secret()).into_owned().into());
        Self { credentials, encoded_session_token, endpoint, signing_key: SigningKeyCache::new(region.into()) }
    }

    /// What this signs with.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The region that the bucket lies in.
    pub fn region(&self) -> &str {
        self.signing_key.region()
    }

    /// The bucket that this signs for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Checks that a signature made at `now` may live for `expires_in`.
    fn validity(&self, now: DateTime<Utc>, expires_in: Duration) -> Result<Validity, SigningError> {
        let seconds = expires_in.as_secs();
        if expires_in.subsec_nanos() != 0 || !(1..=MAX_EXPIRES_IN_SECONDS).contains(&seconds) {
            return Err(SigningError::ExpiresIn);
        }
        // X-Amz-Date has whole seconds. Counting from the instant that is sent keeps `expires_at` true.
        let signed_at = now.trunc_subsecs(0);
        let expires_at = chrono::Duration::from_std(expires_in)
            .ok()
            .and_then(|life| signed_at.checked_add_signed(life))
            .ok_or(SigningError::DateOutOfRange)?;
        match self.credentials.expires_at() {
            Some(credentials_expire_at) if credentials_expire_at < expires_at => {
                Err(SigningError::CredentialsExpireFirst { credentials_expire_at })
            }
            _ => Ok(Validity { amz_date: AmzDate::new(signed_at)?, seconds, expires_at }),
        }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("credentials", &self.credentials)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// From when until when a signature is good.
struct Validity {
    amz_date: AmzDate,
    /// The value of `X-Amz-Expires`.
    seconds: u64,
    expires_at: DateTime<Utc>,
}

/// Why nothing was signed. No message holds a secret, a signature or a header's value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SigningError {
    /// Ask for a life that `SigV4` can express.
    #[error("a signature must live a whole number of seconds, from 1 to {MAX_EXPIRES_IN_SECONDS}")]
    ExpiresIn,
    /// Shorten the life or fetch fresh credentials: a URL dies with the credentials that signed it, so its promised
    /// expiry would be a lie.
    #[error("the signing credentials expire at {credentials_expire_at}, before the signature would")]
    CredentialsExpireFirst {
        /// The latest expiry that these credentials can promise.
        credentials_expire_at: DateTime<Utc>,
    },
    /// The date has no place in the formats of `SigV4`.
    #[error("only the years 0 to 9999 can be signed")]
    DateOutOfRange,
    /// The header could be sent otherwise than it was signed.
    #[error("header {name:?} cannot be signed: {rule}")]
    Header {
        /// The header's name, as given.
        name: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// The parameter would contradict the signer's own.
    #[error("query parameter {name:?} belongs to the signature itself")]
    ReservedQueryParameter {
        /// The parameter's name, as given.
        name: String,
    },
    /// S3 replaces `${filename}` in a form's key by a name that the client chooses.
    #[error("the key of a form must not hold ${{filename}}")]
    KeyIsTemplate,
    /// S3 ignores other values and answers 204.
    #[error("success_action_status must be 200, 201 or 204, not {0}")]
    SuccessActionStatus(u16),
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn validity(expires_in: Duration, credentials_left: Option<TimeDelta>) -> Result<Validity, SigningError> {
        let now = published_example::now() + TimeDelta::milliseconds(750);
        let expires_at = credentials_left.map(|left| published_example::now() + left);
        let credentials = Credentials::new("AKID", "secret".into(), None, expires_at);
        Signer::new(credentials, "us-east-1", published_example::endpoint()).validity(now, expires_in)
    }

    #[test]
    fn expiry_is_whole_seconds_up_to_seven_days() {
        for good in [1, 60, MAX_EXPIRES_IN_SECONDS] {
            assert_eq!(validity(Duration::from_secs(good), None).unwrap().seconds, good);
        }
        for bad in [Duration::ZERO, Duration::from_millis(1500), Duration::from_secs(MAX_EXPIRES_IN_SECONDS + 1)] {
            assert!(matches!(validity(bad, None), Err(SigningError::ExpiresIn)), "{bad:?}");
        }
    }

    #[test]
    fn expires_at_counts_from_the_signed_second() {
        let expires_at = validity(Duration::from_mins(1), None).unwrap().expires_at;
        assert_eq!(expires_at, published_example::now() + TimeDelta::seconds(60));
    }

    #[test]
    fn credentials_must_outlive_what_they_sign() {
        let minute = Duration::from_mins(1);
        assert!(validity(minute, Some(TimeDelta::seconds(60))).is_ok());
        let refused = validity(minute, Some(TimeDelta::milliseconds(59_999)));
        assert!(matches!(refused, Err(SigningError::CredentialsExpireFirst { .. })));
    }

    #[test]
    fn dates_beyond_the_format_are_refused() {
        let signer = published_example::signer();
        for now in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC] {
            let refused = signer.validity(now, Duration::from_secs(1));
            assert!(matches!(refused, Err(SigningError::DateOutOfRange)), "{now}");
        }
    }

    #[test]
    fn debug_shows_neither_secret_nor_token() {
        let credentials = Credentials::new("AKID", "hush".into(), Some("to/ken".into()), None);
        let shown = format!("{:?}", Signer::new(credentials, "us-east-1", published_example::endpoint()));
        assert!(shown.contains("AKID"), "{shown}");
        assert!(!shown.contains("hush") && !shown.contains("ken\""), "{shown}");
        assert!(!shown.contains("to%2Fken"), "{shown}");
    }
}
