//! The real binary, killed, stopped and reconfigured under load.

use std::{
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::metric;
use crate::events::TOKEN;
use crate::support::{
    Backend, Caller, ChaosProxy, Program, Reply, WebhookReceiver,
    app::{CALLBACK_SECRET, JWT_SECRET, POLICIES, settings},
    backend::{TestBucket, TestDatabase},
    caller::id,
    load::{Answer, Load, all_issued_are_recorded, eventually},
    receiver::KEY,
};

/// What a process runs on.
pub(super) struct Ground {
    folder: TempDir,
    pub(super) database: TestDatabase,
    bucket: TestBucket,
    policies: PathBuf,
}

impl Ground {
    pub(super) async fn new(backend: &Backend) -> Self {
        Self::with_policies(backend, POLICIES).await
    }

    pub(super) async fn with_policies(backend: &Backend, text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let policies = folder.path().join("policies.toml");
        std::fs::write(&policies, text).unwrap();
        let (database, bucket) = (backend.database().await, backend.bucket(folder.path()).await);
        Self { folder, database, bucket, policies }
    }

    pub(super) fn settings(&self, overlay: &str) -> toml::Table {
        settings(&self.database, &self.bucket, &self.policies, overlay)
    }

    fn start(&self, settings: toml::Table) -> Program {
        let mut program = Program::start(self.folder.path(), settings);
        program.wait_ready();
        program
    }

    /// The process at this place: each has a folder of its own.
    pub(super) fn start_at(&self, place: usize, settings: toml::Table) -> Program {
        let folder = self.folder.path().join(place.to_string());
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut program = Program::start(&folder, settings);
        program.wait_ready();
        program
    }

    pub(super) async fn end(self) {
        self.bucket.end().await;
        self.database.end().await;
    }
}

pub(super) async fn killed(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let mut program = ground.start(ground.settings(""));
    let load = Load::start(&program.user("alice"), 16, &backend.runtime);
    load.until_issued(100).await;
    program.kill();
    let answers = load.end().await;
    assert!(answers.iter().any(|answer| matches!(answer, Answer::Broken)), "it was killed after the load");
    all_issued_are_recorded(&answers, ground.database.url(), &backend.runtime).await;
    ground.end().await;
}

/// A row without an answer would be a request that was cut off while it was being answered.
pub(super) async fn terminated_under_load(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let mut program = ground.start(ground.settings(""));
    let load = Load::start(&program.user("alice"), 16, &backend.runtime);
    load.until_issued(100).await;
    let began = Instant::now();
    program.terminate();
    let status = program.wait_end();
    assert!(began.elapsed() < Duration::from_secs(6), "it took {:?}", began.elapsed());
    assert!(status.success(), "{status}");
    let answers = load.end().await;
    let issued = answers.iter().filter(|answer| matches!(answer, Answer::Issued { .. })).count();
    let refused = answers.iter().find(|answer| matches!(answer, Answer::Refused { .. }));
    assert!(refused.is_none(), "{refused:?}");
    assert_eq!(all_issued_are_recorded(&answers, ground.database.url(), &backend.runtime).await, issued);
    ground.end().await;
}

pub(super) async fn terminated_with_requests_in_flight(backend: Backend) {
    const REQUESTS: u32 = 20;
    let ground = Ground::new(&backend).await;
    let (proxy, url) = ChaosProxy::in_front_of(ground.database.url(), &backend.runtime).await;
    let mut settings = ground.settings("[database]\nledger = { writers = 1, max_batch = 1 }");
    settings["database"]["url"] = url.into();
    let mut program = ground.start(settings);
    let alice = program.user("alice");
    // The session and the connection are there before anything stalls.
    alice.issue("warm.txt", b"bytes", &json!({})).await;

    proxy.stall();
    let requests: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let alice = alice.clone();
            backend.runtime.spawn(async move { alice.issue("a.txt", b"bytes", &json!({})).await })
        })
        .collect();
    // The writer holds the first.
    let all_arrived =
        async || (metric(&alice, "presignd_ledger_queued_intents").await == u64::from(REQUESTS) - 1).then_some(());
    eventually(Duration::from_secs(3), all_arrived).await;
    program.terminate();
    let address = program.base().replace("http://", "");
    let refuses = async || TcpStream::connect(&address).is_err().then_some(());
    eventually(Duration::from_secs(3), refuses).await;
    proxy.heal();
    for request in requests {
        let issued = request.await.expect("every request in flight is answered in full");
        assert_eq!(issued["state"], "issued");
    }
    let status = program.wait_end();
    assert!(status.success(), "{status}");
    let recorded = all_issued_are_recorded(&[], ground.database.url(), &backend.runtime).await;
    assert_eq!(u32::try_from(recorded).unwrap(), REQUESTS + 1);
    ground.end().await;
}

