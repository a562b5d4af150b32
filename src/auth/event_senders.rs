//! Who may tell of storage events.

use std::fmt;

use aws_lc_rs::{constant_time, digest};
use secrecy::{ExposeSecret as _, SecretString};

use super::SnsVerifier;

/// Who may tell of storage events.
#[derive(Debug, Clone, Default)]
pub struct EventSenders {
    /// Whoever has one of these.
    pub tokens: EventTokens,
    /// Amazon SNS, by its signatures.
    pub sns: Option<SnsVerifier>,
}

/// Tokens, any of which is good. Only their digests are kept.
#[derive(Clone, Default)]
pub struct EventTokens(Vec<digest::Digest>);

impl EventTokens {
    /// These tokens and no others; none at all if there are none.
    pub fn new(tokens: &[SecretString]) -> Self {
        Self(tokens.iter().map(|token| digested(token.expose_secret())).collect())
    }

    /// Whether `token` is one of them. Digests are compared, in constant time and all of them, so the time taken tells
    /// nothing of how much of a guess was right.
    pub fn contains(&self, token: &str) -> bool {
        let token = digested(token);
        self.0.iter().fold(false, |found, known| {
            found | constant_time::verify_slices_are_equal(known.as_ref(), token.as_ref()).is_ok()
        })
    }
}

impl fmt::Debug for EventTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventTokens").field(&self.0.len()).finish()
    }
}

fn digested(token: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, token.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_good_and_nothing_else() {
        let tokens = EventTokens::new(&["first".into(), "second".into()]);
        assert!(tokens.contains("first") && tokens.contains("second"));
        for other in ["", "third", "firs", "first ", "First", "firstsecond"] {
            assert!(!tokens.contains(other), "{other:?}");
        }
        assert!(!EventTokens::default().contains(""));
        assert_eq!(format!("{tokens:?}"), "EventTokens(2)");
    }
}
