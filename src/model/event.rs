//! What receivers of webhooks are told.

use serde::{Deserialize, Serialize};

use super::IntentState;

/// The type of an event, as the body of a webhook names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// An upload was verified and can be downloaded.
    #[serde(rename = "upload.confirmed")]
    UploadConfirmed,
    /// What was uploaded is not what was promised, or is not clean.
    #[serde(rename = "upload.rejected")]
    UploadRejected,
    /// The time of an upload ran out.
    #[serde(rename = "upload.expired")]
    UploadExpired,
    /// The owner gave an upload up, or it was revoked and the sweeper did.
    #[serde(rename = "upload.aborted")]
    UploadAborted,
    /// A download URL was handed out. Sent only to endpoints that name it.
    #[serde(rename = "download.issued")]
    DownloadIssued,
}

impl EventType {
    /// What an endpoint gets that names no types: the end of every upload.
    pub const DEFAULT: [Self; 4] =
        [Self::UploadConfirmed, Self::UploadRejected, Self::UploadExpired, Self::UploadAborted];

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UploadConfirmed => "upload.confirmed",
            Self::UploadRejected => "upload.rejected",
            Self::UploadExpired => "upload.expired",
            Self::UploadAborted => "upload.aborted",
            Self::DownloadIssued => "download.issued",
        }
    }

    /// The event of an upload that has reached `state`.
    pub const fn of(state: IntentState) -> Option<Self> {
        match state {
            IntentState::Issued | IntentState::Inspecting => None,
            IntentState::Confirmed => Some(Self::UploadConfirmed),
            IntentState::Rejected => Some(Self::UploadRejected),
            IntentState::Expired => Some(Self::UploadExpired),
            IntentState::Aborted => Some(Self::UploadAborted),
        }
    }
}