pub(super) async fn policy_edited(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let program = ground.start(ground.settings(""));
    let alice = program.user("alice");
    let life = async || {
        let issued = alice.issue("a.txt", b"bytes", &json!({})).await;
        let at = |field: &str| issued[field].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        (at("expires_at") - at("created_at")).num_seconds() + 1
    };
    let load = Load::start(&alice, 4, &backend.runtime);
    load.until_issued(20).await;
    assert_eq!(life().await, 300);

    std::fs::write(&ground.policies, POLICIES.replacen("\"5m\"", "\"2m\"", 1)).unwrap();
    let shorter = async || (life().await == 120).then_some(());
    let ((), took) = eventually(Duration::from_secs(1), shorter).await;
    eprintln!("measured: a policy edited under load is in force after {took:?}");

    let broken = POLICIES.replacen("\"5m\"", "\"2 fortnights\"", 1);
    std::fs::write(&ground.policies, &broken).unwrap();
    let counted = async || (metric(&alice, "presignd_policy_failures_total").await == 1).then_some(());
    eventually(Duration::from_secs(2), counted).await;
    assert_eq!(life().await, 120);
    let broken_line = 1 + broken.lines().position(|line| line.contains("fortnights")).unwrap();
    let log = program.log();
    assert!(log.contains(&format!("line {broken_line}: policy.default.upload.expires_in")), "{log}");

    let answers = load.end().await;
    let failed = answers.iter().find(|answer| !matches!(answer, Answer::Issued { .. }));
    assert!(failed.is_none(), "{failed:?}");
    drop(program);
    ground.end().await;
}

