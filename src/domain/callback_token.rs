//! Tokens that confirm one upload without a JWT: for a mobile client whose background upload outlives its session.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};

use super::DomainError;
use crate::model::IntentId;

/// A named key.
#[derive(Clone)]
pub struct CallbackKey {
    id: String,
    key: hmac::Key,
}

impl std::fmt::Debug for CallbackKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallbackKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl CallbackKey {
    /// The key `id` with this secret.
    pub fn new(id: impl Into<String>, secret: &SecretString) -> Self {
        Self { id: id.into(), key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()) }
    }
}

/// Issues and verifies callback tokens: `<key id>.<end in Unix seconds>.<HMAC-SHA256>`, where the HMAC covers the
/// upload's id and the end. A token confirms its upload and nothing else, so one that is replayed changes nothing.
#[derive(Debug, Clone)]
pub struct CallbackTokens {
    keys: Vec<CallbackKey>,
}

impl CallbackTokens {
    /// Tokens under `keys`: the first signs, all verify. Without keys, nothing is issued that would verify.
    pub fn new(keys: Vec<CallbackKey>) -> Self {
        Self { keys }
    }

    /// A token for `upload` until `until`.
    pub fn issue(&self, upload: IntentId, until: DateTime<Utc>) -> SecretString {
        let Some(key) = self.keys.first() else { return SecretString::from("") };
        let end = until.timestamp();
        let tag = hmac::sign(&key.key, message(upload, end).as_bytes());
        SecretString::from(format!("{}.{end}.{}", key.id, URL_SAFE_NO_PAD.encode(tag)))
    }

    /// Whether `token` is one of `upload` that has not ended.
    ///
    /// # Errors
    /// [`DomainError::CallbackTokenInvalid`] whatever is wrong with it: what exactly would only help a forger.
    pub fn verify(&self, token: &str, upload: IntentId, now: DateTime<Utc>) -> Result<(), DomainError> {
        let invalid = || DomainError::CallbackTokenInvalid;
        let mut parts = token.splitn(3, '.');
        let (Some(id), Some(end), Some(tag)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(invalid());
        };
        let key = self.keys.iter().find(|key| key.id == id).ok_or_else(invalid)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| invalid())?;
        let end: i64 = end.parse().map_err(|_| invalid())?;
        hmac::verify(&key.key, message(upload, end).as_bytes(), &tag).map_err(|_| invalid())?;
        if now.timestamp() > end { Err(invalid()) } else { Ok(()) }
    }
}

/// What is signed. The first line keeps these apart from anything else ever signed with the same key.
fn message(upload: IntentId, end: i64) -> String {
    format!("presignd callback v1\n{upload}\n{end}")
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn key(id: &str, secret: &str) -> CallbackKey {
        CallbackKey::new(id, &SecretString::from(secret))
    }

    fn issue(tokens: &CallbackTokens, upload: IntentId) -> String {
        tokens.issue(upload, at(2000)).expose_secret().to_owned()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_upload_until_its_end() {
        let tokens = CallbackTokens::new(vec![key("k1", "one")]);
        let (upload, other) = (IntentId::at(at(1000)), IntentId::at(at(1001)));
        let token = issue(&tokens, upload);
        assert!(tokens.verify(&token, upload, at(2000)).is_ok());
        assert!(tokens.verify(&token, upload, at(2000) + TimeDelta::seconds(1)).is_err());
        assert!(tokens.verify(&token, other, at(1500)).is_err());
    }

    #[test]
    fn no_part_of_a_token_can_be_changed() {
        let tokens = CallbackTokens::new(vec![key("k1", "one"), key("k2", "two")]);
        let upload = IntentId::at(at(1000));
        let token = issue(&tokens, upload);
        for forged in [
            token.replace("2000", "9000"),
            token.replace("k1", "k2"),
            token.replace("k1", "k3"),
            format!("{token}A"),
            token.rsplit_once('.').unwrap().0.to_owned(),
            format!("{}.", token.rsplit_once('.').unwrap().0),
            String::new(),
            "..".to_owned(),
        ] {
            assert!(tokens.verify(&forged, upload, at(1500)).is_err(), "{forged}");
        }
    }

    #[test]
    fn keys_rotate_without_breaking_tokens_on_their_way() {
        let upload = IntentId::at(at(1000));
        let token = issue(&CallbackTokens::new(vec![key("old", "one")]), upload);
        let rotated = CallbackTokens::new(vec![key("new", "two"), key("old", "one")]);
        assert!(rotated.verify(&token, upload, at(1500)).is_ok());
        assert!(issue(&rotated, upload).starts_with("new."));
        assert!(CallbackTokens::new(vec![key("new", "two")]).verify(&token, upload, at(1500)).is_err());
    }

    #[test]
    fn debug_hides_the_secret() {
        assert!(!format!("{:?}", CallbackTokens::new(vec![key("k1", "hunter2")])).contains("hunter2"));
    }
}
