//! Configuration: one file for each concern, every failure naming where, which key and what rule.
//!
//! `presignd.toml` comes first, then the environment: `PRESIGND_SECTION__KEY` sets `section.key`, and a value that
//! starts with `[` or `{` is read as TOML. `DATABASE_URL` and `RUST_LOG` set `database.url` and `log.filter` unless
//! the prefixed variable does. Unknown keys are refused in both, because a misspelt safety setting is no setting.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::de::DeValue;

pub mod auth;
pub mod callback;
pub mod capabilities;
pub mod cdn;
pub mod database;
pub mod delivery;
pub mod duration;
pub mod environment;
pub mod events;
pub mod inspection;
pub mod log;
pub mod number;
pub mod problem;
pub mod s3;
pub mod secret;
pub mod server;
pub mod sweeper;
pub mod switch;
pub mod web;
pub mod webhooks;

pub use auth::AuthConfig;
pub use callback::CallbackConfig;
pub use capabilities::CapabilitiesConfig;
pub use cdn::CdnConfig;
pub use database::DatabaseConfig;
pub use delivery::DeliveryConfig;
pub use events::EventsConfig;
pub use inspection::InspectionConfig;
pub use log::{LogConfig, LogFormat};
pub use problem::Problem;
pub use s3::S3Config;
pub use server::ServerConfig;
pub use sweeper::SweeperConfig;
pub use web::WebConfig;
pub use webhooks::WebhooksConfig;

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the service listens.
    #[serde(default)]
    pub server: ServerConfig,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
    /// PostgreSQL.
    #[serde(default)]
    pub database: DatabaseConfig,
    /// The store.
    pub s3: S3Config,
    /// Who may ask.
    pub auth: AuthConfig,
    /// Keys of callback tokens and capabilities.
    pub callback: CallbackConfig,
    /// Paths that stand for a user.
    #[serde(default)]
    pub capabilities: CapabilitiesConfig,
    /// The distribution that policies may deliver through.
    pub cdn: Option<CdnConfig>,
    /// The policies that operators rotate.
    #[serde(default)]
    pub policies: PoliciesConfig,
    /// How files are handed out.
    #[serde(default)]
    pub delivery: DeliveryConfig,
    /// The scanner that policies may require.
    pub inspection: Option<InspectionConfig>,
    /// Who is told what became of uploads.
    #[serde(default)]
    pub webhooks: WebhooksConfig,
    /// Who looks at uploads that nobody confirms.
    #[serde(default)]
    pub sweeper: SweeperConfig,
    /// Who may say that something was uploaded.
    #[serde(default)]
    pub events: EventsConfig,
    /// The page for people.
    #[serde(default)]
    pub web: WebConfig,
    /// Where all that was written.
    #[serde(skip)]
    places: Places,
}

/// `[policies]`: where the policies are.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoliciesConfig {
    /// The policy file. A relative path starts at the folder of the configuration file.
    pub file: PathBuf,
}

impl Default for PoliciesConfig {
    fn default() -> Self {
        Self { file: PathBuf::from("policies.toml") }
    }
}

