//! Outgoing webhooks: told once, in order, to everybody who asked, whatever happens to receivers and processes.

mod operators;
mod receivers;
mod retries;
mod targets;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use presignd::{
    app::{self, Running},
    clock::Clock,
    config::Config,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    AppOptions, Backend, Caller, Mood, Reply, Suite, TestApp, WebhookReceiver,
    app::{ISSUER, OTHER_ISSUER, POLICIES, TokenOptions, settings, token},
    backend::{BackendKind, TestBucket, TestDatabase},
    caller::id,
    load::eventually,
    receiver::{KEY, Received},
};

/// Nothing takes longer that is not broken.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("concurrent_confirmations_are_told_once", told_once);
    // Nothing in these depends on the store.
    let embedded = &[BackendKind::Embedded];
    suite.on(embedded, "every_end_of_an_upload_is_told_as_the_contract_says", every_end);
    suite.on(embedded, "endpoints_are_told_what_they_asked_for", subscriptions);
    suite.on(embedded, "deliveries_are_signed_by_every_key", signatures);
    suite.on(embedded, "events_of_one_upload_arrive_in_order", order);
    suite.on(embedded, "a_bad_endpoint_delays_no_other", bad_endpoint);
    suite.on(embedded, "a_receiver_in_trouble_gets_everything_in_the_end", retries::in_the_end);
    suite.on(embedded, "a_receiver_may_ask_to_be_left_alone", retries::retry_after);
    suite.on(embedded, "private_addresses_are_refused", targets::private);
    suite.on(embedded, "redirects_are_not_followed", targets::redirects);
    // These look into the database or have several processes at it, and the embedded one has no connection to spare.
    let real = &[BackendKind::Rgw];
    suite.on(real, "an_event_is_told_only_if_its_transition_is_committed", rolled_back);
    suite.on(real, "what_an_event_keeps_back_is_looked_at_once", kept_back);
    suite.on(real, "two_processes_share_the_work", shared);
    suite.on(real, "what_a_killed_process_held_is_sent_when_its_lease_ends", killed);
    suite.on(real, "an_answer_that_comes_after_the_lease_counts_for_nothing", late_answer);
    suite.on(real, "stopping_finishes_what_is_under_way", stopped);
    suite.on(real, "what_was_delivered_is_forgotten_in_time", forgotten);
    suite.on(real, "operators_see_and_retry_what_was_given_up", operators::given_up);
    suite.on(real, "an_endpoint_that_is_gone_is_shown_and_waits", operators::gone);
    suite.on(real, "the_examples_verify_with_the_standard_libraries", receivers::examples);
}

/// A `[webhooks]` section that may send to loopback and looks often, with `more` settings and these endpoints.
fn section(more: &str, endpoints: &[(&str, String, &str)]) -> String {
    let endpoints = endpoints.iter().map(|(name, url, more)| {
        let keys = if more.contains("keys =") { "" } else { &format!("keys = [{{ secret = \"{KEY}\" }}]") };
        format!("[[webhooks.endpoints]]\nname = \"{name}\"\nurl = \"{url}\"\n{keys}\n{more}\n")
    });
    let endpoints: String = endpoints.collect();
    format!("[webhooks]\nallowed_networks = [\"127.0.0.0/8\"]\npoll_interval = \"100ms\"\n{more}\n{endpoints}")
}

fn options(settings: String) -> AppOptions {
    AppOptions { settings, ..AppOptions::default() }
}

/// A clock that stands still at the machine's time, which the stores go by.
fn manual() -> Clock {
    Clock::manual(Clock::System.now())
}

fn advance(clock: &Clock, by: TimeDelta) {
    clock.set(clock.now() + by);
}

fn put() -> Value {
    json!({ "method": "put" })
}

async fn upload(caller: &Caller) -> Value {
    caller.upload("a.txt", b"12345", &put()).await
}

