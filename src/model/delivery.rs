//! The ways in which a file is handed out.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Invalid;

/// How a download reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
}

impl FromStr for Delivery {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "url" => Ok(Self::Url),
            "redirect" => Ok(Self::Redirect),
            "stream" => Ok(Self::Stream),
            "accel" => Ok(Self::Accel),
            "cdn" => Ok(Self::Cdn),
            _ => Err(Invalid::new("must be \"url\", \"redirect\", \"stream\", \"accel\" or \"cdn\"")),
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
