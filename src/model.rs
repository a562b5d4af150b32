//! The vocabulary that every other room shares: validated values and the upload state machine.
//!
//! Every type here is built by a constructor that validates and never rewrites, so a value that exists is a value
//! that the rules allow. Nothing in this room does I/O or reads a clock.

pub mod audit;
pub mod byte_rate;
pub mod byte_size;
pub mod content_type;
pub mod delivery;
pub mod digest;
pub mod event;
pub mod file_name;
pub mod intent;
pub mod metadata;
pub mod multipart;
pub mod network;
pub mod object_key;
pub mod principal;
pub mod public_address;
pub mod size_promise;

pub use audit::AuditKind;
pub use byte_rate::ByteRate;
pub use byte_size::ByteSize;
pub use content_type::{ContentType, MediaRange};
pub use delivery::Delivery;
pub use digest::{ETag, Md5Digest, Sha256Digest};
pub use event::EventType;
pub use file_name::FileName;
pub use intent::{IntentEvent, IntentId, IntentState, MAX_SIGNATURE_LIFE, Transition, UploadMethod};
pub use metadata::Metadata;
pub use multipart::{PartNumber, PartPlan, PlannedPart};
pub use network::{ClientNetwork, IpScope};
pub use object_key::{ObjectKey, StagingArea};
pub use principal::{NAME_RULE, Principal, Scope, is_name};
pub use public_address::is_globally_reachable;
pub use size_promise::SizePromise;

/// A value that a rule refused. The message states the rule and never echoes secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct Invalid {
    /// What is allowed, as a sentence fragment such as `must be 1 to 1024 bytes of UTF-8`.
    pub rule: String,
}

impl Invalid {
    /// An error stating `rule`.
    pub fn new(rule: impl Into<String>) -> Self {
        Self { rule: rule.into() }
    }
}