async fn abort(caller: &Caller) -> Value {
    let issued = caller.issue("b.txt", b"12345", &put()).await;
    caller.delete(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK)
}

async fn download(caller: &Caller, upload: &Value) -> Value {
    let body = json!({ "upload_id": upload["id"] });
    caller.post("/api/v1/downloads", &body).await.expect(StatusCode::CREATED)
}

/// Waits until this many attempts came to that.
async fn until_attempts(caller: &Caller, endpoint: &str, outcome: &str, count: u64) {
    let series = format!("presignd_webhook_attempts_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}}");
    eventually(PATIENCE, async || (caller.metric(&series).await? >= count).then_some(())).await;
}

fn types(received: &[Received]) -> Vec<String> {
    received.iter().map(Received::event_type).collect()
}

/// The signature of `received` by `key`, as Standard Webhooks has it.
fn signature(received: &Received, key: &str) -> String {
    let key = STANDARD.decode(key.strip_prefix("whsec_").unwrap()).unwrap();
    let text = format!("{}.{}.{}", received.id(), received.headers["webhook-timestamp"], received.body);
    format!("v1,{}", STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes())))
}

/// A database and a bucket for several processes.
struct Ground {
    folder: TempDir,
    database: TestDatabase,
    bucket: TestBucket,
    policies: PathBuf,
    backend: Backend,
}

impl Ground {
    async fn new(backend: &Backend) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let policies = folder.path().join("policies.toml");
        std::fs::write(&policies, POLICIES).unwrap();
        let (database, bucket) = (backend.database().await, backend.bucket(folder.path()).await);
        Self { folder, database, bucket, policies, backend: backend.clone() }
    }

    fn settings(&self, overlay: &str) -> toml::Table {
        settings(&self.database, &self.bucket, &self.policies, overlay)
    }

    async fn start(&self, overlay: &str, clock: &Clock) -> (Running, Caller) {
        let settings = self.settings(overlay).to_string();
        let config = Config::parse(&settings, "test settings", &BTreeMap::new()).expect("valid settings");
        let running = app::start(&config, clock.clone(), self.backend.runtime.clone()).await.expect("it starts");
        let token = token(&TokenOptions { subject: "alice", ..TokenOptions::default() }, clock.now());
        let alice = Caller::new(format!("http://{}", running.address), Some(token), [127, 0, 0, 1].into());
        (running, alice)
    }

    async fn end(self) {
        self.bucket.end().await;
        self.database.end().await;
    }
}

async fn told_once(backend: Backend) {
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let app = TestApp::start_with(&backend, options(section("", &[("app", receiver.url(), "")]))).await;
    let alice = app.user("alice");
    let mut confirmed = BTreeSet::new();
    for _ in 0..4 {
        let issued = alice.issue("a.txt", b"12345", &put()).await;
        assert!(alice.send(&issued, b"12345").await.status.is_success());
        let callbacks = (0..8).map(|_| alice.complete(&issued));
        for reply in futures_util::future::join_all(callbacks).await {
            reply.expect(StatusCode::OK);
        }
        alice.complete(&issued).await.expect(StatusCode::OK);
        confirmed.insert(id(&issued).to_owned());
    }
    // Told after all the others: were there a fifth, it would be here by then.
    abort(&alice).await;
    let taken = receiver.until_taken(5).await;
    let uploads: Vec<_> =
        taken.iter().filter(|one| one.event_type() == "upload.confirmed").map(Received::upload).collect();
    assert_eq!(uploads.len(), 4, "{taken:#?}");
    assert_eq!(uploads.into_iter().collect::<BTreeSet<_>>(), confirmed);
    assert_eq!(receiver.received().len(), 5);
    app.end().await;
}

