//! Where the database is: one server, or several of which one takes writes.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::rand;
use rustls::{
    ClientConfig,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject as _},
    },
};
use rustls_platform_verifier::Verifier;
use secrecy::ExposeSecret as _;
use tokio_postgres::{
    Client, Config, Connection, Socket,
    config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs},
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{DatabaseConfig, Problem};

/// Longest wait for one host of PostgreSQL to answer a new connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for one address of a host, which leaves time for another.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection is silent before its peer is asked whether it is still there. Who listens says nothing, and
/// nothing else would notice that nobody is.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A connection, and who drives it.
pub(super) type Connected = (Client, Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>);

const SSL_MODES: &str = "knows sslmode=disable, prefer and require, which verifies the certificate and its name";

/// Whether what is asked of the database may cross a network unencrypted: TLS is left to the server.
pub fn may_be_in_plaintext(config: &DatabaseConfig) -> bool {
    let is_far = |host: &Host| match host {
        Host::Tcp(name) => {
            name != "localhost" && !name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => false,
    };
    options(config)
        .is_ok_and(|options| options.get_ssl_mode() == SslMode::Prefer && options.get_hosts().iter().any(is_far))
}

/// The hosts of `database.url`, each with all that a connection needs.
pub(super) struct Hosts {
    each: Vec<Config>,
    /// The one that answered last. Without it, every new connection would wait for a host that is gone.
    preferred: AtomicUsize,
    is_random: bool,
    tls: MakeRustlsConnect,
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts").field("count", &self.each.len()).finish_non_exhaustive()
    }
}

impl Hosts {
    /// What `config` says. Connects to nothing.
    pub(super) fn new(config: &DatabaseConfig) -> Result<Self, Problem> {
        let refuse = |rule: String| Problem::new("database.url", rule);
        let options = options(config).map_err(|error| {
            let rule = describe(&error);
            refuse(if rule.contains("sslmode") { SSL_MODES.to_owned() } else { format!("must be a URL: {rule}") })
        })?;
        if options.get_hosts().is_empty() && options.get_hostaddrs().is_empty() {
            return Err(refuse("must name a host".to_owned()));
        }
        let tls = MakeRustlsConnect::new(tls(config)?);
        let is_random = options.get_load_balance_hosts() == LoadBalanceHosts::Random;
        Ok(Self { each: one_by_one(&options), preferred: AtomicUsize::new(0), is_random, tls })
    }

    /// Longest time that [`Hosts::connect`] takes.
    pub(super) fn patience(&self) -> Duration {
        CONNECT_TIMEOUT.saturating_mul(u32::try_from(self.each.len()).unwrap_or(u32::MAX))
    }

    /// A connection to the first host that answers in time and takes writes, beginning with the one that did last.
    /// tokio-postgres would wait for a silent one and never come to the next.
    pub(super) async fn connect(&self) -> Result<Connected, String> {
        let first = if self.is_random { random() } else { self.preferred.load(Ordering::Relaxed) };
        let mut failure = "database.url names no host".to_owned();
        let count = self.each.len().max(1);
        for (index, host) in self.each.iter().enumerate().cycle().skip(first % count).take(self.each.len()) {
            match tokio::time::timeout(CONNECT_TIMEOUT, host.connect(self.tls.clone())).await {
                Ok(Ok(connected)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(connected);
                }
                Ok(Err(error)) => failure = describe(&error),
                Err(_) => "no connection in time".clone_into(&mut failure),
            }
        }
        Err(failure)
    }
}

/// Without randomness, the first.
fn random() -> usize {
    let mut bytes = [0; 2];
    let _ = rand::fill(&mut bytes);
    usize::from(u16::from_ne_bytes(bytes))
}

