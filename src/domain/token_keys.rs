//! The keys of the tokens that this service gives out and takes back: `<key id>.<claims>.<HMAC-SHA256>`.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};

/// Named keys. The first signs, all verify; without any, nothing is signed that would verify.
#[derive(Clone, Default)]
pub struct TokenKeys(Vec<(String, hmac::Key)>);

impl<'a> FromIterator<(&'a str, SecretString)> for TokenKeys {
    fn from_iter<T: IntoIterator<Item = (&'a str, SecretString)>>(keys: T) -> Self {
        let key = |secret: &SecretString| hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        Self(keys.into_iter().map(|(id, secret)| (id.to_owned(), key(&secret))).collect())
    }
}

impl TokenKeys {
    /// A token that shows `claims`, which must hold no full stop, and proves `message`. The first line of a message says
    /// what the token is for, so that none is good for anything else.
    pub(super) fn sign(&self, claims: &str, message: &str) -> SecretString {
        let Some((id, key)) = self.0.first() else { return SecretString::from("") };
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(key, message.as_bytes()));
        SecretString::from(format!("{id}.{claims}.{tag}"))
    }

    /// What `token` claims, which nothing proves yet.
    pub(super) fn claims(token: &str) -> Option<&str> {
        token.split('.').nth(1)
    }

    /// Whether `token` proves `message`.
    pub(super) fn verify(&self, token: &str, message: &str) -> bool {
        let mut parts = token.splitn(3, '.');
        let (Some(id), Some(_), Some(tag)) = (parts.next(), parts.next(), parts.next()) else { return false };
        let (Some((_, key)), Ok(tag)) = (self.0.iter().find(|(known, _)| known == id), URL_SAFE_NO_PAD.decode(tag))
        else {
            return false;
        };
        hmac::verify(key, message.as_bytes(), &tag).is_ok()
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}
