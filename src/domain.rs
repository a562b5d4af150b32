//! The verbs of the service. Each tells one story from top to bottom and knows nothing of HTTP.

mod abort;
mod audit;
mod batch;
mod bucket_cors;
mod callback_token;
mod capability;
mod confirm;
mod cookies;
mod deliver;
mod disposition;
mod drift;
mod error;
mod events;
mod form_return;
mod inspect;
mod issue;
mod known_uploads;
mod live_check;
mod maintain;
mod multipart;
mod outbox;
mod renew;
mod revoke;
mod sniff;
mod sweep;
mod tickets;
mod token_keys;

use std::{net::IpAddr, sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

pub use batch::MAX_BATCH;
pub use bucket_cors::{BucketCors, CorsRule};
pub use callback_token::CallbackTokens;
pub use capability::{Capabilities, Capability, GrantedCapability};
pub use confirm::{Claim, Confirmer, Judging, SniffCounts};
pub use cookies::{CookieRequest, IssuedCookies};
pub use deliver::{Accel, AccelPlace, AcceleratedFile, DownloadRequest, FileFacts, HandOver, Permit, StreamedFile};
pub use disposition::{Disposition, content_disposition};
pub use drift::{DriftCounts, DriftEvent, DriftKind, DriftOptions, Finding};
pub use error::{BrokenRule, DomainError, MOST_BROKEN_RULES, Mismatch};
pub use events::{EventCounts, MAX_RECORDS, Notification, NotificationError, StoreEvent};
pub use form_return::FormReturn;
pub use inspect::{Inspection, InspectionStatus, Inspector};
pub use issue::{IssueRequest, IssuedUpload, UploadTarget};
pub use live_check::{
    CapabilityFacts, LiveCheck, LiveCheckError, LiveOptions, LiveReport, LiveRow, Outcome, StoreCapability,
};
pub use multipart::{ClaimedPart, MissingParts, PartsRequest, SignedPart, UploadedParts};
pub use outbox::Outbox;
pub use revoke::{RevocationRequest, RevocationSubject, Revoked};
pub use sweep::{Rehearsal, SweepProgress, SweepStatus, Sweeper, Sweeping};
pub use tickets::RevokedDownload;
pub use token_keys::TokenKeys;

use crate::{
    clock::Clock,
    db::{Database, Ledger},
    model::{Principal, Scope, UploadMethod},
    policy::PolicyHandle,
    s3::{ObjectReader, ObjectStore, Sessions},
    signing::{Signer, cloudfront::CloudFront},
};

/// Everything that the verbs work with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    /// The intents.
    pub database: Database,
    /// The group commit of new intents.
    pub ledger: Ledger,
    /// The bucket.
    pub store: ObjectStore,
    /// Reads for clients.
    pub reader: ObjectReader,
    /// The web server that hands out files, where one is configured.
    pub accel: Option<Accel>,
    /// The signers.
    pub sessions: Sessions,
    /// The policies in force.
    pub policies: PolicyHandle,
    /// The tokens that confirm without a JWT.
    pub callback_tokens: CallbackTokens,
    /// The paths that stand for a user.
    pub capabilities: Capabilities,
    /// Who is told what became of uploads.
    pub outbox: Outbox,
    /// The methods whose uploads land in the staging area.
    pub staged_methods: Arc<[UploadMethod]>,
    /// The scanner that policies may require, where one is configured.
    pub inspection: Option<Inspection>,
    /// The distribution that policies may deliver through, where one is configured.
    pub cdn: Option<Arc<CloudFront>>,
    /// The uploaded objects that are looked at now. Closed before the service can stop: they hold on to all of it.
    pub judging: Judging,
    /// What sniffing has found.
    pub sniffed: Arc<SniffCounts>,
    /// What the sweeper of this process has done.
    pub sweep_progress: SweepProgress,
    /// The time.
    pub clock: Clock,
}

/// Who asks, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The authenticated user.
    pub principal: &'a Principal,
    /// The client's address, as the trusted proxies tell it.
    pub address: IpAddr,
}

impl Caller<'_> {
    fn require(&self, scope: Scope) -> Result<(), DomainError> {
        require(self.principal, scope)
    }
}

fn require(principal: &Principal, scope: Scope) -> Result<(), DomainError> {
    if principal.has(scope) { Ok(()) } else { Err(DomainError::ScopeMissing(scope)) }
}

/// When a URL signed now will end: what the policy and the request allow, but never later than the credentials that
/// sign it. In whole seconds from a whole second, because that is all a signature can say.
fn url_end(now: DateTime<Utc>, allowed: Duration, signer: &Signer) -> (Duration, DateTime<Utc>) {
    let start = now.trunc_subsecs(0);
    let mut seconds = allowed.as_secs();
    if let Some(credentials_end) = signer.credentials().expires_at() {
        seconds = seconds.min(u64::try_from((credentials_end - start).num_seconds()).unwrap_or_default());
    }
    let life = Duration::from_secs(seconds);
    (life, start + TimeDelta::from_std(life).unwrap_or_default())
}
