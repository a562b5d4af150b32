//! Tokens that confirm one upload without a JWT: for a mobile client whose background upload outlives its session.

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use super::{DomainError, TokenKeys};
use crate::model::IntentId;

/// Issues and verifies callback tokens: `<key id>.<end in Unix seconds>.<HMAC-SHA256>`, where the HMAC covers the
/// upload's id and the end. A token confirms its upload and nothing else, so one that is replayed changes nothing.
#[derive(Debug, Clone)]
pub struct CallbackTokens {
    keys: TokenKeys,
}

impl CallbackTokens {
    /// Tokens under `keys`.
    pub fn new(keys: TokenKeys) -> Self {
        Self { keys }
    }

    /// A token for `upload` until `until`.
    pub fn issue(&self, upload: IntentId, until: DateTime<Utc>) -> SecretString {
        let end = until.timestamp();
        self.keys.sign(&end.to_string(), &message(upload, end))
    }

    /// Whether `token` is one of `upload` that has not ended.
    ///
    /// # Errors
    /// [`DomainError::CallbackTokenInvalid`] whatever is wrong with it: what exactly would only help a forger.
    pub fn verify(&self, token: &str, upload: IntentId, now: DateTime<Utc>) -> Result<(), DomainError> {
        let invalid = || DomainError::CallbackTokenInvalid;
        let end: i64 = TokenKeys::claims(token).and_then(|end| end.parse().ok()).ok_or_else(invalid)?;
        if !self.keys.verify(token, &message(upload, end)) {
            return Err(invalid());
        }
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
    use secrecy::ExposeSecret as _;

    use super::*;

    fn tokens(keys: &[(&str, &str)]) -> CallbackTokens {
        CallbackTokens::new(keys.iter().map(|(id, secret)| (*id, SecretString::from(*secret))).collect())
    }

    fn issue(tokens: &CallbackTokens, upload: IntentId) -> String {
        tokens.issue(upload, at(2000)).expose_secret().to_owned()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_upload_until_its_end() {
        let tokens = tokens(&[("k1", "one")]);
        let (upload, other) = (IntentId::at(at(1000)), IntentId::at(at(1001)));
        let token = issue(&tokens, upload);
        assert!(tokens.verify(&token, upload, at(2000)).is_ok());
        assert!(tokens.verify(&token, upload, at(2000) + TimeDelta::seconds(1)).is_err());
        assert!(tokens.verify(&token, other, at(1500)).is_err());
    }

    #[test]
    fn no_part_of_a_token_can_be_changed() {
        let tokens = tokens(&[("k1", "one"), ("k2", "two")]);
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
        let token = issue(&tokens(&[("old", "one")]), upload);
        let rotated = tokens(&[("new", "two"), ("old", "one")]);
        assert!(rotated.verify(&token, upload, at(1500)).is_ok());
        assert!(issue(&rotated, upload).starts_with("new."));
        assert!(tokens(&[("new", "two")]).verify(&token, upload, at(1500)).is_err());
    }

    #[test]
    fn debug_hides_the_secret() {
        assert!(!format!("{:?}", tokens(&[("k1", "hunter2")])).contains("hunter2"));
    }
}
