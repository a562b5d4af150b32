//! What an administrator has stopped is not honoured any more, in any process.

use std::time::Duration;

use chrono::TimeDelta;
use presignd::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    audit::{ADMIN, SOON, administrator, records, with_admin},
    clients::capability,
    support::{
        AppOptions, Backend, Caller, ChaosProxy, Reply, Suite, TestApp,
        app::{ISSUER, OTHER_ISSUER, POLICIES, TokenOptions},
        backend::BackendKind,
        caller::id,
        load::eventually,
    },
    sweeper::sweep,
};

pub(crate) const PATH: &str = "/api/v1/admin/revocations";

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_revocation_stops_what_is_outstanding", outstanding);
    suite.everywhere("a_revoked_upload_is_never_confirmed", never_confirmed);
    suite.everywhere("a_revocation_overtakes_a_confirmation_under_way", overtaken);
    suite.everywhere("a_revocation_says_when_the_last_url_ends", last_end);
    suite.everywhere("revocations_are_repeated_and_listed", repeated);
    suite.everywhere("an_administrator_of_a_tenant_stops_nobody_elses", bound);
    // The embedded PostgreSQL serves one process.
    suite.on(&[BackendKind::SeaweedFs], "a_revocation_drops_the_sessions_of_all_processes", all_processes);
    suite.on(&[BackendKind::SeaweedFs], "a_process_that_was_cut_off_makes_its_sessions_anew", cut_off);
}

fn user(subject: &str) -> Value {
    json!({ "user": { "issuer": ISSUER, "subject": subject } })
}

async fn revoke(admin: &Caller, body: &Value) -> Value {
    admin.post(PATH, body).await.expect(StatusCode::OK)
}

/// With parts, and without a client address that is checked twice.
fn options() -> AppOptions {
    let policies = POLICIES.replace("[\"post\", \"put\"]", "[\"post\", \"put\", \"multipart\"]");
    AppOptions { policies: Some(policies), ..with_admin() }
}

async fn outstanding(backend: Backend) {
    let app = TestApp::start_with(&backend, options()).await;
    let (admin, alice, bob) = (administrator(&app), app.user("alice"), app.user("bob"));
    let put = json!({ "method": "put" });
    let stopped = alice.issue("a.txt", b"12345", &put).await;
    let parts = alice.issue("b.txt", b"12345", &json!({ "method": "multipart" })).await;
    let (_, path) = capability(&alice, &json!({})).await;
    let theirs = bob.issue("c.txt", b"12345", &put).await;
    for (caller, upload) in [(&alice, &stopped), (&bob, &theirs)] {
        assert!(caller.send(upload, b"12345").await.status.is_success());
    }
    let key = |caller: &Caller| caller.request(Method::POST, "/api/v1/uploads").header("idempotency-key", "k");
    let body = json!({ "original_file_name": "d.txt", "file_size": 5, "method": "put" });
    let last = Reply::of(key(&alice).json(&body)).await.expect(StatusCode::CREATED);

    let revoked = revoke(&admin, &user("alice")).await;
    let ends = [&stopped, &parts, &last].map(|upload| upload["expires_at"].as_str().unwrap());
    assert_eq!(revoked["urls_live_until"].as_str(), ends.into_iter().max());
    let call = async |upload: &Value, action: &str, body: Value| {
        alice.post(&format!("/api/v1/uploads/{}{action}", id(upload)), &body).await
    };
    call(&stopped, "/renew", json!({})).await.expect_problem(410, "revoked");
    call(&stopped, "/complete", json!({})).await.expect_problem(410, "revoked");
    call(&stopped, "/complete", json!({ "token": stopped["callback"]["token"] })).await.expect_problem(410, "revoked");
    call(&parts, "/parts", json!({ "part_numbers": [1] })).await.expect_problem(410, "revoked");
    alice.get(&format!("/api/v1/uploads/{}/parts", id(&parts))).await.expect_problem(410, "revoked");
    Reply::of(key(&alice).json(&body)).await.expect_problem(410, "revoked");
    let used = app.anonymous().get(&format!("{path}/s3/params?filename=a.txt&type=text/plain")).await;
    assert_eq!((used.status, &used.json()["code"]), (StatusCode::UNAUTHORIZED, &json!("capability_invalid")));
    assert_eq!(alice.get(&format!("/api/v1/uploads/{}", id(&stopped))).await.json()["state"], "issued");

    // Nobody else is concerned, and the token is its issuer's to revoke.
    bob.complete(&theirs).await.expect(StatusCode::OK);
    alice.upload("e.txt", b"12345", &put).await;
    let (_, path) = capability(&alice, &json!({})).await;
    let used = app.anonymous().get(&format!("{path}/s3/params?filename=a.txt&type=text/plain")).await;
    assert_eq!(used.status, StatusCode::OK, "{}", used.text());

    // Everything.
    let late = bob.issue("f.txt", b"12345", &put).await;
    let now = app.clock.now() + TimeDelta::milliseconds(1);
    eventually(SOON, async || (app.clock.now() >= now).then_some(())).await;
    revoke(&admin, &json!({ "issued_before": now })).await;
    bob.post_nothing(&format!("/api/v1/uploads/{}/renew", id(&late))).await.expect_problem(410, "revoked");
    app.end().await;
}

