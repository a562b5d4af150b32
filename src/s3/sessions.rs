//! Credentials that work from one network only.
//!
//! S3 cannot bind a client address into a signature. It can bind one into credentials: a session made by
//! `sts:AssumeRole` with an inline policy that allows one kind of access from one network. URLs signed with such a
//! session work from there and from nowhere else, and the store is what enforces it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_s3::config::ProvideCredentials as _;
use chrono::{DateTime, TimeDelta, Utc};
use moka::future::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Handle;

use super::{S3Error, Sdk};
use crate::{
    clock::Clock,
    config::{S3Config, s3::StsConfig},
    model::{ClientNetwork, StagingArea},
    signing::{Credentials, Endpoint, Signer},
    single_flight::SingleFlight,
};

/// The operation of the STS, as AWS names it.
pub const ASSUME_ROLE: &str = "AssumeRole";

/// Networks remembered at once. About 2 KiB each.
const CAPACITY: u64 = 50_000;

/// What is added to the longest policy expiry when it is judged whether a session still lasts: the time between
/// judging and signing, and the difference between this clock and the store's.
const MARGIN: TimeDelta = TimeDelta::seconds(30);

/// After nobody answered who gives credentials, how long everybody is told so without asking again: an STS that is down
/// or throttles is not helped by a request for each upload.
const BACK_OFF: Duration = Duration::from_secs(1);

/// How long whoever could do with the session that is held waits for a better one.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the service's own credentials may take to be found: the chain that looks for them may ask a program, or a
/// server that does not answer.
const OWN_CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(15);

/// No URL of a shorter life than this is worth handing out.
const SHORTEST_LIFE: TimeDelta = TimeDelta::seconds(5);

/// What a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Write objects.
    Upload,
    /// Read objects.
    Download,
    /// Write objects in an area, in one piece or in parts: what is handed to the client itself.
    Area {
        /// Where.
        area: StagingArea,
        /// How long the session lasts: what was promised to who gets it is its whole life.
        life: Duration,
    },
}

impl Access {
    const fn actions(self) -> &'static [&'static str] {
        match self {
            Self::Upload => &["s3:PutObject"],
            Self::Download => &["s3:GetObject", "s3:GetObjectVersion"],
            Self::Area { .. } => &["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:PutObject"],
        }
    }

    /// What it does to the key of a bucket that is encrypted with one. Parts are decrypted to be put together.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html>
    const fn key_actions(self) -> &'static [&'static str] {
        match self {
            Self::Upload | Self::Area { .. } => &["kms:Decrypt", "kms:GenerateDataKey"],
            Self::Download => &["kms:Decrypt"],
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Area { .. } => "area",
        }
    }

    /// What all keys begin with that it is for.
    fn prefix(self) -> String {
        match self {
            Self::Upload | Self::Download => String::new(),
            Self::Area { area, .. } => area.prefix(),
        }
    }

    /// How long its sessions last.
    fn duration(self, sts: &StsConfig) -> Duration {
        match self {
            Self::Upload | Self::Download => sts.session_duration,
            Self::Area { life, .. } => life,
        }
    }
}

/// What the sessions have cost, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct SessionStatus {
    /// Sessions held now.
    pub cached: u64,
    /// Calls of `AssumeRole` that gave a session.
    pub assumed: u64,
    /// Calls that did not.
    pub failed: u64,
}

/// Signers by network and access, made when first needed, shared by all, replaced before they get too short.
#[derive(Debug, Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
    renewals: SingleFlight<Key, Result<Held, S3Error>>,
}

/// What a signer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    network: Option<ClientNetwork>,
    access: Access,
    /// Counts up when all signers are forgotten, so that one which is being made at that moment is not used either.
    generation: u64,
}

/// A signer, and since when its credentials are held.
#[derive(Debug, Clone)]
struct Held {
    signer: Arc<Signer>,
    since: DateTime<Utc>,
}

#[derive(Debug)]
struct Inner {
    sdk: Sdk,
    region: String,
    bucket: String,
    endpoint: Arc<Endpoint>,
    sts: Option<StsConfig>,
    cache: Cache<Key, Held>,
    generation: AtomicU64,
    last_failure: Mutex<Option<(Instant, S3Error)>>,
    assumed: AtomicU64,
    failed: AtomicU64,
    clock: Clock,
}