pub(super) async fn nothing_secret_is_logged(backend: Backend) {
    let policies = format!(
        "{POLICIES}\n[policy.parts]\nmethods = [\"multipart\"]\n[policy.sessions]\nmethods = [\"credentials\"]\n\
         upload.expires_in = \"15m\"\n[policy.tickets]\nmethods = [\"put\"]\ndownload.uses = 1\n"
    );
    let ground = Ground::with_policies(&backend, &policies).await;
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let mut program = ground.start(ground.settings(&talkative(&receiver)));
    let alice = program.user("alice");
    let bytes = b"bytes";
    let put = alice.issue("diagnosis.txt", bytes, &json!({ "method": "put" })).await;
    assert!(alice.send(&put, bytes).await.status.is_success());
    alice.at("127.0.0.12").get("/api/v1/uploads").await.expect(StatusCode::OK);
    let callback_token = put["callback"]["token"].as_str().unwrap();
    let complete = format!("/api/v1/uploads/{}/complete", put["id"].as_str().unwrap());
    let confirm = program.user("mallory").request(Method::POST, &complete).header("x-callback-token", callback_token);
    let confirmed = Reply::of(confirm).await.expect(StatusCode::OK);
    let forged = alice.post(&complete, &json!({ "token": "forged.token.of.mallory" })).await;
    assert_eq!(forged.status, StatusCode::UNAUTHORIZED);
    let download = alice.post("/api/v1/downloads", &json!({ "upload_id": confirmed["id"] })).await;
    let download = download.expect(StatusCode::CREATED);
    let form = alice.issue("b.txt", bytes, &json!({ "method": "post" })).await;
    let others = secrets_of_other_ways(&alice, bytes).await;
    let keyed = alice.request(Method::POST, "/api/v1/uploads").header("idempotency-key", "k-1");
    let keyed = Reply::of(keyed.json(&json!({ "original_file_name": "c.txt", "file_size": 1 }))).await;
    let keyed = keyed.expect(StatusCode::CREATED);
    let jwt = alice.request(Method::GET, "/").build().unwrap().headers()["authorization"].to_str().unwrap().to_owned();
    // A token that is refused is a token still: it may be good elsewhere, or was good a moment ago.
    let tampered = format!("{}x", jwt.strip_prefix("Bearer ").unwrap());
    assert_eq!(alice.with_token(tampered.clone()).get("/api/v1/uploads").await.status, StatusCode::UNAUTHORIZED);
    let delivered = receiver.until_taken(1).await.remove(0);
    let refused = async || program.log().contains("webhook upload.confirmed not delivered").then_some(());
    eventually(Duration::from_secs(10), refused).await;
    // A store that can be told nothing but a URL has its secret in the path, and so does one with a token that is old.
    let store = program.anonymous();
    for (path, status) in [
        (format!("/api/v1/callbacks/s3-events/{TOKEN}"), 400),
        ("/api/v1/callbacks/s3-events/an-old-event-token-of-the-tests-987".to_owned(), 401),
        (format!("/api/v1/callbacks/s3-events/{TOKEN}/more"), 404),
    ] {
        assert_eq!(store.post(&path, &json!({})).await.status, status);
    }
    let page = json!({ "method": "post", "success_action_redirect": "https://app.example.com/" });
    let leading_back = alice.issue("d.txt", bytes, &page).await;
    let callback = leading_back["upload"]["fields"]["success_action_redirect"].as_str().unwrap();
    assert_eq!(store.http.get(callback).send().await.unwrap().status(), StatusCode::SEE_OTHER);
    program.terminate();
    program.wait_end();

    let mut secrets = vec![
        KEY.trim_start_matches("whsec_").to_owned(),
        "known-to-the-receiver-alone".to_owned(),
        delivered.headers["webhook-signature"].clone(),
        TOKEN.to_owned(),
        "an-old-event-token-of-the-tests-987".to_owned(),
        leading_back["callback"]["token"].as_str().unwrap().to_owned(),
        jwt.strip_prefix("Bearer ").unwrap().to_owned(),
        tampered.split('.').nth(2).unwrap().to_owned(),
        "forged.token.of.mallory".to_owned(),
        callback_token.to_owned(),
        form["callback"]["token"].as_str().unwrap().to_owned(),
        keyed["callback"]["token"].as_str().unwrap().to_owned(),
        JWT_SECRET.to_owned(),
        CALLBACK_SECRET.to_owned(),
        ground.bucket.service.secret_access_key.expose_secret().to_owned(),
    ];
    // Between the user's name and the host; the embedded PostgreSQL asks for no password.
    let userinfo = ground.database.url().split('@').next().and_then(|start| start.rsplit_once("//"));
    secrets.extend(userinfo.and_then(|(_, user)| user.split_once(':')).map(|(_, password)| password.to_owned()));
    for url in [&put["upload"]["url"], &download["url"]] {
        secrets.extend(parts_of_url(url.as_str().unwrap()));
    }
    secrets.extend(others);
    for issued in [&form, &keyed] {
        secrets.extend(secret_fields(&issued["upload"]["fields"]));
    }
    assert!(secrets.len() >= 15, "there is less to look for than there should be: {}", secrets.len());
    let log = program.log();
    assert!(log.contains(r#""level":"trace""#), "the log is less talkative than the test needs");
    for secret in secrets {
        assert!(secret.len() >= 20, "too short to be looked for");
        let line = log.lines().find(|line| line.contains(&secret));
        assert!(line.is_none(), "{secret} is logged: {line:?}");
    }
    nobody_is_logged(&log);
    ground.end().await;
}

/// Settings under which everything is logged, with secrets in all places that have some.
fn talkative(receiver: &WebhookReceiver) -> String {
    let url = |authority: &str| format!("http://{authority}/hooks?token=known-to-the-receiver-alone");
    let (up, down) = (url(&receiver.address.to_string()), url("127.0.0.1:1"));
    format!(
        r#"
        [log]
        filter = "trace"
        format = "json"
        [server]
        redirect_allowed_origins = ["https://app.example.com"]
        [events]
        tokens = [{{ secret = "{TOKEN}" }}]
        [webhooks]
        allowed_networks = ["127.0.0.0/8"]
        endpoints = [
            {{ name = "up", url = "{up}", keys = [{{ secret = "{KEY}" }}] }},
            {{ name = "down", url = "{down}", keys = [{{ secret = "{KEY}" }}] }},
        ]
        "#
    )
}

/// Access lines have these fields and no others, and what is kept longest tells of nobody.
fn nobody_is_logged(log: &str) {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let access: Vec<&Value> = lines.iter().filter(|line| line["target"] == "presignd::access").collect();
    assert!(access.iter().any(|line| line["route"] == "/api/v1/uploads/{id}/complete"), "{access:?}");
    for line in access {
        let fields: Vec<&String> = line.as_object().unwrap().keys().collect();
        let expected = ["level", "message", "method", "micros", "request_id", "route", "status", "target", "time"];
        assert_eq!(fields, expected, "{line}");
    }
    for line in lines.iter().filter(|line| ["info", "warn", "error"].iter().any(|level| line["level"] == *level)) {
        for person in ["alice", "mallory", "diagnosis", "127.0.0.12"] {
            assert!(!line.to_string().contains(person), "{line}");
        }
    }
}

/// What parts, credentials and tickets are good for, each of them issued to `alice`.
async fn secrets_of_other_ways(alice: &Caller, bytes: &[u8]) -> Vec<String> {
    let parts = alice.issue("e.txt", bytes, &json!({ "policy": "parts" })).await;
    let parts = alice.post(&format!("/api/v1/uploads/{}/parts", id(&parts)), &json!({ "part_numbers": [1] })).await;
    let parts = parts.expect(StatusCode::OK);
    let session = alice.issue("f.txt", bytes, &json!({ "policy": "sessions" })).await;
    let behind_ticket = alice.upload("g.txt", bytes, &json!({ "policy": "tickets" })).await;
    let ticket = alice.post("/api/v1/downloads", &json!({ "upload_id": behind_ticket["id"] })).await;
    let ticket = ticket.expect(StatusCode::CREATED)["url"].as_str().unwrap().to_owned();
    let (_, ticket) = ticket.split_once("/t/").expect("the address of a ticket");
    assert_eq!(alice.anonymous().get(&format!("/t/{ticket}")).await.status, StatusCode::FOUND);
    let mut secrets = parts_of_url(parts["parts"][0]["url"].as_str().unwrap());
    for secret in ["secretAccessKey", "sessionToken"] {
        secrets.push(session["upload"]["credentials"][secret].as_str().unwrap().to_owned());
    }
    secrets.push(ticket.to_owned());
    secrets
}

/// What makes a presigned URL one: its whole query, its signature and its session token, raw and as it is in the URL.
fn parts_of_url(url: &str) -> Vec<String> {
    let parsed = reqwest::Url::parse(url).expect("a URL");
    let query = parsed.query().expect("a query");
    let mut parts = vec![query.to_owned()];
    for (name, value) in parsed.query_pairs() {
        if ["X-Amz-Signature", "X-Amz-Security-Token"].contains(&&*name) {
            parts.push(value.into_owned());
        }
    }
    let encoded = query.split('&').filter_map(|pair| pair.strip_prefix("X-Amz-Security-Token="));
    parts.extend(encoded.map(str::to_owned));
    parts
}

fn secret_fields(fields: &Value) -> impl Iterator<Item = String> {
    ["policy", "x-amz-signature", "x-amz-security-token"].into_iter().map(|name| {
        let field = fields.as_object().unwrap().iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        field.unwrap_or_else(|| panic!("no field {name}")).1.as_str().unwrap().to_owned()
    })
}