async fn every_end(backend: Backend) {
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let all = "events = [\"upload.confirmed\", \"upload.rejected\", \"upload.expired\", \"upload.aborted\", \"download.issued\"]";
    let clock = manual();
    let settings = section("", &[("app", receiver.url(), all)]);
    let app = TestApp::start_with(&backend, AppOptions { clock: clock.clone(), ..options(settings) }).await;
    let alice = app.user("alice");
    let more = json!({ "method": "put", "metadata": { "case": "42" },
        "checksum_sha256": STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"12345")) });
    let confirmed = alice.upload("lorem-ipsum.pdf", b"12345", &more).await;
    download(&alice, &confirmed).await;
    let rejected = alice.issue("photo.png", b"12345", &put()).await;
    let key = rejected["upload"]["url"].as_str().unwrap().split('?').next().unwrap();
    let key = key.split_once(&format!("/{}/", app.bucket.bucket)).unwrap().1;
    let other = app.bucket.s3.put_object().bucket(&app.bucket.bucket).key(key).content_type("text/html");
    other
        .body(aws_sdk_s3::primitives::ByteStream::from_static(b"<p/>"))
        .send()
        .await
        .expect("the administrator may put");
    alice.complete(&rejected).await.expect_problem(422, "upload_mismatch");
    abort(&alice).await;
    let expired = alice.issue("late.txt", b"12345", &put()).await;
    clock.set(expired["confirm_until"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(1));
    app.user("alice").complete(&expired).await.expect_problem(410, "upload_expired");

    let taken = receiver.until_taken(5).await;
    let told: BTreeSet<_> = types(&taken).into_iter().collect();
    let expected = ["download.issued", "upload.aborted", "upload.confirmed", "upload.expired", "upload.rejected"];
    assert_eq!(told, expected.map(str::to_owned).into());
    let contract: Value = serde_yaml_ng::from_str(include_str!("../../openapi.yaml")).unwrap();
    let described: BTreeSet<_> = contract["webhooks"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(described, told);
    for one in &taken {
        let event = one.event();
        let operation = &contract["webhooks"][one.event_type()]["post"];
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [operation["requestBody"]["content"]["application/json"]["schema"]],
            "components": contract["components"],
        });
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
        let problems: Vec<_> = validator.iter_errors(&event).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{event:#}\n{problems:#?}");
    }
    let told = taken.iter().find(|one| one.event_type() == "upload.confirmed").unwrap().event();
    assert_eq!(told["data"]["id"], confirmed["id"]);
    assert_eq!(told["data"]["etag"], confirmed["etag"]);
    assert_eq!(told["data"]["metadata"], json!({ "case": "42" }));
    assert_eq!(told["timestamp"], told["data"]["settled_at"]);
    app.end().await;
}

