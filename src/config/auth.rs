//! Who may ask: the issuers whose JSON Web Tokens are accepted, and what their scopes allow.
//!
//! ```toml
//! [auth]
//! leeway = "30s"
//!
//! [auth.scopes]
//! upload = "files:write"
//!
//! [[auth.issuers]]
//! issuer = "https://id.example.com/"
//! audience = ["presignd"]
//! algorithms = ["RS256"]
//! jwks_url = "https://id.example.com/jwks.json"
//! ```

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{Problem, duration, secret, switch};
use crate::model::{NAME_RULE, is_name};

/// More than this is not clock skew but a way to use expired tokens.
const MAX_LEEWAY: Duration = Duration::from_mins(5);

/// Shorter would be a load on the issuer, longer would keep a withdrawn key in use for more than a day.
const JWKS_REFRESH: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(24);

/// The section `[auth]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// How far the issuer's clock may be off from ours, applied to `exp` and `nbf`. At most five minutes.
    #[serde(deserialize_with = "duration::deserialize")]
    pub leeway: Duration,
    /// Which scope allows what.
    pub scopes: ScopesConfig,
    /// The issuers, told apart by `iss`.
    pub issuers: Vec<IssuerConfig>,
}

/// The section `[auth.scopes]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScopesConfig {
    /// The claim that lists the scopes: a string separated by spaces (RFC 8693 §4.2) or an array of strings.
    pub claim: String,
    /// The scope that uploads need; without one, every authenticated user may upload.
    pub upload: Option<String>,
    /// The scope that downloads need; without one, every authenticated user may download.
    pub download: Option<String>,
    /// The scope that administration needs; without one, nobody may administer.
    pub admin: Option<String>,
}

/// One of `[[auth.issuers]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IssuerConfig {
    /// Compared with `iss` byte for byte, as RFC 7519 §4.1.1 asks: a trailing slash makes another issuer.
    pub issuer: String,
    /// A token must name at least one of these in `aud`.
    pub audience: Vec<String>,
    /// The only values of `alg` that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// The secret shared with the issuer.
    #[serde(deserialize_with = "secret::deserialize_option")]
    pub secret: Option<SecretString>,
    /// A file that holds the shared secret; one line end after it is not part of it.
    pub secret_file: Option<PathBuf>,
    /// A PEM file that holds the issuer's public key.
    pub public_key_file: Option<PathBuf>,
    /// Where the issuer publishes its public keys as a JSON Web Key Set (RFC 7517).
    pub jwks_url: Option<String>,
    /// How often the key set is fetched again. A token that names an unknown key does not wait for it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub jwks_refresh: Duration,
    /// The claim that names the user's tenant. Where it is set, a token without it is refused.
    pub tenant_claim: Option<String>,
    /// Whether `scopes.admin` counts in its tokens. Whoever administers without a tenant does so for all issuers.
    #[serde(deserialize_with = "switch::deserialize")]
    pub administers: bool,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, Copy)]
pub enum KeySource<'a> {
    /// A shared secret, written in the configuration.
    Secret(&'a SecretString),
    /// A shared secret in a file.
    SecretFile(&'a Path),
    /// A public key in a PEM file.
    PublicKeyFile(&'a Path),
    /// A published key set.
    JwksUrl(&'a str),
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { leeway: Duration::from_secs(30), scopes: ScopesConfig::default(), issuers: Vec::new() }
    }
}

impl Default for ScopesConfig {
    fn default() -> Self {
        Self { claim: "scope".to_owned(), upload: None, download: None, admin: None }
    }
}

impl Default for IssuerConfig {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: Vec::new(),
            algorithms: Vec::new(),
            secret: None,
            secret_file: None,
            public_key_file: None,
            jwks_url: None,
            jwks_refresh: Duration::from_mins(10),
            tenant_claim: None,
            administers: true,
        }
    }
}

impl AuthConfig {
    /// Whether any issuer's tokens name a tenant.
    pub fn names_tenants(&self) -> bool {
        self.issuers.iter().any(|issuer| issuer.tenant_claim.is_some())
    }

