//! Downloads: who may read, for how long, from where, under which name.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    deliveries,
    support::{
        AppOptions, Backend, Caller, Reply, Suite, TestApp,
        app::{ISSUER, OTHER_ISSUER, POLICIES, TokenOptions},
        backend::BackendKind,
        caller::id,
    },
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("only_confirmed_uploads_are_downloaded", only_confirmed);
    suite.everywhere("the_policy_says_who_reads", readers);
    suite.everywhere("what_a_browser_would_run_is_only_saved", dispositions);
    suite.everywhere("a_download_has_the_name_that_was_asked_for", names);
    suite.everywhere("a_download_ends_when_it_says", expires_in);
    suite.everywhere("a_download_works_from_one_network", network);
    suite.everywhere("a_download_follows_the_policy_of_today", policy_of_today);
    // The embedded PostgreSQL has no connection to spare for looking and changing.
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "every_download_is_recorded", recorded);
    suite.on(&[BackendKind::SeaweedFs], "a_file_that_passes_for_several_types_is_only_saved", several_types);
}

fn put() -> Value {
    json!({ "method": "put" })
}

async fn issue(caller: &Caller, upload: &Value, more: Value) -> Reply {
    let mut body = json!({ "upload_id": upload["id"] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    caller.post("/api/v1/downloads", &body).await
}

async fn follow(caller: &Caller, issued: &Value) -> Reply {
    Reply::of(caller.http.get(issued["url"].as_str().unwrap())).await
}

fn instant(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

async fn only_confirmed(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let upload = alice.issue("a.txt", b"12345", &put()).await;
    issue(&alice, &upload, json!({})).await.expect_problem(409, "upload_not_confirmed");
    assert!(alice.send(&upload, b"12345").await.status.is_success());
    issue(&alice, &upload, json!({})).await.expect_problem(409, "upload_not_confirmed");
    alice.complete(&upload).await.expect(StatusCode::OK);
    let reply = issue(&alice, &upload, json!({})).await;
    let issued = reply.expect(StatusCode::CREATED);
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(issued["upload_id"], upload["id"]);
    assert_eq!(issued["method"], "GET");
    assert_ne!(issued["id"], upload["id"]);
    assert_eq!(follow(&alice, &issued).await.bytes, b"12345");

    let aborted = alice.issue("b.txt", b"12345", &put()).await;
    alice.delete(&format!("/api/v1/uploads/{}", id(&aborted))).await.expect(StatusCode::OK);
    issue(&alice, &aborted, json!({})).await.expect_problem(409, "upload_not_confirmed");
    app.end().await;
}

async fn readers(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let user = |issuer, subject, tenant| {
        app.anonymous().with_token(app.token(&TokenOptions { issuer, subject, tenant, scopes: &[] }))
    };
    let owner = user(OTHER_ISSUER, "carol", Some("acme"));
    let colleague = user(OTHER_ISSUER, "dave", Some("acme"));
    let outsider = user(OTHER_ISSUER, "erin", Some("globex"));
    let foreigner = user(ISSUER, "carol", None);
    let checksum = STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"12345"));
    for (policy, allowed, refused) in [
        ("default", vec![&owner], vec![&colleague, &outsider, &foreigner]),
        ("shared", vec![&owner, &colleague], vec![&outsider, &foreigner]),
        ("public", vec![&owner, &colleague, &outsider, &foreigner], vec![]),
    ] {
        let more = json!({ "method": "put", "policy": policy, "checksum_sha256": checksum });
        let upload = owner.upload("a.txt", b"12345", &more).await;
        for reader in allowed {
            let issued = issue(reader, &upload, json!({})).await.expect(StatusCode::CREATED);
            assert_eq!(follow(reader, &issued).await.bytes, b"12345", "{policy}");
        }
        for reader in refused {
            issue(reader, &upload, json!({})).await.expect_problem(404, "not_found");
        }
        // Reading is all that others may.
        for stranger in [&colleague, &outsider, &foreigner] {
            let path = format!("/api/v1/uploads/{}", id(&upload));
            stranger.get(&path).await.expect_problem(404, "not_found");
            stranger.delete(&path).await.expect_problem(404, "not_found");
        }
    }
    app.end().await;
}

async fn dispositions(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    for (name, file_type) in [
        ("a.html", "text/html"),
        ("a.svg", "image/svg+xml"),
        ("a.xhtml", "application/xhtml+xml"),
        ("a", "TEXT/HTML; charset=utf-8"),
    ] {
        let upload = alice.upload(name, b"<p/>", &json!({ "method": "put", "file_type": file_type })).await;
        let problem = issue(&alice, &upload, json!({ "disposition": "inline" })).await;
        let problem = problem.expect_problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], "disposition", "{problem}");
        for saved in [json!({}), json!({ "disposition": "attachment" })] {
            let issued = issue(&alice, &upload, saved).await.expect(StatusCode::CREATED);
            let file = follow(&alice, &issued).await;
            assert_eq!(file.status, StatusCode::OK);
            assert_eq!(
                file.headers["content-disposition"].to_str().unwrap(),
                format!("attachment; filename=\"{name}\"")
            );
        }
    }
    let upload = alice.upload("a.png", b"12345", &put()).await;
    let issued = issue(&alice, &upload, json!({ "disposition": "inline" })).await.expect(StatusCode::CREATED);
    let file = follow(&alice, &issued).await;
    assert_eq!(file.headers["content-disposition"], "inline; filename=\"a.png\"");
    assert_eq!(file.headers["content-type"], "image/png");

    // What follows a comma is what a browser would take it for.
    let several = "image/png; a, text/html";
    let asked = json!({ "original_file_name": "a.png", "file_size": 5, "file_type": several });
    let problem = alice.post("/api/v1/uploads", &asked).await.expect_problem(422, "invalid_request");
    assert_eq!(problem["errors"][0]["field"], "file_type", "{problem}");

    for (more, field) in [
        (json!({ "disposition": "open" }), "disposition"),
        (json!({ "disposition": { "inline": null } }), "disposition"),
        (json!({ "delivery": 1 }), "delivery"),
        (json!({ "delivery": { "url": null } }), "delivery"),
        (json!({ "file_name": "a/b.txt" }), "file_name"),
        (json!({ "file_name": "a\r\nSet-Cookie: x=1" }), "file_name"),
        (json!({ "expires_in": 0 }), "expires_in"),
        (json!({ "expires_in": -1 }), "expires_in"),
        (json!({ "expires": 5 }), "expires"),
        (json!({ "upload_id": 5 }), "upload_id"),
    ] {
        let problem = issue(&alice, &upload, more.clone()).await.expect_problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], field, "{more}: {problem}");
    }
    app.end().await;
}

