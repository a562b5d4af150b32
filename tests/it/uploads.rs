//! Uploads: what a request may say, and what becomes of an upload.

use std::process::Command;

use aws_sdk_s3::primitives::ByteStream;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use presignd::clock::Clock;
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp,
    app::{OTHER_ISSUER, POLICIES, TokenOptions},
    backend::BackendKind,
    caller::id,
};

pub(crate) fn register(suite: &mut Suite<'_>) {
    // Neither real store takes a form that is signed by a session with a policy.
    suite.needing("curl", |suite| {
        suite.on(&[BackendKind::Embedded], "curl_issues_and_uploads_in_two_lines", curl);
        suite.everywhere("curl_issues_and_uploads_in_two_lines_without_scope", curl_unscoped);
    });
    suite.everywhere("every_field_that_breaks_a_rule_is_named_with_the_rule", field_rules);
    suite.everywhere("what_the_policy_refuses_is_named_with_what_it_allows", policy_rules);
    suite.everywhere("a_body_that_is_not_one_json_object_is_refused", bodies);
    suite.everywhere("a_body_beyond_the_limit_is_refused", large_bodies);
    suite.everywhere("types_are_guessed_and_names_made_safe", names_and_types);
    suite.everywhere("expires_in_only_shortens", expires_in);
    suite.everywhere("renewing_follows_the_client_and_the_policy_of_today", renew);
    suite.on(&[BackendKind::Embedded], "an_upload_is_renewed_for_as_long_as_its_policy_lets_it", renew_within);
    suite.everywhere("lists_show_own_uploads_page_by_page", list);
    suite.everywhere("an_idempotency_key_leads_to_one_upload", idempotency);
    suite.everywhere("an_idempotency_key_is_remembered_for_a_day", idempotency_for_a_day);
    suite.everywhere("requests_at_once_with_one_idempotency_key_make_one_upload", idempotency_at_once);
    suite.everywhere("a_replay_after_the_end_tells_the_outcome", idempotency_after_the_end);
    // The embedded PostgreSQL serves one connection.
    let real = &[BackendKind::Rgw, BackendKind::SeaweedFs];
    suite.on(real, "a_replay_after_the_deadline_is_of_nothing", idempotency_after_the_deadline);
    suite.everywhere("aborting_removes_the_object_for_good", abort);
    suite.everywhere("completing_waits_for_the_object_and_repeats", complete);
    suite.everywhere("completing_at_once_is_one_transition", complete_at_once);
    suite.everywhere("what_was_not_promised_is_rejected_for_good", mismatches);
    suite.everywhere("what_a_browser_would_decode_is_rejected", coded);
    suite.everywhere("a_claimed_etag_that_is_wrong_changes_nothing", claimed_etag);
    suite.everywhere("nothing_is_confirmed_after_the_deadline", deadline);
    suite.everywhere("a_callback_token_confirms_its_upload_and_nothing_else", callback_token);
}

async fn curl(backend: Backend) {
    two_lines(TestApp::start(&backend).await).await;
}

async fn curl_unscoped(backend: Backend) {
    two_lines(TestApp::start_with(&backend, AppOptions::unscoped()).await).await;
}

/// A size in a string, a trailing slash, and a form: what published walk-throughs of direct uploads send.
async fn two_lines(app: TestApp) {
    let file = app.folder().join("lorem-ipsum.pdf");
    std::fs::write(&file, vec![b'%'; 77_000]).unwrap();

    let url = format!("{}/api/v1/uploads/", app.base());
    let authorization = format!("Authorization: Bearer {}", app.token(&TokenOptions::default()));
    let data = r#"{"original_file_name": "lorem-ipsum.pdf", "file_size": "77000"}"#;
    let issued = run_curl(&[
        "--request",
        "POST",
        &url,
        "--header",
        &authorization,
        "--header",
        "Content-Type: application/json",
        "--data",
        data,
    ]);
    let issued: Value = serde_json::from_str(&issued).unwrap_or_else(|error| panic!("{error}: {issued}"));
    assert_eq!(issued["file_size"], 77_000, "{issued}");
    assert_eq!(issued["presigned_post_data"]["url"], issued["upload"]["url"]);
    assert_eq!(issued["presigned_post_data"]["fields"], issued["upload"]["fields"]);

    let form = &issued["presigned_post_data"];
    let mut arguments = vec!["--request".to_owned(), "POST".to_owned(), form["url"].as_str().unwrap().to_owned()];
    for (name, value) in form["fields"].as_object().unwrap() {
        arguments.extend(["--form-string".to_owned(), format!("{name}={}", value.as_str().unwrap())]);
    }
    arguments.extend(["--form".to_owned(), format!("file=@{}", file.display())]);
    run_curl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());

    let confirmed = app.user("alice").complete(&issued).await.expect(StatusCode::OK);
    assert_eq!(confirmed["state"], "confirmed");
    app.end().await;
}