async fn subscriptions(backend: Backend) {
    let (everything, shared, acme, downloads, ours) = (
        WebhookReceiver::start(&backend.runtime).await,
        WebhookReceiver::start(&backend.runtime).await,
        WebhookReceiver::start(&backend.runtime).await,
        WebhookReceiver::start(&backend.runtime).await,
        WebhookReceiver::start(&backend.runtime).await,
    );
    let settings = section(
        "",
        &[
            ("everything", everything.url(), ""),
            ("public", shared.url(), "policies = [\"public\"]"),
            ("acme", acme.url(), "tenants = [\"acme\"]\nevents = [\"upload.confirmed\", \"download.issued\"]"),
            ("downloads", downloads.url(), "events = [\"download.issued\"]"),
            ("ours", ours.url(), &format!("issuers = [\"{ISSUER}\"]")),
        ],
    );
    let app = TestApp::start_with(&backend, options(settings)).await;
    let user = |tenant| {
        let token = TokenOptions { issuer: OTHER_ISSUER, subject: "carol", tenant: Some(tenant), scopes: &[] };
        app.anonymous().with_token(app.token(&token))
    };
    let (alice, carol, erin) = (app.user("alice"), user("acme"), user("globex"));
    let of_alice = upload(&alice).await;
    let public = json!({ "method": "put", "policy": "public" });
    let of_acme = carol.upload("a.txt", b"12345", &public).await;
    let of_globex = erin.upload("a.txt", b"12345", &public).await;
    // Each by somebody of the other tenant: it is the upload's that counts.
    download(&erin, &of_acme).await;
    download(&carol, &of_globex).await;
    abort(&alice).await;

    let told = |received: Vec<Received>| -> Vec<_> {
        let pairs = received.iter().map(|one| (one.event_type(), one.upload()));
        pairs.collect::<BTreeSet<_>>().into_iter().collect()
    };
    let (confirmed, issued) = ("upload.confirmed".to_owned(), "download.issued".to_owned());
    let of = |upload: &Value| id(upload).to_owned();
    let all = told(everything.until_taken(4).await);
    assert_eq!(all.iter().filter(|(event, _)| *event == confirmed).count(), 3);
    assert_eq!(all.iter().filter(|(event, _)| event == "upload.aborted").count(), 1);
    assert!(all.contains(&(confirmed.clone(), of(&of_alice))), "{all:?}");
    let mut both = vec![(confirmed.clone(), of(&of_acme)), (confirmed.clone(), of(&of_globex))];
    both.sort();
    assert_eq!(told(shared.until_taken(2).await), both);
    assert_eq!(told(acme.until_taken(2).await), [(issued.clone(), of(&of_acme)), (confirmed, of(&of_acme))]);
    let mut both = vec![(issued.clone(), of(&of_acme)), (issued, of(&of_globex))];
    both.sort();
    assert_eq!(told(downloads.until_taken(2).await), both);
    assert!(ours.until_taken(2).await.iter().all(|one| one.event()["data"]["issuer"] == ISSUER));
    // The abort was the last event of all, and it has arrived.
    let counts = [&everything, &shared, &acme, &downloads, &ours].map(|receiver| receiver.received().len());
    assert_eq!(counts, [4, 2, 2, 2, 2]);
    app.end().await;
}

async fn signatures(backend: Backend) {
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let new = format!("whsec_{}", STANDARD.encode([7; 24]));
    let keys = format!("keys = [{{ secret = \"{new}\" }}, {{ secret = \"{KEY}\" }}]");
    let app = TestApp::start_with(&backend, options(section("", &[("app", receiver.url(), &keys)]))).await;
    let before = app.clock.now().timestamp();
    upload(&app.user("alice")).await;
    let [only] = &receiver.until_taken(1).await[..] else { panic!("one event") };
    assert!(only.head.starts_with("POST /hooks HTTP/1.1\r\n"), "{}", only.head);
    let header = |name: &str| only.headers[name].as_str();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("user-agent"), format!("presignd/{}", env!("CARGO_PKG_VERSION")));
    let at: i64 = header("webhook-timestamp").parse().expect("seconds");
    assert!((before..=app.clock.now().timestamp()).contains(&at), "{at}");
    let expected = format!("{} {}", signature(only, &new), signature(only, KEY));
    assert_eq!(header("webhook-signature"), expected);
    assert!(!only.id().contains('.'), "the parts of what is signed are told apart by full stops");
    app.end().await;
}