impl Config {
    /// Reads the file at `path` and overlays `variables`.
    ///
    /// # Errors
    /// Every problem that was found, each with its place.
    pub fn load(path: &Path, variables: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::one(path.display().to_string(), Problem::new("file", format!("cannot be read: {error}")))
        })?;
        let mut config = Self::parse(&text, &path.display().to_string(), variables)?;
        if let (true, Some(folder)) = (config.policies.file.is_relative(), path.parent()) {
            config.policies.file = folder.join(&config.policies.file);
        }
        Ok(config)
    }

    /// Reads `text`, which came from `origin`, and overlays `variables`.
    ///
    /// # Errors
    /// Every problem that was found, each with its place.
    pub fn parse(text: &str, origin: &str, variables: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let places = Places::new(origin, text, variables);
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            ConfigError::one(format!("{origin}:{line}"), Problem::new("syntax", error.message()))
        })?;
        for (name, value) in environment::by_precedence(variables) {
            if let Some(key) = environment::key_of(name) {
                set(&mut table, &key, environment_value(value))
                    .map_err(|rule| ConfigError::one(name.clone(), Problem::new(key.join("."), rule)))?;
            }
        }
        let mut config: Self = serde_path_to_error::deserialize(table).map_err(|error| {
            let message = error.inner().message().trim_end();
            let path = error.path().to_string();
            if let Some(field) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
                let key = if path == "." { field.to_owned() } else { format!("{path}.{field}") };
                return ConfigError::one(places.find(&key), Problem::new(key, "must be given"));
            }
            let (place, key) = (places.find(&path), path);
            let is_broken = variables.get(&place).is_some_and(|value| is_broken_toml(value));
            let rule = if is_broken && message.starts_with("invalid type: string") {
                "must be TOML: a list is written [\"a\", \"b\"], a table { key = \"value\" }".to_owned()
            } else {
                without_value(message)
            };
            ConfigError::one(place, Problem::new(key, rule))
        })?;
        config.places = places;
        let problems = config.problems();
        if problems.is_empty() { Ok(config) } else { Err(config.locate(problems)) }
    }

    /// `problems` with the places where their settings were written.
    pub fn locate(&self, problems: Vec<Problem>) -> ConfigError {
        let place = |problem: Problem| (self.places.find(&problem.key), problem);
        ConfigError { problems: problems.into_iter().map(place).collect() }
    }

    /// The origins of the pages that use the bucket: those that may call this service, and its own page.
    pub fn page_origins(&self) -> Vec<String> {
        let mut origins = self.server.cors_allowed_origins.clone();
        if self.web.enabled
            && let Some(own) = server::origin_of(&self.server.base_url())
            && !origins.iter().any(|origin| origin == "*" || *origin == own)
        {
            origins.push(own);
        }
        origins
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.server.problems();
        problems.extend(self.log.problems());
        problems.extend(self.database.problems());
        problems.extend(self.s3.problems());
        problems.extend(self.auth.problems());
        problems.extend(self.callback.problems());
        problems.extend(self.capabilities.problems());
        problems.extend(self.delivery.problems());
        if self.delivery.accel_network.is_some() && self.s3.sts.is_none() {
            let rule = "needs the [s3.sts] settings, without which no store can hold a URL to a network";
            problems.push(Problem::new("delivery.accel_network", rule));
        }
        problems.extend(self.cdn.iter().flat_map(CdnConfig::problems));
        problems.extend(self.inspection.iter().flat_map(InspectionConfig::problems));
        problems.extend(self.webhooks.problems());
        for (index, endpoint) in self.webhooks.endpoints.iter().enumerate() {
            let is_known = |name: &String| self.auth.issuers.iter().any(|issuer| issuer.issuer == *name);
            if let Some(unknown) = endpoint.issuers.iter().find(|name| !is_known(name)) {
                let rule = format!("must be issuers of [auth], byte for byte, and {unknown:?} is none");
                problems.push(Problem::new(format!("webhooks.endpoints[{index}].issuers"), rule));
            }
        }
        problems.extend(self.sweeper.problems());
        problems.extend(self.events.problems());
        problems
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone)]
pub struct ConfigError {
    /// Each problem with its place: `file:line`, or the name of an environment variable.
    pub problems: Vec<(String, Problem)>,
}