fn run_curl(arguments: &[&str]) -> String {
    let common = ["--silent", "--show-error", "--fail-with-body", "--noproxy", "*", "--max-time", "30"];
    let output = Command::new("curl").args(common).args(arguments).output().expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{} {text}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A good request with `changes` laid over it.
fn request(changes: &Value) -> Value {
    let mut body = json!({ "original_file_name": "a.txt", "file_size": 5 });
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

async fn field_rules(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let whole_number = "expected a whole number of bytes";
    for (changes, field, rule) in [
        (json!({ "original_file_name": "" }), "original_file_name", "must be 1 to 255 characters"),
        (json!({ "original_file_name": "  " }), "original_file_name", "not only spaces"),
        (json!({ "original_file_name": "x".repeat(256) }), "original_file_name", "must be 1 to 255 characters"),
        (json!({ "original_file_name": "a/b.txt" }), "original_file_name", "must be a file name, not a path"),
        (json!({ "original_file_name": "a\\b.txt" }), "original_file_name", "must be a file name, not a path"),
        (json!({ "original_file_name": ".." }), "original_file_name", "must be a file name, not a path"),
        (json!({ "original_file_name": "a\0.txt" }), "original_file_name", "control characters"),
        (json!({ "original_file_name": "a\r\nb.txt" }), "original_file_name", "control characters"),
        (json!({ "original_file_name": "a\u{202e}txt.exe" }), "original_file_name", "bidirectional"),
        (json!({ "original_file_name": null }), "original_file_name", "expected a string"),
        (json!({ "file_size": -1 }), "file_size", whole_number),
        (json!({ "file_size": 5.5 }), "file_size", whole_number),
        (json!({ "file_size": 5.0 }), "file_size", whole_number),
        (json!({ "file_size": true }), "file_size", whole_number),
        (json!({ "file_size": null }), "file_size", whole_number),
        (json!({ "file_size": "" }), "file_size", whole_number),
        (json!({ "file_size": "+5" }), "file_size", whole_number),
        (json!({ "file_size": "-5" }), "file_size", whole_number),
        (json!({ "file_size": " 5" }), "file_size", whole_number),
        (json!({ "file_size": "5e3" }), "file_size", whole_number),
        (json!({ "file_size": "18446744073709551616" }), "file_size", whole_number),
        (json!({ "file_type": "pdf" }), "file_type", "must be a media type"),
        (json!({ "file_type": "text/plain\r\nX-Evil: 1" }), "file_type", "must be a media type"),
        (json!({ "file_type": format!("text/{}", "x".repeat(255)) }), "file_type", "at most 255"),
        (json!({ "method": "patch" }), "method", "must be \"put\", \"post\", \"multipart\" or \"credentials\""),
        (json!({ "method": "PUT" }), "method", "must be \"put\", \"post\", \"multipart\" or \"credentials\""),
        (json!({ "checksum_sha256": "00".repeat(32) }), "checksum_sha256", "not hexadecimal"),
        (json!({ "checksum_sha256": STANDARD.encode([0; 31]) }), "checksum_sha256", "base64 of a SHA-256"),
        (json!({ "metadata": { "Case": "42" } }), "metadata.Case", "names must be"),
        (json!({ "metadata": { "": "42" } }), "metadata.", "names must be"),
        (json!({ "metadata": { "case": "a  b" } }), "metadata.case", "single inner spaces"),
        (json!({ "metadata": { "case": "naïve" } }), "metadata.case", "visible ASCII"),
        (json!({ "metadata": { "case": "a\r\nb" } }), "metadata.case", "visible ASCII"),
        (json!({ "metadata": { "case": "x".repeat(2045) } }), "metadata.case", "at most 2048 bytes"),
        (json!({ "metadata": { "case": 42 } }), "metadata.case", "expected a string"),
        (json!({ "metadata": ["case"] }), "metadata", "expected a map"),
        (json!({ "policy": "nope" }), "policy", "must be the name of a policy"),
        (json!({ "policy": 5 }), "policy", "expected a string"),
        (json!({ "expires_in": 0 }), "expires_in", "must be at least 1 second"),
        (json!({ "expires_in": -1 }), "expires_in", "expected u32"),
        (json!({ "expires_in": 1.5 }), "expires_in", "expected u32"),
        (json!({ "expires_in": 4_294_967_296_u64 }), "expires_in", "expected u32"),
        (json!({ "expires_in": "60" }), "expires_in", "expected u32"),
        (json!({ "key": "../../etc/passwd" }), "key", "unknown field"),
    ] {
        let problem = alice.post("/api/v1/uploads", &request(&changes)).await.expect_problem(422, "invalid_request");
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{changes}: {problem}");
        assert_eq!(errors[0]["field"], field, "{changes}: {problem}");
        assert!(errors[0]["rule"].as_str().unwrap().contains(rule), "{changes}: {problem}");
    }
    for (missing, other) in [("original_file_name", "file_size"), ("file_size", "original_file_name")] {
        let mut body = request(&json!({}));
        body.as_object_mut().unwrap().remove(missing);
        let problem = alice.post("/api/v1/uploads", &body).await.expect_problem(422, "invalid_request");
        assert_eq!(fields(&problem), [missing], "{problem}");
        assert!(!problem["errors"][0]["rule"].as_str().unwrap().contains(other));
    }

    let everything_wrong = json!({
        "original_file_name": "a/b", "file_type": "pdf", "method": "patch", "checksum_sha256": "x",
        "metadata": { "Case": "42" },
    });
    let reply = alice.post("/api/v1/uploads", &request(&everything_wrong)).await;
    let problem = reply.expect_problem(422, "invalid_request");
    assert_eq!(
        fields(&problem),
        ["original_file_name", "file_type", "method", "checksum_sha256", "metadata.Case"],
        "{problem}"
    );
    assert_eq!(problem["errors"][2]["received"], "patch");

    assert_eq!(listed(&alice, "").await, Vec::<String>::new(), "nothing refused is recorded");
    app.end().await;
}

fn fields(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect()
}

async fn listed(caller: &Caller, query: &str) -> Vec<String> {
    let page = caller.get(&format!("/api/v1/uploads{query}")).await.expect(StatusCode::OK);
    page["uploads"].as_array().unwrap().iter().map(|upload| id(upload).to_owned()).collect()
}

async fn policy_rules(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let checksum = STANDARD.encode([0; 32]);
    for (changes, field, rule) in [
        (json!({ "file_size": 8_388_609 }), "file_size", "must be at most 8MiB (8388608 bytes), not 8388609 bytes"),
        (json!({ "file_size": i64::MAX }), "file_size", "must be at most 8MiB"),
        (json!({ "file_size": u64::MAX }), "file_size", "must be at most 8MiB"),
        (json!({ "file_size": "18446744073709551615" }), "file_size", "must be at most 8MiB"),
        (
            json!({ "policy": "shared", "checksum_sha256": checksum, "file_size": 1025 }),
            "file_size",
            "must be at most 1KiB",
        ),
        (
            json!({ "policy": "shared", "checksum_sha256": checksum, "original_file_name": "a.png" }),
            "file_type",
            "must be one of: text/*, application/pdf; not image/png",
        ),
        (json!({ "policy": "shared" }), "checksum_sha256", "the policy requires the SHA-256"),
        // The key has the tenant in it, and alice has none.
        (json!({ "policy": "public" }), "policy", "tenant"),
    ] {
        let problem = alice.post("/api/v1/uploads", &request(&changes)).await.expect_problem(422, "policy_refused");
        assert_eq!(fields(&problem), [field], "{changes}: {problem}");
        assert!(problem["errors"][0]["rule"].as_str().unwrap().contains(rule), "{changes}: {problem}");
    }
    for size in [json!(8_388_608), json!("8388608"), json!(0), json!("0")] {
        let issued = alice.post("/api/v1/uploads", &request(&json!({ "file_size": size }))).await;
        let issued = issued.expect(StatusCode::CREATED);
        assert_eq!(issued["file_size"].to_string(), size.to_string().trim_matches('"'));
    }
    assert_eq!(listed(&alice, "").await.len(), 4, "nothing refused is recorded");
    app.end().await;
}

async fn send_body(caller: &Caller, content_type: Option<&str>, body: impl Into<Body>) -> Reply {
    let request = caller.request(Method::POST, "/api/v1/uploads").body(body);
    Reply::of(match content_type {
        Some(content_type) => request.header("content-type", content_type),
        None => request,
    })
    .await
}

async fn bodies(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let good = request(&json!({})).to_string();
    for body in [
        String::new(),
        "{".to_owned(),
        "null".to_owned(),
        "5".to_owned(),
        "[]".to_owned(),
        // The fields of an object in order are not the object.
        r#"["a.txt",5,null,null,null,null,null,null]"#.to_owned(),
        format!("{good} {good}"),
        r#"{"original_file_name":"a.txt","file_size":5,"file_size":6}"#.to_owned(),
        good.replace("a.txt", r"\ud800"),
    ] {
        let problem = send_body(&alice, Some("application/json"), body.clone()).await;
        assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{body}: {}", problem.text());
        let problem = problem.expect_problem(400, "invalid_json");
        assert!(!problem["detail"].as_str().unwrap().contains("struct"), "{body}: {problem}");
    }
    let not_utf8 = [&good.as_bytes()[..good.len() - 1], b",\"policy\":\"\xff\"}"].concat();
    send_body(&alice, Some("application/json"), not_utf8).await.expect_problem(400, "invalid_json");

    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp")]
    {
        let refused = send_body(&alice, content_type, good.clone()).await;
        refused.expect_problem(415, "unsupported_media_type");
    }
    assert_eq!(listed(&alice, "").await, Vec::<String>::new(), "nothing refused is recorded");
    for content_type in ["application/json; charset=utf-8", "Application/JSON"] {
        send_body(&alice, Some(content_type), format!(" {good}\n")).await.expect(StatusCode::CREATED);
    }
    app.end().await;
}

async fn large_bodies(backend: Backend) {
    let settings = "[server]\nbody_limit = \"1KiB\"".to_owned();
    let app = TestApp::start_with(&backend, AppOptions { settings, ..AppOptions::default() }).await;
    let alice = app.user("alice");
    let sized = |size: usize| {
        let good = request(&json!({})).to_string();
        format!("{good}{}", " ".repeat(size - good.len()))
    };
    let json = Some("application/json");
    send_body(&alice, json, sized(1024)).await.expect(StatusCode::CREATED);
    send_body(&alice, json, sized(1025)).await.expect_problem(413, "body_too_large");
    // Without a length that would tell beforehand.
    let pieces = |size: usize| {
        let pieces: Vec<_> =
            sized(size).into_bytes().chunks(256).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        Body::wrap_stream(futures_util::stream::iter(pieces))
    };
    send_body(&alice, json, pieces(1024)).await.expect(StatusCode::CREATED);
    send_body(&alice, json, pieces(1025)).await.expect_problem(413, "body_too_large");
    assert_eq!(listed(&alice, "").await.len(), 2);
    app.end().await;
}

async fn names_and_types(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    for (name, file_type, slug) in [
        ("lorem-ipsum.pdf", "application/pdf", "lorem-ipsum.pdf"),
        ("Photo 1.JPEG", "image/jpeg", "photo-1.jpeg"),
        ("naïve résumé.txt", "text/plain", "naive-resume.txt"),
        ("without-extension", "application/octet-stream", "without-extension"),
        ("data.unheard-of", "application/octet-stream", "data.unheard-of"),
        ("a\"b%20&c.png", "image/png", "a-b-20-c.png"),
    ] {
        let issued = alice.issue(name, b"12345", &json!({ "method": "put" })).await;
        assert_eq!(issued["original_file_name"], name);
        assert_eq!(issued["file_type"], file_type, "{name}");
        let hex = id(&issued).replace('-', "");
        assert_eq!(issued["file_name"], format!("{hex}-{slug}"));
        assert_eq!(issued["upload"]["headers"]["content-type"], file_type);
        assert_eq!(issued["upload_to"], "uploads");
        assert_eq!(issued["created_by"], "alice");
    }
    // Kept as it was written: the signature binds these bytes.
    let file_type = "Text/Plain; charset=UTF-8";
    let metadata = json!({ "case": "42", "note": "one two" });
    let more = json!({ "method": "put", "file_type": file_type, "metadata": metadata });
    let confirmed = alice.upload("a.bin", b"12345", &more).await;
    assert_eq!(confirmed["file_type"], file_type);
    assert_eq!(confirmed["metadata"], metadata);
    app.end().await;
}

/// Seconds from issue to the end of the URL.
fn life(issued: &Value) -> i64 {
    assert_eq!(issued["expires_at"], issued["upload"]["expires_at"]);
    let created = instant(&issued["created_at"]);
    // Signatures count from whole seconds.
    (instant(&issued["expires_at"]) - created + TimeDelta::milliseconds(999)).num_seconds()
}

fn instant(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

async fn expires_in(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    for method in ["put", "post"] {
        for (asked, granted) in
            [(json!(null), 300), (json!(1), 1), (json!(60), 60), (json!(300), 300), (json!(86_400), 300)]
        {
            let more = json!({ "method": method, "expires_in": asked });
            assert_eq!(life(&alice.issue("a.txt", b"12345", &more).await), granted, "{more}");
        }
    }
    app.end().await;
}

async fn renew(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let there = app.user("alice").at("127.0.0.11");
    let here = app.user("alice").at("127.0.0.12");
    let issued = there.issue("a.txt", b"12345", &json!({ "method": "put" })).await;
    assert_eq!(issued["client_network"], "127.0.0.11/32");

    app.change_policies(&POLICIES.replacen("\"5m\"", "\"2m\"", 1)).await;
    let path = format!("/api/v1/uploads/{}/renew", id(&issued));
    let renewed = here.post_nothing(&path).await.expect(StatusCode::OK);
    for same in ["id", "file_name", "file_size", "file_type", "created_at", "state"] {
        assert_eq!(renewed[same], issued[same]);
    }
    assert_ne!(renewed["upload"]["url"], issued["upload"]["url"]);
    assert_ne!(renewed["policy_version"], issued["policy_version"]);
    assert_eq!(renewed["client_network"], "127.0.0.12/32");
    let expires_in = instant(&renewed["expires_at"]) - instant(&issued["created_at"]);
    assert!(expires_in < TimeDelta::seconds(200), "two minutes from the renewal, not five: {expires_in}");

    assert!(there.send(&renewed, b"12345").await.status.is_client_error(), "scoped to where it was renewed");
    assert!(here.send(&renewed, b"12345").await.status.is_success());
    here.complete(&issued).await.expect(StatusCode::OK);
    here.post_nothing(&path).await.expect_problem(409, "invalid_state");

    // An upload whose policy is gone, or refuses it today.
    let passing = |max_size: &str| format!("{POLICIES}\n[policy.passing]\nmax_size = \"{max_size}\"\n");
    app.change_policies(&passing("5B")).await;
    let other = here.issue("b.txt", b"12345", &json!({ "policy": "passing" })).await;
    let path = format!("/api/v1/uploads/{}/renew", id(&other));
    app.change_policies(&passing("4B")).await;
    let refused = here.post_nothing(&path).await.expect_problem(422, "policy_refused");
    assert_eq!(fields(&refused), ["file_size"]);
    app.change_policies(POLICIES).await;
    here.post_nothing(&path).await.expect_problem(409, "policy_withdrawn");
    app.end().await;
}

async fn renew_within(backend: Backend) {
    let clock = Clock::manual(Clock::System.now());
    let policies = "[policy.default]\nmethods = [\"put\"]\nupload.renew_within = \"30m\"\n";
    let options = AppOptions { clock: clock.clone(), policies: Some(policies.to_owned()), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let issued = app.user("alice").issue("a.txt", b"12345", &json!({})).await;
    let path = format!("/api/v1/uploads/{}/renew", id(&issued));
    // Less than a session lives: the store has a clock of its own.
    for minutes in [20, 10] {
        clock.set(clock.now() + TimeDelta::minutes(minutes));
        app.user("alice").post_nothing(&path).await.expect(StatusCode::OK);
    }
    clock.set(clock.now() + TimeDelta::seconds(1));
    let alice = app.user("alice");
    alice.post_nothing(&path).await.expect_problem(410, "upload_expired");
    // What was handed out before holds.
    alice.complete(&issued).await.expect_problem(409, "upload_incomplete");
    app.end().await;
}

async fn list(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let put = json!({ "method": "put" });
    let mut all = vec![id(&alice.upload("confirmed.txt", b"12345", &put).await).to_owned()];
    let aborted = alice.issue("aborted.txt", b"12345", &put).await;
    alice.delete(&format!("/api/v1/uploads/{}", id(&aborted))).await.expect(StatusCode::OK);
    all.push(id(&aborted).to_owned());
    let rejected = alice.issue("rejected.txt", b"12345", &put).await;
    put_object(&app, &rejected, b"other bytes", "text/plain").await;
    alice.complete(&rejected).await.expect_problem(422, "upload_mismatch");
    all.push(id(&rejected).to_owned());
    for _ in 0..2 {
        all.push(id(&alice.issue("issued.txt", b"12345", &put).await).to_owned());
    }
    all.sort();
    all.reverse();
    app.user("bob").issue("b.txt", b"12345", &put).await;

    let whole = alice.get("/api/v1/uploads").await.expect(StatusCode::OK);
    assert_eq!(whole["next_cursor"], Value::Null);
    assert_eq!(listed(&alice, "").await, all);
    assert_eq!(listed(&alice, "?state=rejected").await, [id(&rejected)]);
    assert_eq!(listed(&alice, "/?state=aborted&limit=5").await, [id(&aborted)]);
    assert_eq!(listed(&alice, "?state=issued").await.len(), 2);
    assert_eq!(listed(&alice, "?state=confirmed").await.len(), 1);
    assert_eq!(listed(&alice, "?state=expired").await, Vec::<String>::new());
    for upload in whole["uploads"].as_array().unwrap() {
        let shown = alice.get(&format!("/api/v1/uploads/{}", id(upload))).await.expect(StatusCode::OK);
        assert_eq!(&shown, upload);
    }

    for limit in [1, 2, 5, 100] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        for _ in 0..=all.len() {
            let page = alice.get(&format!("/api/v1/uploads?limit={limit}{cursor}")).await.expect(StatusCode::OK);
            let ids = page["uploads"].as_array().unwrap().iter().map(|upload| id(upload).to_owned());
            let before = seen.len();
            seen.extend(ids);
            assert!(seen.len() - before <= limit);
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, all, "pages of {limit}");
    }

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("cursor=garbage", "cursor"),
        ("cursor=", "cursor"),
        ("state=done", "state"),
        ("states=issued", "states"),
    ] {
        let problem = alice.get(&format!("/api/v1/uploads?{query}")).await.expect_problem(422, "invalid_request");
        assert_eq!(fields(&problem), [field], "{problem}");
    }
    let problem = alice.get("/api/v1/uploads?limit=0&state=done&x=1").await.expect_problem(422, "invalid_request");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3);
    app.end().await;
}

/// Puts an object where `issued` (a PUT) would go, behind the service's back.
async fn put_object(app: &TestApp, issued: &Value, bytes: &[u8], content_type: &str) {
    let put = app.bucket.s3.put_object().bucket(&app.bucket.bucket).key(key_of(app, issued));
    let put = put.content_type(content_type).body(ByteStream::from(bytes.to_vec()));
    put.send().await.expect("the administrator may put");
}

async fn object_exists(app: &TestApp, issued: &Value) -> bool {
    let head = app.bucket.s3.head_object().bucket(&app.bucket.bucket).key(key_of(app, issued)).send().await;
    match head {
        Ok(_) => true,
        Err(error) => {
            let error = error.into_service_error();
            assert!(error.is_not_found(), "{error:?}");
            false
        }
    }
}

fn key_of(app: &TestApp, issued: &Value) -> String {
    let url = issued["upload"]["url"].as_str().unwrap();
    let path = url.split('?').next().unwrap();
    path.split_once(&format!("/{}/", app.bucket.bucket)).expect("a path-style URL").1.to_owned()
}

async fn issue_once(caller: &Caller, key: &str, body: &Value) -> Reply {
    Reply::of(caller.request(Method::POST, "/api/v1/uploads").header("idempotency-key", key).json(body)).await
}

async fn idempotency(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice").at("127.0.0.11");
    let body = request(&json!({ "method": "put", "expires_in": 60 }));
    let first = issue_once(&alice, "k1", &body).await.expect(StatusCode::CREATED);
    let again = issue_once(&alice.at("127.0.0.12"), "k1", &body).await.expect(StatusCode::CREATED);
    assert_eq!(again["id"], first["id"]);
    assert_ne!(again["upload"]["url"], first["upload"]["url"], "a fresh URL for where the client is now");
    assert_eq!(again["client_network"], "127.0.0.12/32");
    assert!(alice.at("127.0.0.12").send(&again, b"12345").await.status.is_success());
    let lives = instant(&again["expires_at"]) - instant(&first["expires_at"]);
    assert!(lives < TimeDelta::seconds(60), "a replay is as short as the request asks: {lives}");

    // The same JSON in another order and with spaces is the same request.
    let reordered = r#"{ "expires_in": 60, "method": "put", "file_size": 5, "original_file_name": "a.txt" }"#;
    let replay = alice.request(Method::POST, "/api/v1/uploads").header("idempotency-key", "k1");
    let replay = Reply::of(replay.header("content-type", "application/json").body(reordered)).await;
    assert_eq!(replay.expect(StatusCode::CREATED)["id"], first["id"]);

    let other = request(&json!({ "file_size": 6 }));
    issue_once(&alice, "k1", &other).await.expect_problem(422, "idempotency_mismatch");
    let anew = issue_once(&alice, "k2", &body).await.expect(StatusCode::CREATED);
    assert_ne!(anew["id"], first["id"]);

    // Keys of others never meet.
    let tenant = Some("acme");
    let namesake = app.anonymous().with_token(app.token(&TokenOptions {
        issuer: OTHER_ISSUER,
        tenant,
        ..TokenOptions::default()
    }));
    for stranger in [app.user("bob"), namesake] {
        let theirs = issue_once(&stranger, "k1", &other).await.expect(StatusCode::CREATED);
        assert_ne!(theirs["id"], first["id"]);
    }

    // A request that was refused has not used its key.
    issue_once(&alice, "k3", &request(&json!({ "file_size": -1 }))).await.expect_problem(422, "invalid_request");
    issue_once(&alice, "k3", &request(&json!({ "file_size": u64::MAX }))).await.expect_problem(422, "policy_refused");
    issue_once(&alice, "k3", &body).await.expect(StatusCode::CREATED);

    for key in ["", &"k".repeat(256), "ключ"] {
        let problem = issue_once(&alice, key, &body).await.expect_problem(422, "invalid_request");
        assert_eq!(fields(&problem), ["Idempotency-Key"]);
    }
    issue_once(&alice, &"k".repeat(255), &body).await.expect(StatusCode::CREATED);
    assert_eq!(listed(&alice, "").await.len(), 4);
    app.end().await;
}

async fn idempotency_for_a_day(backend: Backend) {
    let policies = "[policy.default]\nmethods = [\"put\"]\nip_scope = \"off\"\nconfirm.grace = \"3d\"\n".to_owned();
    let options =
        AppOptions { clock: Clock::manual(Clock::System.now()), policies: Some(policies), ..AppOptions::unscoped() };
    let app = TestApp::start_with(&backend, options).await;
    let body = json!({ "original_file_name": "a.txt", "file_size": 1 });
    let batch = json!({ "uploads": [&body, &body] });
    // A token ends long before the key does.
    let issue = async |at: DateTime<Utc>| {
        app.clock.set(at);
        let alice = app.user("alice");
        let one = issue_once(&alice, "k", &body).await.expect(StatusCode::CREATED);
        let request = alice.request(Method::POST, "/api/v1/uploads/batch").header("idempotency-key", "b").json(&batch);
        let several = Reply::of(request).await.expect(StatusCode::OK);
        let of_batch = |at: usize| several["results"][at]["upload"]["id"].as_str().expect("an id").to_owned();
        [id(&one).to_owned(), of_batch(0), of_batch(1)]
    };
    let begin = app.clock.now();
    let first = issue(begin).await;
    assert_eq!(issue(begin + TimeDelta::minutes(24 * 60 - 1)).await, first);
    let next = issue(begin + TimeDelta::hours(24) + TimeDelta::seconds(1)).await;
    assert!(next.iter().all(|id| !first.contains(id)), "{first:?} {next:?}");
    app.end().await;
}

async fn idempotency_at_once(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let body = request(&json!({}));
    let replies = join_all((0..20).map(|_| issue_once(&alice, "k", &body))).await;
    let ids: Vec<Value> = replies.iter().map(|reply| reply.expect(StatusCode::CREATED)["id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(listed(&alice, "").await.len(), 1);
    app.end().await;
}

async fn idempotency_after_the_end(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let body = request(&json!({ "method": "put" }));
    let issued = issue_once(&alice, "k", &body).await.expect(StatusCode::CREATED);
    assert!(alice.send(&issued, b"12345").await.status.is_success());
    alice.complete(&issued).await.expect(StatusCode::OK);
    let replayed = issue_once(&alice, "k", &body).await.expect(StatusCode::CREATED);
    assert_eq!(replayed["id"], issued["id"]);
    assert_eq!(replayed["state"], "confirmed");
    for nothing in ["upload", "presigned_post_data", "callback"] {
        assert!(replayed.as_object().unwrap().contains_key(nothing));
        assert_eq!(replayed[nothing], Value::Null, "{nothing}");
    }
    app.end().await;
}

/// Whether or not the sweeper has been there.
async fn idempotency_after_the_deadline(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let body = request(&json!({ "method": "put" }));
    let late = issue_once(&alice, "late", &body).await.expect(StatusCode::CREATED);
    for expired in ["", ", state = 'expired', settled_at = now(), settled_via = 'sweeper'"] {
        let past = "expires_at = created_at + interval '1 ms', confirm_until = created_at + interval '2 ms'";
        app.database.psql(&format!("UPDATE upload_intents SET {past}{expired} WHERE id = '{}'", id(&late)));
        issue_once(&alice, "late", &body).await.expect_problem(410, "upload_expired");
    }
    app.end().await;
}

async fn abort(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let put = json!({ "method": "put" });
    let issued = alice.issue("a.txt", b"12345", &put).await;
    let path = format!("/api/v1/uploads/{}", id(&issued));
    assert!(alice.send(&issued, b"12345").await.status.is_success());
    assert!(object_exists(&app, &issued).await);
    let aborted = alice.delete(&path).await.expect(StatusCode::OK);
    assert_eq!(aborted["state"], "aborted");
    assert!(aborted["ended_at"].is_string(), "{aborted}");
    assert!(!object_exists(&app, &issued).await);

    // The URL lives on: what it still uploads is never confirmed, and repeating the abort removes it.
    assert!(alice.send(&issued, b"12345").await.status.is_success());
    alice.complete(&issued).await.expect_problem(409, "invalid_state");
    alice.post_nothing(&format!("{path}/renew")).await.expect_problem(409, "invalid_state");
    assert_eq!(alice.delete(&path).await.expect(StatusCode::OK), aborted);
    assert!(!object_exists(&app, &issued).await);
    assert_eq!(alice.get(&path).await.expect(StatusCode::OK), aborted);

    let issued = alice.issue("b.txt", b"12345", &put).await;
    assert!(alice.send(&issued, b"12345").await.status.is_success());
    alice.complete(&issued).await.expect(StatusCode::OK);
    alice.delete(&format!("/api/v1/uploads/{}", id(&issued))).await.expect_problem(409, "invalid_state");
    assert!(object_exists(&app, &issued).await, "what is confirmed stays");
    app.end().await;
}

async fn complete(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"12345", &json!({ "method": "put" })).await;
    alice.complete(&issued).await.expect_problem(409, "upload_incomplete");
    let path = format!("/api/v1/uploads/{}", id(&issued));
    assert_eq!(alice.get(&path).await.expect(StatusCode::OK)["state"], "issued");

    let sent = alice.send(&issued, b"12345").await;
    assert!(sent.status.is_success());
    let before = app.clock.now();
    let confirmed = alice.complete(&issued).await.expect(StatusCode::OK);
    assert_eq!(confirmed["state"], "confirmed");
    assert_eq!(confirmed["etag"], sent.headers["etag"].to_str().unwrap().trim_matches('"'));
    assert_eq!(confirmed["confirmed_via"], "callback");
    assert!((before..=app.clock.now()).contains(&instant(&confirmed["confirmed_at"])));
    assert_eq!(alice.complete(&issued).await.expect(StatusCode::OK), confirmed);
    let complete = format!("{path}/complete/");
    assert_eq!(alice.post(&complete, &json!({})).await.expect(StatusCode::OK), confirmed);
    assert_eq!(alice.post(&complete, &json!({ "etag": confirmed["etag"] })).await.expect(StatusCode::OK), confirmed);
    assert_eq!(alice.get(&path).await.expect(StatusCode::OK), confirmed);

    let invalid = alice.post(&complete, &json!({ "etag": "W/\"x\"" })).await.expect_problem(422, "invalid_request");
    assert_eq!(fields(&invalid), ["etag"]);
    let unknown = alice.post(&complete, &json!({ "state": "confirmed" })).await.expect_problem(422, "invalid_request");
    assert_eq!(fields(&unknown), ["state"]);
    alice.post(&complete, &json!(["token", "etag"])).await.expect_problem(400, "invalid_json");
    app.end().await;
}

async fn complete_at_once(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"12345", &json!({ "method": "put" })).await;
    assert!(alice.send(&issued, b"12345").await.status.is_success());
    let replies = join_all((0..20).map(|_| alice.complete(&issued))).await;
    let first = replies[0].expect(StatusCode::OK);
    for reply in &replies {
        assert_eq!(reply.expect(StatusCode::OK), first);
    }
    app.end().await;
}

/// A header that no signature holds clients to leaving out: the store sends it to whoever downloads.
async fn coded(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    for (coding, is_rejected) in [("gzip", true), ("br", true), ("identity", false)] {
        let mut issued = alice.issue("a.txt", b"12345", &json!({ "method": "put" })).await;
        issued["upload"]["headers"]["content-encoding"] = coding.into();
        assert!(alice.send(&issued, b"12345").await.status.is_success());
        let answer = alice.complete(&issued).await;
        if is_rejected {
            let problem = answer.expect_problem(422, "upload_mismatch");
            let told = &problem["errors"][0];
            assert_eq!((&told["field"], &told["received"]), (&json!("content_encoding"), &json!(coding)));
        } else {
            answer.expect(StatusCode::OK);
        }
    }
    app.end().await;
}

async fn mismatches(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let digest = |bytes: &[u8]| STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes));
    for (bytes, content_type, broken) in [
        (&b"123456"[..], "text/plain", vec![("file_size", json!(5), json!(6))]),
        (b"", "text/plain", vec![("file_size", json!(5), json!(0))]),
        (b"12345", "text/html", vec![("file_type", json!("text/plain"), json!("text/html"))]),
        (
            b"123456",
            "text/html",
            vec![("file_size", json!(5), json!(6)), ("file_type", json!("text/plain"), json!("text/html"))],
        ),
        (b"54321", "text/plain", vec![("checksum_sha256", json!(digest(b"12345")), json!(digest(b"54321")))]),
    ] {
        let more = json!({ "method": "put", "checksum_sha256": digest(b"12345") });
        let issued = alice.issue("a.txt", b"12345", &more).await;
        put_object(&app, &issued, bytes, content_type).await;
        let problem = alice.complete(&issued).await.expect_problem(422, "upload_mismatch");
        let told: Vec<_> = problem["errors"].as_array().unwrap().iter().collect();
        assert_eq!(told.len(), broken.len(), "{problem}");
        for (told, (field, expected, received)) in told.iter().zip(&broken) {
            assert_eq!((&told["field"], &told["expected"], &told["received"]), (&json!(field), expected, received));
        }

        let path = format!("/api/v1/uploads/{}", id(&issued));
        let rejected = alice.get(&path).await.expect(StatusCode::OK);
        assert_eq!(rejected["state"], "rejected");
        assert!(rejected["rejected_at"].is_string());
        assert_eq!(rejected["mismatches"].as_array().unwrap().len(), broken.len());

        // Not even the right bytes change it any more.
        put_object(&app, &issued, b"12345", "text/plain").await;
        let again = alice.complete(&issued).await.expect_problem(422, "upload_mismatch");
        assert_eq!(again["errors"], problem["errors"]);
        assert_eq!(alice.get(&path).await.expect(StatusCode::OK), rejected);
        alice.post_nothing(&format!("{path}/renew")).await.expect_problem(409, "invalid_state");
        alice.delete(&path).await.expect_problem(409, "invalid_state");
        let download = alice.post("/api/v1/downloads", &json!({ "upload_id": issued["id"] })).await;
        download.expect_problem(409, "upload_not_confirmed");
    }
    app.end().await;
}

