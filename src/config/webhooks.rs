//! `[webhooks]`: who is told what became of uploads.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::Deserialize;

use super::{
    Problem, duration, number,
    secret::{self, SecretError},
};
use crate::model::EventType;

/// What the text of a signing key starts with.
const KEY_PREFIX: &str = "whsec_";

/// Settings of outgoing webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Who is told.
    pub endpoints: Vec<WebhookEndpointConfig>,
    /// Private, loopback and link-local networks that endpoints may lie in all the same.
    pub allowed_networks: Vec<IpNet>,
    /// Longest wait for an endpoint's answer, from looking up its name to the last byte.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// Attempts before a delivery is given up and lies dead until somebody retries it by hand.
    #[serde(deserialize_with = "number::deserialize")]
    pub max_attempts: usize,
    /// Wait before the second attempt; each further one doubles it, with jitter.
    #[serde(deserialize_with = "duration::deserialize")]
    pub first_retry: Duration,
    /// Longest wait between two attempts.
    #[serde(deserialize_with = "duration::deserialize")]
    pub longest_retry: Duration,
    /// How often the outbox is looked at when nothing wakes the dispatcher.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_interval: Duration,
    /// Deliveries of one endpoint that are under way at the same time in one process.
    #[serde(deserialize_with = "number::deserialize")]
    pub concurrency: usize,
    /// How long deliveries that arrived are kept, with what came of each attempt.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retention: Duration,
}

/// One endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEndpointConfig {
    /// Name in the outbox. An endpoint that is renamed loses what is on its way to it.
    pub name: String,
    /// Where events are posted to.
    pub url: String,
    /// Signing keys. Every one signs: rotate by adding a new one, then taking the old one away once all receivers have
    /// it.
    pub keys: Vec<WebhookKeyConfig>,
    /// Types of events; by default the end of every upload.
    #[serde(default = "default_events")]
    pub events: Vec<EventType>,
    /// Only uploads under these policies; empty for all.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Only uploads of these tenants, whoever names them; empty for all.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// Only uploads of users of these issuers; empty for all.
    #[serde(default)]
    pub issuers: Vec<String>,
}

/// One signing key, in the form of Standard Webhooks: `whsec_` and base64 of 24 to 64 bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookKeyConfig {
    /// The key itself.
    #[serde(default, deserialize_with = "secret::deserialize_option")]
    pub secret: Option<SecretString>,
    /// File that holds the key.
    pub secret_file: Option<PathBuf>,
}

fn default_events() -> Vec<EventType> {
    EventType::DEFAULT.to_vec()
}

impl Default for WebhooksConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            allowed_networks: Vec::new(),
            timeout: Duration::from_secs(15),
            max_attempts: 16,
            first_retry: Duration::from_secs(5),
            longest_retry: Duration::from_hours(4),
            poll_interval: Duration::from_secs(5),
            concurrency: 8,
            retention: Duration::from_hours(30 * 24),
        }
    }
}

impl WebhookKeyConfig {
    /// The bytes that sign, read from the key's file where it is in one.
    ///
    /// # Errors
    /// When the text is not a key, or its file cannot be read.
    pub fn load(&self) -> Result<SecretSlice<u8>, SecretError> {
        let text = secret::load(self.secret.as_ref(), self.secret_file.as_deref())?;
        let bytes = text.expose_secret().strip_prefix(KEY_PREFIX).and_then(|base64| STANDARD.decode(base64).ok());
        let rule = "must be \"whsec_\" and the base64 (with padding) of 24 to 64 bytes";
        let bytes = bytes.filter(|bytes| (24..=64).contains(&bytes.len())).ok_or(SecretError::Unfit(rule))?;
        Ok(SecretSlice::from(bytes))
    }
}

impl WebhooksConfig {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let mut refuse = |field: &str, rule: &str| {
                problems.push(Problem::new(format!("webhooks.endpoints[{index}].{field}"), rule));
            };
            if !is_name(&endpoint.name) {
                refuse("name", "must be 1 to 64 of a-z, 0-9, \"_\" and \"-\"");
            }
            if self.endpoints.iter().take(index).any(|earlier| earlier.name == endpoint.name) {
                refuse("name", "must be unique");
            }
            if let Err(rule) = check_url(&endpoint.url) {
                refuse("url", rule);
            }
            if endpoint.events.is_empty() {
                refuse("events", "must name at least one type, or be left out");
            }
            if endpoint.keys.is_empty() || endpoint.keys.len() > MAX_KEYS {
                refuse("keys", "must hold 1 to 8 keys");
            }
            for (index, key) in endpoint.keys.iter().enumerate() {
                if let Err(error) = key.load() {
                    let Problem { key, rule } = error.problem(&format!("keys[{index}]"));
                    refuse(&key, &rule);
                }
            }
        }
        let mut require = |holds: bool, field: &str, rule: &str| {
            if !holds {
                problems.push(Problem::new(format!("webhooks.{field}"), rule));
            }
        };
        let (second, hour, day) = (Duration::from_secs(1), Duration::from_hours(1), Duration::from_hours(24));
        require((second..=second * 120).contains(&self.timeout), "timeout", "must be 1s to 2m");
        require((1..=100).contains(&self.max_attempts), "max_attempts", "must be 1 to 100");
        require((second..=hour).contains(&self.first_retry), "first_retry", "must be 1s to 1h");
        require(
            (self.first_retry..=day).contains(&self.longest_retry),
            "longest_retry",
            "must be at least first_retry and at most 24h",
        );
        require(
            (Duration::from_millis(100)..=second * 300).contains(&self.poll_interval),
            "poll_interval",
            "must be 100ms to 5m",
        );
        require((1..=64).contains(&self.concurrency), "concurrency", "must be 1 to 64");
        require((hour..=day * 3650).contains(&self.retention), "retention", "must be 1h to 3650d");
        problems
    }
}

