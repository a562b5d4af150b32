//! `[inspection]`: the scanner that has to find files clean where a policy says so.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;

use super::{Problem, duration, number, secret, server::is_web_url};
use crate::model::ByteSize;

/// Settings of the scanner.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InspectionConfig {
    /// Where files are posted to.
    pub url: String,
    /// How the scanner gets the file.
    #[serde(default)]
    pub mode: InspectionMode,
    /// Name of the form's field that holds the file.
    #[serde(default = "default_field")]
    pub field: String,
    /// Value of the `Authorization` header.
    #[serde(default, deserialize_with = "secret::deserialize_option")]
    pub authorization: Option<SecretString>,
    /// File that holds the value of the `Authorization` header.
    pub authorization_file: Option<PathBuf>,
    /// Longest time for one file, from asking the store to the last byte of the verdict.
    #[serde(default = "default_timeout", deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// Statuses of a verdict that a file is clean.
    #[serde(default = "default_clean_statuses")]
    pub clean_statuses: Vec<u16>,
    /// Statuses of a verdict that it is not.
    #[serde(default = "default_infected_statuses")]
    pub infected_statuses: Vec<u16>,
    /// Where the verdict is in the body of a clean status, for scanners that answer all verdicts with one status.
    pub verdict: Option<VerdictConfig>,
    /// Largest file that the scanner takes: no policy that requires it may allow more.
    #[serde(default = "default_largest")]
    pub largest: ByteSize,
    /// Wait before the second attempt; each further one doubles it, with jitter.
    #[serde(default = "default_first_retry", deserialize_with = "duration::deserialize")]
    pub first_retry: Duration,
    /// Longest wait between two attempts.
    #[serde(default = "default_longest_retry", deserialize_with = "duration::deserialize")]
    pub longest_retry: Duration,
    /// How long after its verification an upload without a verdict is rejected.
    #[serde(default = "default_give_up_after", deserialize_with = "duration::deserialize")]
    pub give_up_after: Duration,
    /// How often waiting uploads are looked for when nothing wakes the inspector.
    #[serde(default = "default_poll_interval", deserialize_with = "duration::deserialize")]
    pub poll_interval: Duration,
    /// Files that one process has scanned at the same time.
    #[serde(default = "default_concurrency", deserialize_with = "number::deserialize")]
    pub concurrency: usize,
}

/// How the scanner gets a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InspectionMode {
    /// In a form, as `multipart/form-data`.
    #[default]
    Multipart,
    /// By a presigned URL in JSON, which the scanner fetches.
    Url,
}

/// Where a verdict is in a body of JSON, and what it says. Anything else is no verdict.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictConfig {
    /// JSON pointer (RFC 6901) to the value; empty for the whole body.
    pub pointer: String,
    /// The value that means clean.
    pub clean: serde_json::Value,
    /// The value that means infected.
    pub infected: serde_json::Value,
}

fn default_field() -> String {
    "file".to_owned()
}

const fn default_timeout() -> Duration {
    Duration::from_mins(1)
}

fn default_clean_statuses() -> Vec<u16> {
    vec![200]
}

fn default_infected_statuses() -> Vec<u16> {
    vec![406]
}

const fn default_largest() -> ByteSize {
    ByteSize::from_bytes(100 << 20)
}

const fn default_first_retry() -> Duration {
    Duration::from_secs(2)
}

const fn default_longest_retry() -> Duration {
    Duration::from_mins(10)
}

const fn default_give_up_after() -> Duration {
    Duration::from_hours(24)
}

const fn default_poll_interval() -> Duration {
    Duration::from_secs(2)
}

const fn default_concurrency() -> usize {
    4
}

impl InspectionConfig {
    /// The value of the `Authorization` header, read from its file where it is in one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load_authorization(&self) -> Result<Option<SecretString>, secret::SecretError> {
        match (&self.authorization, &self.authorization_file) {
            (None, Some(path)) => secret::read_file(path).map(Some),
            (given, _) => Ok(given.clone()),
        }
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut hold = |holds: bool, key: &str, rule: &str| {
            if !holds {
                problems.push(Problem::new(format!("inspection.{key}"), rule));
            }
        };
        let usable = Url::parse(&self.url).is_ok_and(|url| is_web_url(&url));
        hold(usable, "url", "must be a URL with http or https, without user and password");
        hold(!self.field.is_empty(), "field", "must be the name of a form's field");
        let both = self.authorization.is_some() && self.authorization_file.is_some();
        hold(!both, "authorization", "must not be given together with authorization_file");
        let long = [
            ("timeout", self.timeout),
            ("first_retry", self.first_retry),
            ("give_up_after", self.give_up_after),
            ("poll_interval", self.poll_interval),
        ];
        for (key, duration) in long {
            hold(!duration.is_zero(), key, "must be longer than 0");
        }
        hold(self.timeout <= Duration::from_hours(1), "timeout", "must be at most 1h");
        // Beyond what any clock shows, adding up instants would fail.
        hold(self.give_up_after <= Duration::from_hours(365 * 24), "give_up_after", "must be at most 365d");
        hold(self.longest_retry >= self.first_retry, "longest_retry", "must be at least first_retry");
        hold(self.longest_retry <= self.give_up_after, "longest_retry", "must be at most give_up_after");
        hold(!self.clean_statuses.is_empty(), "clean_statuses", "must hold at least one status");
        let known = |status: &u16| (200..=599).contains(status) && !(300..=399).contains(status);
        let rule = "must be statuses of answers, 200 to 599 and no redirections";
        hold(self.clean_statuses.iter().all(known), "clean_statuses", rule);
        hold(self.infected_statuses.iter().all(known), "infected_statuses", rule);
        let apart = !self.clean_statuses.iter().any(|status| self.infected_statuses.contains(status));
        hold(apart, "infected_statuses", "must not hold a status that means clean");
        if let Some(verdict) = &self.verdict {
            let pointer = verdict.pointer.is_empty() || verdict.pointer.starts_with('/');
            hold(pointer, "verdict.pointer", "must be a JSON pointer: empty, or with \"/\" in front of each step");
            hold(verdict.clean != verdict.infected, "verdict.infected", "must be another value than clean");
        } else {
            let rule = "must hold at least one status, or inspection.verdict must say where the verdict is";
            hold(!self.infected_statuses.is_empty(), "infected_statuses", rule);
        }
        hold((1..=64).contains(&self.concurrency), "concurrency", "must be 1 to 64");
        problems
    }
}
