//! What the audit tells of.

use std::{fmt, str::FromStr};

use serde::Serialize;

use super::Invalid;

/// What became of a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// Somebody was allowed to upload.
    UploadIssued,
    /// Somebody was allowed to download.
    DownloadIssued,
    /// Cookies that open a prefix of the content delivery network were handed out.
    CookiesIssued,
    /// A ticket was used.
    Redeemed,
    /// Somebody was turned away.
    Refused,
    /// Something outstanding was stopped.
    Revoked,
}

impl AuditKind {
    /// All kinds, for tables and tests.
    pub const ALL: [Self; 6] =
        [Self::UploadIssued, Self::DownloadIssued, Self::CookiesIssued, Self::Redeemed, Self::Refused, Self::Revoked];

    /// Rule of [`FromStr`].
    pub const RULE: &str = "must be one of: upload_issued, download_issued, cookies_issued, redeemed, refused, revoked";

    /// The name used in JSON and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UploadIssued => "upload_issued",
            Self::DownloadIssued => "download_issued",
            Self::CookiesIssued => "cookies_issued",
            Self::Redeemed => "redeemed",
            Self::Refused => "refused",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for AuditKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuditKind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| Invalid::new(Self::RULE))
    }
}
