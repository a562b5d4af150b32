//! `[s3]`: the store, and the role that scopes URLs to client networks.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{Problem, duration, secret, server::is_base_url, switch};
use crate::model::UploadMethod;

/// Settings of the S3-compatible store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// Region that requests are signed for.
    pub region: String,
    /// The bucket that holds all uploads.
    pub bucket: String,
    /// URL of the store as this service reaches it; absent for AWS.
    pub endpoint: Option<String>,
    /// URL of the store as clients reach it, which is what gets signed; by default the same.
    pub public_endpoint: Option<String>,
    /// How the bucket is addressed.
    #[serde(default)]
    pub addressing: Addressing,
    /// Access key; absent to use the AWS default chain (environment, web identity, container, instance).
    pub access_key_id: Option<String>,
    /// Secret of the access key.
    #[serde(default, deserialize_with = "secret::deserialize_option")]
    pub secret_access_key: Option<SecretString>,
    /// Longest wait for one attempt at an answer of the store; there are up to three.
    #[serde(default = "default_request_timeout", deserialize_with = "duration::deserialize")]
    pub request_timeout: Duration,
    /// Methods whose uploads land below `staging/` and are copied to a key that no client can write to when they are
    /// confirmed. Forms need it; PUT does on stores that do not honour `If-None-Match`.
    #[serde(default = "default_stage")]
    pub stage: Vec<UploadMethod>,
    /// Whether the store is told at the beginning of a multipart upload that its parts have checksums. Amazon S3 takes
    /// none otherwise; SeaweedFS then wants to be told them again at the end, but does not list them.
    #[serde(default = "default_declare_part_checksums", deserialize_with = "switch::deserialize")]
    pub declare_part_checksums: bool,
    /// Whether `serve` tries what the store can do before it serves, and refuses policies that need more.
    #[serde(default, deserialize_with = "switch::deserialize")]
    pub probe_on_start: bool,
    /// Role to assume; without it URLs cannot be scoped to networks.
    pub sts: Option<StsConfig>,
}

/// How the bucket appears in URLs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Addressing {
    /// `https://bucket.host/key`, which AWS prefers and other stores need a wildcard DNS name for.
    #[default]
    VirtualHosted,
    /// `https://host/bucket/key`, which every S3-compatible store understands.
    Path,
}

/// Settings of the sessions that presigned URLs are signed with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StsConfig {
    /// Role that may read and write the bucket. Sessions narrow it to one network and one kind of access.
    pub role_arn: String,
    /// URL of the STS; by default that of the store, or AWS's regional one.
    pub endpoint: Option<String>,
    /// External id that the role's trust policy asks for.
    #[serde(default, deserialize_with = "secret::deserialize_option")]
    pub external_id: Option<SecretString>,
    /// Life of a session, 15m to 12h (1h at most under role chaining). No URL outlives its session.
    #[serde(default = "default_session_duration", deserialize_with = "duration::deserialize")]
    pub session_duration: Duration,
    /// ARN of the KMS key that the bucket encrypts with, where it does (SSE-KMS).
    #[serde(default)]
    pub kms_key_arn: Option<String>,
    /// Condition key that holds the client's address at the store.
    #[serde(default)]
    pub source_ip_key: SourceIpKey,
}

/// The IAM condition key that a session policy compares with the client network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum SourceIpKey {
    /// The public peer address.
    #[default]
    #[serde(rename = "aws:SourceIp")]
    SourceIp,
    /// The address inside the VPC, where clients reach S3 through a VPC endpoint (`aws:SourceIp` is absent there).
    #[serde(rename = "aws:VpcSourceIp")]
    VpcSourceIp,
}

impl StsConfig {
    /// The AWS partition that the role is in: `aws`, `aws-cn`, `aws-us-gov`.
    pub fn partition(&self) -> &str {
        self.role_arn.split(':').nth(1).unwrap_or("aws")
    }
}

impl SourceIpKey {
    /// The key as IAM spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SourceIp => "aws:SourceIp",
            Self::VpcSourceIp => "aws:VpcSourceIp",
        }
    }
}

/// `arn:partition:kms:region:account:key/id`, without wildcards: a session must not be given every key.
fn is_kms_key_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    matches!(parts[..], ["arn", _, "kms", _, _, key] if key.starts_with("key/") && !text.contains(['*', '?']))
}

fn default_stage() -> Vec<UploadMethod> {
    vec![UploadMethod::Post]
}

const fn default_declare_part_checksums() -> bool {
    true
}

const fn default_request_timeout() -> Duration {
    Duration::from_secs(5)
}

const fn default_session_duration() -> Duration {
    Duration::from_hours(1)
}

/// Partition, service and what the service makes of the rest; stores that are not AWS leave much of it out.
fn is_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    matches!(parts.as_slice(), ["arn", _, _, rest] if !rest.is_empty())
}

impl S3Config {
    /// The store as clients reach it.
    pub fn client_endpoint(&self) -> String {
        self.public_endpoint.clone().or_else(|| self.endpoint.clone()).unwrap_or_else(|| {
            let suffix = if self.region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://s3.{}.amazonaws.com{suffix}", self.region)
        })
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.region.is_empty() || !self.region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            problems.push(Problem::new("s3.region", "must be a region name such as \"eu-central-1\""));
        }
        let sts_endpoint = self.sts.as_ref().and_then(|sts| sts.endpoint.as_ref());
        for (key, url) in [
            ("s3.endpoint", self.endpoint.as_ref()),
            ("s3.public_endpoint", self.public_endpoint.as_ref()),
            ("s3.sts.endpoint", sts_endpoint),
        ] {
            if url.is_some_and(|url| !is_base_url(url)) {
                problems.push(Problem::new(key, "must be an http or https URL without user, query or fragment"));
            }
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            let rule = "must be given together with s3.secret_access_key, or both left out";
            problems.push(Problem::new("s3.access_key_id", rule));
        }
        // A variable that was meant to be set, and is not.
        if self.access_key_id.as_ref().is_some_and(String::is_empty) {
            problems.push(Problem::new("s3.access_key_id", "must not be empty"));
        }
        if self.secret_access_key.as_ref().is_some_and(|key| key.expose_secret().is_empty()) {
            problems.push(Problem::new("s3.secret_access_key", "must not be empty"));
        }
        if self.stage.iter().any(|method| !matches!(method, UploadMethod::Put | UploadMethod::Post)) {
            let rule = "must hold \"put\" or \"post\" only: no client can complete a multipart upload, and what credentials \
                        write is always staged";
            problems.push(Problem::new("s3.stage", rule));
        }
        if self.request_timeout.is_zero() {
            problems.push(Problem::new("s3.request_timeout", "must be longer than 0"));
        }
        if let Some(sts) = &self.sts {
            // The bounds of AssumeRole's DurationSeconds.
            if !(900..=43_200).contains(&sts.session_duration.as_secs()) {
                problems.push(Problem::new("s3.sts.session_duration", "must be 15m to 12h"));
            }
            if !is_arn(&sts.role_arn) {
                let rule = "must be the ARN of a role, such as \"arn:aws:iam::111122223333:role/presignd\"";
                problems.push(Problem::new("s3.sts.role_arn", rule));
            }
            if sts.kms_key_arn.as_ref().is_some_and(|arn| !is_kms_key_arn(arn)) {
                let rule = "must be the ARN of a key, such as \"arn:aws:kms:eu-central-1:111122223333:key/…\": rights are \
                            given for keys, not for their aliases";
                problems.push(Problem::new("s3.sts.kms_key_arn", rule));
            }
        }
        problems
    }
}