impl ConfigError {
    fn one(place: String, problem: Problem) -> Self {
        Self { problems: vec![(place, problem)] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (place, problem)) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{place}: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Where each key was written. Holds no values, which may be secrets.
#[derive(Debug, Clone, Default)]
struct Places {
    origin: String,
    /// By the segments of the key; `[0]` is one.
    lines: BTreeMap<Vec<String>, usize>,
    /// Environment variables with the segments that they set: one that wins over another before it.
    variables: Vec<(Vec<String>, String)>,
}

impl Places {
    fn new(origin: &str, text: &str, variables: &BTreeMap<String, String>) -> Self {
        let mut lines = BTreeMap::new();
        if let Ok(document) = toml::de::DeTable::parse(text) {
            note_lines(text, &DeValue::Table(document.into_inner()), &mut Vec::new(), &mut lines);
        }
        let by_precedence = environment::by_precedence(variables).rev();
        let variables =
            by_precedence.filter_map(|(name, _)| Some((environment::key_of(name)?, name.clone()))).collect();
        Self { origin: origin.to_owned(), lines, variables }
    }

    /// `file:line`, or the name of the variable, of `key` or of the longest part of it that was written.
    fn find(&self, key: &str) -> String {
        let segments: Vec<String> =
            key.split(['.', '[', ']']).filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
        if let Some((_, name)) = self.variables.iter().find(|(set, _)| segments.starts_with(set)) {
            return name.clone();
        }
        let line = (1..=segments.len()).rev().find_map(|length| self.lines.get(segments.get(..length)?));
        line.map_or_else(|| self.origin.clone(), |line| format!("{}:{line}", self.origin))
    }
}

/// Notes the line of everything in `value`, which is at `path`.
fn note_lines(text: &str, value: &DeValue<'_>, path: &mut Vec<String>, lines: &mut BTreeMap<Vec<String>, usize>) {
    let mut note = |segment: String, start: usize, value: &DeValue<'_>| {
        path.push(segment);
        lines.insert(path.clone(), line_of(text, start));
        note_lines(text, value, path, lines);
        path.pop();
    };
    match value {
        DeValue::Table(table) => {
            table.iter().for_each(|(key, value)| note(key.get_ref().to_string(), key.span().start, value.get_ref()));
        }
        DeValue::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| note(index.to_string(), item.span().start, item.get_ref()));
        }
        _ => {}
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Text, unless it is a TOML array or table. `[::1]:8080` is text as well.
fn environment_value(text: &str) -> toml::Value {
    array_or_table(text).unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn array_or_table(text: &str) -> Option<toml::Value> {
    if !text.starts_with(['[', '{']) {
        return None;
    }
    toml::from_str(&format!("value = {text}")).ok().and_then(|mut table: toml::Table| table.remove("value"))
}

/// Whether `text` was meant as an array or a table, and is none.
fn is_broken_toml(text: &str) -> bool {
    text.starts_with(['[', '{']) && array_or_table(text).is_none()
}

/// serde's `message` without the value that it quotes, which may be a secret in the wrong place:
/// `invalid type: string "hunter2", expected a sequence`.
fn without_value(message: &str) -> String {
    let quotes = ["invalid type: ", "invalid value: "].into_iter().any(|prefix| message.starts_with(prefix));
    let (true, Some((found, expected))) = (quotes, message.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    let found = found.split(['"', '`']).next().unwrap_or_default().trim_end();
    format!("{found}, expected {expected}")
}

fn set(table: &mut toml::Table, key: &[String], value: toml::Value) -> Result<(), String> {
    match key {
        [] => Ok(()),
        [last] => {
            table.insert(last.clone(), value);
            Ok(())
        }
        [first, rest @ ..] => {
            let inner = table.entry(first.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let inner = inner.as_table_mut().ok_or_else(|| format!("{first} is not a section"))?;
            set(inner, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const MINIMAL: &str = r#"
[database]
url = "postgres://localhost/presignd"
[s3]
region = "eu-central-1"
bucket = "files"
[callback]
keys = [{ id = "k1", secret = "0123456789abcdef0123456789abcdef" }]
[auth]
[[auth.issuers]]
issuer = "https://id.example.com/"
audience = ["presignd"]
algorithms = ["HS256"]
secret = "0123456789abcdef0123456789abcdef"
"#;

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::parse(text, "presignd.toml", &variables).map_err(|error| error.to_string())
    }

    #[test]
    fn a_minimal_file_is_enough() {
        let config = parse(MINIMAL, &[]).unwrap();
        assert_eq!(config.server.base_url(), "http://127.0.0.1:8080");
        assert_eq!(config.s3.client_endpoint(), "https://s3.eu-central-1.amazonaws.com");
    }

    #[test]
    fn the_environment_wins_and_may_hold_numbers_lists_and_switches() {
        let config = parse(
            MINIMAL,
            &[
                ("DATABASE_URL", "postgres://plain/"),
                ("PRESIGND_DATABASE__URL", "postgres://prefixed/"),
                ("PRESIGND_LOG__FILTER", "warn"),
                ("RUST_LOG", "debug"),
                ("PRESIGND_DATABASE__MAX_CONNECTIONS", "3"),
                ("PRESIGND_DATABASE__MIGRATE_ON_START", "true"),
                ("PRESIGND_SERVER__TRUSTED_PROXIES", "[\"10.0.0.0/8\"]"),
                ("PRESIGND_S3__STS", "{ role_arn = \"arn:aws:iam::1:role/x\" }"),
            ],
        )
        .unwrap();
        assert_eq!(config.database.url.expose_secret(), "postgres://prefixed/");
        assert_eq!(config.log.filter, "warn");
        assert_eq!(parse(MINIMAL, &[("RUST_LOG", "debug")]).unwrap().log.filter, "debug");
        assert_eq!(config.database.max_connections, 3);
        assert!(config.database.migrate_on_start);
        assert_eq!(config.server.trusted_proxies.len(), 1);
        assert!(config.s3.sts.is_some());
    }

    #[test]
    fn every_failure_names_place_key_and_rule() {
        type Variables = &'static [(&'static str, &'static str)];
        let cases: &[(&str, &str, Variables, &str)] = &[
            ("[s3]", "[s3", &[], "presignd.toml:4: syntax: "),
            (
                "bucket = \"files\"",
                "bucket = \"files\"\nbuckets = 1",
                &[],
                "presignd.toml:7: s3.buckets: unknown field",
            ),
            ("region = \"eu-central-1\"", "region = 5", &[], "presignd.toml:5: s3.region: invalid type"),
            ("region = \"eu-central-1\"", "region = \"\"", &[], "presignd.toml:5: s3.region: must be a region"),
            ("id = \"k1\"", "id = \"\"", &[], "presignd.toml:8: callback.keys[0].id: must be 1 to 16"),
            (
                "[database]",
                "[server]\nrequest_timeout = 5\n[database]",
                &[],
                "presignd.toml:3: server.request_timeout: must be a duration",
            ),
            ("", "", &[("PRESIGND_SERVER__PORT", "1")], "PRESIGND_SERVER__PORT: server.port: unknown field"),
            ("", "", &[("PRESIGND_LOG__ACCESS", "maybe")], "PRESIGND_LOG__ACCESS: log.access: must be true or false"),
            ("", "", &[("DATABASE_URL", "mysql://x")], "DATABASE_URL: database.url: must be set"),
            (
                "",
                "",
                &[("PRESIGND_CALLBACK__KEYS", r#"[{"id":"k1","secret":"x"}]"#)],
                "PRESIGND_CALLBACK__KEYS: callback.keys: must be TOML: a list is written",
            ),
            ("", "", &[("PRESIGND_DATABASE", "{ url = ")], "PRESIGND_DATABASE: database: must be TOML"),
            ("", "", &[("PRESIGND_SERVER__LISTEN", "[::1]")], "PRESIGND_SERVER__LISTEN: server.listen: invalid socket"),
            (
                "",
                "",
                &[("PRESIGND_CALLBACK__KEYS", "k1")],
                "PRESIGND_CALLBACK__KEYS: callback.keys: invalid type: string, expected a sequence",
            ),
        ];
        for (from, to, variables, expected) in cases {
            let error = parse(&MINIMAL.replacen(from, to, 1), variables).unwrap_err();
            assert!(error.starts_with(expected), "expected {expected:?}, got {error:?}");
        }
    }

    #[test]
    fn debug_and_errors_never_show_secrets() {
        let config = parse(MINIMAL, &[]).unwrap();
        assert!(!format!("{config:?}").contains("0123456789abcdef"));
        let short = MINIMAL.replacen("secret = \"0123456789abcdef0123456789abcdef\" }", "secret = \"hunter2\" }", 1);
        assert!(!parse(&short, &[]).unwrap_err().contains("hunter2"));
        for (key, misplaced) in [
            ("PRESIGND_CALLBACK__KEYS", r#"[{"id":"k1","secret":"hunter2"}]"#),
            ("PRESIGND_CALLBACK__KEYS", r#"a, expected "hunter2", expected more"#),
            ("PRESIGND_AUTH__ISSUERS", r#"[{ issuer = "https://id.example.com/", secret = "hunter2" }"#),
            ("PRESIGND_AUTH", r#"{ issuers = "hunter2" }"#),
            ("PRESIGND_DATABASE", r#"{ "url": "postgres://u:hunter2@db/x" }"#),
            ("PRESIGND_EVENTS__TOKENS", "hunter2"),
            ("PRESIGND_S3__STS", "hunter2"),
        ] {
            let error = parse(MINIMAL, &[(key, misplaced)]).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        for unquoted in ["7236541", "{ a = 7236541 }", "[7236541]", "true"] {
            let wrong = MINIMAL.replace("\"0123456789abcdef0123456789abcdef\"", unquoted);
            let error = parse(&wrong, &[]).unwrap_err();
            assert!(error.contains("must be a string") && !error.contains("7236541"), "{error}");
        }
    }
}