    /// Everything that the rules refuse, in the order of the settings; empty when all is well.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.leeway > MAX_LEEWAY {
            problems.push(Problem::new("auth.leeway", "must be at most 5m"));
        }
        self.scopes.check(&mut problems);
        if self.issuers.is_empty() {
            problems.push(Problem::new("auth.issuers", "must name at least one issuer"));
        }
        for (index, issuer) in self.issuers.iter().enumerate() {
            issuer.check(&format!("auth.issuers[{index}]"), &mut problems);
            if self.issuers.iter().take(index).any(|earlier| earlier.issuer == issuer.issuer) {
                problems.push(Problem::new(
                    format!("auth.issuers[{index}].issuer"),
                    format!("must be unique, but {:?} is there more than once", issuer.issuer),
                ));
            }
        }
        problems
    }
}

impl ScopesConfig {
    fn check(&self, problems: &mut Vec<Problem>) {
        if self.claim.is_empty() {
            problems.push(Problem::new("auth.scopes.claim", "must not be empty"));
        }
        for (name, scope) in [("upload", &self.upload), ("download", &self.download), ("admin", &self.admin)] {
            if scope.as_deref().is_some_and(|scope| !is_scope_token(scope)) {
                problems.push(Problem::new(
                    format!("auth.scopes.{name}"),
                    "must be one scope: printable ASCII without spaces, quotes or backslashes (RFC 6749 §3.3)",
                ));
            }
        }
    }
}

impl IssuerConfig {
    /// The one place that the keys come from, or `None` unless exactly one is configured.
    pub fn key_source(&self) -> Option<KeySource<'_>> {
        match (&self.secret, &self.secret_file, &self.public_key_file, &self.jwks_url) {
            (Some(secret), None, None, None) => Some(KeySource::Secret(secret)),
            (None, Some(path), None, None) => Some(KeySource::SecretFile(path)),
            (None, None, Some(path), None) => Some(KeySource::PublicKeyFile(path)),
            (None, None, None, Some(url)) => Some(KeySource::JwksUrl(url)),
            _ => None,
        }
    }

    /// The shortest secret that RFC 7518 §3.2 allows for the pinned algorithms, in bytes: as long as the hash.
    pub fn minimum_secret_bytes(&self) -> usize {
        self.algorithms
            .iter()
            .map(|algorithm| match algorithm {
                Algorithm::HS384 => 48,
                Algorithm::HS512 => 64,
                _ => 32,
            })
            .max()
            .unwrap_or(32)
    }

    fn check(&self, key: &str, problems: &mut Vec<Problem>) {
        let mut refuse = |name: &str, rule: String| problems.push(Problem::new(format!("{key}.{name}"), rule));
        // A longer one could never be named in a revocation.
        if !is_name(&self.issuer) {
            refuse("issuer", NAME_RULE.to_owned());
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            refuse("audience", "must name at least one audience, none of them empty".to_owned());
        }
        if self.tenant_claim.as_deref() == Some("") {
            refuse("tenant_claim", "must not be empty".to_owned());
        }
        if self.algorithms.is_empty() {
            refuse("algorithms", "must name at least one algorithm".to_owned());
        }
        let Some(source) = self.key_source() else {
            problems
                .push(Problem::new(key, "must have exactly one of: secret, secret_file, public_key_file, jwks_url"));
            return;
        };
        if let Some(rule) = self.misfit(source) {
            refuse("algorithms", rule.to_owned());
        }
        match source {
            KeySource::Secret(secret) => {
                let (length, minimum) = (secret.expose_secret().len(), self.minimum_secret_bytes());
                if length < minimum {
                    refuse("secret", format!("must be at least {minimum} bytes for these algorithms, not {length}"));
                }
            }
            KeySource::SecretFile(_) | KeySource::PublicKeyFile(_) => {}
            KeySource::JwksUrl(url) => {
                if let Err(rule) = check_jwks_url(url) {
                    refuse("jwks_url", rule.to_owned());
                }
                if !JWKS_REFRESH.contains(&self.jwks_refresh) {
                    refuse("jwks_refresh", "must be 10s to 24h".to_owned());
                }
            }
        }
    }

    /// Why the pinned algorithms cannot be used with `source`.
    ///
    /// A public key that could also be taken for an HMAC secret would let anybody who knows it, which is everybody,
    /// sign tokens (RFC 8725 §2.1).
    fn misfit(&self, source: KeySource<'_>) -> Option<&'static str> {
        let mut families = self.algorithms.iter().map(|algorithm| algorithm.family());
        match source {
            KeySource::Secret(_) | KeySource::SecretFile(_) => families
                .any(|family| family != AlgorithmFamily::Hmac)
                .then_some("must all be HS256, HS384 or HS512, because the issuer has a shared secret"),
            KeySource::JwksUrl(_) => families
                .any(|family| family == AlgorithmFamily::Hmac)
                .then_some("must not be HS256, HS384 or HS512, because the issuer publishes its keys"),
            KeySource::PublicKeyFile(_) => {
                let first = families.next()?;
                if first == AlgorithmFamily::Hmac || families.any(|family| family != first) {
                    Some("must all be of the one kind of public key: RS* and PS*, or ES*, or EdDSA")
                } else {
                    None
                }
            }
        }
    }
}

