//! Wires the rooms together, starts the service and stops it in order.

pub mod logging;

use std::{
    collections::BTreeSet,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::ServerHandle,
    middleware::{Condition, from_fn},
    web,
};
use chrono::{DateTime, Utc};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    auth::{self, AuthSetupError, Authenticator, EventSenders, EventTokens, SnsSetupError, SnsVerifier},
    clock::Clock,
    config::{
        CallbackConfig, CdnConfig, Config, ConfigError, EventsConfig, InspectionConfig, Problem, S3Config,
        events::EventTokenConfig, s3::Addressing, secret::SecretError,
    },
    db::{self, Database, DbError, Ledger, LedgerWriters, SchemaState},
    domain::{
        Accel, CallbackTokens, Capabilities, CapabilityFacts, Inspection, Inspector, Judging, LiveCheck,
        LiveCheckError, LiveOptions, LiveReport, Outbox, Service, StoreCapability, SweepProgress, Sweeper, Sweeping,
        TokenKeys,
    },
    http::{self, Metrics, Page, State},
    model::{Delivery, IpScope, UploadMethod},
    policy::{self, InspectionRule, LoadError, PolicyDocument, PolicyHandle, PolicyWatcher, Readers, Rules},
    s3::{ObjectReader, ObjectStore, Sdk, Sessions},
    scanner::Scanner,
    signing::{
        Endpoint, EndpointError,
        cloudfront::{CloudFront, CloudFrontSetupError, KeyPair, KeyPairError},
    },
    webhook::{self, WebhookMetrics, WebhookSetupError, Webhooks},
};

/// How often a database that did not answer at the start is asked again.
const SCHEMA_RETRY: Duration = Duration::from_secs(2);