fn options(config: &DatabaseConfig) -> Result<Config, tokio_postgres::Error> {
    let mut options: Config = config.url.expose_secret().parse()?;
    options.connect_timeout(ADDRESS_TIMEOUT);
    options.keepalives_idle(KEEPALIVE);
    // After a failover a name may lead to the old primary for a while.
    if !config.url.expose_secret().contains("target_session_attrs") {
        options.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if options.get_application_name().is_none() {
        options.application_name("presignd");
    }
    // Session settings ride in the start-up message and cost no round trip.
    let given = options.get_options().map(|given| format!("{given} ")).unwrap_or_default();
    options.options(format!(
        "{given}-c statement_timeout={0} -c idle_in_transaction_session_timeout={0} -c timezone=UTC",
        config.statement_timeout.as_millis()
    ));
    Ok(options)
}

/// The same for each of its hosts alone.
fn one_by_one(options: &Config) -> Vec<Config> {
    let (hosts, addresses, ports) = (options.get_hosts(), options.get_hostaddrs(), options.get_ports());
    let count = hosts.len().max(addresses.len());
    if count < 2 {
        return vec![options.clone()];
    }
    let of_host = |index: usize| {
        let mut one = Config::new();
        match hosts.get(index) {
            Some(Host::Tcp(name)) => drop(one.host(name)),
            #[cfg(unix)]
            Some(Host::Unix(path)) => drop(one.host_path(path)),
            None => {}
        }
        if let Some(address) = addresses.get(index) {
            one.hostaddr(*address);
        }
        if let Some(port) = ports.get(index).or(ports.first()) {
            one.port(*port);
        }
        if let Some(user) = options.get_user() {
            one.user(user);
        }
        if let Some(password) = options.get_password() {
            one.password(password);
        }
        if let Some(name) = options.get_dbname() {
            one.dbname(name);
        }
        if let Some(settings) = options.get_options() {
            one.options(settings);
        }
        if let Some(name) = options.get_application_name() {
            one.application_name(name);
        }
        if let Some(timeout) = options.get_connect_timeout() {
            one.connect_timeout(*timeout);
        }
        if let Some(timeout) = options.get_tcp_user_timeout() {
            one.tcp_user_timeout(*timeout);
        }
        if let Some(interval) = options.get_keepalives_interval() {
            one.keepalives_interval(interval);
        }
        if let Some(retries) = options.get_keepalives_retries() {
            one.keepalives_retries(retries);
        }
        one.keepalives(options.get_keepalives())
            .keepalives_idle(options.get_keepalives_idle())
            .ssl_mode(options.get_ssl_mode())
            .ssl_negotiation(options.get_ssl_negotiation())
            .target_session_attrs(options.get_target_session_attrs())
            .channel_binding(options.get_channel_binding());
        one
    };
    (0..count).map(of_host).collect()
}

/// The error without its values: tokio-postgres's own text may quote parts of the URL.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("cannot connect{cause}")
}

/// Verifies the server against the system's certificate authorities and the configured one. Whether TLS is used at
/// all is `sslmode`'s to say; what is never done is to encrypt towards a server that nobody verified.
fn tls(config: &DatabaseConfig) -> Result<ClientConfig, Problem> {
    let refuse = |rule: String| Problem::new("database.tls_ca_file", rule);
    let mut extra: Vec<CertificateDer<'static>> = Vec::new();
    if let Some(path) = &config.tls_ca_file {
        let unusable = |error| {
            let path = path.display();
            refuse(format!("{path} must hold certificates in PEM: {error}"))
        };
        let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        extra = certificates.map_err(unusable)?;
        if extra.is_empty() {
            return Err(unusable(pem::Error::NoItemsFound));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        Verifier::new_with_extra_roots(extra, provider.clone()).map_err(|error| refuse(error.to_string()))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Vec<Config> {
        let config = DatabaseConfig { url: url.to_owned().into(), ..DatabaseConfig::default() };
        one_by_one(&options(&config).unwrap())
    }

    #[test]
    fn each_host_has_all_that_the_url_says() {
        let url =
            "postgres://user:secret@a:5433,b:5434/files?sslmode=require&application_name=x&channel_binding=require";
        let each = hosts(url);
        assert_eq!(each.len(), 2);
        for (one, (host, port)) in each.iter().zip([("a", 5433), ("b", 5434)]) {
            let alone = hosts(&url.replace("a:5433,b:5434", &format!("{host}:{port}")));
            assert_eq!(std::slice::from_ref(one), alone);
        }
        assert_eq!(
            hosts("postgres://a,b/files").iter().map(|one| one.get_ports().to_vec()).collect::<Vec<_>>(),
            [[5432]; 2]
        );
    }
}