impl Sessions {
    /// Sessions for the store of `config`, signing for `endpoint`. STS is called on `runtime`, the main one.
    pub fn new(sdk: Sdk, config: &S3Config, endpoint: Arc<Endpoint>, clock: Clock, runtime: Handle) -> Self {
        let lifetime = config.sts.as_ref().map_or(Duration::from_mins(15), |sts| sts.session_duration);
        Self {
            inner: Arc::new(Inner {
                sdk,
                region: config.region.clone(),
                bucket: config.bucket.clone(),
                endpoint,
                sts: config.sts.clone(),
                cache: Cache::builder().max_capacity(CAPACITY).time_to_live(lifetime).build(),
                generation: AtomicU64::new(0),
                last_failure: Mutex::new(None),
                assumed: AtomicU64::new(0),
                failed: AtomicU64::new(0),
                clock,
            }),
            renewals: SingleFlight::new(runtime),
        }
    }

    /// Whether URLs can be scoped to networks.
    pub fn can_scope(&self) -> bool {
        self.inner.sts.is_some()
    }

    /// The access to `area` for `life`, or for as long as sessions are configured to last.
    pub fn area(&self, area: StagingArea, life: Duration) -> Access {
        let life = self.inner.sts.as_ref().map_or(life, |sts| life.min(sts.session_duration));
        Access::Area { area, life }
    }

    /// A signer whose URLs work from `network` only (from anywhere when it is `None`), and which lasts `wanted` if
    /// that is possible. What is left of its credentials bounds the life of every URL it signs, so callers have to
    /// take the minimum.
    ///
    /// # Errors
    /// When the STS does not answer and no session that still lasts is at hand. Never an unscoped signer instead.
    pub async fn signer(
        &self,
        network: Option<ClientNetwork>,
        access: Access,
        wanted: Duration,
    ) -> Result<Arc<Signer>, S3Error> {
        let key = Key { network, access, generation: self.inner.generation.load(Ordering::SeqCst) };
        let held = self.inner.cache.get(&key).await;
        if let Some(held) = held.as_ref().filter(|held| self.inner.lasts(held, wanted)) {
            return Ok(Arc::clone(&held.signer));
        }
        let renewal = self.renewed(key, wanted);
        let Some(held) = held else { return renewal.await.map(|made| made.signer) };
        let unanswered = || S3Error::Unavailable { operation: ASSUME_ROLE, reason: "no answer in time".to_owned() };
        match tokio::time::timeout(PATIENCE, renewal).await.unwrap_or_else(|_| Err(unanswered())) {
            Ok(made) => Ok(made.signer),
            // A shorter life, honestly stated, is better than none while the STS is away.
            Err(error) => self.inner.is_usable(&held).then_some(held.signer).ok_or(error),
        }
    }

    /// A new signer of `key`, by the call that is under way or another. It goes on whoever still waits for it.
    async fn renewed(&self, key: Key, wanted: Duration) -> Result<Held, S3Error> {
        let inner = Arc::clone(&self.inner);
        let asking = async move {
            // Another call may have ended since the caller looked.
            if let Some(held) = inner.cache.get(&key).await.filter(|held| inner.lasts(held, wanted)) {
                return Ok(held);
            }
            let since = inner.clock.now();
            let made = Held { signer: inner.fresh_signer(key).await?, since };
            inner.cache.insert(key, made.clone()).await;
            Ok(made)
        };
        self.renewals.join(key, asking).await.unwrap_or_else(|| Err(S3Error::stopping(ASSUME_ROLE)))
    }

    /// Forgets all signers. Whoever asks from now on gets one with credentials that did not exist before.
    pub fn forget(&self) {
        self.inner.generation.fetch_add(1, Ordering::SeqCst);
        self.inner.cache.invalidate_all();
    }

