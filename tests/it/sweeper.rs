//! Uploads that nobody confirms, and what is left in the bucket of uploads that are settled.

use std::{
    future::pending,
    process::{Command, Output, Stdio},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use presignd::{
    clock::Clock,
    config::SweeperConfig,
    db::{Outcome, Settlement, UploadIntent},
    domain::{Rehearsal, SweepStatus, Sweeper},
    model::{IntentEvent, IntentId, IntentState, ObjectKey},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::audit::{ADMIN, administrator};
use crate::support::{
    AppOptions, Backend, ChaosProxy, Mood, Suite, TestApp, WebhookReceiver,
    app::{ISSUER, settings as settings_of},
    backend::BackendKind,
    caller::id,
    load::eventually,
    services::process::send_signal,
};

const BYTES: &[u8] = b"what was promised";
/// As long as [`BYTES`].
const OTHERS: &[u8] = b"not at all that..";

/// The default of the policies.
const GRACE: TimeDelta = TimeDelta::hours(1);

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("the_sweeper_confirms_what_a_vanished_client_sent", client_vanished);
    suite.everywhere("the_sweeper_runs_by_itself_and_counts", by_itself);
    suite.everywhere("an_upload_that_never_came_expires_and_is_forgotten", never_uploaded);
    suite.everywhere("what_arrived_in_time_is_confirmed_after_the_deadline", arrived_in_time);
    suite.everywhere("what_arrived_after_the_deadline_expires_and_is_removed", arrived_late);
    suite.everywhere("what_lands_after_the_first_look_is_removed_at_the_second", landed_late);
    suite.everywhere("a_form_replayed_after_an_abort_leaves_nothing", replayed_after_abort);
    suite.everywhere("a_form_replayed_after_confirmation_leaves_nothing", replayed_after_confirmation);
    suite.everywhere("what_a_crash_leaves_of_copies_is_removed", crashed_copies);
    suite.everywhere("two_sweepers_look_at_each_upload_once", two_sweepers);
    suite.everywhere("a_killed_sweeper_loses_nothing", killed);
    suite.everywhere("a_look_that_takes_its_time_keeps_nobody_else_waiting", slow_look);
    suite.everywhere("a_look_that_takes_its_time_keeps_its_upload", slow_look_keeps);
    suite.everywhere("stopping_gives_back_what_waits_for_its_look", stopped_while_some_wait);
    // These have another process at the database, or look into it, for which the embedded one has no connection.
    let real = &[BackendKind::Rgw, BackendKind::SeaweedFs];
    suite.on(real, "what_a_proxy_answers_without_a_store_ends_nothing", proxy_knows_nothing);
    suite.on(real, "a_row_that_cannot_be_read_keeps_no_other", unreadable_row);
    suite.everywhere("without_store_the_sweeper_postpones", store_away);
    suite.everywhere("a_renewal_keeps_an_upload_from_expiring", renewed);
    suite.everywhere("a_rehearsal_changes_nothing", rehearsed);
    suite.everywhere("stale_multipart_uploads_are_aborted_and_others_are_not", stale_multiparts);
    // The embedded store keeps one version of an object.
    let versioned = &[BackendKind::Rgw, BackendKind::SeaweedFs];
    suite.on(versioned, "no_version_is_left_of_an_upload_that_was_given_up", versions);
    suite.on(versioned, "no_version_is_left_of_an_upload_that_was_rejected", rejected_versions);
    suite.on(versioned, "uploads_of_another_bucket_are_left_alone", other_bucket);
    // PostgreSQL inside the process serves one connection, and this has another process at it.
    suite.on(versioned, "sweep_on_the_command_line_says_what_it_does", command_line);
    suite.on(versioned, "a_sweep_that_is_interrupted_does_not_say_that_nothing_is_due", interrupted);
}

/// A service whose clock stands still, starting with that of the store, and which sweeps when the test says so.
pub(crate) async fn app(backend: &Backend) -> TestApp {
    TestApp::start_with(backend, still()).await
}

pub(crate) fn still() -> AppOptions {
    AppOptions {
        settings: "[sweeper]\nenabled = false".to_owned(),
        clock: Clock::manual(Clock::System.now()),
        ..AppOptions::unscoped()
    }
}

fn settings() -> SweeperConfig {
    SweeperConfig { requests_per_second: 10_000, ..SweeperConfig::default() }
}

fn sweeper(app: &TestApp) -> Sweeper {
    Sweeper::new(app.running.service.clone(), &settings())
}

/// Sweeps until nothing is due. Gives what has been done in all.
pub(crate) async fn sweep(app: &TestApp) -> SweepStatus {
    let sweeper = sweeper(app);
    sweeper.sweep_due().await.expect("the database answers");
    sweeper.backlog().await.expect("the database answers");
    sweeper.progress().status()
}

fn row_id(issued: &Value) -> IntentId {
    id(issued).parse().unwrap()
}

pub(crate) async fn row(app: &TestApp, issued: &Value) -> UploadIntent {
    app.running.service.database.upload(row_id(issued)).await.unwrap().expect("a row")
}

async fn state(app: &TestApp, issued: &Value) -> IntentState {
    row(app, issued).await.state
}

fn instant(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("an instant").parse().expect("an instant")
}

/// Sets the clock to this long after the end of the upload's URL.
fn after_expiry(app: &TestApp, issued: &Value, delta: TimeDelta) {
    app.clock.set(instant(&issued["expires_at"]) + delta);
}

/// All keys in the bucket.
pub(crate) async fn keys(app: &TestApp) -> Vec<String> {
    let listed = app.bucket.s3.list_objects_v2().bucket(&app.bucket.bucket).send().await.expect("a listing");
    listed.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
}

/// Writes behind the service's back.
pub(crate) async fn put(app: &TestApp, key: &str, bytes: &[u8]) {
    let request = app.bucket.s3.put_object().bucket(&app.bucket.bucket).key(key).body(bytes.to_vec().into());
    request.content_type("text/plain").send().await.expect("it is written");
}

async fn client_vanished(backend: Backend) {
    let app = app(&backend).await;
    let alice = app.user("alice");
    let (put, post) = (json!({ "method": "put" }), json!({ "method": "post" }));
    let issued = [alice.issue("a.txt", BYTES, &put).await, alice.issue("b.txt", BYTES, &post).await];
    for upload in &issued {
        assert!(alice.send(upload, BYTES).await.status.is_success());
    }
    after_expiry(&app, &issued[1], TimeDelta::seconds(59));
    assert_eq!(sweep(&app).await.looked, 0, "nothing is due yet");
    after_expiry(&app, &issued[1], TimeDelta::seconds(60));
    let done = sweep(&app).await;
    assert_eq!((done.looked, done.confirmed, done.failed), (2, 2, 0));
    for upload in &issued {
        let shown = alice.get(&format!("/api/v1/uploads/{}", id(upload))).await.expect(StatusCode::OK);
        assert_eq!((shown["state"].as_str(), shown["confirmed_via"].as_str()), (Some("confirmed"), Some("sweeper")));
    }
    assert_eq!(keys(&app).await.iter().filter(|key| key.starts_with("staging/")).count(), 0);
    app.end().await;
}

async fn by_itself(backend: Backend) {
    let clock = Clock::manual(Clock::System.now());
    let settings = "[sweeper]\ninterval = \"20ms\"\nmultipart_interval = \"20ms\"".to_owned();
    let options = AppOptions { settings, clock, ..AppOptions::unscoped() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", BYTES, &json!({ "method": "put" })).await;
    assert!(alice.send(&issued, BYTES).await.status.is_success());
    assert_eq!(state(&app, &issued).await, IntentState::Issued);
    after_expiry(&app, &issued, TimeDelta::minutes(1));
    let confirmed = async || (state(&app, &issued).await == IntentState::Confirmed).then_some(());
    eventually(Duration::from_secs(10), confirmed).await;
    let metrics = alice.get("/metrics").await.text();
    for line in ["presignd_sweeper_looks_total 1", "presignd_sweeper_confirmed_total 1"] {
        assert!(metrics.lines().any(|shown| shown == line), "no {line} in {metrics}");
    }
    app.end().await;
}

async fn never_uploaded(backend: Backend) {
    let app = app(&backend).await;
    let issued = app.user("alice").issue("a.txt", BYTES, &json!({})).await;
    after_expiry(&app, &issued, TimeDelta::minutes(1));
    sweep(&app).await;
    assert_eq!(state(&app, &issued).await, IntentState::Issued, "it may still be confirmed");
    after_expiry(&app, &issued, GRACE);
    sweep(&app).await;
    assert_eq!(state(&app, &issued).await, IntentState::Issued, "this is the last instant");
    after_expiry(&app, &issued, GRACE + TimeDelta::milliseconds(1));
    let done = sweep(&app).await;
    assert_eq!((state(&app, &issued).await, done.expired), (IntentState::Expired, 1));
    assert_eq!(row(&app, &issued).await.settled_via.as_deref(), Some("sweeper"));
    // The first look at what it left, and the last.
    after_expiry(&app, &issued, GRACE + TimeDelta::minutes(2));
    let first = sweep(&app).await;
    assert_eq!(first.looked, done.looked + 1);
    after_expiry(&app, &issued, GRACE + TimeDelta::hours(25));
    let last = sweep(&app).await;
    assert_eq!(last.looked, first.looked + 1);
    after_expiry(&app, &issued, TimeDelta::days(3650));
    assert_eq!(sweep(&app).await.looked, last.looked, "nothing is left to do");
    assert_eq!((last.deleted, last.failed, last.due), (0, 0, 0));
    app.end().await;
}

async fn arrived_in_time(backend: Backend) {
    let app = app(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", BYTES, &json!({ "method": "put" })).await;
    assert!(alice.send(&issued, BYTES).await.status.is_success());
    // As after an outage of everything.
    after_expiry(&app, &issued, TimeDelta::days(2));
    let done = sweep(&app).await;
    assert_eq!((state(&app, &issued).await, done.expired), (IntentState::Confirmed, 0));
    app.end().await;
}

async fn arrived_late(backend: Backend) {
    let app = app(&backend).await;
    app.clock.set(Clock::System.now() - TimeDelta::hours(2));
    let alice = app.user("alice");
    // Its URLs have ended by the store's clock, so the object comes by another way.
    let mut issued = Vec::new();
    for method in ["put", "post"] {
        let upload = alice.issue("a.txt", BYTES, &json!({ "method": method })).await;
        put(&app, row(&app, &upload).await.object_key.as_str(), BYTES).await;
        issued.push(upload);
    }
    after_expiry(&app, &issued[1], GRACE + TimeDelta::milliseconds(1));
    sweep(&app).await;
    for upload in &issued {
        assert_eq!(state(&app, upload).await, IntentState::Expired);
    }
    assert_eq!(keys(&app).await.len(), 2, "the row comes first");
    after_expiry(&app, &issued[1], GRACE + TimeDelta::minutes(2));
    assert_eq!(sweep(&app).await.deleted, 2);
    assert_eq!(keys(&app).await, Vec::<String>::new());
    app.end().await;
}

async fn landed_late(backend: Backend) {
    let app = app(&backend).await;
    let issued = app.user("alice").issue("a.txt", BYTES, &json!({ "method": "put" })).await;
    after_expiry(&app, &issued, GRACE + TimeDelta::minutes(1));
    sweep(&app).await;
    after_expiry(&app, &issued, GRACE + TimeDelta::minutes(3));
    sweep(&app).await;
    put(&app, row(&app, &issued).await.object_key.as_str(), BYTES).await;
    after_expiry(&app, &issued, GRACE + TimeDelta::hours(23));
    sweep(&app).await;
    assert_eq!(keys(&app).await.len(), 1, "the second look comes when no transfer can be under way");
    after_expiry(&app, &issued, GRACE + TimeDelta::hours(25));
    assert_eq!(sweep(&app).await.deleted, 1);
    assert_eq!(keys(&app).await, Vec::<String>::new());
    assert_eq!(state(&app, &issued).await, IntentState::Expired);
    app.end().await;
}

async fn replayed_after_abort(backend: Backend) {
    let app = app(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", BYTES, &json!({ "method": "post" })).await;
    assert!(alice.send(&issued, BYTES).await.status.is_success());
    alice.delete(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
    assert_eq!(keys(&app).await, Vec::<String>::new());
    assert!(alice.send(&issued, BYTES).await.status.is_success(), "the form is still good");
    assert_eq!(keys(&app).await.len(), 1);
    after_expiry(&app, &issued, TimeDelta::minutes(1));
    assert_eq!(sweep(&app).await.deleted, 1);
    assert_eq!(keys(&app).await, Vec::<String>::new());
    assert_eq!(state(&app, &issued).await, IntentState::Aborted);
    app.end().await;
}

async fn replayed_after_confirmation(backend: Backend) {
    let app = app(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", BYTES, &json!({ "method": "post" })).await;
    assert!(alice.send(&issued, BYTES).await.status.is_success());
    alice.complete(&issued).await.expect(StatusCode::OK);
    let kept = keys(&app).await;
    assert!(alice.send(&issued, OTHERS).await.status.is_success(), "the form is still good");
    assert_eq!(keys(&app).await.len(), 2);
    assert_eq!(alice.download(&issued).await.bytes, BYTES);
    after_expiry(&app, &issued, TimeDelta::minutes(1));
    assert_eq!(sweep(&app).await.deleted, 1);
    assert_eq!(keys(&app).await, kept);
    // Once more when no form can be under way, and never the verified object.
    put(&app, row(&app, &issued).await.object_key.as_str(), OTHERS).await;
    after_expiry(&app, &issued, GRACE + TimeDelta::hours(25));
    assert_eq!(sweep(&app).await.deleted, 2);
    assert_eq!(keys(&app).await, kept);
    after_expiry(&app, &issued, TimeDelta::days(3650));
    assert_eq!(sweep(&app).await.looked, 2, "nothing is left to do");
    app.clock.set(Clock::System.now());
    assert_eq!(alice.download(&issued).await.bytes, BYTES);
    app.end().await;
}

/// A process may die after each of the steps of a confirmation: with a copy that was announced, made, or confirmed.
async fn crashed_copies(backend: Backend) {
    let app = app(&backend).await;
    let alice = app.user("alice");
    let database = &app.running.service.database;
    let issued = alice.issue("a.txt", BYTES, &json!({ "method": "post" })).await;
    assert!(alice.send(&issued, BYTES).await.status.is_success());
    let upload = row(&app, &issued).await;
    let copies: Vec<ObjectKey> =
        ["0", "1", "2"].iter().map(|digit| upload.object_key.copied(&digit.repeat(16)).unwrap()).collect();
    let now = app.clock.now();
    for copy in &copies {
        database.begin_copy(upload.id, copy, now).await.unwrap();
    }
    put(&app, copies[1].as_str(), BYTES).await;
    alice.complete(&issued).await.expect(StatusCode::OK);
    let verified = row(&app, &issued).await.verified_key().to_string();
    assert_eq!(keys(&app).await.len(), 2);

    after_expiry(&app, &issued, TimeDelta::minutes(1));
    assert_eq!(sweep(&app).await.deleted, 1);
    assert_eq!(keys(&app).await, std::slice::from_ref(&verified));
    // One that was still being made at the first look.
    put(&app, copies[2].as_str(), BYTES).await;
    after_expiry(&app, &issued, GRACE + TimeDelta::hours(25));
    assert_eq!(sweep(&app).await.deleted, 2);
    assert_eq!(keys(&app).await, [verified]);
    assert_eq!(database.copies_of(upload.id).await.unwrap(), []);

    // Young ones are whoever's who makes them, until the next look.
    let young = alice_aborted(&app).await;
    let copy = young.object_key.copied(&"3".repeat(16)).unwrap();
    after_expiry(&app, &json!({ "expires_at": young.expires_at }), GRACE + TimeDelta::days(2));
    database.begin_copy(young.id, &copy, app.clock.now()).await.unwrap();
    put(&app, copy.as_str(), BYTES).await;
    sweep(&app).await;
    assert!(keys(&app).await.contains(&copy.to_string()));
    app.clock.set(app.clock.now() + TimeDelta::minutes(2));
    sweep(&app).await;
    assert!(!keys(&app).await.contains(&copy.to_string()));
    assert_eq!(database.copies_of(young.id).await.unwrap(), []);
    app.end().await;
}

async fn alice_aborted(app: &TestApp) -> UploadIntent {
    app.clock.set(Clock::System.now());
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", BYTES, &json!({ "method": "post" })).await;
    alice.delete(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
    row(app, &issued).await
}

async fn two_sweepers(backend: Backend) {
    let app = app(&backend).await;
    let alice = app.user("alice");
    let put = json!({ "method": "put" });
    let issued = join_all((0..30).map(|_| alice.issue("a.txt", BYTES, &put))).await;
    after_expiry(&app, issued.last().unwrap(), TimeDelta::minutes(1));
    let small = SweeperConfig { batch: 7, ..settings() };
    let sweepers = [(); 3].map(|()| Sweeper::new(app.running.service.clone(), &small));
    for swept in join_all(sweepers.iter().map(Sweeper::sweep_due)).await {
        swept.expect("the database answers");
    }
    assert_eq!(sweepers[0].progress().status().looked, 30, "each is looked at once, by one of them");
    drop(sweepers);
    app.end().await;
}

async fn app_with_proxy(backend: &Backend) -> (TestApp, ChaosProxy) {
    let mut options = still();
    options.settings.push_str("\n[s3]\nrequest_timeout = \"300ms\"");
    TestApp::start_behind_store_proxy(backend, options).await
}

async fn killed(backend: Backend) {
    let (app, proxy) = app_with_proxy(&backend).await;
    let alice = app.user("alice");
    let mut issued = Vec::new();
    for method in ["put", "post", "put"] {
        let upload = alice.issue("a.txt", BYTES, &json!({ "method": method })).await;
        assert!(alice.send(&upload, BYTES).await.status.is_success());
        issued.push(upload);
    }
    after_expiry(&app, &issued[2], TimeDelta::minutes(1));
    // It has taken them and asks the store.
    proxy.stall();
    let dying = sweeper(&app);
    let progress = dying.progress().clone();
    let task = backend.runtime.spawn(async move { dying.sweep_due().await });
    eventually(Duration::from_secs(10), async || (progress.status().looked == 3).then_some(())).await;
    task.abort();
    assert!(task.await.expect_err("it was killed").is_cancelled());
    proxy.heal();

    assert_eq!(sweep(&app).await.looked, 3, "until the lease ends they are taken");
    app.clock.set(app.clock.now() + TimeDelta::minutes(15));
    let done = sweep(&app).await;
    assert_eq!((done.looked, done.confirmed), (6, 3));
    for upload in &issued {
        assert_eq!(state(&app, upload).await, IntentState::Confirmed);
    }
    app.end().await;
}

/// A service whose store will not answer for the first of the uploads that were sent, and those.
async fn sent_two(backend: &Backend) -> (TestApp, ChaosProxy, [Value; 2]) {
    let mut options = still();
    options.settings.push_str("\n[s3]\nrequest_timeout = \"1m\"");
    let (app, proxy) = TestApp::start_behind_store_proxy(backend, options).await;
    let alice = app.user("alice");
    let put = json!({ "method": "put" });
    let issued = [alice.issue("slow.txt", BYTES, &put).await, alice.issue("a.txt", BYTES, &put).await];
    for upload in &issued {
        assert!(alice.send(upload, BYTES).await.status.is_success());
    }
    proxy.hold("slow.txt");
    (app, proxy, issued)
}

async fn slow_look(backend: Backend) {
    let (app, proxy, [slow, quick]) = sent_two(&backend).await;
    let settings = SweeperConfig { interval: Duration::from_millis(20), concurrency: 2, batch: 1, ..settings() };
    let sweeping = backend.runtime.spawn(Sweeper::new(app.running.service.clone(), &settings).sweep_until(pending()));
    let confirmed = async |upload: &Value| (state(&app, upload).await == IntentState::Confirmed).then_some(());
    after_expiry(&app, &quick, TimeDelta::minutes(1));
    eventually(Duration::from_secs(10), || confirmed(&quick)).await;
    eventually(Duration::from_secs(10), async || (proxy.held() == 1).then_some(())).await;
    // In a later round as well.
    let later = app.user("alice").issue("b.txt", BYTES, &json!({ "method": "put" })).await;
    assert!(app.user("alice").send(&later, BYTES).await.status.is_success());
    after_expiry(&app, &later, TimeDelta::minutes(1));
    eventually(Duration::from_secs(10), || confirmed(&later)).await;
    assert_eq!(state(&app, &slow).await, IntentState::Issued);
    proxy.heal();
    eventually(Duration::from_secs(10), || confirmed(&slow)).await;
    sweeping.abort();
    assert!(sweeping.await.expect_err("it was ended").is_cancelled());
    app.end().await;
}

async fn stopped_while_some_wait(backend: Backend) {
    let (app, proxy, [slow, waiting]) = sent_two(&backend).await;
    let settings = SweeperConfig { interval: Duration::from_millis(20), concurrency: 1, batch: 2, ..settings() };
    let (stop, stopped) = oneshot::channel();
    let sweeper = Sweeper::new(app.running.service.clone(), &settings);
    let sweeping = backend.runtime.spawn(sweeper.sweep_until(async move { stopped.await.expect("it is told") }));
    proxy.hold(&app.bucket.bucket);
    after_expiry(&app, &waiting, TimeDelta::minutes(1));
    eventually(Duration::from_secs(10), async || (proxy.held() == 1).then_some(())).await;
    let due = async || {
        let database = &app.running.service.database;
        database.due_uploads(&app.bucket.bucket, app.clock.now(), None, 10).await.expect("an answer")
    };
    assert!(due().await.is_empty(), "both are taken");
    stop.send(()).expect("it listens");
    sweeping.await.expect("it ends");
    let due = due().await;
    assert_eq!(due.len(), 1, "which of them was begun is not known, and the other is anybody's at once");
    proxy.heal();
    assert_eq!(sweep(&app).await.confirmed, 1);
    app.clock.set(app.clock.now() + TimeDelta::minutes(15));
    sweep(&app).await;
    for upload in [&slow, &waiting] {
        assert_eq!(state(&app, upload).await, IntentState::Confirmed);
    }
    app.end().await;
}

/// What a proxy in front of the store answers while there is no store behind it.
async fn proxy_knows_nothing(backend: Backend) {
    let proxy = WebhookReceiver::start(&backend.runtime).await;
    proxy.set(Mood::Answer(404));
    let alter = async |settings: &mut toml::Table| {
        let s3 = settings["s3"].as_table_mut().unwrap();
        let direct = s3["endpoint"].clone();
        s3.insert("endpoint".to_owned(), format!("http://{}", proxy.address).into());
        s3.insert("public_endpoint".to_owned(), direct);
    };
    let app = TestApp::start_altered(&backend, still(), alter).await;
    let alice = app.user("alice");
    let put = json!({ "method": "put" });
    let issued = [alice.issue("a.txt", BYTES, &put).await, alice.issue("b.txt", BYTES, &put).await];
    for upload in &issued {
        assert!(alice.send(upload, BYTES).await.status.is_success());
    }
    after_expiry(&app, &issued[1], GRACE + TimeDelta::minutes(1));
    let done = sweep(&app).await;
    assert_eq!((done.looked, done.failed, done.expired), (2, 2, 0), "that is nothing that the store has said");
    app.user("alice").complete(&issued[0]).await.expect_problem(503, "storage_unavailable");
    app.clock.set(app.clock.now() + TimeDelta::hours(2));
    let back = app.twin("[sweeper]\nenabled = false").await;
    Sweeper::new(back.service.clone(), &settings()).sweep_due().await.expect("an answer");
    back.stop().await;
    for upload in &issued {
        assert_eq!(state(&app, upload).await, IntentState::Confirmed, "it had arrived in time");
    }
    app.end().await;
}

/// As a later version may write, or somebody by hand.
async fn unreadable_row(backend: Backend) {
    let app = app(&backend).await;
    let alice = app.user("alice");
    let put = json!({ "method": "put" });
    let issued = [alice.issue("a.txt", BYTES, &put).await, alice.issue("b.txt", BYTES, &put).await];
    for upload in &issued {
        assert!(alice.send(upload, BYTES).await.status.is_success());
    }
    let odd = format!("UPDATE upload_intents SET content_type = '' WHERE id = '{}'", id(&issued[0]));
    app.database.psql(&odd);
    after_expiry(&app, &issued[1], TimeDelta::minutes(1));
    let done = sweep(&app).await;
    assert_eq!((done.looked, done.confirmed), (1, 1), "one that cannot be read keeps no other");
    assert_eq!(state(&app, &issued[1]).await, IntentState::Confirmed);
    app.end().await;
}

async fn slow_look_keeps(backend: Backend) {
    let (app, proxy, [slow, quick]) = sent_two(&backend).await;
    after_expiry(&app, &quick, TimeDelta::minutes(1));
    let settings = SweeperConfig { lease: Duration::from_secs(1), ..settings() };
    let slowly = Sweeper::new(app.running.service.clone(), &settings);
    let lease_end = app.clock.now() + TimeDelta::seconds(1);
    let sweeping = backend.runtime.spawn(async move { slowly.sweep_due().await });
    eventually(Duration::from_secs(10), async || (proxy.held() == 1).then_some(())).await;
    app.clock.set(lease_end - TimeDelta::milliseconds(1));
    let (database, bucket) = (&app.running.service.database, &app.bucket.bucket);
    let taken_until = async || {
        let taken = database.due_uploads(bucket, lease_end + TimeDelta::hours(1), None, 10).await.expect("an answer");
        taken.iter().find(|(_, upload)| upload.id == row_id(&slow)).map(|(until, _)| *until)
    };
    eventually(Duration::from_secs(10), async || taken_until().await.filter(|until| *until > lease_end)).await;
    app.clock.set(lease_end);
    let looked = app.running.service.sweep_progress.status().looked;
    assert_eq!(sweep(&app).await.looked, looked, "it is looked at");
    proxy.heal();
    sweeping.await.expect("it ends").expect("the database answers");
    assert_eq!(state(&app, &slow).await, IntentState::Confirmed);
    app.end().await;
}

async fn store_away(backend: Backend) {
    let (app, proxy) = app_with_proxy(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", BYTES, &json!({ "method": "put" })).await;
    assert!(alice.send(&issued, BYTES).await.status.is_success());
    let unsent = alice.issue("a.txt", BYTES, &json!({ "method": "put" })).await;
    proxy.cut();
    after_expiry(&app, &unsent, TimeDelta::days(2));
    let failed = sweep(&app).await;
    assert_eq!((failed.looked, failed.failed, failed.expired), (2, 2, 0));
    for upload in [&issued, &unsent] {
        assert_eq!(state(&app, upload).await, IntentState::Issued, "nobody expires what nobody has looked at");
    }
    proxy.heal();
    assert_eq!(sweep(&app).await.looked, 2, "it is postponed");
    app.clock.set(app.clock.now() + TimeDelta::hours(1));
    sweep(&app).await;
    assert_eq!(state(&app, &issued).await, IntentState::Confirmed);
    assert_eq!(state(&app, &unsent).await, IntentState::Expired);
    app.end().await;
}

async fn renewed(backend: Backend) {
    let app = app(&backend).await;
    let issued = app.user("alice").issue("a.txt", BYTES, &json!({})).await;
    let seen = row(&app, &issued).await;
    after_expiry(&app, &issued, GRACE);
    let renew = format!("/api/v1/uploads/{}/renew", id(&issued));
    let again = app.user("alice").post_nothing(&renew).await.expect(StatusCode::OK);
    // Whoever looked before the renewal finds that its time has run out.
    after_expiry(&app, &issued, GRACE + TimeDelta::seconds(1));
    let expire = Settlement {
        event: IntentEvent::Expire,
        via: None,
        at: app.clock.now(),
        object: None,
        mismatches: None,
        has_leftovers: true,
    };
    let outcome = app.running.service.database.settle_upload(seen.id, &expire, |_| Vec::new()).await.unwrap();
    assert!(matches!(&outcome, Outcome::NotAllowed(row) if row.state == IntentState::Issued), "{outcome:?}");
    sweep(&app).await;
    assert_eq!(state(&app, &issued).await, IntentState::Issued);
    after_expiry(&app, &again, GRACE + TimeDelta::seconds(1));
    sweep(&app).await;
    assert_eq!(state(&app, &issued).await, IntentState::Expired);
    app.end().await;
}

async fn rehearsed(backend: Backend) {
    let options = AppOptions { settings: format!("{}\n{ADMIN}", still().settings), ..still() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let (put_it, post) = (json!({ "method": "put" }), json!({ "method": "post" }));
    let sent = alice.issue("a.txt", BYTES, &put_it).await;
    assert!(alice.send(&sent, BYTES).await.status.is_success());
    let wrong = alice.issue("a.txt", BYTES, &put_it).await;
    put(&app, row(&app, &wrong).await.object_key.as_str(), b"too short").await;
    alice.issue("a.txt", BYTES, &put_it).await;
    let revoked = app.user("mallory").issue("a.txt", BYTES, &put_it).await;
    assert!(alice.send(&revoked, BYTES).await.status.is_success());
    let user = json!({ "user": { "issuer": ISSUER, "subject": "mallory" } });
    administrator(&app).post(crate::revocations::PATH, &user).await.expect(StatusCode::OK);
    let aborted = alice.issue("a.txt", BYTES, &post).await;
    alice.delete(&format!("/api/v1/uploads/{}", id(&aborted))).await.expect(StatusCode::OK);
    assert!(alice.send(&aborted, BYTES).await.status.is_success());

    after_expiry(&app, &aborted, GRACE + TimeDelta::minutes(2));
    let service = &app.running.service;
    let now = app.clock.now();
    let due = async || {
        let due = service.database.due_uploads(&app.bucket.bucket, now, None, 100).await.unwrap();
        due.into_iter().map(|(at, upload)| (at, upload.id, upload.state)).collect::<Vec<_>>()
    };
    let (due_before, keys_before) = (due().await, keys(&app).await);
    let mut watched = 0;
    let rehearsal = sweeper(&app).rehearse(|_| watched += 1).await.unwrap();
    let expected =
        Rehearsal { due: 5, confirm: 1, reject: 1, abort: 1, expire: 1, tidy: 1, delete: 1, ..Rehearsal::default() };
    assert_eq!((rehearsal, watched), (expected, 5));
    assert_eq!((due().await, keys(&app).await), (due_before, keys_before));
    let done = sweep(&app).await;
    assert_eq!((done.confirmed, done.rejected, done.expired, done.deleted), (1, 1, 1, 1));
    app.end().await;
}

async fn stale_multiparts(backend: Backend) {
    /// More than a page.
    const ORPHANS: usize = 1_010;
    let options = still();
    let policies = options.policies.unwrap().replace("methods = [", "methods = [\"multipart\", ");
    let policies = policies + "\n[policy.signing]\nmethods = [\"credentials\"]\nupload.expires_in = \"15m\"\n";
    let app = TestApp::start_with(&backend, AppOptions { policies: Some(policies), unscoped: false, ..still() }).await;
    let (s3, bucket) = (&app.bucket.s3, &app.bucket.bucket);
    let open = row(&app, &app.user("alice").issue("a.txt", BYTES, &json!({ "method": "multipart" })).await).await;
    let aborted = alice_aborted(&app).await;
    let begin = async |key: String| {
        let begun = s3.create_multipart_upload().bucket(bucket).key(&key).send().await.expect("it is begun");
        (key, begun.upload_id().unwrap().to_owned())
    };
    let wanted = (open.object_key.to_string(), open.multipart().expect("it has parts").upload_id.to_owned());
    // One of the same key that no row names: its process died before it could be recorded.
    begin(open.object_key.to_string()).await;
    // Others', also where the name is a hash with an id's digits in it, an id of theirs from before all of ours, or a
    // thumbnail beside a file of ours.
    // By hand, because ids never go back in time, and other tests of this process have set clocks ahead.
    let id_at = |at: DateTime<Utc>, number: usize| format!("{:012x}7abc8{number:015x}", at.timestamp_millis());
    let now = app.clock.now();
    let [before, after] = ["2026-01-02T00:00:00Z".parse().unwrap(), now + TimeDelta::hours(1)].map(|at| id_at(at, 0));
    let own_id = open.id.hex();
    let foreign = [
        begin("somebody/else.bin".to_owned()).await,
        begin(format!("objects/{}{}", id_at(now, 0), "0f".repeat(16))).await,
        begin(format!("objects/{after}.bin")).await,
        begin(format!("objects/{before}.bin")).await,
        begin(format!("thumbnails/{own_id}.png")).await,
    ];
    // Into the staging area only this service's clients write, by credentials also where no upload is.
    begin("staging/x.bin".to_owned()).await;
    // By credentials, clients begin what no row names, and it is theirs as long as their upload is open.
    let alice = app.user("alice");
    let [signing, given_up] = [
        alice.issue("b.txt", BYTES, &json!({ "policy": "signing" })).await,
        alice.issue("c.txt", BYTES, &json!({ "policy": "signing" })).await,
    ];
    alice.delete(&format!("/api/v1/uploads/{}", id(&given_up))).await.expect(StatusCode::OK);
    let own = begin(signing["upload"]["key"].as_str().unwrap().to_owned()).await;
    // A copy of ours that takes its time.
    let copy = row(&app, &signing).await.object_key.copied(&"1".repeat(16)).unwrap();
    let copying = begin(copy.to_string()).await;
    begin(given_up["upload"]["key"].as_str().unwrap().to_owned()).await;
    begin(aborted.object_key.copied(&"0".repeat(16)).unwrap().to_string()).await;
    // A second after the oldest upload of the database: within a millisecond, no order is sure.
    let ids: Vec<_> = (0..ORPHANS).map(|number| id_at(now + TimeDelta::seconds(1), number)).collect();
    for some in ids.chunks(50) {
        join_all(some.iter().map(|id| begin(format!("uploads/{id}-a.txt")))).await;
    }
    assert_eq!(sweeper(&app).abort_stale_multiparts().await.unwrap(), 0, "they are young");

    app.clock.set(app.clock.now() + TimeDelta::hours(25));
    let rehearsal = sweeper(&app).rehearse(|_| ()).await.unwrap();
    assert_eq!(rehearsal.abort_multiparts, u64::try_from(ORPHANS).unwrap() + 4);
    assert_eq!(sweeper(&app).abort_stale_multiparts().await.unwrap(), rehearsal.abort_multiparts);
    let left = s3.list_multipart_uploads().bucket(bucket).send().await.expect("a listing");
    let mut left: Vec<_> =
        left.uploads().iter().map(|it| (it.key().unwrap().to_owned(), it.upload_id().unwrap().to_owned())).collect();
    left.sort();
    let mut spared = vec![wanted, own, copying];
    spared.extend(foreign);
    spared.sort();
    assert_eq!(left, spared);
    app.end().await;
}

pub(crate) async fn keep_versions(app: &TestApp) {
    use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};

    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let versioned = app.bucket.s3.put_bucket_versioning().bucket(&app.bucket.bucket);
    versioned.versioning_configuration(enabled).send().await.expect("it is versioned");
}

/// The keys of which there is a version or a delete marker, as often as there are.
async fn versioned_keys(app: &TestApp) -> Vec<String> {
    let left = app.bucket.s3.list_object_versions().bucket(&app.bucket.bucket).send().await.expect("a listing");
    let versions = left.versions().iter().map(|version| version.key());
    let markers = left.delete_markers().iter().map(|marker| marker.key());
    versions.chain(markers).map(|key| key.expect("a key").to_owned()).collect()
}

async fn versions(backend: Backend) {
    let app = app(&backend).await;
    keep_versions(&app).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", BYTES, &json!({ "method": "post" })).await;
    for _ in 0..2 {
        assert!(alice.send(&issued, BYTES).await.status.is_success());
    }
    alice.delete(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
    assert!(alice.send(&issued, BYTES).await.status.is_success());
    let key = row(&app, &issued).await.object_key;
    let beside = format!("{key}.beside");
    put(&app, &beside, BYTES).await;

    after_expiry(&app, &issued, TimeDelta::minutes(1));
    let done = sweep(&app).await;
    assert_eq!((done.deleted, done.failed), (1, 0));
    assert_eq!(versioned_keys(&app).await, [beside]);
    app.end().await;
}

/// What was copied to be looked at, and is not what it was declared as.
async fn rejected_versions(backend: Backend) {
    let mut options = still();
    options.policies = options.policies.map(|policies| policies.replacen("key = ", "sniff = \"reject\"\nkey = ", 1));
    let app = TestApp::start_with(&backend, options).await;
    keep_versions(&app).await;
    let alice = app.user("alice");
    let page = b"<!DOCTYPE html><script>alert(1)</script>";
    let issued = alice.issue("a.png", page, &json!({ "method": "post", "file_type": "image/png" })).await;
    assert!(alice.send(&issued, page).await.status.is_success());
    alice.complete(&issued).await.expect_problem(422, "upload_mismatch");
    let staged = row(&app, &issued).await.object_key;
    assert!(versioned_keys(&app).await.iter().all(|key| key == staged.as_str()), "the copy is gone with all versions");
    after_expiry(&app, &issued, TimeDelta::minutes(1));
    sweep(&app).await;
    assert_eq!(versioned_keys(&app).await, [""; 0]);
    app.end().await;
}

/// Somebody has changed `s3.bucket`, or two services share a database.
async fn other_bucket(backend: Backend) {
    let app = app(&backend).await;
    let alice = app.user("alice");
    let put = json!({ "method": "put" });
    let open = alice.issue("a.txt", BYTES, &put).await;
    assert!(alice.send(&open, BYTES).await.status.is_success());
    let confirmed = alice.upload("b.txt", BYTES, &put).await;
    app.database.psql("UPDATE upload_intents SET bucket = 'another'");
    let path = format!("/api/v1/uploads/{}", id(&open));
    for action in ["/renew", "/complete"] {
        alice.post_nothing(&format!("{path}{action}")).await.expect_problem(500, "internal");
    }
    alice.delete(&path).await.expect_problem(500, "internal");
    let asked = json!({ "upload_id": confirmed["id"] });
    alice.post("/api/v1/downloads", &asked).await.expect_problem(500, "internal");
    after_expiry(&app, &open, GRACE + TimeDelta::hours(1));
    sweep(&app).await;
    app.user("alice").post_nothing(&format!("{path}/complete")).await.expect_problem(500, "internal");
    assert_eq!(row(&app, &open).await.state, IntentState::Issued, "it is nobody's here to settle");

    app.database.psql(&format!("UPDATE upload_intents SET bucket = '{}'", app.bucket.bucket));
    sweep(&app).await;
    assert_eq!(row(&app, &open).await.state, IntentState::Confirmed, "it arrived in time");
    app.end().await;
}

/// The program with these arguments, on the parts of `app`.
pub(crate) fn program(app: &TestApp, arguments: &[&str]) -> Output {
    command(app, &settings_of_program(app), arguments).output().expect("timeout is installed")
}

fn settings_of_program(app: &TestApp) -> toml::Table {
    let mut settings = settings_of(&app.database, &app.bucket, &app.policies_file, "");
    settings["s3"].as_table_mut().unwrap().remove("sts");
    settings
}

/// With an empty environment, because variables win over the file.
fn command(app: &TestApp, settings: &toml::Table, arguments: &[&str]) -> Command {
    let file = app.folder().join("presignd.toml");
    std::fs::write(&file, settings.to_string()).expect("the configuration is written");
    let mut command = Command::new("env");
    command.args(["-i", "timeout", "60", env!("CARGO_BIN_EXE_presignd")]).args(arguments).arg("--config").arg(file);
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

async fn command_line(backend: Backend) {
    let app = app(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", BYTES, &json!({ "method": "put" })).await;
    assert!(alice.send(&issued, BYTES).await.status.is_success());
    let aborted = alice_aborted(&app).await;
    put(&app, aborted.object_key.as_str(), BYTES).await;
    // The program has the machine's clock.
    app.database.psql("UPDATE upload_intents SET look_at = now() - interval '1 hour'");
    let rehearsed = program(&app, &["sweep", "--dry-run"]);
    assert_eq!(rehearsed.status.code(), Some(0), "{rehearsed:?}");
    assert_eq!(
        stdout(&rehearsed).lines().collect::<Vec<_>>(),
        [
            "2 uploads are due; nothing was changed",
            "  1 would be confirmed, if their checksums are right",
            "  0 would be rejected",
            "  0 would be aborted: they have been revoked",
            "  0 would expire",
            "  0 would be waited for",
            "  1 are settled: 1 objects of theirs would be removed",
            "0 multipart uploads would be aborted",
        ]
    );
    assert_eq!(state(&app, &issued).await, IntentState::Issued);
    let swept = program(&app, &["sweep", "--once"]);
    assert_eq!(swept.status.code(), Some(0), "{swept:?}");
    assert_eq!(
        stdout(&swept).lines().collect::<Vec<_>>(),
        [
            "2 looks at uploads",
            "  1 confirmed, 0 rejected, 0 expired",
            "  1 objects removed",
            "0 multipart uploads aborted",
        ]
    );
    assert_eq!(state(&app, &issued).await, IntentState::Confirmed);
    assert_eq!(keys(&app).await, [row(&app, &issued).await.object_key.to_string()]);
    app.end().await;
}

async fn interrupted(backend: Backend) {
    let app = app(&backend).await;
    let issued = app.user("alice").issue("a.txt", BYTES, &json!({ "method": "put" })).await;
    // The program has the machine's clock.
    app.database.psql("UPDATE upload_intents SET look_at = now() - interval '1 hour'");
    let mut settings = settings_of_program(&app);
    let endpoint = settings["s3"]["endpoint"].as_str().unwrap();
    let (proxy, endpoint) = ChaosProxy::in_front_of(endpoint, &backend.runtime).await;
    settings["s3"]["endpoint"] = endpoint.into();
    proxy.stall();
    let mut sweep = command(&app, &settings, &["sweep", "--once"]);
    let child = sweep.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("timeout is installed");
    eventually(Duration::from_secs(30), async || proxy.has_kept().then_some(())).await;
    // timeout passes it on.
    send_signal("INT", &[child.id()]).expect("it runs");
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("interrupted"), "{ended:?}");
    assert_eq!(stdout(&ended).lines().next(), Some("1 looks at uploads"));
    assert_eq!(state(&app, &issued).await, IntentState::Issued);
    app.end().await;
}