async fn order(backend: Backend) {
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let events = "events = [\"upload.confirmed\", \"download.issued\"]";
    let clock = manual();
    let settings = section("", &[("app", receiver.url(), events)]);
    let app = TestApp::start_with(&backend, AppOptions { clock: clock.clone(), ..options(settings) }).await;
    let alice = app.user("alice");
    receiver.set(Mood::Answer(500));
    let mut expected = BTreeMap::new();
    for _ in 0..3 {
        let upload = upload(&alice).await;
        let mut ids = vec![id(&upload).to_owned()];
        for _ in 0..3 {
            advance(&clock, TimeDelta::milliseconds(1));
            ids.push(id(&download(&alice, &upload).await).to_owned());
        }
        expected.insert(id(&upload).to_owned(), ids);
    }
    // By a clock that is behind the one that confirmed.
    let upload = upload(&alice).await;
    advance(&clock, -TimeDelta::seconds(1));
    let issued = download(&alice, &upload).await;
    expected.insert(id(&upload).to_owned(), vec![id(&upload).to_owned(), id(&issued).to_owned()]);
    advance(&clock, TimeDelta::seconds(2));
    // The first of each has failed, and the later ones are due, but not their turn.
    until_attempts(&alice, "app", "failed", 4).await;
    assert!(types(&receiver.received()).iter().all(|event| event == "upload.confirmed"));
    receiver.set(Mood::Answer(200));
    advance(&clock, TimeDelta::seconds(6));
    let mut order: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut times: BTreeMap<String, Vec<DateTime<Utc>>> = BTreeMap::new();
    for one in receiver.until_taken(14).await {
        times.entry(one.upload()).or_default().push(one.event()["timestamp"].as_str().unwrap().parse().unwrap());
        order.entry(one.upload()).or_default().push(one.event()["data"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(order, expected);
    assert!(times.values().all(|times| times.is_sorted_by(|earlier, later| earlier < later)), "{times:?}");
    app.end().await;
}

async fn bad_endpoint(backend: Backend) {
    let (bad, good) = (WebhookReceiver::start(&backend.runtime).await, WebhookReceiver::start(&backend.runtime).await);
    bad.set(Mood::Hang);
    let endpoints = [("bad", bad.url(), ""), ("good", good.url(), "")];
    let app = TestApp::start_with(&backend, options(section("timeout = \"2m\"\nconcurrency = 2", &endpoints))).await;
    let alice = app.user("alice");
    for _ in 0..8 {
        abort(&alice).await;
    }
    good.until_taken(8).await;
    // All that time the bad one had as much under way as it may have, and no attempt came to an end.
    let waiting = bad.until(|received| received.len() >= 2).await;
    assert_eq!(waiting.len(), 2, "{waiting:#?}");
    until_attempts(&alice, "good", "delivered", 8).await;
    let failed = alice.metric("presignd_webhook_attempts_total{endpoint=\"bad\",outcome=\"failed\"}").await;
    assert_eq!(failed, Some(0));
    let pending = async || alice.metric("presignd_webhook_pending_deliveries{endpoint=\"bad\"}").await;
    eventually(PATIENCE, async || (pending().await? == 8).then_some(())).await;
    // Or stopping would wait for it.
    drop(bad);
    app.end().await;
}

async fn kept_back(backend: Backend) {
    const MORE: usize = 2_500;
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    receiver.set(Mood::Answer(500));
    let clock = manual();
    let events = "events = [\"upload.confirmed\", \"download.issued\"]";
    let settings = section("first_retry = \"1h\"\nlongest_retry = \"1h\"", &[("app", receiver.url(), events)]);
    let app = TestApp::start_with(&backend, AppOptions { clock: clock.clone(), ..options(settings) }).await;
    let alice = app.user("alice");
    let upload = upload(&alice).await;
    until_attempts(&alice, "app", "failed", 1).await;
    // As downloads of a file that many want: later than the first, and due.
    app.database.psql(&format!(
        "INSERT INTO webhook_deliveries (event_id, endpoint, upload_id, event_type, payload, state, attempts, \
         next_attempt_at, created_at) \
         SELECT (lpad(to_hex(x'ffff00000000'::bigint + n), 12, '0') || '70008000000000000000')::uuid, endpoint, \
         upload_id, 'download.issued', payload, state, 0, created_at, created_at \
         FROM webhook_deliveries, generate_series(1, {MORE}) AS n"
    ));
    let due = async || {
        let now = clock.now().to_rfc3339();
        let count = format!("SELECT count(*) FROM webhook_deliveries WHERE next_attempt_at <= '{now}'");
        (app.database.psql(&count).trim() == "0").then_some(())
    };
    eventually(PATIENCE, due).await;
    assert_eq!(receiver.received().len(), 1, "none has overtaken the first");
    receiver.set(Mood::Answer(200));
    advance(&clock, TimeDelta::hours(1) + TimeDelta::minutes(10));
    // One after the other, each as soon as the one before it has arrived, by a clock that stands still.
    let taken = receiver.until_taken(20).await;
    let ids: Vec<&str> = taken.iter().map(Received::id).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    assert_eq!(taken[0].event()["data"]["id"].as_str(), Some(id(&upload)));
    app.end().await;
}

async fn rolled_back(backend: Backend) {
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    let app = TestApp::start_with(&backend, options(section("", &[("app", receiver.url(), "")]))).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"12345", &put()).await;
    assert!(alice.send(&issued, b"12345").await.status.is_success());
    let state = || app.database.psql(&format!("SELECT state FROM upload_intents WHERE id = '{}'", id(&issued)));
    // The outbox takes nothing, so neither may the upload change.
    app.database.psql("ALTER TABLE webhook_deliveries ADD CONSTRAINT nothing CHECK (false) NOT VALID");
    assert!(alice.complete(&issued).await.status.is_server_error());
    assert_eq!(state().trim(), "issued");
    app.database.psql("ALTER TABLE webhook_deliveries DROP CONSTRAINT nothing");
    alice.complete(&issued).await.expect(StatusCode::OK);
    assert_eq!(state().trim(), "confirmed");
    abort(&alice).await;
    assert_eq!(receiver.until_taken(2).await.len(), 2);
    let confirmed = receiver.received().into_iter().filter(|one| one.event_type() == "upload.confirmed").count();
    assert_eq!(confirmed, 1);
    app.end().await;
}

async fn shared(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    receiver.set(Mood::Wait);
    let settings = section("concurrency = 2", &[("app", receiver.url(), "")]);
    let (first, alice) = ground.start(&settings, &Clock::System).await;
    let (second, bob) = ground.start(&settings, &Clock::System).await;
    for _ in 0..30 {
        abort(&alice).await;
    }
    // Neither sends more at a time, so nobody but both together has so many under way.
    receiver.until_waiting(4).await;
    for _ in 0..30 {
        assert!(receiver.waiting() <= 4);
        receiver.take_one();
    }
    let taken = receiver.until_taken(30).await;
    assert_eq!(taken.len(), 30);
    let series = "presignd_webhook_attempts_total{endpoint=\"app\",outcome=\"delivered\"}";
    let both = async || [alice.metric(series).await.unwrap(), bob.metric(series).await.unwrap()];
    let done = async || Some(both().await).filter(|[first, second]| first + second == 30);
    let ([of_first, of_second], _) = eventually(PATIENCE, done).await;
    assert!(of_first > 0 && of_second > 0, "{of_first} and {of_second}");
    assert_eq!(receiver.received().len(), 30, "nothing was sent by both");
    first.stop().await;
    second.stop().await;
    ground.end().await;
}

async fn killed(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let receiver = WebhookReceiver::start(&backend.runtime).await;
    receiver.set(Mood::Hang);
    let settings = section("timeout = \"10s\"", &[("app", receiver.url(), "")]);
    let mut program = crate::support::Program::start(ground.folder.path(), ground.settings(&settings));
    program.wait_ready();
    let held = abort(&program.user("alice")).await;
    receiver.until(|received| received.len() == 1).await;
    program.kill();
    receiver.set(Mood::Answer(200));

    let clock = manual();
    let (running, alice) = ground.start(&settings, &clock).await;
    let other = abort(&alice).await;
    let taken = receiver.until_taken(1).await;
    assert_eq!(taken[0].upload(), id(&other), "what is leased is left alone");
    // The time limit, and half a minute.
    advance(&clock, TimeDelta::seconds(41));
    let taken = receiver.until_taken(2).await;
    assert_eq!(taken[1].upload(), id(&held));
    assert_eq!(taken[1].id(), receiver.received()[0].id(), "it is the same event");
    running.stop().await;
    ground.end().await;
}

/// A service and its user, with one attempt under way that ends when the receiver is told to take it.
async fn under_way(ground: &Ground) -> (Running, Caller, WebhookReceiver) {
    let receiver = WebhookReceiver::start(&ground.backend.runtime).await;
    receiver.set(Mood::Wait);
    let (running, alice) = ground.start(&section("", &[("app", receiver.url(), "")]), &Clock::System).await;
    abort(&alice).await;
    receiver.until_waiting(1).await;
    (running, alice, receiver)
}

async fn late_answer(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let (running, _, receiver) = under_way(&ground).await;
    // As another process claims what it takes for given up.
    let claim = "UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at + interval '1 hour'";
    ground.database.psql(claim);
    receiver.take_one();
    // With it ends the attempt that is under way, and its record.
    running.stop().await;
    assert_eq!(receiver.received().len(), 1);
    let state = ground.database.psql("SELECT state, attempts FROM webhook_deliveries");
    assert_eq!(state.trim(), "pending|0", "it is the other process's to say what came of it");
    assert_eq!(ground.database.psql("SELECT count(*) FROM webhook_attempts").trim(), "0");
    ground.end().await;
}

async fn stopped(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let (running, alice, receiver) = under_way(&ground).await;
    let stopping = backend.runtime.spawn(running.stop());
    let refused = async || Reply::try_of(alice.request(Method::GET, "/healthz")).await.err();
    eventually(PATIENCE, refused).await;
    receiver.take_one();
    stopping.await.unwrap();
    let state = ground.database.psql("SELECT state, attempts FROM webhook_deliveries");
    assert_eq!(state.trim(), "delivered|1");
    assert_eq!(ground.database.psql("SELECT attempt, status FROM webhook_attempts").trim(), "1|200");
    ground.end().await;
}

async fn forgotten(backend: Backend) {
    let ground = Ground::new(&backend).await;
    let (good, bad) = (WebhookReceiver::start(&backend.runtime).await, WebhookReceiver::start(&backend.runtime).await);
    bad.set(Mood::Answer(410));
    let settings = section("retention = \"30d\"", &[("good", good.url(), ""), ("bad", bad.url(), "")]);
    let (running, alice) = ground.start(&settings, &Clock::System).await;
    abort(&alice).await;
    until_attempts(&alice, "good", "delivered", 1).await;
    until_attempts(&alice, "bad", "dead", 1).await;
    running.stop().await;
    let left = |table: &str| {
        ground
            .database
            .psql(&format!("SELECT string_agg(endpoint, ' ' ORDER BY endpoint) FROM {table}"))
            .trim()
            .to_owned()
    };
    let tables = ["webhook_deliveries", "webhook_attempts"];
    for (days, expected) in [(29, "bad good"), (31, "bad")] {
        // What maintenance forgets last, after a day, shows that it has been through. It takes 10,000 at a time.
        let outdated = "INSERT INTO idempotency_keys (issuer, subject, key, request_sha256, upload_id, created_at) \
                        SELECT 'i', 's', 'k' || n, sha256('x'), gen_random_uuid(), now() \
                        FROM generate_series(1, 10001) AS n";
        ground.database.psql(outdated);
        let clock = Clock::manual(Clock::System.now() + TimeDelta::days(days));
        let (running, _) = ground.start(&settings, &clock).await;
        let keys = || ground.database.psql("SELECT count(*) FROM idempotency_keys");
        eventually(PATIENCE, async || (keys().trim() == "0").then_some(())).await;
        assert_eq!(tables.map(left), [expected, expected]);
        running.stop().await;
    }
    ground.end().await;
}