async fn never_confirmed(backend: Backend) {
    let options = AppOptions {
        clock: Clock::manual(Clock::System.now()),
        settings: format!("{ADMIN}[sweeper]\nenabled = false\n"),
        ..AppOptions::default()
    };
    let app = TestApp::start_with(&backend, options).await;
    let (admin, alice) = (administrator(&app), app.user("alice"));
    let mut uploads = Vec::new();
    for method in ["put", "post"] {
        // Forms are scoped to no network here, because neither real store takes them otherwise.
        if method == "post" && backend.kind != BackendKind::Embedded {
            continue;
        }
        let upload = alice.issue("a.txt", b"12345", &json!({ "method": method })).await;
        assert!(alice.send(&upload, b"12345").await.status.is_success());
        uploads.push(upload);
    }
    revoke(&admin, &user("alice")).await;
    app.clock.set(app.clock.now() + TimeDelta::minutes(10));
    sweep(&app).await;
    let alice = app.user("alice");
    for upload in &uploads {
        let upload = alice.get(&format!("/api/v1/uploads/{}", id(upload))).await.expect(StatusCode::OK);
        assert_eq!(upload["state"], "aborted");
        alice.complete(&upload).await.expect_problem(409, "invalid_state");
    }
    app.clock.set(app.clock.now() + TimeDelta::minutes(10));
    sweep(&app).await;
    let listed = app.bucket.s3.list_objects_v2().bucket(&app.bucket.bucket).send().await.expect("a listing");
    assert_eq!(listed.key_count().unwrap_or_default(), 0, "{listed:?}");
    app.end().await;
}

async fn overtaken(backend: Backend) {
    let (app, proxy) = TestApp::start_behind_store_proxy(&backend, with_admin()).await;
    let (admin, alice) = (administrator(&app), app.user("alice"));
    let upload = alice.issue("a.txt", b"12345", &json!({ "method": "put" })).await;
    assert!(alice.send(&upload, b"12345").await.status.is_success());
    // It has seen that nothing is revoked when it asks the store.
    proxy.stall();
    let confirmation = backend.runtime.spawn({
        let (alice, upload) = (alice.clone(), upload.clone());
        async move { alice.complete(&upload).await }
    });
    eventually(SOON, async || proxy.has_kept().then_some(())).await;
    revoke(&admin, &user("alice")).await;
    proxy.heal();
    confirmation.await.unwrap().expect_problem(410, "revoked");
    let upload = alice.get(&format!("/api/v1/uploads/{}", id(&upload))).await.expect(StatusCode::OK);
    assert_ne!(upload["state"], "confirmed");
    app.end().await;
}

async fn last_end(backend: Backend) {
    let app = TestApp::start_with(&backend, options()).await;
    let (admin, alice, bob) = (administrator(&app), app.user("alice"), app.user("bob"));
    let put = json!({ "method": "put" });
    // Given up, and whoever has the URL can write all the same.
    let aborted = alice.issue("a.txt", b"12345", &put).await;
    alice.delete(&format!("/api/v1/uploads/{}", id(&aborted))).await.expect(StatusCode::OK);
    assert_eq!(revoke(&admin, &user("alice")).await["urls_live_until"], aborted["expires_at"]);
    let one = json!({ "upload_id": aborted["id"] });
    assert_eq!(revoke(&admin, &one).await["urls_live_until"], aborted["expires_at"]);

    // Renewed by a policy that gives less: the first URL is still the last to end.
    let long = bob.issue("b.txt", b"12345", &put).await;
    app.change_policies(&POLICIES.replace("upload.expires_in = \"5m\"", "upload.expires_in = \"1m\"")).await;
    let short = bob.post_nothing(&format!("/api/v1/uploads/{}/renew", id(&long))).await.expect(StatusCode::OK);
    assert!(short["expires_at"].as_str() < long["expires_at"].as_str(), "{short}");
    assert_eq!(revoke(&admin, &user("bob")).await["urls_live_until"], long["expires_at"]);

    // What is confirmed and cannot be written again counts no more.
    let carol = app.user("carol");
    carol.upload("c.txt", b"12345", &put).await;
    assert_eq!(revoke(&admin, &user("carol")).await["urls_live_until"], Value::Null);

    // A download counts where the store is asked, and not where this service is.
    let file = carol.upload("c.txt", b"12345", &put).await;
    let download = json!({ "upload_id": file["id"] });
    let issued = carol.post("/api/v1/downloads", &download).await.expect(StatusCode::CREATED);
    assert_eq!(revoke(&admin, &user("carol")).await["urls_live_until"], issued["expires_at"]);
    assert_eq!(revoke(&admin, &json!({ "upload_id": file["id"] })).await["urls_live_until"], issued["expires_at"]);
    assert_eq!(revoke(&admin, &user("dave")).await["urls_live_until"], Value::Null);
    app.end().await;
}

