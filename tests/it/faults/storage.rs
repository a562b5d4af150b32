//! The store and its STS gone, while everything else is there.

use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use futures_util::future::join_all;
use presignd::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{RECOVERY, metric};
use crate::support::{
    AppOptions, Backend, ChaosProxy, TestApp,
    caller::{Reply, id},
    load::eventually,
};

const ASSUMED: &str = "presignd_sts_assumed_total";
const FAILED: &str = "presignd_sts_failed_total";

/// A service that reaches its STS through a proxy, and everything else directly.
async fn start_behind_sts_proxy(backend: &Backend, options: AppOptions) -> (TestApp, ChaosProxy) {
    let mut made = None;
    let alter = async |settings: &mut toml::Table| {
        let endpoint = settings["s3"]["endpoint"].as_str().unwrap();
        let (proxy, endpoint) = ChaosProxy::in_front_of(endpoint, &backend.runtime).await;
        settings["s3"]["sts"].as_table_mut().unwrap().insert("endpoint".to_owned(), endpoint.into());
        made = Some(proxy);
    };
    let app = TestApp::start_altered(backend, options, alter).await;
    (app, made.unwrap())
}

fn upload() -> Value {
    json!({ "original_file_name": "a.txt", "file_size": 5, "method": "put" })
}

pub(super) async fn without_sts(backend: Backend) {
    let (app, proxy) = start_behind_sts_proxy(&backend, AppOptions::default()).await;
    let alice = app.user("alice");
    alice.issue("a.txt", b"bytes", &json!({})).await;

    proxy.cut();
    let elsewhere = alice.at("127.0.0.11");
    for _ in 0..3 {
        let refused = elsewhere.post("/api/v1/uploads", &upload()).await;
        refused.expect_problem(503, "storage_unavailable");
        assert!(refused.headers.contains_key("retry-after"));
    }
    // The network with a session has all of its service, up to the bytes in the store.
    let confirmed = alice.upload("b.txt", b"bytes", &json!({ "method": "put" })).await;
    assert_eq!(confirmed["state"], "confirmed");

    proxy.heal();
    let served = async || {
        let reply = elsewhere.post("/api/v1/uploads", &upload()).await;
        (reply.status == StatusCode::CREATED).then(|| reply.json())
    };
    let (issued, took) = eventually(RECOVERY, served).await;
    eprintln!("measured: a new network is served {took:?} after STS is back");
    assert_eq!(issued["client_network"], "127.0.0.11/32");
    let sent = elsewhere.send(&issued, b"bytes").await;
    assert!(sent.status.is_success(), "{sent:?}");
    app.end().await;
}

