//! What S3 knows a signer by.

use std::fmt;

use chrono::{DateTime, Utc};
use secrecy::SecretString;

/// An access key, long-lived or of a session.
#[derive(Clone)]
pub struct Credentials {
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    expires_at: Option<DateTime<Utc>>,
}

impl Credentials {
    /// Credentials that sign until `expires_at`, or for ever. Those of a session have a `session_token`, which travels
    /// with everything that they sign.
    pub fn new(
        access_key_id: impl Into<String>,
        secret_access_key: SecretString,
        session_token: Option<SecretString>,
        expires_at: Option<DateTime<Utc>>,
    ) -> Self {
        Self { access_key_id: access_key_id.into(), secret_access_key, session_token, expires_at }
    }

    /// The public half, which stands readable in everything signed.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// When the store stops accepting signatures by these credentials, whatever expiry the signature itself names.
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.expires_at
    }

    /// What signs. Handed out only with credentials that were made for the one who gets them.
    pub fn secret_access_key(&self) -> &SecretString {
        &self.secret_access_key
    }

    /// What travels with everything that a session signs.
    pub fn session_token(&self) -> Option<&SecretString> {
        self.session_token.as_ref()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_secret_nor_token() {
        let shown = format!("{:#?}", Credentials::new("AKID", "hush".into(), Some("token".into()), None));
        assert!(shown.contains("AKID"), "{shown}");
        assert!(!shown.contains("hush") && !shown.contains("token"), "{shown}");
    }
}