/// Rows from before such types were refused.
async fn several_types(backend: Backend) {
    let app = deliveries::start(&backend, "[\"url\", \"stream\"]").await;
    let alice = app.user("alice");
    let upload = alice.upload("a.png", b"12345", &json!({ "policy": "delivered" })).await;
    app.database.psql(&format!(
        "UPDATE upload_intents SET content_type = 'image/png; a, text/html' WHERE id = '{}'",
        id(&upload)
    ));
    for delivery in ["url", "stream"] {
        let asked = json!({ "disposition": "inline", "delivery": delivery });
        let problem = issue(&alice, &upload, asked).await.expect_problem(422, "invalid_request");
        assert_eq!(problem["errors"][0]["field"], "disposition", "{problem}");
    }
    let saved = alice.get(&format!("/api/v1/files/{}?delivery=stream", id(&upload))).await;
    saved.expect_status(StatusCode::OK);
    assert!(saved.headers["content-security-policy"].to_str().unwrap().contains("sandbox"), "{:?}", saved.headers);
    app.end().await;
}

async fn names(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let upload = alice.upload("отчёт.txt", b"12345", &put()).await;
    for (asked, header) in [
        (json!({}), "attachment; filename=\"_____.txt\"; filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82.txt"),
        (json!({ "file_name": "report 1.txt" }), "attachment; filename=\"report 1.txt\""),
        (
            json!({ "file_name": "日本語.txt" }),
            "attachment; filename=\"___.txt\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC%E8%AA%9E.txt",
        ),
        (
            json!({ "file_name": "a\";b%20+&=.txt" }),
            "attachment; filename=\"a_;b_20+&=.txt\"; filename*=UTF-8''a%22%3Bb%2520+&%3D.txt",
        ),
    ] {
        let issued = issue(&alice, &upload, asked).await.expect(StatusCode::CREATED);
        let file = follow(&alice, &issued).await;
        assert_eq!(file.bytes, b"12345", "{}", file.text());
        assert_eq!(file.headers["content-disposition"].to_str().unwrap(), header);
    }
    app.end().await;
}

