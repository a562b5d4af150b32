//! `[events]`: who may say that something was uploaded.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    Problem,
    secret::{self, SecretError},
    switch,
};
use crate::model::ByteSize;

/// Settings of storage events.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// Tokens that stores and their relays send. Every one is good: rotate by adding a new one, then taking the old one
    /// away once all senders have it.
    pub tokens: Vec<EventTokenConfig>,
    /// Largest accepted body of a sender with a token.
    pub body_limit: ByteSize,
    /// Whether an upload is rejected when its event names an address outside of its client network. Only right where
    /// the store sees the same addresses as this service.
    #[serde(deserialize_with = "switch::deserialize")]
    pub check_source_address: bool,
    /// Amazon SNS, whose messages are signed.
    pub sns: Option<SnsConfig>,
}

/// One token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventTokenConfig {
    /// The token itself.
    #[serde(default, deserialize_with = "secret::deserialize_option")]
    pub secret: Option<SecretString>,
    /// File that holds the token.
    pub secret_file: Option<PathBuf>,
}

/// Settings of Amazon SNS.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnsConfig {
    /// ARNs of the topics whose messages are taken.
    pub topics: Vec<TopicArn>,
    /// PEM file of the one certificate that signs, for networks from which SNS cannot be reached; by default the
    /// certificate that a message names is fetched from SNS.
    pub certificate_file: Option<PathBuf>,
}

/// The ARN of a topic: `arn:aws:sns:<region>:<account>:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TopicArn(String);

impl TopicArn {
    /// The ARN.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host that SNS serves this topic's region from, and that alone.
    pub fn sns_host(&self) -> String {
        let region = self.0.split(':').nth(3).unwrap_or_default();
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        format!("sns.{region}.amazonaws.com{suffix}")
    }
}

impl TryFrom<String> for TopicArn {
    type Error = &'static str;

    fn try_from(arn: String) -> Result<Self, Self::Error> {
        let parts: Vec<&str> = arn.split(':').collect();
        let plain = |text: &str, more: &[u8]| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        match parts.as_slice() {
            // The region becomes part of a host name.
            ["arn", "aws" | "aws-cn" | "aws-us-gov", "sns", region, account, name]
                if plain(region, b"-") && plain(account, b"") && plain(name, b"-_.") =>
            {
                Ok(Self(arn))
            }
            _ => Err("must be the ARN of an SNS topic, such as \"arn:aws:sns:eu-central-1:111122223333:uploads\""),
        }
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { tokens: Vec::new(), body_limit: ByteSize::from_bytes(16 << 20), check_source_address: false, sns: None }
    }
}

impl EventTokenConfig {
    /// The token, read from its file where it is in one.
    ///
    /// # Errors
    /// When it is none that can be sent, or its file cannot be read.
    pub fn load(&self) -> Result<SecretString, SecretError> {
        let secret = secret::load(self.secret.as_ref(), self.secret_file.as_deref())?;
        // It travels in headers and, with stores that know only a URL, as a segment of a path.
        if !is_token(secret.expose_secret()) {
            return Err(SecretError::Unfit("must be 32 to 256 letters, digits, - _ . or ~"));
        }
        Ok(secret)
    }
}

impl EventsConfig {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(64 << 10..=64 << 20).contains(&self.body_limit.bytes()) {
            problems.push(Problem::new("events.body_limit", "must be 64KiB to 64MiB"));
        }
        for (index, token) in self.tokens.iter().enumerate() {
            if let Err(error) = token.load() {
                problems.push(error.problem(&format!("events.tokens[{index}]")));
            }
        }
        if self.sns.as_ref().is_some_and(|sns| sns.topics.is_empty()) {
            problems.push(Problem::new("events.sns.topics", "must hold at least one topic"));
        }
        problems
    }
}

fn is_token(text: &str) -> bool {
    (32..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_tell_their_host() {
        let host = |arn: &str| TopicArn::try_from(arn.to_owned()).map(|arn| arn.sns_host());
        assert_eq!(host("arn:aws:sns:eu-central-1:111122223333:up").unwrap(), "sns.eu-central-1.amazonaws.com");
        assert_eq!(host("arn:aws-cn:sns:cn-north-1:111122223333:up").unwrap(), "sns.cn-north-1.amazonaws.com.cn");
        for bad in [
            "",
            "up",
            "arn:aws:sqs:eu-central-1:111122223333:up",
            "arn:aws:sns:eu-central-1:111122223333",
            "arn:aws:sns:evil.example/:111122223333:up",
            "arn:aws:sns::111122223333:up",
            "arn:aws:sns:eu-central-1:111122223333:up:8f0c",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