/// Keys fetched over plain HTTP could be replaced on the way, and with them every identity.
fn check_jwks_url(text: &str) -> Result<(), &'static str> {
    let url = Url::parse(text).map_err(|_| "must be a URL such as https://id.example.com/jwks.json")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry credentials");
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        _ => Err("must be https, or http on a loopback address"),
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// `scope-token` of RFC 6749 §3.3.
fn is_scope_token(scope: &str) -> bool {
    !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "correct horse battery staple and then some";

    fn parse(text: &str) -> AuthConfig {
        toml::from_str(text).unwrap()
    }

    fn keys(config: &AuthConfig) -> Vec<String> {
        config.problems().into_iter().map(|problem| problem.key).collect()
    }

    fn with_issuer(settings: &str) -> AuthConfig {
        parse(&format!("[[issuers]]\nissuer = \"https://id.example.com/\"\naudience = [\"presignd\"]\n{settings}"))
    }

    fn published(url: &str) -> AuthConfig {
        with_issuer(&format!("algorithms = [\"RS256\"]\njwks_url = \"{url}\""))
    }

    #[test]
    fn everything_can_be_written_and_the_rest_has_defaults() {
        let config = parse(
            r#"
            leeway = "1m"
            [scopes]
            claim = "scp"
            upload = "files:write"
            [[issuers]]
            issuer = "https://id.example.com/"
            audience = ["presignd", "files"]
            algorithms = ["RS256", "PS512", "ES256", "ES384", "EdDSA"]
            jwks_url = "https://id.example.com/jwks.json"
            jwks_refresh = "1h"
            tenant_claim = "org_id"
            "#,
        );
        assert_eq!(config.problems(), []);
        assert_eq!(config.leeway, Duration::from_mins(1));
        assert_eq!(config.issuers[0].jwks_refresh, Duration::from_hours(1));
        assert_eq!(config.scopes.download, None);

        let config = published("https://id.example.com/jwks.json");
        assert_eq!(config.problems(), []);
        assert_eq!((config.leeway, config.scopes.claim.as_str()), (Duration::from_secs(30), "scope"));
        assert_eq!(config.issuers[0].jwks_refresh, Duration::from_mins(10));
    }

    #[test]
    fn unknown_settings_and_algorithms_are_refused() {
        assert!(toml::from_str::<AuthConfig>("leway = \"1m\"").is_err());
        assert!(toml::from_str::<AuthConfig>("leeway = 30").is_err());
        for algorithm in ["none", "ES512", "hs256", "RSA1_5"] {
            let text = format!("[[issuers]]\nalgorithms = [\"{algorithm}\"]");
            assert!(toml::from_str::<AuthConfig>(&text).is_err(), "{algorithm}");
        }
    }

    #[test]
    fn every_gap_is_reported_at_once() {
        assert_eq!(keys(&parse("leeway = \"301s\"")), ["auth.leeway", "auth.issuers"]);
        assert_eq!(
            keys(&parse("[[issuers]]\ntenant_claim = \"\"")),
            [
                "auth.issuers[0].issuer",
                "auth.issuers[0].audience",
                "auth.issuers[0].tenant_claim",
                "auth.issuers[0].algorithms",
                "auth.issuers[0]",
            ]
        );
    }

    #[test]
    fn two_issuers_of_one_name_are_refused() {
        let one = format!(
            "[[issuers]]\nissuer = \"a\"\naudience = [\"b\"]\nalgorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\n"
        );
        assert_eq!(keys(&parse(&one.repeat(2))), ["auth.issuers[1].issuer"]);
    }

    #[test]
    fn exactly_one_key_source_is_allowed() {
        let both = format!("algorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\nsecret_file = \"/run/secret\"");
        assert_eq!(keys(&with_issuer(&both)), ["auth.issuers[0]"]);
        assert_eq!(keys(&with_issuer("algorithms = [\"HS256\"]")), ["auth.issuers[0]"]);
    }

    #[test]
    fn algorithms_fit_the_kind_of_key() {
        let secret = format!("secret = \"{SECRET}{SECRET}\"");
        let file = "public_key_file = \"key.pem\"";
        let jwks = "jwks_url = \"https://id.example.com/\"";
        for (source, algorithms, fits) in [
            (secret.as_str(), r#"["HS256", "HS512"]"#, true),
            (secret.as_str(), r#"["HS256", "RS256"]"#, false),
            ("secret_file = \"secret\"", r#"["EdDSA"]"#, false),
            (file, r#"["RS256", "PS256"]"#, true),
            (file, r#"["EdDSA"]"#, true),
            (file, r#"["HS256"]"#, false),
            (file, r#"["RS256", "HS256"]"#, false),
            (file, r#"["RS256", "ES256"]"#, false),
            (jwks, r#"["RS256", "ES256", "EdDSA"]"#, true),
            (jwks, r#"["RS256", "HS256"]"#, false),
        ] {
            let config = with_issuer(&format!("algorithms = {algorithms}\n{source}"));
            let expected: &[&str] = if fits { &[] } else { &["auth.issuers[0].algorithms"] };
            assert_eq!(keys(&config), expected, "{source} {algorithms}");
        }
    }

    #[test]
    fn secrets_are_at_least_as_long_as_the_hash() {
        for (algorithm, minimum) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
            let config =
                |length| with_issuer(&format!("algorithms = [\"{algorithm}\"]\nsecret = \"{}\"", "x".repeat(length)));
            assert_eq!(keys(&config(minimum)), [""; 0]);
            assert_eq!(keys(&config(minimum - 1)), ["auth.issuers[0].secret"], "{algorithm}");
        }
    }

    #[test]
    fn key_sets_are_fetched_over_https_or_from_loopback() {
        for url in [
            "https://id.example.com/",
            "http://localhost:1/",
            "http://127.0.0.1/x",
            "http://127.9.9.9/",
            "http://[::1]:8/",
        ] {
            assert_eq!(keys(&published(url)), [""; 0], "{url}");
        }
        for url in [
            "http://id.example.com/",
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com/",
            "http://10.0.0.1/",
            "ftp://localhost/",
            "file:///etc/jwks.json",
            "https://user:pass@id.example.com/",
            "https://user@id.example.com/",
            "id.example.com",
        ] {
            assert_eq!(keys(&published(url)), ["auth.issuers[0].jwks_url"], "{url}");
        }
        let mut config = published("https://id.example.com/");
        config.issuers[0].jwks_refresh = Duration::from_secs(9);
        assert_eq!(keys(&config), ["auth.issuers[0].jwks_refresh"]);
    }

    #[test]
    fn a_scope_is_a_single_scope_token() {
        let mut config = published("https://id.example.com/");
        config.scopes = ScopesConfig {
            claim: String::new(),
            upload: Some("a b".to_owned()),
            download: Some(String::new()),
            admin: Some("files:admin".to_owned()),
        };
        assert_eq!(keys(&config), ["auth.scopes.claim", "auth.scopes.upload", "auth.scopes.download"]);
    }

    #[test]
    fn secrets_stay_out_of_debug_and_of_problems() {
        let config = with_issuer("algorithms = [\"HS256\"]\nsecret = \"short-and-secret\"");
        assert!(!format!("{config:?} {:?}", config.problems()).contains("short-and-secret"));
        let error = toml::from_str::<AuthConfig>("[[issuers]]\nsecret = 987654321").unwrap_err();
        assert!(!error.message().contains("987654321"), "{}", error.message());
    }
}