/// How long a connection is silent before its peer is asked whether it is still there, and how often then.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_PROBES: Duration = Duration::from_secs(15);

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that shows itself wrong only when it is used.
    #[error("{0}")]
    Setting(#[from] Problem),
    /// The same, with the places where the settings are.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// A secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The policies cannot be used.
    #[error(transparent)]
    Policies(#[from] LoadError),
    /// An issuer of tokens cannot be set up.
    #[error(transparent)]
    Auth(#[from] AuthSetupError),
    /// Messages of Amazon SNS cannot be verified.
    #[error(transparent)]
    Sns(#[from] SnsSetupError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The schema is older than this binary.
    #[error("the database lacks migrations ({}): run \"presignd migrate\" or set database.migrate_on_start", .0.join(", "))]
    SchemaPending(Vec<String>),
    /// The schema is newer than this binary.
    #[error("the database has migrations that this binary does not know ({}): run a newer one", .0.join(", "))]
    SchemaNewer(Vec<String>),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// What serves has failed.
    #[error("the server has failed: {0}")]
    Server(#[source] io::Error),
    /// Webhooks cannot be sent.
    #[error(transparent)]
    Webhooks(#[from] WebhookSetupError),
    /// The store could not be tried.
    #[error(transparent)]
    LiveCheck(#[from] LiveCheckError),
    /// The store lacks what policies need, or does not answer.
    #[error("the store cannot do what the policies need (s3.probe_on_start):\n{0}")]
    Lacking(Box<LiveReport>),
    /// The metrics cannot be registered.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl StartError {
    /// The setting that is to blame, where one is.
    fn problem(self) -> Result<Problem, Self> {
        match self {
            Self::Setting(problem)
            | Self::Auth(AuthSetupError::Config(problem))
            | Self::Database(DbError::Setting(problem)) => Ok(problem),
            Self::Sns(error @ (SnsSetupError::Read { .. } | SnsSetupError::UnusableCertificate(_))) => {
                Ok(Problem::new("events.sns.certificate_file", error.to_string()))
            }
            other => Err(other),
        }
    }

    /// The same with the place of the setting.
    fn located(self, config: &Config) -> Self {
        match self.problem() {
            Ok(problem) => Self::Settings(config.locate(vec![problem])),
            Err(other) => other,
        }
    }
}

/// The running service.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The policies in force.
    pub policies: PolicyHandle,
    /// The verbs that it serves. Whoever clones them has to let go of them before it can stop.
    pub service: Service,
    server: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
    writers: LedgerWriters,
    housekeeping: JoinHandle<StartError>,
    revocations: JoinHandle<()>,
    announcements: Option<JoinHandle<()>>,
    sweeping: Sweeping,
    webhooks: Webhooks,
    shutdown_timeout: Duration,
    inspector: Option<Inspector>,
    database: Database,
    _policy_watcher: PolicyWatcher,
}

impl Running {
    /// Stops in order: no new connections, requests and webhooks in flight finish, what the sweeper and the inspector
    /// have taken is given back, the ledger writes what is queued.
    pub async fn stop(self) {
        self.housekeeping.abort();
        if let Some(announcements) = &self.announcements {
            announcements.abort();
        }
        tokio::join!(self.server.stop(true), self.webhooks.stop(self.shutdown_timeout), self.sweeping.stop());
        let _ = self.serving.await;
        // Not before: as long as there are requests, none may be answered with a session from before a revocation.
        self.revocations.abort();
        if let Some(inspector) = self.inspector {
            inspector.stop().await;
        }
        // Nobody waits for them any more, and a copy may take minutes.
        self.service.judging.close();
        drop(self.service);
        // The last handler is gone, and with it the last sender of the ledger: its writers end when they are through.
        self.writers.drained().await;
        self.database.close();
        log::info!("stopped");
    }

    /// Waits until the service cannot go on, which is only when something of it fails, or when the database that was
    /// away at the start has come back with a schema that does not fit.
    pub async fn failed(&mut self) -> StartError {
        tokio::select! {
            served = &mut self.serving => match served {
                Ok(Ok(())) => StartError::Server(io::Error::other("it has ended")),
                Ok(Err(error)) => StartError::Server(error),
                Err(panicked) => StartError::Server(io::Error::other(panicked)),
            },
            kept = &mut self.housekeeping => {
                kept.unwrap_or_else(|panicked| StartError::Server(io::Error::other(panicked)))
            }
        }
    }
}

/// The verbs with all that they need, and nothing in front of them.
#[derive(Debug)]
pub struct Assembly {
    /// The verbs.
    pub service: Service,
    writers: LedgerWriters,
    policy_watcher: PolicyWatcher,
    /// What the store was found not to do, once it was tried: policies that need it are refused from then on.
    lacking: Arc<OnceLock<Vec<StoreCapability>>>,
}

impl Assembly {
    /// Stops in order: the ledger writes what is queued, then connections close.
    pub async fn stop(self) {
        let database = self.service.database.clone();
        self.service.judging.close();
        drop(self.service);
        self.writers.drained().await;
        database.close();
    }
}

/// Puts the parts together on `runtime`, which has to be a multi-thread one and becomes the main runtime. Talks to
/// nobody yet.
///
/// # Errors
/// When anything that the configuration asks for is not to be had.
pub async fn assemble(config: &Config, clock: Clock, runtime: &Handle) -> Result<Assembly, StartError> {
    put_together(config, clock, runtime).await.map_err(|error| error.located(config))
}

async fn put_together(config: &Config, clock: Clock, runtime: &Handle) -> Result<Assembly, StartError> {
    let demanded = config.clone();
    let lacking: Arc<OnceLock<Vec<StoreCapability>>> = Arc::default();
    let found_lacking = Arc::clone(&lacking);
    let (policies, policy_watcher) = policy::watch(&config.policies.file, runtime, move |document| {
        meets_demands(document, &demanded, found_lacking.get().map_or(&[], Vec::as_slice))?;
        for remark in remarks(document, &demanded) {
            log::warn!("{remark}");
        }
        Ok(())
    })?;
    let token_keys = token_keys(&config.callback)?;
    let inspection = config.inspection.as_ref().map(inspection).transpose()?;
    let endpoint = endpoint(&config.s3)?;
    let cdn = config.cdn.as_ref().map(cdn).transpose()?;
    let database = Database::new(&config.database, runtime)?;
    let sdk = Sdk::from_config(&config.s3).await;
    let (ledger, writers) = Ledger::start(&database, &config.database, runtime);
    let store = ObjectStore::new(sdk.clone(), &config.s3.bucket, runtime.clone());
    let service = Service {
        ledger,
        reader: ObjectReader::new(store.clone(), &config.delivery, runtime.clone()),
        store,
        accel: Accel::new(&config.delivery),
        sessions: Sessions::new(sdk, &config.s3, endpoint, clock.clone(), runtime.clone()),
        policies,
        callback_tokens: CallbackTokens::new(token_keys.clone()),
        capabilities: Capabilities::new(token_keys, config.capabilities.expires_in),
        outbox: Outbox::new(&config.webhooks),
        staged_methods: config.s3.stage.clone().into(),
        inspection,
        cdn,
        judging: Judging::new(runtime.clone()),
        sniffed: Arc::default(),
        sweep_progress: SweepProgress::default(),
        clock,
        database,
    };
    Ok(Assembly { service, writers, policy_watcher, lacking })
}

/// Starts the service on `runtime`, which has to be a multi-thread one and becomes the main runtime: connections,
/// the ledger, key refresh and policy watch live there, not on an actix worker.
///
/// # Errors
/// When anything that the configuration asks for is not to be had. A database or a store that does not answer is
/// not among that: the service starts, is not ready, and becomes ready by itself.
pub async fn start(config: &Config, clock: Clock, runtime: Handle) -> Result<Running, StartError> {
    // Boxed, because it is large and waits for long.
    Box::pin(set_going(config, clock, runtime)).await.map_err(|error| error.located(config))
}

async fn set_going(config: &Config, clock: Clock, runtime: Handle) -> Result<Running, StartError> {
    let Assembly { service, writers, policy_watcher, lacking } = assemble(config, clock.clone(), &runtime).await?;
    if config.s3.probe_on_start {
        let found = probe_store(&service, config, &runtime).await?;
        let found = lacking.get_or_init(|| found);
        // A file that changed meanwhile was held against nothing yet.
        policy::load(&config.policies.file, |document| meets_demands(document, config, found))?;
    }
    let (database, policies) = (service.database.clone(), service.policies.clone());
    let authenticator = Authenticator::from_config(&config.auth, clock.clone(), runtime.clone()).await?;
    let event_senders = event_senders(&config.events, &clock, &runtime)?;
    let metrics = Metrics::new()?;
    let schema_is_ready = match prepare_schema(&database, config.database.migrate_on_start, clock.now()).await {
        Ok(()) => true,
        Err(StartError::Database(DbError::Unavailable(reason))) => {
            log::warn!("starting without the database: {reason}");
            database.set_schema_is_ready(false);
            false
        }
        Err(error) => return Err(error),
    };
    // Before anything is at work that a port in use would cut off.
    let failed = |source| StartError::Listen { address: config.server.listen, source };
    let listener = listen(config.server.listen, config.delivery.stall_timeout).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // Port 0 takes a free one, and URLs have to name that.
    let mut server_config = config.clone();
    server_config.server.listen = address;
    let webhook_metrics = WebhookMetrics::new(metrics.registry())?;
    let webhooks = Webhooks::start(config, &database, &service.clock, &webhook_metrics, &runtime)?;
    let housekeeping = runtime.spawn(keep_house(service.clone(), schema_is_ready, config.database.migrate_on_start));
    let revocations = runtime.spawn(service.clone().follow_revocations());
    // PostgreSQL inside the process serves one connection, which a listener would keep from everybody else.
    let announcements =
        (config.database.max_connections > 1).then(|| runtime.spawn(database.clone().listen_for_announcements()));
    let sweeping = Sweeper::new(service.clone(), &config.sweeper).start(&runtime);
    let inspector = Inspector::start(&service, &runtime);
    let state = State::new(&server_config, service.clone(), authenticator, event_senders, metrics);
    let page = if config.web.enabled { Some(Page::new(endpoint(&config.s3)?.origin())) } else { None };
    let server = serve(&server_config, listener, state, page).map_err(failed)?;
    let handle = server.handle();
    let serving = runtime.spawn(server);
    log::info!("listening on {address}, policies {}", policies.current().version());
    Ok(Running {
        address,
        policies,
        service,
        server: handle,
        serving,
        writers,
        housekeeping,
        revocations,
        announcements,
        sweeping,
        webhooks,
        shutdown_timeout: config.server.shutdown_timeout,
        inspector,
        database,
        _policy_watcher: policy_watcher,
    })
}

/// Checks everything that can be checked without talking to anybody.
///
/// # Errors
/// All settings that are wrong; where these are right, all that is wrong with the policies.
pub async fn check(config: &Config, runtime: Handle) -> Result<PolicyDocument, StartError> {
    // Key files are read; key sets would have to be fetched.
    let mut problems = auth::problems_of_key_files(&config.auth).await;
    let parts = [
        Database::new(&config.database, &runtime).map(drop).map_err(StartError::from),
        endpoint(&config.s3).map(drop),
        token_keys(&config.callback).map(drop).map_err(StartError::from),
        config.cdn.as_ref().map_or(Ok(()), |config| cdn(config).map(drop)),
        config.inspection.as_ref().map_or(Ok(()), |config| inspection(config).map(drop)),
        event_senders(&config.events, &Clock::System, &runtime).map(drop),
    ];
    for part in parts {
        if let Err(error) = part {
            problems.push(error.problem()?);
        }
    }
    if !problems.is_empty() {
        return Err(config.locate(problems).into());
    }
    Ok(policy::load(&config.policies.file, |document| meets_demands(document, config, &[]))?)
}

/// Brings the schema up to date, or refuses a schema that does not fit.
///
/// # Errors
/// When it does not fit and may not be changed, or the database does not answer.
pub async fn prepare_schema(database: &Database, may_migrate: bool, now: DateTime<Utc>) -> Result<(), StartError> {
    match database.schema_state().await? {
        SchemaState::Current => {}
        SchemaState::Newer(versions) => return Err(StartError::SchemaNewer(versions)),
        SchemaState::Pending(versions) if !may_migrate => return Err(StartError::SchemaPending(versions)),
        SchemaState::Pending(_) => {
            for version in database.migrate().await? {
                log::info!("migration {version} applied");
            }
        }
    }
    // Before the first row: one that went to the default partition keeps its month from getting one of its own.
    match database.ensure_partitions(now).await {
        Err(error @ DbError::Unavailable(_)) => Err(error.into()),
        // Logged, and no reason not to serve: rows of that month go to the default partition.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Goes on until the task is ended, unless the database that was away at the start turns out to have a schema that would
/// have been refused then.
async fn keep_house(service: Service, schema_is_ready: bool, may_migrate: bool) -> StartError {
    if !schema_is_ready {
        loop {
            match prepare_schema(&service.database, may_migrate, service.clock.now()).await {
                Ok(()) => break,
                Err(error @ (StartError::SchemaPending(_) | StartError::SchemaNewer(_))) => return error,
                Err(error) => log::warn!("the database is not usable yet: {error}"),
            }
            tokio::time::sleep(SCHEMA_RETRY).await;
        }
        service.database.set_schema_is_ready(true);
    }
    service.maintain_for_ever().await
}

fn serve(
    config: &Config,
    listener: std::net::TcpListener,
    state: State,
    page: Option<Page>,
) -> io::Result<actix_web::dev::Server> {
    let state = web::Data::new(state);
    let settings = config.server.clone();
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .configure(http::routes)
            .configure(|app| page.iter().for_each(|page| page.routes(app)))
            .wrap(Condition::new(!settings.cors_allowed_origins.is_empty(), http::cors(&settings)))
            .wrap(from_fn(http::finish))
    })
    .client_request_timeout(config.server.request_timeout)
    .shutdown_timeout(config.server.shutdown_timeout.as_secs())
    .disable_signals();
    if let Some(workers) = config.server.workers {
        server = server.workers(workers);
    }
    Ok(server.listen(listener)?.run())
}

/// As actix would, but here, because the port has to be known before the routes are made.
///
/// Connections inherit the options. actix waits without end for a client that takes nothing of its answer, or that went
/// away without a word: the first would keep its stream's place, and either its connection.
fn listen(address: SocketAddr, stall_timeout: Duration) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it, a restart would have to wait for the old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_PROBES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(stall_timeout))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(2048)?;
    Ok(socket.into())
}

fn token_keys(config: &CallbackConfig) -> Result<TokenKeys, SecretError> {
    config.keys.iter().map(|key| Ok((key.id.as_str(), key.load()?))).collect()
}

fn event_senders(config: &EventsConfig, clock: &Clock, runtime: &Handle) -> Result<EventSenders, StartError> {
    let tokens: Vec<_> = config.tokens.iter().map(EventTokenConfig::load).collect::<Result<_, SecretError>>()?;
    let sns = config.sns.as_ref().map(|sns| SnsVerifier::from_config(sns, clock.clone(), runtime.clone()));
    Ok(EventSenders { tokens: EventTokens::new(&tokens), sns: sns.transpose()? })
}

fn endpoint(config: &S3Config) -> Result<Arc<Endpoint>, StartError> {
    let endpoint = Endpoint::new(&config.client_endpoint(), &config.bucket, config.addressing);
    let endpoint = endpoint.map_err(|error| match error {
        EndpointError::Bucket(invalid) => Problem::new("s3.bucket", invalid.rule),
        EndpointError::Url(invalid) if config.public_endpoint.is_some() => {
            Problem::new("s3.public_endpoint", invalid.rule)
        }
        EndpointError::Url(invalid) => Problem::new("s3.endpoint", invalid.rule),
    });
    Ok(Arc::new(endpoint?))
}

fn cdn(config: &CdnConfig) -> Result<Arc<CloudFront>, StartError> {
    let wrong = |key: String, rule: &dyn fmt::Display| Problem::new(key, rule.to_string());
    let mut key_pairs = Vec::new();
    for (index, key) in config.keys.iter().enumerate() {
        let at = |setting: &str| format!("cdn.keys[{index}].{setting}");
        let pem = key.load().map_err(|error| wrong(at("private_key_file"), &error))?;
        let pair = KeyPair::from_pem(&*key.id, key.active_from, &pem)
            .map_err(|error| wrong(at(if error == KeyPairError::Id { "id" } else { "private_key_file" }), &error))?;
        key_pairs.push(pair);
    }
    let cloudfront = CloudFront::new(&config.domain, &config.origin_path, key_pairs).map_err(|error| match &error {
        CloudFrontSetupError::Domain(_) => wrong("cdn.domain".to_owned(), &error),
        CloudFrontSetupError::OriginPath(_) => wrong("cdn.origin_path".to_owned(), &error),
    })?;
    Ok(Arc::new(cloudfront))
}

fn inspection(config: &InspectionConfig) -> Result<Inspection, StartError> {
    let scanner = Scanner::new(config)?;
    Ok(Inspection::new(scanner, config))
}

/// Names what is allowed and may still surprise: addresses that nobody else can reach, and URLs that end before their
/// policy would have them end.
pub fn remarks(document: &PolicyDocument, config: &Config) -> Vec<Problem> {
    let mut remarks = short_sessions(document, config);
    if !config.auth.names_tenants() {
        let of_tenants = document.policies_that(|rules| rules.readers == Readers::Tenant);
        let rule = "is \"tenant\", and no issuer has a tenant_claim: only the owner reads";
        remarks.extend(of_tenants.map(|name| Problem::new(format!("policy.{name}.readers"), rule)));
    }
    if config.server.trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        let rule = "trusts every address, so that clients can claim any: name the networks of the proxies alone";
        remarks.push(Problem::new("server.trusted_proxies", rule));
    }
    if db::may_be_in_plaintext(&config.database) {
        let rule = "has sslmode=prefer, by which whoever is between here and the server can read and answer: \
                    sslmode=require";
        remarks.push(Problem::new("database.url", rule));
    }
    if config.server.public_url.is_none() && config.server.listen.ip().is_unspecified() {
        let rule = format!(
            "is not set, and server.listen has no address to go by: what answers say of this service's own URLs, such as \
             callback.url and tickets, is {}, which works on this machine alone",
            config.server.base_url()
        );
        remarks.push(Problem::new("server.public_url", rule));
    }
    if config.s3.addressing == Addressing::VirtualHosted
        && config.s3.bucket.contains('.')
        && config.s3.client_endpoint().starts_with("https:")
    {
        let rule = "has a dot, and certificates for *.<store> are not for a.b.<store>: clients refuse its URLs, unless \
                    the store has a certificate for this name; s3.addressing = \"path\", or another bucket";
        remarks.push(Problem::new("s3.bucket", rule));
    }
    remarks.extend(silent_webhooks(document, config));
    remarks
}

/// Endpoints that are never sent anything, or nothing that they wait for.
fn silent_webhooks(document: &PolicyDocument, config: &Config) -> Vec<Problem> {
    let mut remarks = Vec::new();
    for (index, endpoint) in config.webhooks.endpoints.iter().enumerate() {
        let mut remark = |setting: &str, rule: String| {
            remarks.push(Problem::new(format!("webhooks.endpoints[{index}].{setting}"), rule));
        };
        if let Err(refused) = webhook::check_address(&endpoint.url, &config.webhooks) {
            remark("url", format!("is never sent anything: {refused}"));
        }
        for policy in &endpoint.policies {
            if !document.names().any(|name| name == policy) {
                remark("policies", format!("has {policy:?}, which is no policy of {}", config.policies.file.display()));
            }
        }
    }
    remarks
}

fn short_sessions(document: &PolicyDocument, config: &Config) -> Vec<Problem> {
    let Some(sts) = &config.s3.sts else { return Vec::new() };
    // A session is replaced when it is half over, so this is what every URL can count on.
    let certain = sts.session_duration / 2;
    // What is handed out for a moment only, or signed by others, ends with no session.
    let is_long = |rules: &Rules| {
        let by_session = rules.delivery.iter().any(|delivery| delivery.is_signed_by_session());
        rules.download_expires_in > certain && rules.download_uses.is_none() && by_session
    };
    let uploads = document.policies_that(|rules| rules.longest_upload_life() > certain).map(|name| (name, "upload"));
    let longer: BTreeSet<_> = document.policies_that(is_long).map(|name| (name, "download")).chain(uploads).collect();
    let rule = format!(
        "gives some URLs longer than {}, half of s3.sts.session_duration: these may end with their session, and \
         expires_at says when",
        humantime::format_duration(certain)
    );
    longer.into_iter().map(|(name, what)| Problem::new(format!("policy.{name}.{what}"), rule.as_str())).collect()
}

/// Names what the policies ask for that the rest of the configuration cannot do. Refused, never silently left out.
///
/// `lacking` is what the store was found not to do.
fn meets_demands(document: &PolicyDocument, config: &Config, lacking: &[StoreCapability]) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut refuse = |setting: &str, rule: &str, asks: &dyn Fn(&Rules) -> bool| {
        let asking = document.policies_that(asks);
        problems.extend(asking.map(|name| Problem::new(format!("policy.{name}.{setting}"), rule)));
    };
    if config.s3.sts.is_none() {
        let rule = "needs the [s3.sts] settings where it has \"credentials\": the service's own are never handed out";
        refuse("methods", rule, &|rules| rules.methods.contains(&UploadMethod::Credentials));
        let rule =
            "needs the [s3.sts] settings, without which no store can hold a URL to a network; or must be \"off\"";
        refuse("ip_scope", rule, &|rules| rules.ip_scope != IpScope::Off);
        // A ticket is shown to this service, which knows the network without any store.
        let rule = "needs download.uses, or the [s3.sts] settings, without which no store can hold a URL to a network; or \
                    must be \"off\"";
        refuse("download.ip_scope", rule, &|rules| {
            rules.download_ip_scope() != rules.ip_scope
                && rules.download_ip_scope() != IpScope::Off
                && rules.download_uses.is_none()
        });
    }
    if !config.auth.names_tenants() {
        let rule = "needs an issuer with tenant_claim where it has {tenant}: nobody's token names a tenant";
        refuse("key", rule, &|rules| rules.key.needs_tenant());
    }
    if config.delivery.accel.is_none() || config.server.trusted_proxies.is_empty() {
        let rule = "needs delivery.accel, which says what the web server in front of this service is, and \
                    server.trusted_proxies, which says where it is; or must not have \"accel\"";
        refuse("delivery", rule, &|rules| rules.delivery.contains(&Delivery::Accel));
    }
    match &config.cdn {
        None => {
            let rule = "needs the [cdn] settings where it has \"cdn\"";
            refuse("delivery", rule, &|rules| rules.delivery.contains(&Delivery::Cdn));
        }
        Some(cdn) => {
            let scoped =
                |rules: &Rules| rules.delivery.contains(&Delivery::Cdn) && rules.download_ip_scope() != IpScope::Off;
            let rule = "must be \"off\" where delivery has \"cdn\", or the distribution be without IPv6 (cdn.ipv6 = \
                        false): it can hold nobody to an IPv6 network";
            refuse("ip_scope", rule, &|rules| cdn.ipv6 && scoped(rules));
            let rule =
                "must begin with cdn.origin_path where delivery has \"cdn\": the distribution reaches nothing else";
            refuse("key", rule, &|rules| {
                rules.delivery.contains(&Delivery::Cdn) && !cdn.reaches(rules.key.upload_to())
            });
        }
    }
    match &config.inspection {
        None => {
            let rule = "needs the [inspection] settings, which say where the scanner is; or must be \"off\"";
            refuse("inspection", rule, &|rules| rules.inspection == InspectionRule::Required);
        }
        Some(inspection) => {
            let rule = format!("must be at most inspection.largest ({}), what the scanner takes", inspection.largest);
            let too_large =
                |rules: &Rules| rules.inspection == InspectionRule::Required && rules.max_size > inspection.largest;
            refuse("max_size", &rule, &too_large);
        }
    }
    for capability in lacking {
        let Some(setting) = capability.setting() else { continue };
        for name in capability.needed_by(document, &capability_facts(config)) {
            let rule = format!("needs {capability}, which the store was found not to do: {}", capability.mend());
            problems.push(Problem::new(format!("policy.{name}.{setting}"), rule));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// A try of the parts of `service`, with everything as `config` has it.
///
/// # Errors
/// When no request could be sent.
pub async fn live_check(
    service: &Service,
    config: &Config,
    options: LiveOptions,
    runtime: &Handle,
) -> Result<LiveCheck, StartError> {
    let own = S3Config { sts: None, ..config.s3.clone() };
    let sdk = Sdk::from_config(&own).await;
    let own = Sessions::new(sdk, &own, endpoint(&config.s3)?, service.clock.clone(), runtime.clone());
    Ok(LiveCheck::new(service.clone(), own, options)?)
}

/// Tries the store, and gives what it does not do. Refuses what policies need of that.
async fn probe_store(service: &Service, config: &Config, runtime: &Handle) -> Result<Vec<StoreCapability>, StartError> {
    let options = LiveOptions { store_only: true, ..LiveOptions::default() };
    let check = live_check(service, config, options, runtime).await?;
    let report = Box::pin(check.run(|_| ())).await;
    if let Err(error) = check.clean_up().await {
        log::warn!("what the try of the store wrote could not all be removed: {error}");
    }
    if !report.is_good() {
        return Err(StartError::Lacking(Box::new(report)));
    }
    Ok(report.lacking().map(|row| row.capability).collect())
}

fn capability_facts(config: &Config) -> CapabilityFacts<'_> {
    CapabilityFacts {
        has_sts: config.s3.sts.is_some(),
        staged: &config.s3.stage,
        has_origins: !config.page_origins().is_empty(),
        has_url: false,
    }
}