async fn claimed_etag(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let issued = alice.issue("a.txt", b"12345", &json!({ "method": "put" })).await;
    let sent = alice.send(&issued, b"12345").await;
    let etag = sent.headers["etag"].to_str().unwrap();
    let path = format!("/api/v1/uploads/{}", id(&issued));
    let complete = format!("{path}/complete");
    let wrong = "d41d8cd98f00b204e9800998ecf8427e";
    let problem = alice.post(&complete, &json!({ "etag": wrong })).await.expect_problem(422, "etag_mismatch");
    assert_eq!(fields(&problem), ["etag"]);
    assert_eq!(problem["errors"][0]["received"], wrong);
    assert_eq!(problem["errors"][0]["expected"], etag.trim_matches('"'));
    assert_eq!(alice.get(&path).await.expect(StatusCode::OK)["state"], "issued");
    let confirmed = alice.post(&complete, &json!({ "etag": etag })).await.expect(StatusCode::OK);
    assert_eq!(confirmed["state"], "confirmed");
    app.end().await;
}

async fn deadline(backend: Backend) {
    let policies = "[policy.default]\nmethods = [\"put\"]\nupload.expires_in = \"1m\"\nconfirm.grace = \"0s\"\n";
    // The stores have the machine's time, so this clock starts there.
    let clock = Clock::manual(Clock::System.now());
    let options = AppOptions { policies: Some(policies.to_owned()), clock: clock.clone(), ..AppOptions::default() };
    let app = TestApp::start_with(&backend, options).await;
    let alice = app.user("alice");
    let nothing_more = json!({});
    let issued = join_all((0..4).map(|_| alice.issue("a.txt", b"12345", &nothing_more))).await;
    let [in_time, late, by_token, unsent] = issued.try_into().unwrap();
    for issued in [&in_time, &late, &by_token] {
        assert!(alice.send(issued, b"12345").await.status.is_success());
    }
    let end = instant(&late["expires_at"]);
    let path = |issued: &Value| format!("/api/v1/uploads/{}", id(issued));
    let complete_by_token = async |issued: &Value| {
        let body = json!({ "token": issued["callback"]["token"] });
        app.anonymous().post(&format!("{}/complete", path(issued)), &body).await
    };

    clock.set(end);
    let confirmed = alice.complete(&in_time).await.expect(StatusCode::OK);
    clock.set(end + TimeDelta::milliseconds(1));
    for _ in 0..2 {
        let found = alice.complete(&late).await.expect(StatusCode::OK);
        assert_eq!(found["state"], "confirmed", "it had arrived in time");
        alice.complete(&unsent).await.expect_problem(410, "upload_expired");
    }
    let expired = alice.get(&path(&unsent)).await.expect(StatusCode::OK);
    assert_eq!(expired["state"], "expired");
    assert!(expired["ended_at"].is_string());
    alice.post_nothing(&format!("{}/renew", path(&unsent))).await.expect_problem(410, "upload_expired");
    alice.delete(&path(&unsent)).await.expect_problem(409, "invalid_state");

    clock.set(end + TimeDelta::seconds(1));
    complete_by_token(&by_token).await.expect_problem(401, "callback_token_invalid");
    assert_eq!(alice.get(&path(&by_token)).await.expect(StatusCode::OK)["state"], "issued");
    alice.post_nothing(&format!("{}/renew", path(&by_token))).await.expect_problem(410, "upload_expired");
    assert_eq!(alice.complete(&in_time).await.expect(StatusCode::OK), confirmed, "what is confirmed stays");
    assert_eq!(listed(&alice, "?state=expired").await, [id(&unsent)]);
    app.end().await;
}

