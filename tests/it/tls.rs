//! Whom the service talks to encrypted, it has verified.

use std::{fs, process::Command};

use presignd::{
    clock::Clock,
    config::DatabaseConfig,
    db::{Database, DbError},
    model::IntentId,
};
use secrecy::SecretString;
use serde_json::json;

use crate::{
    faults::database::stoppable_postgres,
    support::{
        AppOptions, Backend, Suite, TestApp,
        backend::BackendKind,
        certificates::Authority,
        load::eventually,
        receiver::KEY,
        services::process::{PATIENCE, Process, free_port},
    },
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.needing("openssl", |suite| {
        suite.with_own_postgres("a_database_that_is_not_verified_is_told_nothing", database);
        // Nothing in this depends on the store; what came of the attempt is read from the database beside the service.
        suite.on(&[BackendKind::SeaweedFs], "a_receiver_that_is_not_verified_is_told_nothing", receiver);
    });
}

async fn database(backend: Backend) {
    let (folder, postgres) = stoppable_postgres();
    let authority = Authority::new(folder.path());
    let url = |host: &str, mode: &str| {
        let url = postgres.url("presignd").replace("@127.0.0.1:", &format!("@{host}:"));
        // Each try by a name of its own: connections of the one before may be about to end.
        let name = IntentId::at(Clock::System.now()).hex();
        (format!("{url}?sslmode={mode}&application_name={name}"), name)
    };
    let answer = async |(url, name): (String, String), ca: Option<String>| {
        let config = DatabaseConfig {
            url: SecretString::from(url),
            tls_ca_file: ca.map(Into::into),
            ..DatabaseConfig::default()
        };
        let database = Database::new(&config, &backend.runtime).unwrap();
        let answer = database.ping().await;
        let encrypted = format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = '{name}'"
        );
        let encrypted = postgres.psql("presignd", &encrypted).unwrap();
        database.close();
        answer.map(|()| encrypted == "1")
    };
    let refused = |answer: Result<bool, DbError>, reason: &str| {
        let error = answer.expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    };

    // A server without TLS.
    refused(answer(url("localhost", "require"), Some(authority.certificate())).await, "does not support TLS");
    assert!(!answer(url("localhost", "prefer"), None).await.unwrap());

    let (certificate, key) = authority.issue("localhost");
    postgres.enable_tls(certificate.as_ref(), key.as_ref()).unwrap();
    let ours = || Some(authority.certificate());
    assert!(answer(url("localhost", "require"), ours()).await.unwrap());
    assert!(answer(url("localhost", "prefer"), ours()).await.unwrap());
    for mode in ["require", "prefer"] {
        // An authority that nobody has vouched for, and another name than that of the certificate.
        refused(answer(url("localhost", mode), None).await, "certificate");
        refused(answer(url("127.0.0.1", mode), ours()).await, "certificate");
    }
    assert!(!answer(url("127.0.0.1", "disable"), None).await.unwrap());
}

async fn receiver(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = Authority::new(folder.path()).issue("localhost");
    let port = free_port().unwrap();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert", &certificate, "-key", &key]);
    let mut process = Process::spawn("receiver", folder.path(), None, &command).expect("openssl serves");
    let connect = || std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string());
    process.wait_ready(connect).expect("it listens");
    let settings = format!(
        "[webhooks]\nallowed_networks = [\"127.0.0.0/8\", \"::1/128\"]\npoll_interval = \"100ms\"\n\
         endpoints = [{{ name = \"app\", url = \"https://localhost:{port}/hooks\", keys = [{{ secret = \"{KEY}\" }}] }}]\n"
    );
    let app = TestApp::start_with(&backend, AppOptions { settings, ..AppOptions::default() }).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"12345", &json!({ "method": "put" })).await;
    alice
        .delete(&format!("/api/v1/uploads/{}", issued["id"].as_str().unwrap()))
        .await
        .expect_status(reqwest::StatusCode::OK);
    let attempt = async || {
        let error = app.database.psql("SELECT error FROM webhook_attempts LIMIT 1").trim().to_owned();
        (!error.is_empty()).then_some(error)
    };
    let (error, _) = eventually(PATIENCE, attempt).await;
    assert!(error.contains("certificate"), "{error}");
    let received = fs::read_to_string(folder.path().join("receiver.log")).unwrap();
    assert!(!received.contains("webhook-id") && !received.contains("POST"), "{received}");
    app.end().await;
}
