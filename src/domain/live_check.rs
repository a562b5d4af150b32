//! Finds out what the database, the store and its STS really do, by doing it: what `presignd check --live` prints, and what
//! `serve` asks before it starts where `s3.probe_on_start` says so.
//!
//! Requests are signed by the code that signs for clients, and are sent as a client would send them. Everything written
//! lies below a prefix of this run's own and is removed at the end, also of what was refused as it should be.

mod capability;
mod cors;
mod database;
mod form;
mod multipart;
mod network;
mod put;
mod report;
mod running;
mod traces;
mod visitor;

use std::{net::IpAddr, sync::Arc, time::Duration};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use chrono::{DateTime, TimeDelta, Utc};

pub use capability::{CapabilityFacts, StoreCapability};
pub use report::{LiveReport, LiveRow, Outcome};

use self::{report::Verdict, traces::Traces, visitor::Visitor};
use super::{DomainError, Service};
use crate::{
    model::{ClientNetwork, ObjectKey, UploadMethod},
    policy::PolicyDocument,
    s3::{ASSUME_ROLE, Access, S3Error, Sessions},
    signing::Signer,
};

/// What is written. Long enough to be cut and to be changed.
const BODY: &[u8] = b"written by presignd check, and removed by it";

/// What is written in its place where the store should refuse: as long as [`BODY`].
const OTHER_BODY: &[u8] = b"this is not what was promised, same length!!";

/// The same where it should be refused for its length.
const LONGER_BODY: &[u8] = b"written by presignd check, and removed by it.";

/// The media type of all.
const CONTENT_TYPE: &str = "text/plain";

/// The life of every URL.
const LIFE: Duration = Duration::from_mins(1);

/// The largest difference between two clocks that is called none: the shortest useful lives are not much longer.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(5);

/// From where it is asked, and what besides.
#[derive(Debug, Clone, Default)]
pub struct LiveOptions {
    /// The address of this machine as the store sees it; otherwise the one that a connection to the store comes from.
    pub address: Option<IpAddr>,
    /// A second address of this machine, from which URLs for the first have to be refused.
    pub from_address: Option<IpAddr>,
    /// The running service as clients reach it.
    pub url: Option<String>,
    /// The origins of the pages that use the bucket.
    pub origins: Vec<String>,
    /// Whether nothing but the store is asked.
    pub store_only: bool,
}

