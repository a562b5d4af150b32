//! A service for one test, in this process, on a port and a database and a bucket of its own.

use std::{net::SocketAddr, path::PathBuf};

use chrono::{DateTime, Utc};
use jsonwebtoken::Algorithm;
use presignd::{
    app::{self, Running},
    auth::{DevelopmentToken, mint_development_token},
    clock::Clock,
    config::Config,
    policy::PolicyStatus,
};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;

use super::{
    Backend, Caller, ChaosProxy,
    backend::{TestBucket, TestDatabase},
};

pub(crate) const ISSUER: &str = "https://issuer.test/";
pub(crate) const OTHER_ISSUER: &str = "https://other-issuer.test/";
pub(crate) const AUDIENCE: &str = "presignd";
pub(crate) const JWT_SECRET: &str = "a jwt secret that is long enough for HS256";
pub(crate) const CALLBACK_SECRET: &str = "a callback secret that is long enough";

/// What a test wants to be different.
#[derive(Debug, Clone, Default)]
pub(crate) struct AppOptions {
    /// The policy file; by default [`POLICIES`].
    pub(crate) policies: Option<String>,
    /// TOML that is laid over the configuration, section by section.
    pub(crate) settings: String,
    /// Whether URLs are signed with the service's own credentials, for any network: without the `s3.sts` settings.
    pub(crate) unscoped: bool,
    /// The clock of the service. The stores have the machine's, so only what no store judges may depart from it.
    pub(crate) clock: Clock,
}

impl AppOptions {
    /// No scope and no STS: what a deployment on a store without STS looks like.
    pub(crate) fn unscoped() -> Self {
        let policies = POLICIES
            .replace("key = ", "ip_scope = \"off\"\nkey = ")
            .replace("readers = \"tenant\"", "readers = \"tenant\"\nip_scope = \"off\"");
        Self { policies: Some(policies), unscoped: true, ..Self::default() }
    }
}

/// The policies of a test that names none.
pub(crate) const POLICIES: &str = r#"
[policy.default]
methods = ["post", "put"]
upload.expires_in = "5m"
download.expires_in = "60s"
max_size = "8MiB"
key = "uploads/{yyyy}/{mm}/{id}-{name}"

[policy.shared]
methods = ["put", "post"]
readers = "tenant"
content_types = ["text/*", "application/pdf"]
max_size = "1KiB"
checksum = "required"

[policy.public]
methods = ["put", "post"]
readers = "authenticated"
key = "public/{tenant}/{id}-{name}"
"#;

/// A running service with its parts.
pub(crate) struct TestApp {
    pub(crate) backend: Backend,
    pub(crate) running: Running,
    pub(crate) bucket: TestBucket,
    pub(crate) database: TestDatabase,
    pub(crate) clock: Clock,
    pub(crate) policies_file: PathBuf,
    folder: TempDir,
}

impl TestApp {
    pub(crate) async fn start(backend: &Backend) -> Self {
        Self::start_with(backend, AppOptions::default()).await
    }

    pub(crate) async fn start_with(backend: &Backend, options: AppOptions) -> Self {
        Self::start_altered(backend, options, async |_| ()).await
    }

    /// The same with settings that follow from those of the backend, such as a proxy in front of a part of it.
    pub(crate) async fn start_altered(
        backend: &Backend,
        options: AppOptions,
        alter: impl AsyncFnOnce(&mut toml::Table),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = backend.database().await;
        let bucket = backend.bucket(folder.path()).await;
        let policies_file = folder.path().join("policies.toml");
        std::fs::write(&policies_file, options.policies.as_deref().unwrap_or(POLICIES)).unwrap();
        let mut settings = settings(&database, &bucket, &policies_file, &options.settings);
        if options.unscoped {
            settings["s3"].as_table_mut().unwrap().remove("sts");
        }
        alter(&mut settings).await;
        let settings = settings.to_string();
        let config = Config::parse(&settings, "test settings", &std::collections::BTreeMap::new());
        let config = config.unwrap_or_else(|error| panic!("{error}\n{settings}"));
        // On the heap: the future of a whole service is too large to be a part of every test's.
        let started = Box::pin(app::start(&config, options.clock.clone(), backend.runtime.clone())).await;
        let running = started.unwrap_or_else(|error| panic!("the service does not start: {error}"));
        Self { backend: backend.clone(), running, bucket, database, clock: options.clock, policies_file, folder }
    }

    /// A service that reaches its store through a proxy. Clients reach it directly, and so does whoever asks for a session.
    pub(crate) async fn start_behind_store_proxy(backend: &Backend, options: AppOptions) -> (Self, ChaosProxy) {
        let mut made = None;
        let alter = async |settings: &mut toml::Table| {
            let s3 = settings["s3"].as_table_mut().unwrap();
            let direct = s3["endpoint"].clone();
            let (proxy, endpoint) = ChaosProxy::in_front_of(direct.as_str().unwrap(), &backend.runtime).await;
            s3.insert("endpoint".to_owned(), endpoint.into());
            if let Some(sts) = s3.get_mut("sts").and_then(toml::Value::as_table_mut) {
                sts.insert("endpoint".to_owned(), direct.clone());
            }
            s3.insert("public_endpoint".to_owned(), direct);
            made = Some(proxy);
        };
        let app = Self::start_altered(backend, options, alter).await;
        (app, made.expect("the settings were altered"))
    }

