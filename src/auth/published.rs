//! The keys that an issuer publishes, fetched and kept fresh.
//!
//! One task per issuer does all the fetching, on the main runtime; requests only ask it to. So there is never more
//! than one fetch per issuer under way, a request that is dropped takes nothing with it, and no connection belongs to
//! an HTTP worker's runtime.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;
use jsonwebtoken::Algorithm;
use reqwest::{StatusCode, Url, header};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::{AuthError, jwks::JwkSet, keys::VerificationKey};
use crate::{clock::Clock, outgoing};

/// The shortest time between two fetches from one issuer. Anybody can send tokens with made-up key ids: without this
/// they could make the service flood the issuer. Issuers publish a key well before they sign with it, so the wait
/// does not reach users.
pub(super) const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(10);

/// How long a key id that the issuer does not publish is refused without asking again, so that a client that keeps
/// sending a token of a withdrawn key does not cause a fetch every [`MIN_FETCH_INTERVAL`].
pub(super) const UNKNOWN_KEY_ID_MEMORY: Duration = Duration::from_mins(5);

/// How many unknown key ids are remembered, and up to which length a key id is looked up: together they bound the
/// memory that made-up ids can take to 256 KiB per issuer.
pub(super) const MAX_UNKNOWN_KEY_IDS: usize = 1024;
const MAX_KEY_ID_BYTES: usize = 256;

/// Real key sets have a few KiB.
pub(super) const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// From connecting to the last byte. Requests with an unknown key wait for this at most.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The published keys of one issuer. Dropping it ends the fetching.
#[derive(Debug)]
pub(super) struct PublishedKeys {
    shared: Arc<Shared>,
    /// Changes whenever a fetch ends; closes when the task ends.
    finished: watch::Receiver<()>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    issuer: String,
    url: Url,
    client: reqwest::Client,
    algorithms: Vec<Algorithm>,
    clock: Clock,
    /// The keys of the last fetch that succeeded.
    keys: ArcSwapOption<JwkSet>,
    fetching: Mutex<Fetching>,
    wanted: Notify,
}

#[derive(Debug)]
struct Fetching {
    under_way: bool,
    started: DateTime<Utc>,
    /// Whether the last fetch that ended gave keys.
    succeeded: bool,
    /// Key ids that were not in the set, and when they were looked for.
    unknown: HashMap<String, DateTime<Utc>>,
}

/// Why no keys were fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{}", outgoing::describe(.0))]
    Http(#[from] reqwest::Error),
    #[error("the answer was {0} instead of 200")]
    Status(StatusCode),
    #[error("the answer is longer than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    #[error("the answer is not a JSON Web Key Set")]
    NotAKeySet,
    /// Not taken for a withdrawal of all keys: an issuer without keys could not sign any token.
    #[error("none of the keys can be used with the configured algorithms")]
    NoUsableKey,
}

impl PublishedKeys {
    /// Fetches from `url` now, and then again each time that `refresh` has passed or an unknown key is asked for.
    pub(super) fn start(
        issuer: String,
        url: Url,
        algorithms: Vec<Algorithm>,
        refresh: Duration,
        clock: Clock,
        runtime: &Handle,
    ) -> reqwest::Result<Self> {
        let fetching = Fetching { under_way: true, started: clock.now(), succeeded: false, unknown: HashMap::new() };
        let shared = Arc::new(Shared {
            issuer,
            url,
            client: outgoing::client(FETCH_TIMEOUT).build()?,
            algorithms,
            clock,
            keys: ArcSwapOption::empty(),
            fetching: Mutex::new(fetching),
            wanted: Notify::new(),
        });
        let (sender, finished) = watch::channel(());
        let task = runtime.spawn(Arc::clone(&shared).keep_fresh(refresh, sender));
        Ok(Self { shared, finished, task })
    }

    /// Waits until the first fetch has ended, well or not.
    pub(super) async fn first_fetch(&self) {
        // An error means that the runtime is going down, and then nobody waits for keys.
        let _ = self.finished.clone().changed().await;
    }

    /// Whether keys are there.
    pub(super) fn ready(&self) -> bool {
        self.shared.keys.load().is_some()
    }

    /// The keys at hand.
    pub(super) fn current(&self) -> Option<Arc<JwkSet>> {
        self.shared.keys.load_full()
    }

    /// The key for a token with this `kid` and `alg`, fetched if need be.
    pub(super) async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Arc<VerificationKey>, AuthError> {
        if let Some(known) = self.known(id, algorithm) {
            return known;
        }
        if id.is_some_and(|id| id.len() > MAX_KEY_ID_BYTES) {
            return Err(AuthError::UnknownKey);
        }
        let Some(mut finished) = self.shared.want(id, &self.finished) else {
            // A fetch may have ended since the keys were looked at, and be why another would be too soon.
            return self.known(id, algorithm).unwrap_or_else(|| Err(self.shared.absent()));
        };
        if finished.changed().await.is_err() {
            return Err(AuthError::KeysUnavailable);
        }
        self.known(id, algorithm).unwrap_or_else(|| {
            self.shared.remember_unknown(id);
            Err(self.shared.absent())
        })
    }

