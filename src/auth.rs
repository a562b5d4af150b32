//! JSON Web Tokens in, [`Principal`]s out.
//!
//! What is accepted is decided by the configuration alone: the token names an issuer, the configuration pins that
//! issuer's algorithms and keys, and nothing else that the token says has a part in choosing them (RFC 8725).

mod claims;
mod error;
mod event_senders;
mod jwks;
mod keys;
mod mint;
mod published;
mod sns;
mod verified;
mod verify;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::Url;
use secrecy::ExposeSecret as _;
use tokio::runtime::Handle;

use self::{
    claims::{ClaimRules, Claims},
    keys::VerificationKey,
    published::PublishedKeys,
    verified::{Verified, VerifiedTokens},
    verify::Token,
};
pub use self::{
    error::{AuthError, AuthSetupError},
    event_senders::{EventSenders, EventTokens},
    keys::shared_secret,
    mint::{DevelopmentToken, MintError, mint_development_token},
    sns::{MAX_MESSAGE_BYTES as MAX_SNS_MESSAGE_BYTES, SnsError, SnsMessage, SnsSetupError, SnsVerifier, SubscribeUrl},
    verify::MAX_TOKEN_BYTES,
};
use crate::{
    clock::Clock,
    config::{
        Problem,
        auth::{AuthConfig, IssuerConfig, KeySource, ScopesConfig},
    },
    model::Principal,
};

/// Authenticates requests by their bearer tokens. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

struct Inner {
    issuers: Vec<Issuer>,
    verified: VerifiedTokens,
    clock: Clock,
}

struct Issuer {
    rules: ClaimRules,
    algorithms: Vec<Algorithm>,
    keys: Keys,
}

enum Keys {
    Configured(VerificationKey),
    Published(PublishedKeys),
}

/// What is wrong with the files of `config` that hold keys.
pub async fn problems_of_key_files(config: &AuthConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, issuer) in config.issuers.iter().enumerate() {
        let read = match issuer.key_source() {
            Some(KeySource::SecretFile(_)) => keys::shared_secret(issuer).await.map(drop),
            Some(KeySource::PublicKeyFile(path)) => keys::public_key(path, &issuer.algorithms).await.map(drop),
            Some(KeySource::Secret(_) | KeySource::JwksUrl(_)) | None => Ok(()),
        };
        if let Err(AuthSetupError::Config(problem)) = read.map_err(|error| error.of_issuer(index)) {
            problems.push(problem);
        }
    }
    problems
}