    /// Another service on the same database and bucket, with its own address. It has to be stopped before this one ends.
    pub(crate) async fn twin(&self, overlay: &str) -> Running {
        let settings = settings(&self.database, &self.bucket, &self.policies_file, overlay).to_string();
        let config = Config::parse(&settings, "test settings", &std::collections::BTreeMap::new()).expect("settings");
        let started = Box::pin(app::start(&config, self.clock.clone(), self.backend.runtime.clone())).await;
        started.unwrap_or_else(|error| panic!("the second service does not start: {error}"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// A folder that goes away with the test.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Somebody without a token, at 127.0.0.1.
    pub(crate) fn anonymous(&self) -> Caller {
        Caller::new(self.base(), None, [127, 0, 0, 1].into())
    }

    /// `subject` of the first issuer, without a tenant claim, at 127.0.0.1.
    pub(crate) fn user(&self, subject: &str) -> Caller {
        self.anonymous().with_token(self.token(&TokenOptions { subject, ..TokenOptions::default() }))
    }

    /// `subject` of the second issuer, as one of this tenant, at 127.0.0.1.
    pub(crate) fn member(&self, subject: &str, tenant: &str, scopes: &[&str]) -> Caller {
        let options = TokenOptions { issuer: OTHER_ISSUER, subject, tenant: Some(tenant), scopes };
        self.anonymous().with_token(self.token(&options))
    }

    /// A token as the issuers of the test configuration make them.
    pub(crate) fn token(&self, options: &TokenOptions<'_>) -> String {
        token(options, self.clock.now())
    }

    /// Replaces the policy file, and waits until the service has taken or refused it.
    pub(crate) async fn change_policies(&self, text: &str) -> PolicyStatus {
        let mut status = self.running.policies.changed();
        std::fs::write(&self.policies_file, text).unwrap();
        let changed = tokio::time::timeout(std::time::Duration::from_secs(30), status.changed()).await;
        changed.expect("a change of the policy file is seen").expect("the watcher lives");
        self.running.policies.status()
    }

    /// Stops the service in order, then its parts.
    pub(crate) async fn end(self) {
        self.running.stop().await;
        self.bucket.end().await;
        self.database.end().await;
    }
}

/// A token that is good for an hour from `now`, as the issuers of the test configuration make them.
pub(crate) fn token(options: &TokenOptions<'_>, now: DateTime<Utc>) -> String {
    let token = DevelopmentToken {
        issuer: options.issuer,
        audience: AUDIENCE,
        subject: options.subject,
        tenant: options.tenant.map(|tenant| ("tenant", tenant)),
        scope_claim: "scope",
        scopes: options.scopes,
        lifetime: std::time::Duration::from_hours(1),
        algorithm: Algorithm::HS256,
    };
    let secret = SecretString::from(JWT_SECRET);
    mint_development_token(&secret, &token, now).expect("a token").expose_secret().to_owned()
}

/// What a token says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenOptions<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) subject: &'a str,
    /// Only [`OTHER_ISSUER`] reads a tenant claim.
    pub(crate) tenant: Option<&'a str>,
    pub(crate) scopes: &'a [&'a str],
}

impl Default for TokenOptions<'_> {
    fn default() -> Self {
        Self { issuer: ISSUER, subject: "alice", tenant: None, scopes: &[] }
    }
}

/// The configuration of a test: also what a `presignd` process of its own is given, as text.
pub(crate) fn settings(
    database: &TestDatabase,
    bucket: &TestBucket,
    policies: &std::path::Path,
    overlay: &str,
) -> toml::Table {
    let base = format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        shutdown_timeout = "5s"
        workers = 2
        [log]
        filter = "warn"
        [database]
        url = "{database_url}"
        max_connections = {max_connections}
        migrate_on_start = true
        [s3]
        region = "{region}"
        bucket = "{bucket}"
        endpoint = "{endpoint}"
        addressing = "path"
        access_key_id = "{access_key_id}"
        secret_access_key = "{secret_access_key}"
        [s3.sts]
        role_arn = "{role_arn}"
        [callback]
        keys = [{{ id = "k1", secret = "{CALLBACK_SECRET}" }}]
        [policies]
        file = "{policies}"
        [auth]
        [[auth.issuers]]
        issuer = "{ISSUER}"
        audience = ["{AUDIENCE}"]
        algorithms = ["HS256"]
        secret = "{JWT_SECRET}"
        [[auth.issuers]]
        issuer = "{OTHER_ISSUER}"
        audience = ["{AUDIENCE}"]
        algorithms = ["HS256"]
        secret = "{JWT_SECRET}"
        tenant_claim = "tenant"
        "#,
        database_url = database.url(),
        max_connections = database.max_connections(),
        region = bucket.service.region,
        bucket = bucket.bucket,
        endpoint = bucket.service.endpoint,
        access_key_id = bucket.service.access_key_id,
        secret_access_key = bucket.service.secret_access_key.expose_secret(),
        role_arn = bucket.service.role_arn,
        policies = policies.display(),
    );
    let mut settings: toml::Table = base.parse().expect("valid TOML");
    lay_over(&mut settings, overlay.parse().expect("valid TOML"));
    settings
}

fn lay_over(below: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}