    /// What it has cost so far.
    pub async fn status(&self) -> SessionStatus {
        // The cache counts lazily: without this it would say 0 long after the first session.
        self.inner.cache.run_pending_tasks().await;
        SessionStatus {
            cached: self.inner.cache.entry_count(),
            assumed: self.inner.assumed.load(Ordering::Relaxed),
            failed: self.inner.failed.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    /// Whether `held` can sign a URL of `wanted`, or as long a one as its credentials can be expected to.
    fn lasts(&self, held: &Held, wanted: Duration) -> bool {
        let Some(expires_at) = held.signer.credentials().expires_at() else { return true };
        // A policy expiry near the credentials' own life would otherwise ask for new ones with every URL.
        let half = (expires_at - held.since) / 2;
        let wanted = TimeDelta::from_std(wanted).map_or(half, |wanted| wanted.min(half));
        self.clock.now().checked_add_signed(wanted + MARGIN).is_some_and(|needed| expires_at >= needed)
    }

    /// Whether `held` can sign anything that is worth handing out.
    fn is_usable(&self, held: &Held) -> bool {
        let expires_at = held.signer.credentials().expires_at();
        expires_at.is_none_or(|expires_at| expires_at - self.clock.now() >= SHORTEST_LIFE)
    }

    async fn fresh_signer(&self, key: Key) -> Result<Arc<Signer>, S3Error> {
        let Key { network, access, .. } = key;
        if let Some((at, error)) = &*self.last_failure.lock().unwrap_or_else(PoisonError::into_inner)
            && at.elapsed() < BACK_OFF
        {
            return Err(error.clone());
        }
        let credentials = match &self.sts {
            Some(sts) => self.assume_role(sts, network, access).await,
            // The service's own credentials know no network, and are never handed out.
            None if network.is_some() || matches!(access, Access::Area { .. }) => {
                let reason = "a network scope, and credentials for a client, need the s3.sts settings".to_owned();
                return Err(S3Error::Refused { operation: ASSUME_ROLE, reason });
            }
            None => self.own_credentials().await,
        };
        let credentials = credentials.inspect_err(|error| {
            log::warn!("{error}");
            // A refusal may concern this network alone; an absence concerns everybody.
            if matches!(error, S3Error::Unavailable { .. }) {
                // The end of the call counts: one that nobody answers takes longer than the silence after it.
                *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), error.clone()));
            }
        })?;
        Ok(Arc::new(Signer::new(credentials, self.region.clone(), Arc::clone(&self.endpoint))))
    }

    async fn own_credentials(&self) -> Result<Credentials, S3Error> {
        let missing = |reason: &str| S3Error::Unavailable { operation: "credentials", reason: reason.to_owned() };
        let provider = self.sdk.credentials.as_ref().ok_or_else(|| missing("there are none"))?;
        let credentials = tokio::time::timeout(OWN_CREDENTIALS_TIMEOUT, provider.provide_credentials()).await;
        let credentials =
            credentials.map_err(|_| missing("no answer in time"))?.map_err(|_| missing("there are none"))?;
        Ok(Credentials::new(
            credentials.access_key_id(),
            SecretString::from(credentials.secret_access_key()),
            credentials.session_token().map(SecretString::from),
            credentials.expiry().map(DateTime::<Utc>::from),
        ))
    }

    async fn assume_role(
        &self,
        sts: &StsConfig,
        network: Option<ClientNetwork>,
        access: Access,
    ) -> Result<Credentials, S3Error> {
        let now = self.clock.now();
        let duration = access.duration(sts);
        let answer = self
            .sdk
            .sts
            .assume_role()
            .role_arn(&sts.role_arn)
            .role_session_name(session_name(network, access))
            .policy(session_policy(sts, &self.bucket, network, access))
            .duration_seconds(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX))
            .set_external_id(sts.external_id.as_ref().map(|id| id.expose_secret().to_owned()))
            .send()
            .await;
        let session = answer
            .map_err(|error| S3Error::from_sdk(ASSUME_ROLE, &error))
            .and_then(|answer| {
                let reason = "the answer has no credentials".to_owned();
                answer.credentials.ok_or(S3Error::Refused { operation: ASSUME_ROLE, reason })
            })
            .inspect_err(|_| {
                self.failed.fetch_add(1, Ordering::Relaxed);
            })?;
        self.assumed.fetch_add(1, Ordering::Relaxed);
        let ends_at = end_of_session(now, duration, session.expiration.secs());
        Ok(Credentials::new(
            session.access_key_id,
            SecretString::from(session.secret_access_key),
            Some(SecretString::from(session.session_token)),
            Some(ends_at),
        ))
    }
}

/// When a session of `duration` ends that was asked for at `asked_at`, if the store says that it is at `stated` (seconds
/// since 1970). The sooner end counts: a store may grant less, and its clock may be ahead of ours, but the session
/// cannot have begun before it was asked for.
fn end_of_session(asked_at: DateTime<Utc>, duration: Duration, stated: i64) -> DateTime<Utc> {
    let asked = asked_at + TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX);
    DateTime::from_timestamp(stated, 0).map_or(asked, |stated| stated.min(asked))
}