async fn expires_in(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let upload = alice.upload("a.txt", b"12345", &put()).await;
    for (asked, granted) in
        [(json!(null), 60), (json!(1), 1), (json!(10), 10), (json!(60), 60), (json!(4_000_000_000_u32), 60)]
    {
        let before = app.clock.now();
        let issued = issue(&alice, &upload, json!({ "expires_in": asked })).await.expect(StatusCode::CREATED);
        let after = app.clock.now();
        let end = instant(&issued["expires_at"]);
        // Signatures count from whole seconds.
        let earliest = before + TimeDelta::seconds(granted) - TimeDelta::milliseconds(999);
        assert!((earliest..=after + TimeDelta::seconds(granted)).contains(&end), "{asked}: {end}");
        let url = issued["url"].as_str().unwrap();
        assert!(url.contains(&format!("X-Amz-Expires={granted}&")), "the store is told the same");
    }
    app.end().await;
}

async fn network(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let upload = app.user("alice").upload("a.txt", b"12345", &put()).await;
    let here = app.user("alice").at("127.0.0.11");
    let there = app.user("alice").at("127.0.0.12");
    let issued = issue(&here, &upload, json!({})).await.expect(StatusCode::CREATED);
    assert_eq!(issued["client_network"], "127.0.0.11/32");
    let elsewhere = follow(&there, &issued).await;
    assert!(elsewhere.status.is_client_error() && !elsewhere.text().contains("12345"), "{elsewhere:?}");
    assert_eq!(follow(&here, &issued).await.bytes, b"12345");
    app.end().await;

    let app = TestApp::start_with(&backend, AppOptions::unscoped()).await;
    let upload = app.user("alice").upload("a.txt", b"12345", &put()).await;
    let issued = issue(&app.user("alice").at("127.0.0.11"), &upload, json!({})).await.expect(StatusCode::CREATED);
    assert_eq!(issued["client_network"], Value::Null);
    assert_eq!(follow(&there, &issued).await.bytes, b"12345", "the policy does not scope");
    app.end().await;
}

async fn policy_of_today(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let (alice, bob) = (app.user("alice"), app.user("bob"));
    let passing = |readers: &str| format!("{POLICIES}\n[policy.passing]\nreaders = \"{readers}\"\n");
    app.change_policies(&passing("owner")).await;
    let upload = alice.upload("a.txt", b"12345", &json!({ "method": "put", "policy": "passing" })).await;
    issue(&bob, &upload, json!({})).await.expect_problem(404, "not_found");
    app.change_policies(&passing("authenticated")).await;
    issue(&bob, &upload, json!({})).await.expect(StatusCode::CREATED);
    app.change_policies(POLICIES).await;
    issue(&bob, &upload, json!({})).await.expect_problem(404, "not_found");
    issue(&alice, &upload, json!({})).await.expect_problem(409, "policy_withdrawn");
    app.end().await;
}

async fn recorded(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let user = |subject, tenant| {
        app.anonymous().with_token(app.token(&TokenOptions {
            issuer: OTHER_ISSUER,
            subject,
            tenant: Some(tenant),
            scopes: &[],
        }))
    };
    let (owner, reader) = (user("carol", "acme"), user("dave", "globex").at("127.0.0.11"));
    let upload = owner.upload("a.txt", b"12345", &json!({ "method": "put", "policy": "public" })).await;
    let issued = issue(&reader, &upload, json!({ "expires_in": 10 })).await.expect(StatusCode::CREATED);
    issue(&reader, &upload, json!({ "expires_in": 0 })).await.expect_problem(422, "invalid_request");
    let rows = app.database.psql(
        "SELECT row_to_json(d) FROM (SELECT id, upload_id, issuer, subject, tenant, policy, policy_version, delivery, \
         client_network, to_char(expires_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS expires_at FROM download_intents) d",
    );
    let row: Value = serde_json::from_str(&rows).unwrap_or_else(|error| panic!("{error}: {rows}"));
    let expected = json!({
        "id": issued["id"], "upload_id": upload["id"], "issuer": OTHER_ISSUER, "subject": "dave", "tenant": "globex",
        "policy": "public", "policy_version": upload["policy_version"], "delivery": "url",
        "client_network": "127.0.0.11/32",
        "expires_at": issued["expires_at"],
    });
    assert_eq!(row, expected);
    app.end().await;
}
