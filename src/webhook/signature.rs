//! Signatures of Standard Webhooks 1.0, scheme `v1`: HMAC-SHA256 over id, timestamp and body.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretSlice};
use uuid::Uuid;

/// The keys of one endpoint.
#[derive(Debug)]
pub(super) struct SigningKeys(Vec<hmac::Key>);

impl SigningKeys {
    /// Takes the bytes of each key.
    pub(super) fn new<'a>(keys: impl IntoIterator<Item = &'a SecretSlice<u8>>) -> Self {
        Self(keys.into_iter().map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret())).collect())
    }

    /// The value of `webhook-signature`: one signature by each key, so that a receiver that knows only the older or only
    /// the newer of two finds its own.
    pub(super) fn sign(&self, event_id: Uuid, at: DateTime<Utc>, body: &str) -> String {
        self.sign_text(&format!("{event_id}.{}.{body}", at.timestamp()))
    }

    fn sign_text(&self, text: &str) -> String {
        let signatures = self.0.iter().map(|key| format!("v1,{}", STANDARD.encode(hmac::sign(key, text.as_bytes()))));
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(base64: &str) -> SecretSlice<u8> {
        SecretSlice::from(STANDARD.decode(base64).unwrap())
    }

    /// The vector that the libraries of Standard Webhooks test themselves with.
    #[test]
    fn the_published_vector() {
        let keys = SigningKeys::new([&key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]);
        assert_eq!(
            keys.sign_text("msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn every_key_signs() {
        let (old, new) = (key("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"));
        let at = "2026-11-21T10:00:00.999Z".parse().unwrap();
        let sign = |keys: &[&SecretSlice<u8>]| SigningKeys::new(keys.iter().copied()).sign(Uuid::nil(), at, "{}");
        assert_eq!(sign(&[&new, &old]), format!("{} {}", sign(&[&new]), sign(&[&old])));
        assert!(!format!("{:?}", SigningKeys::new([&old])).contains("50, 242, 144"));
    }
}