async fn callback_token(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let put = json!({ "method": "put" });
    let mut uploads = Vec::new();
    for _ in 0..3 {
        let issued = alice.issue("a.txt", b"12345", &put).await;
        assert!(alice.send(&issued, b"12345").await.status.is_success());
        uploads.push(issued);
    }
    let token = |issued: &Value| issued["callback"]["token"].as_str().unwrap().to_owned();
    let path = |issued: &Value| {
        let url = issued["callback"]["url"].as_str().unwrap();
        url.strip_prefix(&app.base()).expect("a URL of the service").to_owned()
    };
    let by_header = async |caller: &Caller, issued: &Value, token: &[u8]| {
        let value = reqwest::header::HeaderValue::from_bytes(token).unwrap();
        Reply::of(caller.request(Method::POST, &path(issued)).header("x-callback-token", value)).await
    };
    let anybody = app.anonymous().at("127.0.0.12");

    let own = token(&uploads[0]);
    let (head, tag) = own.rsplit_once('.').unwrap();
    let end = head.rsplit_once('.').unwrap().1;
    let flipped = if tag.starts_with('A') { "B" } else { "A" };
    let forged = [
        String::new(),
        "..".to_owned(),
        "garbage".to_owned(),
        head.to_owned(),
        format!("{head}."),
        format!("{head}.{flipped}{}", &tag[1..]),
        own.replace(end, &format!("{}", end.parse::<i64>().unwrap() + 3600)),
        own.replacen("k1", "k2", 1),
        token(&uploads[1]),
    ];
    for forged in &forged {
        by_header(&anybody, &uploads[0], forged.as_bytes()).await.expect_problem(401, "callback_token_invalid");
        let body = json!({ "token": forged });
        anybody.post(&path(&uploads[0]), &body).await.expect_problem(401, "callback_token_invalid");
        // Who sends a token is judged by it, whoever they are.
        by_header(&alice, &uploads[0], forged.as_bytes()).await.expect_problem(401, "callback_token_invalid");
    }
    by_header(&anybody, &uploads[0], b"\xff").await.expect_problem(401, "callback_token_invalid");
    anybody.post_nothing(&path(&uploads[0])).await.expect_problem(401, "token_missing");
    for issued in &uploads {
        let shown = alice.get(&format!("/api/v1/uploads/{}", id(issued))).await.expect(StatusCode::OK);
        assert_eq!(shown["state"], "issued");
    }

    let confirmed = by_header(&anybody, &uploads[0], own.as_bytes()).await.expect(StatusCode::OK);
    assert_eq!(confirmed["state"], "confirmed");
    assert_eq!(by_header(&anybody, &uploads[0], own.as_bytes()).await.expect(StatusCode::OK), confirmed, "a replay");
    let by_body = anybody.post(&path(&uploads[1]), &json!({ "token": token(&uploads[1]) })).await;
    assert_eq!(by_body.expect(StatusCode::OK)["state"], "confirmed");
    // The session of the client that uploaded in the background has run out meanwhile.
    let stale = anybody.with_token("stale");
    let third = by_header(&stale, &uploads[2], token(&uploads[2]).as_bytes()).await;
    assert_eq!(third.expect(StatusCode::OK)["state"], "confirmed");

    // It opens nothing else.
    let shown = format!("/api/v1/uploads/{}", id(&uploads[0]));
    let header = |method: Method, path: &str| anybody.request(method, path).header("x-callback-token", &own);
    Reply::of(header(Method::GET, &shown)).await.expect_problem(401, "token_missing");
    Reply::of(header(Method::DELETE, &shown)).await.expect_problem(401, "token_missing");
    anybody.with_token(own.clone()).get(&shown).await.expect_problem(401, "token_invalid");
    app.end().await;
}