/// One run.
#[derive(Debug)]
pub struct LiveCheck {
    service: Service,
    /// Signers with the service's own credentials, which are the ones in use where there is no STS.
    own: Sessions,
    document: Arc<PolicyDocument>,
    options: LiveOptions,
    visitor: Visitor,
    prefix: ObjectKey,
    traces: Traces,
}

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LiveCheckError {
    /// No HTTP client could be made.
    #[error("requests cannot be sent: {0}")]
    Http(#[from] reqwest::Error),
    /// No randomness, or no key.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl LiveCheck {
    /// A run with the parts of `service`; `own` signs for the same bucket without STS.
    ///
    /// # Errors
    /// When no request could be sent.
    pub fn new(service: Service, own: Sessions, options: LiveOptions) -> Result<Self, LiveCheckError> {
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| DomainError::NoRandomness)?;
        let document = service.policies.current();
        // Where uploads go, because roles are often allowed nothing else. No upload's id: others leave it alone then.
        let upload_to = document.policy("default", service.clock.now()).map(|rules| rules.key.upload_to().to_owned());
        let folder = format!("presignd-check-{}", hex::encode(random));
        let prefix = match upload_to.filter(|folder| !folder.is_empty()) {
            Some(upload_to) => format!("{upload_to}/{folder}"),
            None => folder,
        };
        let prefix = ObjectKey::parse(prefix).map_err(DomainError::NoKey)?;
        let visitor = Visitor::new(options.from_address)?;
        Ok(Self { service, own, document, options, visitor, prefix, traces: Traces::default() })
    }

    /// Tries everything, and tells `progress` what is tried next. What is in the way of much is tried first.
    ///
    /// Whoever stops waiting for it has to call [`LiveCheck::clean_up`].
    pub async fn run(&self, progress: impl Fn(StoreCapability)) -> LiveReport {
        let mut report = LiveReport::default();
        if !self.options.store_only {
            progress(StoreCapability::Database);
            self.add(&mut report, self.try_database().await);
        }
        progress(StoreCapability::Store);
        let store = self.try_store().await;
        let answers = matches!(store, Verdict::Works(_));
        self.add(&mut report, vec![(StoreCapability::Store, store)]);
        if answers {
            self.try_uses(&mut report, &progress).await;
        }
        if !self.options.store_only {
            progress(StoreCapability::Running);
            self.add(&mut report, vec![(StoreCapability::Running, self.try_running().await)]);
        }
        report
    }

    /// Tries a store that answers as clients use it.
    async fn try_uses(&self, report: &mut LiveReport, progress: &impl Fn(StoreCapability)) {
        progress(StoreCapability::Put);
        let put = self.try_put().await;
        let writes = put
            .iter()
            .any(|(capability, verdict)| *capability == StoreCapability::Put && matches!(verdict, Verdict::Works(_)));
        self.add(report, put);
        // Where nothing can be written, every refusal would look like a rule that is kept.
        if writes {
            progress(StoreCapability::Form);
            self.add(report, self.try_forms().await);
            progress(StoreCapability::Multipart);
            self.add(report, self.try_multipart().await);
            progress(StoreCapability::ScopeEnforced);
            self.add(report, self.try_networks().await);
            if !self.options.store_only {
                progress(StoreCapability::Cors);
                self.add(report, vec![(StoreCapability::Cors, self.try_cors().await)]);
            }
        }
    }

    fn add(&self, report: &mut LiveReport, rows: Vec<(StoreCapability, Verdict)>) {
        for (capability, verdict) in rows {
            report.add(capability, capability.needed_by(&self.document, &self.facts()), verdict);
        }
    }

    /// Removes all that was written, and says what could not be removed.
    pub async fn clean_up(&self) -> Result<(), S3Error> {
        self.traces.remove(&self.service.store).await
    }

    fn facts(&self) -> CapabilityFacts<'_> {
        CapabilityFacts {
            has_sts: self.service.sessions.can_scope(),
            staged: &self.service.staged_methods,
            has_origins: !self.options.origins.is_empty(),
            has_url: self.options.url.is_some(),
        }
    }

    async fn try_store(&self) -> Verdict {
        match self.service.store.ping().await {
            Ok(()) => Verdict::works(format!("the bucket {} is there", self.service.store.bucket())),
            Err(error) => Verdict::failed(&error, mend_of(&error)),
        }
    }

    /// A key below the prefix that nothing was written to yet, and that is cleaned up.
    fn fresh_key(&self, name: &str) -> Result<ObjectKey, Verdict> {
        let key = ObjectKey::parse(format!("{}/{name}", self.prefix))
            .map_err(|invalid| Verdict::failed(&invalid.rule, "shorten the key of the policy \"default\""))?;
        self.traces.key(&key);
        Ok(key)
    }

    /// The same where forms write.
    fn fresh_staged_key(&self, name: &str) -> Result<ObjectKey, Verdict> {
        let key = self.fresh_key(name)?;
        if !self.service.staged_methods.contains(&UploadMethod::Post) {
            return Ok(key);
        }
        let staged = key.staged();
        let staged =
            staged.map_err(|invalid| Verdict::failed(&invalid.rule, "shorten the key of the policy \"default\""))?;
        self.traces.key(&staged);
        Ok(staged)
    }

    /// A signer as clients get it.
    async fn signer(&self, network: Option<ClientNetwork>, access: Access) -> Result<Arc<Signer>, Verdict> {
        let signer = self.service.sessions.signer(network, access, LIFE).await;
        signer.map_err(|error| Verdict::failed(&error, mend_of(&error)))
    }

    fn now(&self) -> DateTime<Utc> {
        self.service.clock.now()
    }
}

impl From<S3Error> for Verdict {
    fn from(error: S3Error) -> Self {
        Self::failed(&error, mend_of(&error))
    }
}

/// What to do about a store or an STS that does not answer as it should.
fn mend_of(error: &S3Error) -> &'static str {
    match error {
        S3Error::Unavailable { operation: ASSUME_ROLE, .. } => {
            "start the STS, or correct s3.sts.endpoint; it has to be reached from here"
        }
        S3Error::Refused { operation: ASSUME_ROLE, .. } => {
            "correct s3.sts.role_arn, let the role's trust policy name these credentials, and allow them sts:AssumeRole"
        }
        S3Error::Unavailable { .. } => "start the store, or correct s3.endpoint; it has to be reached from here",
        // HeadBucket answers without a body: there is nothing but the status to go by.
        S3Error::Refused { reason, .. } if reason.starts_with("404") => "create the bucket, or correct s3.bucket",
        S3Error::Refused { reason, .. } if reason.starts_with("403") => {
            "correct s3.access_key_id and s3.secret_access_key, or give these credentials the actions that docs/CONFIGURATION.md lists"
        }
        S3Error::Refused { .. } | S3Error::KeyRequired { .. } => "correct the s3 settings",
    }
}
