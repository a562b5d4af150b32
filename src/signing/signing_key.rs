//! Stage 3: the key of a day, and the signature it makes.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::hmac;
use secrecy::{ExposeSecret as _, zeroize::Zeroizing};

use super::{Credentials, encode};

/// The key for one day, region and service, with the texts that name it.
pub(super) struct SigningKey {
    date: String,
    /// `20130524/us-east-1/s3/aws4_request`
    scope: String,
    /// The value of `X-Amz-Credential`: access key ID, slash, scope.
    credential: String,
    /// The same as it stands in a query.
    encoded_credential: String,
    key: hmac::Key,
}

impl SigningKey {
    fn derive(credentials: &Credentials, region: &str, date: &str) -> Self {
        let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        let secret = Zeroizing::new(["AWS4", credentials.secret_access_key().expose_secret()].concat());
        let date_key = sign(secret.as_bytes(), date);
        let region_key = sign(date_key.as_ref(), region);
        let service_key = sign(region_key.as_ref(), "s3");
        let key = sign(service_key.as_ref(), "aws4_request");

        let scope = [date, region, "s3", "aws4_request"].join("/");
        let credential = [credentials.access_key_id(), &scope].join("/");
        let encoded_credential = encode::component(&credential).into_owned();
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
        Self { date: date.to_owned(), scope, credential, encoded_credential, key }
    }

    pub(super) fn scope(&self) -> &str {
        &self.scope
    }

    pub(super) fn credential(&self) -> &str {
        &self.credential
    }

    pub(super) fn encoded_credential(&self) -> &str {
        &self.encoded_credential
    }

    /// Appends the signature of `string_to_sign`, in hexadecimal.
    pub(super) fn push_signature(&self, out: &mut String, string_to_sign: &str) {
        encode::push_hex(out, hmac::sign(&self.key, string_to_sign.as_bytes()).as_ref());
    }
}

/// Keeps the key of the day that was last asked for: deriving one takes several times as long as using it.
pub(super) struct SigningKeyCache {
    region: String,
    key: ArcSwapOption<SigningKey>,
}

impl SigningKeyCache {
    pub(super) fn new(region: String) -> Self {
        Self { region, key: ArcSwapOption::empty() }
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    /// The key of `credentials` for the day `date`. A cache belongs to one signer, so the credentials never change.
    pub(super) fn of_day(&self, credentials: &Credentials, date: &str) -> Arc<SigningKey> {
        if let Some(key) = self.key.load_full().filter(|key| key.date == date) {
            return key;
        }
        let key = Arc::new(SigningKey::derive(credentials, &self.region, date));
        self.key.store(Some(Arc::clone(&key)));
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::published_example;

    fn signature(key: &SigningKey) -> String {
        let mut signature = String::new();
        key.push_signature(&mut signature, published_example::STRING_TO_SIGN);
        signature
    }

    #[test]
    fn published_example_has_this_signature() {
        let key = SigningKey::derive(&published_example::credentials(), published_example::REGION, "20130524");
        assert_eq!(key.scope(), "20130524/us-east-1/s3/aws4_request");
        assert_eq!(key.credential(), "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request");
        assert_eq!(signature(&key), published_example::SIGNATURE);
    }

    #[test]
    fn each_day_has_its_own_key_and_a_day_is_derived_once() {
        let credentials = published_example::credentials();
        let cache = SigningKeyCache::new(published_example::REGION.to_owned());
        let first = cache.of_day(&credentials, "20130524");
        assert!(Arc::ptr_eq(&first, &cache.of_day(&credentials, "20130524")));

        let next_day = cache.of_day(&credentials, "20130525");
        assert_eq!(next_day.scope(), "20130525/us-east-1/s3/aws4_request");
        assert_ne!(signature(&next_day), signature(&first));

        let again = cache.of_day(&credentials, "20130524");
        assert_eq!(signature(&again), published_example::SIGNATURE);
    }
}
