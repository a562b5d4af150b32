//! Why a verb did not do what it was asked. What that means in HTTP is decided elsewhere.

use serde::{Deserialize, Serialize};

use super::MissingParts;
use crate::{
    db::DbError,
    model::{IntentId, IntentState, Invalid, PartNumber, Scope},
    policy::Refusal,
    s3::{ReadError, S3Error},
    signing::{SigningError, cloudfront::CloudFrontError},
};

/// Why a verb did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DomainError {
    /// The token lacks the scope.
    #[error("the token lacks the scope configured for {0}")]
    ScopeMissing(Scope),
    /// The token administers one tenant only.
    #[error("the token administers one tenant only")]
    TenantBound,
    /// The request names a policy that is not in the policy file.
    #[error("there is no policy {0:?}")]
    UnknownPolicy(String),
    /// The upload's policy is no longer in the policy file.
    #[error("the policy {0:?} of this upload has been withdrawn")]
    PolicyWithdrawn(String),
    /// The policy refuses the file.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The policy's key template has no key for this caller.
    #[error("the policy has no object key for this token: {0}")]
    NoKey(Invalid),
    /// There is no such upload for this caller.
    #[error("there is no such upload")]
    NotFound,
    /// The callback token is forged, outdated, or of another upload.
    #[error("the callback token is not valid for this upload now")]
    CallbackTokenInvalid,
    /// The capability is forged or outdated.
    #[error("the capability in the path is not valid now")]
    CapabilityInvalid,
    /// The capability was given to another network.
    #[error("the capability in the path was given to another network")]
    CapabilityElsewhere,
    /// Nothing has been uploaded yet.
    #[error("the store holds no object for this upload yet")]
    Incomplete,
    /// Some parts have not been uploaded yet.
    #[error("{}", missing(.0))]
    PartsMissing(MissingParts),
    /// The store no longer has the parts.
    #[error("the store has no parts of this upload any more: they have been put together, or given up")]
    PartsGone,
    /// The upload does not travel in parts.
    #[error("the method of this upload is not multipart")]
    NotMultipart,
    /// The caller has moved to another network than the upload is scoped to.
    #[error("the upload was issued for another network than that of this request: renew it, its parts are kept")]
    NetworkChanged,
    /// The URLs of the upload have ended, and no more are given out before it is renewed.
    #[error("the URLs of this upload have ended: renew it, its parts are kept")]
    RenewRequired,
    /// What was asked for breaks rules that only the upload itself tells.
    #[error("the request breaks rules of this upload")]
    BrokenRules(Vec<BrokenRule>),
    /// What was uploaded is not what was promised.
    #[error("the stored object is not what was promised")]
    Mismatched(Vec<Mismatch>),
    /// The caller's `ETag` is not that of the stored object or part.
    #[error("the store holds something with another ETag")]
    EtagMismatch {
        /// The field of the request that says it.
        field: String,
        /// What the caller said.
        claimed: String,
        /// What the store says; none where it has nothing of the kind.
        found: Option<String>,
    },
    /// The upload was not finished and confirmed in time.
    #[error("the time of this upload has run out")]
    Expired,
    /// There is no such ticket.
    #[error("there is no such ticket")]
    TicketUnknown,
    /// The ticket was given to another network.
    #[error("the ticket was given to another network")]
    TicketElsewhere,
    /// The ticket has been redeemed as often as it can be.
    #[error("the ticket has been used")]
    TicketUsed,
    /// The time of the ticket has run out.
    #[error("the time of the ticket has run out")]
    TicketExpired,
    /// The download is a presigned URL, which nothing takes back.
    #[error("the download is no ticket, and nothing takes a presigned URL back")]
    NotATicket,
    /// What was issued has been revoked since.
    #[error("what was issued has been revoked")]
    Revoked,
    /// The upload is in a state that forbids this.
    #[error("the upload is {0}")]
    InvalidState(IntentState),
    /// The upload is not confirmed, so there is nothing to download.
    #[error("the upload is {0}, not confirmed")]
    NotConfirmed(IntentState),
    /// A browser would run a file of this type when it is shown inline.
    #[error("files of type {0:?} cannot be shown inline")]
    InlineRefused(String),
    /// A page to return to was asked for, and the upload is no form.
    #[error("only a form leads to another page")]
    ReturnNeedsForm,
    /// The content delivery network can hold nobody to a network of IPv6.
    #[error("the content delivery network can be scoped to IPv4 networks only")]
    Ipv4Required,
    /// A policy delivers through a content delivery network, and none is configured.
    #[error("no content delivery network is configured")]
    NoCdn,
    /// The idempotency key was used with another request.
    #[error("the idempotency key was used with another request")]
    IdempotencyMismatch,
    /// The operating system gave no randomness.
    #[error("no random bytes are to be had")]
    NoRandomness,
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The store.
    #[error(transparent)]
    S3(#[from] S3Error),
    /// This process streams as many downloads as it may.
    #[error("as many downloads are streamed as delivery.streams allows")]
    TooManyStreams,
    /// The upload lies in another bucket than this service is for.
    #[error("upload {upload} lies in the bucket {bucket}, which is not s3.bucket")]
    OtherBucket {
        /// The upload.
        upload: IntentId,
        /// Its bucket.
        bucket: String,
    },
    /// No web server is configured that could hand out files.
    #[error("delivery.accel names no web server")]
    NoAccel,
    /// The store has not what was confirmed.
    #[error("the object is not the confirmed one any more")]
    FileGone,
    /// The signature.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The signature for the content delivery network.
    #[error(transparent)]
    CloudFront(#[from] CloudFrontError),
}

impl DomainError {
    /// One field that breaks `rule`.
    pub(super) fn broken_rule(field: &str, rule: impl Into<String>, received: impl Into<serde_json::Value>) -> Self {
        Self::BrokenRules(vec![BrokenRule { field: field.to_owned(), rule: rule.into(), received: received.into() }])
    }

    /// Whether the client has not sent everything yet, as far as can be seen.
    pub(super) const fn is_unfinished(&self) -> bool {
        matches!(self, Self::Incomplete | Self::PartsMissing(_) | Self::PartsGone)
    }
}

impl From<ReadError> for DomainError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Changed => Self::FileGone,
            ReadError::Store(error) => error.into(),
        }
    }
}

/// Broken rules told at once: who sends thousands of wrong values does not read thousands of sentences.
pub const MOST_BROKEN_RULES: usize = 20;

/// A field of a request that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenRule {
    /// The field, as a path.
    pub field: String,
    /// What is allowed.
    pub rule: String,
    /// What arrived.
    pub received: serde_json::Value,
}

/// A promise that the stored object broke.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// The field of the request that made the promise.
    pub field: String,
    /// What was promised.
    pub expected: serde_json::Value,
    /// What the store holds.
    pub found: serde_json::Value,
}

impl Mismatch {
    /// The field of a file whose first bytes are of another type than it was declared as.
    pub const CONTENT: &str = "content";
    /// The field of a file that the scanner does not find clean.
    pub const INSPECTION: &str = "inspection";
}

/// Names the parts, as far as they are known by number.
fn missing(parts: &MissingParts) -> String {
    let numbers: Vec<String> = parts.first.iter().map(PartNumber::to_string).collect();
    let numbers = numbers.join(", ");
    match parts.count - parts.first.len().min(parts.count) {
        0 => format!("these parts have not been uploaded yet: {numbers}"),
        more => format!("these parts have not been uploaded yet: {numbers}, and {more} more"),
    }
}