async fn repeated(backend: Backend) {
    let app = TestApp::start_with(&backend, with_admin()).await;
    let admin = administrator(&app);
    let upload = app.user("alice").issue("a.txt", b"12345", &json!({ "method": "put" })).await;
    let body = json!({ "user": { "issuer": ISSUER, "subject": "bob" }, "issued_before": "2026-01-01T00:00:00Z", "reason": "left" });
    let first = revoke(&admin, &body).await;
    assert_eq!(
        first,
        json!({
            "id": first["id"], "issuer": ISSUER, "subject": "bob", "tenant": null, "upload_id": null,
            "issued_before": "2026-01-01T00:00:00Z", "reason": "left", "revoked_at": first["revoked_at"],
            "revoked_by": { "issuer": ISSUER, "subject": "root" }, "urls_live_until": null,
        })
    );
    assert_eq!(revoke(&admin, &body).await, first, "repeating changes nothing");
    let earlier = json!({ "user": body["user"], "issued_before": "2025-01-01T00:00:00Z" });
    assert_eq!(revoke(&admin, &earlier).await, first, "an instant never moves back");
    let later = revoke(&admin, &json!({ "user": body["user"] })).await;
    assert!(later["issued_before"].as_str() > first["issued_before"].as_str(), "{later}");
    let of_upload = revoke(&admin, &json!({ "upload_id": upload["id"] })).await;
    assert_eq!(of_upload["upload_id"], upload["id"]);
    assert_eq!(of_upload["urls_live_until"], upload["expires_at"]);

    let page = admin.get(&format!("{PATH}?limit=1")).await.expect(StatusCode::OK);
    assert_eq!(page["revocations"][0]["id"], of_upload["id"]);
    let next = format!("{PATH}?cursor={}", page["next_cursor"].as_str().unwrap());
    let page = admin.get(&next).await.expect(StatusCode::OK);
    assert_eq!(page["revocations"].as_array().unwrap().len(), 1, "one for each target: {page}");
    assert_eq!((&page["revocations"][0]["id"], &page["next_cursor"]), (&later["id"], &Value::Null));

    let told = records(&admin, "kind=revoked").await;
    let ids: Vec<&Value> = told.iter().map(|record| &record["id"]).collect();
    assert_eq!(ids, [&of_upload["id"], &later["id"], &first["id"]], "each change once");
    assert_eq!((&told[2]["reason"], &told[2]["subject"]), (&json!("left"), &json!("bob")));
    assert_eq!(told[2]["actor"], json!({ "issuer": ISSUER, "subject": "root" }));
    assert_eq!(told[2]["client_network"], "127.0.0.1/32");

    app.user("alice").post(PATH, &body).await.expect_problem(403, "scope_missing");
    app.user("alice").get(PATH).await.expect_problem(403, "scope_missing");
    for wrong in [
        json!({}),
        json!({ "issued_before": app.clock.now() + TimeDelta::hours(1) }),
        json!({ "issued_before": "-10000-01-01T00:00:00Z" }),
        json!({ "issued_before": "1969-12-31T23:59:59Z" }),
        json!({ "user": body["user"], "upload_id": upload["id"] }),
        json!({ "user": { "issuer": ISSUER, "subject": "a\nb" } }),
        json!({ "user": { "issuer": "", "subject": "a" } }),
        json!({ "tenant": { "issuer": ISSUER } }),
        json!({ "user": [ISSUER, "a"] }),
        json!({ "tenant": [ISSUER, "a"] }),
    ] {
        admin.post(PATH, &wrong).await.expect_problem(422, "invalid_request");
    }
    admin.post(PATH, &json!({ "upload_id": "1" })).await.expect_problem(404, "not_found");
    app.end().await;
}