pub(super) async fn session_runs_out(backend: Backend) {
    let start = Clock::System.now();
    let clock = Clock::manual(start);
    let settings = "[s3.sts]\nsession_duration = \"15m\"".to_owned();
    let options = AppOptions { settings, clock: clock.clone(), ..AppOptions::default() };
    let (app, proxy) = start_behind_sts_proxy(&backend, options).await;
    let alice = app.user("alice");
    let ends = |issued: &Value| issued["upload"]["expires_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let issued = alice.issue("a.txt", b"bytes", &json!({ "method": "put" })).await;
    assert!(ends(&issued) >= start + TimeDelta::seconds(299), "{issued}");

    proxy.cut();
    let session_end = start + TimeDelta::minutes(15);
    clock.set(session_end - TimeDelta::minutes(1));
    // What the session has left is less than the policy's five minutes, and no new one is to be had.
    let issued = alice.issue("a.txt", b"bytes", &json!({ "method": "put" })).await;
    assert!(ends(&issued) <= session_end, "{issued}");
    assert!(ends(&issued) >= session_end - TimeDelta::seconds(5), "{issued}");
    assert_eq!(issued["expires_at"], issued["upload"]["expires_at"]);

    clock.set(session_end - TimeDelta::seconds(2));
    alice.post("/api/v1/uploads", &upload()).await.expect_problem(503, "storage_unavailable");
    app.end().await;
}

/// An STS that is there and says nothing: each call lasts until its time is over, and must not be followed by the next
/// one for everybody who waited.
pub(super) async fn sts_hangs(backend: Backend) {
    let clock = Clock::manual(Clock::System.now());
    let settings = "[s3]\nrequest_timeout = \"400ms\"\n[s3.sts]\nsession_duration = \"15m\"".to_owned();
    let options = AppOptions { settings, clock: clock.clone(), ..AppOptions::default() };
    let (app, proxy) = start_behind_sts_proxy(&backend, options).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"bytes", &json!({ "method": "put" })).await;
    let session_end = clock.now() + TimeDelta::minutes(15);

    proxy.black_hole();
    let body = upload();
    let elsewhere = alice.at("127.0.0.13");
    let replies = join_all((0..20).map(|_| elsewhere.post("/api/v1/uploads", &body))).await;
    for reply in replies {
        reply.expect_problem(503, "storage_unavailable");
    }
    assert_eq!(metric(&alice, FAILED).await, 1, "one call for all of them");

    // What is left of the session that is held is nearly too short, and is there for whoever asks.
    clock.set(session_end - TimeDelta::seconds(310));
    let full = (clock.now() + TimeDelta::minutes(5)).trunc_subsecs(0);
    // The STS is not asked again right after it has failed.
    let (failed, _) = eventually(RECOVERY, async || {
        for reply in join_all((0..20).map(|_| alice.post("/api/v1/uploads", &body))).await {
            let issued = reply.expect(StatusCode::CREATED);
            assert_eq!(issued["expires_at"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap(), full);
        }
        let failed = metric(&alice, FAILED).await;
        (failed > 1).then_some(failed)
    })
    .await;
    assert_eq!(failed, 2, "one call for all of them");
    assert!(alice.send(&issued, b"bytes").await.status.is_success());
    app.end().await;
}

pub(super) async fn single_flight(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    alice.issue("a.txt", b"bytes", &json!({})).await;
    let before = metric(&alice, ASSUMED).await;
    let elsewhere = alice.at("127.0.0.12");
    let body = upload();
    let replies = join_all((0..50).map(|_| elsewhere.post("/api/v1/uploads", &body))).await;
    for reply in replies {
        assert_eq!(reply.expect(StatusCode::CREATED)["client_network"], "127.0.0.12/32");
    }
    assert_eq!(metric(&alice, ASSUMED).await, before + 1);
    app.end().await;
}

pub(super) async fn confirmation_without_store(backend: Backend) {
    let options = AppOptions { settings: "[s3]\nrequest_timeout = \"400ms\"".to_owned(), ..AppOptions::default() };
    let (app, proxy) = TestApp::start_behind_store_proxy(&backend, options).await;
    let alice = app.user("alice");
    // So that the connection which then fails has been in use.
    alice.upload("warm.txt", b"bytes", &json!({ "method": "put" })).await;

    for break_it in [ChaosProxy::cut, ChaosProxy::black_hole, ChaosProxy::stall] {
        let issued = alice.issue("a.txt", b"bytes", &json!({ "method": "put" })).await;
        assert!(alice.send(&issued, b"bytes").await.status.is_success());
        break_it(&proxy);
        let began = Instant::now();
        let refused = alice.complete(&issued).await;
        refused.expect_problem(503, "storage_unavailable");
        assert!(refused.headers.contains_key("retry-after"));
        // Three attempts, and the pauses between them.
        assert!(began.elapsed() < Duration::from_secs(6), "it took {:?}", began.elapsed());
        let shown = alice.get(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
        assert_eq!(shown["state"], "issued");

        proxy.heal();
        let confirmed = alice.complete(&issued).await.expect(StatusCode::OK);
        assert_eq!(confirmed["state"], "confirmed");
    }
    app.end().await;
}

/// What only a copy of an object has.
const COPY: &str = "x-amz-copy-source:";

/// A service whose store has been asked for a copy and does not answer, and the upload, which waits for it.
async fn start_over_a_copy(backend: &Backend) -> (TestApp, ChaosProxy, Value) {
    let (app, proxy) = TestApp::start_behind_store_proxy(backend, AppOptions::unscoped()).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"bytes", &json!({ "method": "post" })).await;
    assert!(alice.send(&issued, b"bytes").await.status.is_success());
    proxy.hold(COPY);
    tokio::select! {
        early = alice.complete(&issued) => panic!("the store has not answered: {early:?}"),
        _ = eventually(RECOVERY, async || (proxy.held() == 1).then_some(())) => {}
    }
    (app, proxy, issued)
}

pub(super) async fn copy_repeated(backend: Backend) {
    let (app, proxy, issued) = start_over_a_copy(&backend).await;
    let alice = app.user("alice");
    let path = format!("/api/v1/uploads/{}/complete", id(&issued));
    for _ in 0..2 {
        // Longer than it takes to ask for another copy.
        let again = alice.request(Method::POST, &path).timeout(Duration::from_secs(1));
        assert!(Reply::try_of(again).await.expect_err("the store has not answered").is_timeout());
        assert_eq!(proxy.held(), 1, "another copy");
    }
    proxy.heal();
    // Nobody has asked since.
    let confirmed = async || {
        let shown = alice.get(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
        (shown["state"] == "confirmed").then_some(shown)
    };
    let (confirmed, _) = eventually(RECOVERY, confirmed).await;
    assert_eq!(alice.download(&confirmed).await.bytes, b"bytes");
    assert_eq!(proxy.held(), 1);
    app.end().await;
}

pub(super) async fn stopped_over_a_copy(backend: Backend) {
    let (app, _proxy, _) = start_over_a_copy(&backend).await;
    tokio::time::timeout(RECOVERY, app.end()).await.expect("it stops");
}
