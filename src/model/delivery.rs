//! The ways in which a file is handed out.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Invalid;

/// How a download reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Delivery {
    /// As a presigned URL in a JSON reply.
    Url,
    /// As a redirect to a presigned URL.
    Redirect,
    /// Through this service, which reads it from the store.
    Stream,
    /// Through the web server in front of this service, which is told where it is.
    Accel,
    /// By a content delivery network, at a URL signed for it.
    Cdn,
}

impl Delivery {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Url, Self::Redirect, Self::Stream, Self::Accel, Self::Cdn];

    /// Its name in policies, requests and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Redirect => "redirect",
            Self::Stream => "stream",
            Self::Accel => "accel",
            Self::Cdn => "cdn",
        }
    }

    /// Whether it is a URL that a session of the store signs, so that it is good no longer than the session.
    pub const fn is_signed_by_session(self) -> bool {
        match self {
            Self::Url | Self::Redirect => true,
            Self::Stream | Self::Accel | Self::Cdn => false,
        }
    }

    /// Whether this service is asked again for the bytes themselves, so that what it refuses is not handed out any more.
    pub const fn passes_through_service(self) -> bool {
        match self {
            Self::Stream | Self::Accel => true,
            Self::Url | Self::Redirect | Self::Cdn => false,
        }
    }
}

/// What serde reads it by: of itself it would also take an object with one of the names.
impl TryFrom<String> for Delivery {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl FromStr for Delivery {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|delivery| delivery.as_str() == text)
            .ok_or_else(|| Invalid::new("must be \"url\", \"redirect\", \"stream\", \"accel\" or \"cdn\""))
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