    /// What the keys at hand say; `None` when newer ones may say otherwise.
    fn known(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Result<Arc<VerificationKey>, AuthError>> {
        self.shared.keys.load().as_ref()?.find(id, algorithm)
    }

    #[cfg(test)]
    pub(super) fn finished(&self) -> watch::Receiver<()> {
        self.finished.clone()
    }

    #[cfg(test)]
    pub(super) fn unknown_key_ids(&self) -> usize {
        self.shared.fetching().unknown.len()
    }
}

impl Drop for PublishedKeys {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn keep_fresh(self: Arc<Self>, refresh: Duration, finished: watch::Sender<()>) {
        loop {
            let result = self.fetch().await;
            let pause = if result.is_ok() { refresh } else { refresh.min(MIN_FETCH_INTERVAL) };
            self.finish(result, &finished);
            tokio::select! {
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(pause) => self.begin(),
            }
        }
    }

    /// Asks for a fetch, or joins the one under way, and gives what will change when it ends. `None` when fetching
    /// would be too soon or is known to be of no use.
    fn want(&self, id: Option<&str>, finished: &watch::Receiver<()>) -> Option<watch::Receiver<()>> {
        let now = self.clock.now();
        let mut fetching = self.fetching();
        if id.is_some_and(|id| fetching.unknown.get(id).is_some_and(|since| within(*since, now, UNKNOWN_KEY_ID_MEMORY)))
        {
            return None;
        }
        if !fetching.under_way {
            if within(fetching.started, now, MIN_FETCH_INTERVAL) {
                return None;
            }
            fetching.under_way = true;
            fetching.started = now;
            self.wanted.notify_one();
        }
        let mut finished = finished.clone();
        finished.mark_unchanged();
        Some(finished)
    }

    /// Marks a fetch that nobody asked for.
    fn begin(&self) {
        let mut fetching = self.fetching();
        fetching.under_way = true;
        fetching.started = self.clock.now();
        // A request may have asked while the timer ran out. That wish is met now and must not cause a second fetch.
        let _ = self.wanted.notified().now_or_never();
    }

    fn finish(&self, result: Result<JwkSet, FetchError>, finished: &watch::Sender<()>) {
        let mut fetching = self.fetching();
        match result {
            Ok(keys) => {
                if !fetching.succeeded {
                    log::info!(issuer = self.issuer, keys = keys.len(); "fetched the issuer's keys");
                }
                fetching.succeeded = true;
                self.keys.store(Some(Arc::new(keys)));
            }
            Err(error) => {
                fetching.succeeded = false;
                let consequence =
                    if self.keys.load().is_some() { "the last ones stay in use" } else { "there are none" };
                log::warn!(issuer = self.issuer; "cannot fetch the issuer's keys, {consequence}: {error}");
            }
        }
        fetching.under_way = false;
        // Under the lock, so that whoever asks from now on does not take this end for the end of the next fetch.
        finished.send_replace(());
    }

    /// The error for a key that is not in the set: the token's fault only if the set is known to be up to date.
    fn absent(&self) -> AuthError {
        if self.fetching().succeeded { AuthError::UnknownKey } else { AuthError::KeysUnavailable }
    }

    fn remember_unknown(&self, id: Option<&str>) {
        let now = self.clock.now();
        let mut fetching = self.fetching();
        // A fetch that failed does not show that the key is not there.
        let Some(id) = id.filter(|_| fetching.succeeded) else { return };
        if fetching.unknown.len() >= MAX_UNKNOWN_KEY_IDS {
            fetching.unknown.retain(|_, since| within(*since, now, UNKNOWN_KEY_ID_MEMORY));
        }
        if fetching.unknown.len() < MAX_UNKNOWN_KEY_IDS {
            fetching.unknown.insert(id.to_owned(), now);
        }
    }

    async fn fetch(&self) -> Result<JwkSet, FetchError> {
        let request =
            self.client.get(self.url.clone()).header(header::ACCEPT, "application/jwk-set+json, application/json");
        let response = request.send().await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let document = outgoing::body(response, MAX_DOCUMENT_BYTES).await?.ok_or(FetchError::TooLarge)?;
        let keys = JwkSet::parse(&document, &self.algorithms).ok_or(FetchError::NotAKeySet)?;
        if keys.len() == 0 { Err(FetchError::NoUsableKey) } else { Ok(keys) }
    }

    fn fetching(&self) -> MutexGuard<'_, Fetching> {
        self.fetching.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether less than `span` has passed since `start`. A clock that was set back counts as time passed: waiting for it
/// to catch up could take for ever.
fn within(start: DateTime<Utc>, now: DateTime<Utc>, span: Duration) -> bool {
    let passed = now - start;
    passed >= TimeDelta::zero() && passed.to_std().is_ok_and(|passed| passed < span)
}