async fn bound(backend: Backend) {
    let app = TestApp::start_with(&backend, with_admin()).await;
    let boss = app.member("boss", "acme", &["manage"]);
    let (ours, theirs) = (app.member("carol", "acme", &[]), app.member("carol", "globex", &[]));
    let put = json!({ "method": "put" });
    let renew = async |caller: &Caller, upload: &Value| {
        caller.post_nothing(&format!("/api/v1/uploads/{}/renew", id(upload))).await
    };
    let (mine, other) = (ours.issue("a.txt", b"1", &put).await, theirs.issue("a.txt", b"1", &put).await);
    boss.post(PATH, &json!({ "upload_id": other["id"] })).await.expect_problem(404, "not_found");
    boss.post(PATH, &user("alice")).await.expect_problem(404, "not_found");
    let foreign = json!({ "tenant": { "issuer": OTHER_ISSUER, "tenant": "globex" } });
    boss.post(PATH, &foreign).await.expect_problem(404, "not_found");

    // The same name in another tenant is another person.
    let carol = json!({ "user": { "issuer": OTHER_ISSUER, "subject": "carol" } });
    assert_eq!(revoke(&boss, &carol).await["tenant"], "acme");
    renew(&ours, &mine).await.expect_problem(410, "revoked");
    renew(&theirs, &other).await.expect(StatusCode::OK);

    let mine = ours.issue("b.txt", b"1", &put).await;
    let now = app.clock.now() + TimeDelta::milliseconds(1);
    eventually(SOON, async || (app.clock.now() >= now).then_some(())).await;
    assert_eq!(revoke(&boss, &json!({ "issued_before": now })).await["tenant"], "acme");
    renew(&ours, &mine).await.expect_problem(410, "revoked");
    renew(&theirs, &other).await.expect(StatusCode::OK);

    revoke(&administrator(&app), &foreign).await;
    renew(&theirs, &other).await.expect_problem(410, "revoked");
    let listed = boss.get(PATH).await.expect(StatusCode::OK);
    assert_eq!(listed["revocations"].as_array().unwrap().len(), 2, "{listed}");
    app.end().await;
}

/// How many sessions the service has made.
async fn sessions_made(caller: &Caller) -> u64 {
    caller.metric("presignd_sts_assumed_total").await.expect("a metric")
}

async fn cut_off(backend: Backend) {
    let mut proxy = None;
    let alter = async |settings: &mut toml::Table| {
        let url = &mut settings["database"]["url"];
        let (cut, through) = ChaosProxy::in_front_of(url.as_str().unwrap(), &backend.runtime).await;
        cut.cut();
        *url = through.into();
        proxy = Some(cut);
    };
    let app = TestApp::start_altered(&backend, AppOptions::default(), alter).await;
    let alice = app.user("alice");
    let body = json!({ "original_file_name": "a.txt", "file_size": 1, "method": "put" });
    alice.post("/api/v1/uploads", &body).await.expect_problem(503, "database_unavailable");
    assert_eq!(sessions_made(&alice).await, 1, "it is made before the upload is recorded");
    let proxy = proxy.expect("the settings were altered");
    proxy.heal();
    let anew = async || {
        alice.post("/api/v1/uploads", &body).await;
        (sessions_made(&alice).await == 2).then_some(())
    };
    eventually(Duration::from_secs(30), anew).await;
    app.end().await;
}

async fn all_processes(backend: Backend) {
    let app = TestApp::start_with(&backend, with_admin()).await;
    let twin = app.twin(ADMIN).await;
    let there = Caller::new(format!("http://{}", twin.address), None, [127, 0, 0, 1].into());
    let alice = there.with_token(app.token(&TokenOptions::default()));
    let put = json!({ "method": "put" });
    let issued_with = async || {
        alice.issue("a.txt", b"1", &put).await;
        sessions_made(&there).await
    };
    assert_eq!((issued_with().await, issued_with().await), (1, 1));
    revoke(&administrator(&app), &user("mallory")).await;
    // Far less than a session would live.
    eventually(Duration::from_secs(20), async || (issued_with().await == 2).then_some(())).await;
    assert_eq!(issued_with().await, 2, "once");
    twin.stop().await;
    app.end().await;
}
