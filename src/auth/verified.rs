//! Tokens that were verified a moment ago.
//!
//! A client sends the same token with every request, and an RSA signature costs more to check than everything else
//! that issuing does. What is kept is who the token stands for, under a digest of it: not the token itself.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Utc};
use moka::future::Cache;

use super::{Issuer, Keys, claims::Times, jwks::JwkSet};
use crate::model::Principal;

/// Tokens kept at most: a few hundred bytes each.
const CAPACITY: u64 = 10_000;

/// How long a token is kept. Its own times are looked at every time.
const TIME_TO_LIVE: Duration = Duration::from_mins(5);

pub(super) type TokenDigest = [u8; 32];

pub(super) struct VerifiedTokens(Cache<TokenDigest, Arc<Verified>>);

/// What is known of a token.
pub(super) struct Verified {
    /// Position of its issuer.
    pub(super) issuer: usize,
    /// The published keys that were at hand before it was verified.
    pub(super) keys: Option<Arc<JwkSet>>,
    pub(super) times: Times,
    pub(super) principal: Principal,
}

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_live(TIME_TO_LIVE).build())
    }

    pub(super) fn digest_of(token: &str) -> TokenDigest {
        digest(&SHA256, token.as_bytes()).as_ref().try_into().unwrap_or_default()
    }

    /// Who the token stands for, unless it has to be verified: again where its time is over or the keys of its issuer
    /// have been fetched since, because the key that signed it may be among them no more.
    pub(super) async fn find(&self, token: &TokenDigest, issuers: &[Issuer], now: DateTime<Utc>) -> Option<Principal> {
        let verified = self.0.get(token).await?;
        verified.times.check(now).ok()?;
        let same_keys = match (&issuers.get(verified.issuer)?.keys, &verified.keys) {
            (Keys::Configured(_), None) => true,
            (Keys::Published(keys), Some(then)) => keys.current().is_some_and(|now| Arc::ptr_eq(&now, then)),
            _ => false,
        };
        same_keys.then(|| verified.principal.clone())
    }

    pub(super) async fn keep(&self, token: TokenDigest, verified: Verified) {
        self.0.insert(token, Arc::new(verified)).await;
    }
}