impl Authenticator {
    /// Reads the key files, starts to fetch published keys on `runtime` and waits for the first answers.
    ///
    /// An issuer whose keys cannot be fetched does not fail this; [`Authenticator::ready`] tells of it, and fetching
    /// goes on until the last clone is dropped.
    pub async fn from_config(config: &AuthConfig, clock: Clock, runtime: Handle) -> Result<Self, AuthSetupError> {
        // Algorithms and keys that do not belong together are refused here too, whoever made the configuration.
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(AuthSetupError::Config(problem));
        }
        let mut issuers = Vec::with_capacity(config.issuers.len());
        for (index, issuer) in config.issuers.iter().enumerate() {
            let keys = Keys::from_config(issuer, &clock, &runtime).await;
            let Some(keys) = keys.map_err(|error| error.of_issuer(index))? else {
                let rule = "must have one usable source of keys";
                return Err(AuthSetupError::Config(Problem::new(format!("auth.issuers[{index}]"), rule)));
            };
            let admin = config.scopes.admin.clone().filter(|_| issuer.administers);
            let rules = ClaimRules::new(
                issuer.issuer.clone(),
                issuer.audience.clone(),
                issuer.tenant_claim.clone(),
                ScopesConfig { admin, ..config.scopes.clone() },
                config.leeway,
            );
            issuers.push(Issuer { rules, algorithms: issuer.algorithms.clone(), keys });
        }
        join_all(issuers.iter().filter_map(Issuer::published).map(PublishedKeys::first_fetch)).await;
        Ok(Self { inner: Arc::new(Inner { issuers, verified: VerifiedTokens::new(), clock }) })
    }

    /// The user that the value of an `Authorization` header stands for.
    pub async fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, AuthError> {
        let Inner { issuers, verified, clock } = &*self.inner;
        let text = verify::bearer_token(authorization)?;
        let digest = VerifiedTokens::digest_of(text);
        let now = clock.now();
        if let Some(principal) = verified.find(&digest, issuers, now).await {
            return Ok(principal);
        }
        let token = Token::parse(text)?;
        let claims = Claims::parse(&token.payload)?;
        let name = claims.issuer()?;
        let (at, issuer) = issuers
            .iter()
            .enumerate()
            .find(|(_, issuer)| issuer.rules.issuer() == name)
            .ok_or(AuthError::UnknownIssuer)?;
        let keys = issuer.published().and_then(PublishedKeys::current);
        issuer.verify_signature(&token).await?;
        let times = issuer.rules.times(&claims)?;
        times.check(now)?;
        let principal = issuer.rules.principal(&claims, times)?;
        verified.keep(digest, Verified { issuer: at, keys, times, principal: principal.clone() }).await;
        Ok(principal)
    }

    /// Whether the keys of every issuer are at hand; if not, says whose are missing.
    pub fn ready(&self) -> Result<(), String> {
        let waiting = |issuer: &&Issuer| issuer.published().is_some_and(|keys| !keys.ready());
        match self.inner.issuers.iter().find(waiting) {
            None => Ok(()),
            Some(issuer) => Err(format!("the keys of issuer {} have not been fetched", issuer.rules.issuer())),
        }
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuers: Vec<_> = self.inner.issuers.iter().map(|issuer| issuer.rules.issuer()).collect();
        f.debug_struct("Authenticator").field("issuers", &issuers).finish_non_exhaustive()
    }
}

impl Issuer {
    fn published(&self) -> Option<&PublishedKeys> {
        match &self.keys {
            Keys::Configured(_) => None,
            Keys::Published(keys) => Some(keys),
        }
    }

    async fn verify_signature(&self, token: &Token<'_>) -> Result<(), AuthError> {
        if !self.algorithms.contains(&token.algorithm) {
            return Err(AuthError::AlgorithmNotAllowed);
        }
        match &self.keys {
            Keys::Configured(key) => key.verify(token.algorithm, token.message, token.signature),
            Keys::Published(keys) => {
                let key = keys.key(token.key_id.as_deref(), token.algorithm).await?;
                key.verify(token.algorithm, token.message, token.signature)
            }
        }
    }
}

impl Keys {
    /// `None` when there is not one source of keys, or not one that fits the algorithms.
    async fn from_config(
        issuer: &IssuerConfig,
        clock: &Clock,
        runtime: &Handle,
    ) -> Result<Option<Self>, AuthSetupError> {
        match issuer.key_source() {
            None => Ok(None),
            Some(KeySource::Secret(_) | KeySource::SecretFile(_)) => {
                let secret = keys::shared_secret(issuer).await?;
                let key = secret.map(|secret| DecodingKey::from_secret(secret.expose_secret().as_bytes()));
                Ok(key.and_then(|key| VerificationKey::new(key, &issuer.algorithms)).map(Self::Configured))
            }
            Some(KeySource::PublicKeyFile(path)) => {
                Ok(Some(Self::Configured(keys::public_key(path, &issuer.algorithms).await?)))
            }
            Some(KeySource::JwksUrl(url)) => {
                let Ok(url) = Url::parse(url) else { return Ok(None) };
                let keys = PublishedKeys::start(
                    issuer.issuer.clone(),
                    url,
                    issuer.algorithms.clone(),
                    issuer.jwks_refresh,
                    clock.clone(),
                    runtime,
                );
                Ok(Some(Self::Published(keys.map_err(AuthSetupError::HttpClient)?)))
            }
        }
    }
}