/// What audit trails at the store show: `presignd-upload-203.0.113.7-32`. Only characters that `AssumeRole` takes.
fn session_name(network: Option<ClientNetwork>, access: Access) -> String {
    let network = network.map_or_else(|| "any".to_owned(), |network| network.to_string().replace(['/', ':'], "-"));
    format!("presignd-{}-{network}", access.as_str())
}

/// The inline session policy. Compact, because it counts against AWS's limit, and because Ceph RGW 16 does not
/// decode the `+` that a space becomes in a form body.
fn session_policy(sts: &StsConfig, bucket: &str, network: Option<ClientNetwork>, access: Access) -> String {
    let mut statement = serde_json::json!({
        "Effect": "Allow",
        "Action": access.actions(),
        "Resource": [format!("arn:{}:s3:::{bucket}/{}*", sts.partition(), access.prefix())],
    });
    if let (Some(network), Some(statement)) = (network, statement.as_object_mut()) {
        let condition = serde_json::json!({ "IpAddress": { sts.source_ip_key.as_str(): [network.to_string()] } });
        statement.insert("Condition".to_owned(), condition);
    }
    let mut statements = vec![statement];
    if let Some(key) = &sts.kms_key_arn {
        // S3 asks for it on behalf of whoever asks S3, who is judged by the same policy. The client's address is not
        // part of that request, and the client can make none itself.
        // <https://docs.aws.amazon.com/IAM/latest/UserGuide/access_forward_access_sessions.html>
        statements.push(serde_json::json!({
            "Effect": "Allow",
            "Action": access.key_actions(),
            "Resource": key,
            "Condition": { "StringLike": { "kms:ViaService": "s3.*" } },
        }));
    }
    serde_json::json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use aws_credential_types::{
        Credentials as AwsCredentials,
        provider::{ProvideCredentials, SharedCredentialsProvider, future},
    };

    use super::*;
    use crate::{
        config::s3::{Addressing, SourceIpKey},
        model::IpScope,
    };

    fn network(address: &str) -> Option<ClientNetwork> {
        ClientNetwork::of(address.parse().unwrap(), IpScope::Prefix { v4: 32, v6: 64 })
    }

    fn sts(role_arn: &str, source_ip_key: SourceIpKey) -> StsConfig {
        StsConfig {
            role_arn: role_arn.to_owned(),
            endpoint: None,
            external_id: None,
            kms_key_arn: None,
            session_duration: Duration::from_hours(1),
            source_ip_key,
        }
    }

    #[test]
    fn the_session_policy_allows_one_access_from_one_network() {
        let aws = sts("arn:aws:iam::1:role/x", SourceIpKey::SourceIp);
        let policy = session_policy(&aws, "files", network("203.0.113.7"), Access::Upload);
        assert_eq!(
            policy,
            r#"{"Statement":[{"Action":["s3:PutObject"],"Condition":{"IpAddress":{"aws:SourceIp":["203.0.113.7/32"]}},"Effect":"Allow","Resource":["arn:aws:s3:::files/*"]}],"Version":"2012-10-17"}"#
        );
        let china = sts("arn:aws-cn:iam::1:role/x", SourceIpKey::VpcSourceIp);
        let policy = session_policy(&china, "files", network("2001:db8::1"), Access::Download);
        assert!(policy.contains("arn:aws-cn:s3:::files/*"), "{policy}");
        assert!(policy.contains(r#""aws:VpcSourceIp":["2001:db8::/64"]"#), "{policy}");
        assert!(policy.contains("s3:GetObject") && !policy.contains("s3:PutObject"), "{policy}");
        assert!(!policy.contains(' '));
    }

    #[test]
    fn a_session_may_use_the_key_of_the_bucket_through_s3() {
        let key = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let sts =
            StsConfig { kms_key_arn: Some(key.to_owned()), ..sts("arn:aws:iam::1:role/x", SourceIpKey::SourceIp) };
        let expected = |actions: &str| {
            format!(
                r#"{{"Action":[{actions}],"Condition":{{"StringLike":{{"kms:ViaService":"s3.*"}}}},"Effect":"Allow","Resource":"{key}"}}],"Version""#
            )
        };
        for (access, actions) in
            [(Access::Upload, r#""kms:Decrypt","kms:GenerateDataKey""#), (Access::Download, r#""kms:Decrypt""#)]
        {
            let policy = session_policy(&sts, "files", network("203.0.113.7"), access);
            assert!(policy.contains(&expected(actions)), "{policy}");
            assert!(policy.contains(r#""IpAddress":{"aws:SourceIp":["203.0.113.7/32"]}"#), "{policy}");
        }
    }

    #[test]
    fn the_session_of_an_area_reaches_nothing_else() {
        let aws = sts("arn:aws:iam::1:role/x", SourceIpKey::SourceIp);
        let area = Access::Area { area: StagingArea::from_digest([0xab; 16]), life: Duration::from_mins(15) };
        let policy = session_policy(&aws, "files", network("203.0.113.7"), area);
        assert_eq!(
            policy,
            r#"{"Statement":[{"Action":["s3:AbortMultipartUpload","s3:ListMultipartUploadParts","s3:PutObject"],"Condition":{"IpAddress":{"aws:SourceIp":["203.0.113.7/32"]}},"Effect":"Allow","Resource":["arn:aws:s3:::files/staging/~credentials/abababababababababababababababab/*"]}],"Version":"2012-10-17"}"#
        );
        assert_eq!(area.duration(&aws), Duration::from_mins(15));
        assert_eq!(Access::Upload.duration(&aws), Duration::from_hours(1));
    }

    /// Credentials of one hour, and how often they were asked for.
    #[derive(Debug, Clone, Default)]
    struct Lent(Arc<AtomicU64>, Option<SystemTime>);

    impl ProvideCredentials for Lent {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            self.0.fetch_add(1, Ordering::Relaxed);
            future::ProvideCredentials::ready(Ok(AwsCredentials::new("AKID", "hush", None, self.1, "lent")))
        }
    }

    #[tokio::test]
    async fn own_credentials_are_not_fetched_for_every_request() {
        let text = "region = 'r'\nbucket = 'files'\nendpoint = 'http://127.0.0.1:9'\naccess_key_id = 'a'\nsecret_access_key = 'b'";
        let config: S3Config = toml::from_str(text).unwrap();
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let clock = Clock::manual(start);
        let lent = Lent(Arc::default(), Some((start + TimeDelta::hours(1)).into()));
        let mut sdk = Sdk::from_config(&config).await;
        sdk.credentials = Some(SharedCredentialsProvider::new(lent.clone()));
        let endpoint = Arc::new(Endpoint::new("http://127.0.0.1:9", "files", Addressing::Path).unwrap());
        let sessions = Sessions::new(sdk, &config, endpoint, clock.clone(), Handle::current());
        // Longer than they last at all.
        let wanted = Duration::from_hours(2);
        let ask = async || sessions.signer(None, Access::Upload, wanted).await.unwrap();
        for minutes in [0, 0, 10, 20, 29] {
            clock.set(start + TimeDelta::minutes(minutes));
            assert_eq!(ask().await.credentials().expires_at(), Some(start + TimeDelta::hours(1)));
        }
        assert_eq!(lent.0.load(Ordering::Relaxed), 1);
        clock.set(start + TimeDelta::minutes(31));
        ask().await;
        assert_eq!(lent.0.load(Ordering::Relaxed), 2, "asked for again when half of their life is over");
    }

    #[test]
    fn the_sooner_end_of_a_session_counts() {
        let asked_at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let hour = Duration::from_hours(1);
        for (stated, ends_after) in [(3600, 3600), (900, 900), (3595, 3595), (3605, 3600), (86_400, 3600)] {
            let ends_at = end_of_session(asked_at, hour, 1_800_000_000 + stated);
            assert_eq!(ends_at - asked_at, TimeDelta::seconds(ends_after), "{stated}");
        }
        assert_eq!(end_of_session(asked_at, hour, i64::MAX) - asked_at, TimeDelta::hours(1), "no time at all");
    }

    #[test]
    fn session_names_hold_only_what_assume_role_takes() {
        for (network, expected) in [
            (network("203.0.113.7"), "presignd-upload-203.0.113.7-32"),
            (network("2001:db8:1:2:3:4:5:6"), "presignd-upload-2001-db8-1-2---64"),
            (None, "presignd-upload-any"),
        ] {
            let name = session_name(network, Access::Upload);
            assert_eq!(name, expected);
            assert!(name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b)));
        }
    }
}
