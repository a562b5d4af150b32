//! Who may sign requests: the root credentials, and the sessions that `AssumeRole` opened.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use chrono::{DateTime, Utc};
use s3s::{
    S3Result,
    auth::{S3Auth, SecretKey},
    s3_error,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::{session_policy::SessionPolicy, volume::random_hex};
use crate::clock::Clock;

/// Sessions alive at once. The service opens one per client network; beyond this, callers are told to slow down.
const MAX_SESSIONS: usize = 16_384;

/// Temporary credentials. They live in memory alone, so none outlives the process.
pub(super) struct Session {
    pub(super) secret_access_key: SecretString,
    pub(super) token: SecretString,
    pub(super) expires_at: DateTime<Utc>,
    /// `None` allows all that the role may do.
    pub(super) policy: Option<SessionPolicy>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Whose signature a request carries.
#[derive(Debug, Clone)]
pub(super) enum Identity {
    /// The owner of the store, who may do everything.
    Root,
    /// A session, which may do what its policy allows.
    Session(Arc<Session>),
}

/// The credentials that this store knows.
pub(super) struct Credentials {
    access_key_id: String,
    secret_access_key: SecretString,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    clock: Clock,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn new(access_key_id: String, secret_access_key: SecretString, clock: Clock) -> Self {
        Self { access_key_id, secret_access_key, sessions: Mutex::default(), clock }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session and returns its access key id; expired ones make room.
    pub(super) fn open_session(
        &self,
        duration: Duration,
        policy: Option<SessionPolicy>,
    ) -> S3Result<(String, Arc<Session>)> {
        let now = self.clock.now();
        // Expiration travels in whole seconds; a client must not read a later end than there is.
        let expires_at = chrono::SubsecRound::trunc_subsecs(now + duration, 0);
        let access_key_id = format!("ASIA{}", random_hex::<8>()?.to_ascii_uppercase());
        let session = Arc::new(Session {
            secret_access_key: random_hex::<20>()?.into(),
            token: random_hex::<64>()?.into(),
            expires_at,
            policy,
        });
        let mut sessions = self.sessions();
        if sessions.len() >= MAX_SESSIONS {
            sessions.retain(|_, session| session.expires_at > now);
            if sessions.len() >= MAX_SESSIONS {
                return Err(s3_error!(SlowDown, "Too many sessions are open"));
            }
        }
        sessions.insert(access_key_id.clone(), Arc::clone(&session));
        Ok((access_key_id, session))
    }

    /// Who `access_key_id` is, if `token` belongs to exactly that session and the session has not ended.
    pub(super) fn identify(&self, access_key_id: &str, token: Option<&str>) -> S3Result<Identity> {
        if access_key_id == self.access_key_id {
            return match token {
                None => Ok(Identity::Root),
                Some(_) => Err(s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid.")),
            };
        }
        let session = self.session(access_key_id)?;
        let Some(token) = token else { return Err(unknown_access_key()) };
        verify_slices_are_equal(token.as_bytes(), session.token.expose_secret().as_bytes())
            .map_err(|_| s3_error!(InvalidToken, "The provided token is malformed or otherwise invalid."))?;
        if session.expires_at <= self.clock.now() {
            self.sessions().remove(access_key_id);
            return Err(s3_error!(ExpiredToken, "The provided token has expired."));
        }
        Ok(Identity::Session(session))
    }

    fn session(&self, access_key_id: &str) -> S3Result<Arc<Session>> {
        self.sessions().get(access_key_id).cloned().ok_or_else(unknown_access_key)
    }
}

fn unknown_access_key() -> s3s::S3Error {
    s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.")
}

/// The signature layer asks for the secret of the access key that a request names.
#[derive(Debug)]
pub(super) struct SecretKeys(pub(super) Arc<Credentials>);

#[async_trait::async_trait]
impl S3Auth for SecretKeys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.0.access_key_id {
            return Ok(SecretKey::from(self.0.secret_access_key.expose_secret()));
        }
        let session = self.0.session(access_key)?;
        Ok(SecretKey::from(session.secret_access_key.expose_secret()))
    }
}