/// Signatures of one delivery. Rotating takes two; without a bound, the header would have none either.
const MAX_KEYS: usize = 8;

/// What can be a label of a metric and an argument on the command line without quotes.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn check_url(text: &str) -> Result<(), &'static str> {
    let url = Url::parse(text).map_err(|_| "must be a URL such as https://app.example.com/webhooks")?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err("must be an http or https URL");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user and no password: deliveries are signed");
    }
    if url.fragment().is_some() {
        return Err("must have no fragment, which is never sent");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 24 bytes.
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn parse(text: &str) -> WebhooksConfig {
        toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn endpoint(settings: &str) -> String {
        let rest = |key: &str, value: &str| if settings.contains(key) { String::new() } else { format!("{value}\n") };
        format!(
            "[[endpoints]]\n{settings}\n{}{}{}",
            rest("name", "name = \"app\""),
            rest("url", "url = \"https://app.example.com/hooks\""),
            rest("keys", &format!("keys = [{{ secret = \"{KEY}\" }}]"))
        )
    }

    fn keys(text: &str) -> Vec<String> {
        parse(text).problems().into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn nothing_is_needed_and_everything_can_be_written() {
        assert_eq!(keys(""), [""; 0]);
        let config = parse(&endpoint("events = [\"download.issued\"]\npolicies = [\"a\"]\ntenants = [\"acme\"]"));
        assert_eq!(config.problems(), []);
        assert_eq!(config.endpoints[0].events, [EventType::DownloadIssued]);
        assert_eq!(parse(&endpoint("")).endpoints[0].events, EventType::DEFAULT);
        assert_eq!(config.endpoints[0].keys[0].load().unwrap().expose_secret().len(), 24);
        assert!(toml::from_str::<WebhooksConfig>("events = []").is_err());
        assert!(toml::from_str::<WebhooksConfig>(&endpoint("events = [\"upload.lost\"]")).is_err());
    }

    #[test]
    fn endpoints_are_told_apart_and_can_be_reached() {
        assert_eq!(keys(&endpoint("").repeat(2)), ["webhooks.endpoints[1].name"]);
        for name in ["", "App", "a b", "a.b", &"a".repeat(65)] {
            assert_eq!(keys(&endpoint(&format!("name = \"{name}\""))), ["webhooks.endpoints[0].name"], "{name}");
        }
        for url in ["https://app.example.com", "http://10.0.0.1:8080/x?y=z", "https://[2001:db8::1]/"] {
            assert_eq!(keys(&endpoint(&format!("url = \"{url}\""))), [""; 0], "{url}");
        }
        for url in ["", "/hooks", "app.example.com", "ftp://a/", "https://u@a/", "https://u:p@a/", "https://a/#b"] {
            assert_eq!(keys(&endpoint(&format!("url = \"{url}\""))), ["webhooks.endpoints[0].url"], "{url}");
        }
        assert_eq!(keys(&endpoint("events = []")), ["webhooks.endpoints[0].events"]);
    }

    #[test]
    fn a_key_is_24_to_64_bytes_in_the_standards_form() {
        let key = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        let with = |key: &str| keys(&endpoint(&format!("keys = [{{ secret = \"{key}\" }}]")));
        for good in [key(24), key(32), key(64)] {
            assert_eq!(with(&good), [""; 0], "{good}");
        }
        for bad in [&key(23), &key(65), "", "whsec_", KEY.trim_start_matches("whsec_"), &format!("{KEY}!")] {
            assert_eq!(with(bad), ["webhooks.endpoints[0].keys[0].secret"], "{bad}");
        }
        assert_eq!(keys(&endpoint("keys = []")), ["webhooks.endpoints[0].keys"]);
        assert_eq!(keys(&endpoint("keys = [{}]")), ["webhooks.endpoints[0].keys[0].secret"]);
        let file = endpoint("keys = [{ secret_file = \"/nowhere/key\" }]");
        assert_eq!(keys(&file), ["webhooks.endpoints[0].keys[0].secret_file"]);
        let short = parse(&endpoint("keys = [{ secret = \"whsec_c2VjcmV0\" }]"));
        assert!(!format!("{short:?} {:?}", short.problems()).contains("c2VjcmV0"));
    }

    #[test]
    fn durations_and_counts_have_bounds() {
        for (setting, key) in [
            ("timeout = \"999ms\"", "timeout"),
            ("timeout = \"121s\"", "timeout"),
            ("max_attempts = 0", "max_attempts"),
            ("max_attempts = 101", "max_attempts"),
            ("first_retry = \"0s\"", "first_retry"),
            ("longest_retry = \"4s\"", "longest_retry"),
            ("longest_retry = \"25h\"", "longest_retry"),
            ("poll_interval = \"99ms\"", "poll_interval"),
            ("concurrency = 0", "concurrency"),
            ("concurrency = 65", "concurrency"),
            ("retention = \"59m\"", "retention"),
        ] {
            assert_eq!(keys(setting), [format!("webhooks.{key}")], "{setting}");
        }
    }
}
