//! `[cdn]`: the Amazon CloudFront distribution that policies may deliver through.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde::Deserialize;

use super::{Problem, secret, switch};

/// Settings of the distribution.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CdnConfig {
    /// Its domain name, or one of its alternate domain names: what stands in URLs.
    pub domain: String,
    /// Whether it answers over IPv6. No default: CloudFront cannot hold anybody to an IPv6 network, so policies with an
    /// `ip_scope` can only be delivered through a distribution without it.
    #[serde(deserialize_with = "switch::deserialize")]
    pub ipv6: bool,
    /// What the distribution prepends to the path of a request ("origin path"), hence what URLs leave out of keys.
    #[serde(default)]
    pub origin_path: String,
    /// The key pairs of the distribution's key group: the first that is active signs.
    pub keys: Vec<CdnKeyConfig>,
}

/// One key pair.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CdnKeyConfig {
    /// The id of the public key in CloudFront.
    pub id: String,
    /// File that holds the private key in PEM.
    pub private_key_file: PathBuf,
    /// The instant from which on it signs; without one, at once.
    pub active_from: Option<DateTime<Utc>>,
}

impl CdnKeyConfig {
    /// The private key, read from its file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(&self) -> Result<SecretString, secret::SecretError> {
        secret::read_file(&self.private_key_file)
    }
}

impl CdnConfig {
    /// Whether the distribution reaches all objects below `folder`.
    pub fn reaches(&self, folder: &str) -> bool {
        let origin_path = self.origin_path.trim_matches('/');
        origin_path.is_empty()
            || folder.strip_prefix(origin_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.keys.iter().all(|key| key.active_from.is_some()) {
            problems
                .push(Problem::new("cdn.keys", "must hold a key pair without active_from, so that one can sign now"));
        }
        for (index, key) in self.keys.iter().enumerate() {
            if self.keys.iter().take(index).any(|earlier| earlier.id == key.id) {
                problems.push(Problem::new(format!("cdn.keys[{index}].id"), "must be unique"));
            }
            // Nothing after one that is always active ever signs: a list in the wrong order would look like a rotation.
            let earlier_signs = self.keys.iter().take(index).any(|earlier| earlier.active_from.is_none());
            if earlier_signs && key.active_from.is_some() {
                let rule = "must be left out, or the key pair come before those without it: the first active one signs";
                problems.push(Problem::new(format!("cdn.keys[{index}].active_from"), rule));
            }
        }
        problems
    }
}
