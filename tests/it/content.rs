//! What a file really is, before it is confirmed: its first bytes, and what a scanner says.

use std::{collections::BTreeMap, path::Path, time::Duration};

use aws_sdk_s3::primitives::ByteStream;
use chrono::TimeDelta;
use presignd::{app as service, app::Running, clock::Clock, config::Config};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    audit::{ADMIN, administrator},
    revocations::PATH,
    support::{
        AppOptions, Backend, Caller, Program, Suite, TestApp, TestScanner,
        app::{POLICIES, settings},
        backend::BackendKind,
        caller::id,
        load::eventually,
        scanner::Answer,
    },
};

const PNG: &[u8] = b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
const EXE: &[u8] = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xFF\xFF\0\0";
const HTML: &[u8] = b"\xEF\xBB\xBF \r\n<!DoCtYpE html><script>alert(1)</script>";
const SVG: &[u8] = b"<?xml version='1.0'?><!-- x --><svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>";
const DOCX: &[u8] = b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0[Content_Types].xml";
const INSPECTED: &str = "inspection = \"required\"";
const DOCX_TYPE: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

/// Nothing that the inspector does by itself takes longer.
const SOON: Duration = Duration::from_secs(20);

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_disguise_is_rejected_where_the_policy_says_so", rejected);
    suite.everywhere("a_disguise_is_warned_of_by_default", warned);
    suite.everywhere("the_policy_of_the_moment_says_how_to_sniff", sniff_by_policy);

    suite.everywhere("only_what_a_scanner_found_clean_is_confirmed", clean);
    suite.everywhere("urls_of_what_a_scanner_has_are_counted_when_they_are_revoked", revoked);
    suite.everywhere("what_a_scanner_found_infected_is_never_downloaded", infected);
    suite.everywhere("a_scanner_may_fetch_the_file_by_url", by_url);
    suite.everywhere("an_upload_that_is_inspected_can_be_aborted", aborted);
    suite.everywhere("a_verdict_is_about_the_object_that_was_verified", other_object);
    let embedded = &[BackendKind::Embedded];
    suite.on(embedded, "without_a_verdict_nothing_is_confirmed", fails_closed);
    suite.on(embedded, "an_upload_without_a_verdict_is_given_up_in_the_end", gives_up);
    suite.on(embedded, "a_verdict_may_lie_in_the_body", verdict_in_body);
    suite.on(embedded, "a_verdict_needs_the_whole_file", hasty);
    suite.on(embedded, "what_is_too_large_for_the_scanner_by_now_is_rejected", too_large);
    suite.on(embedded, "a_stopped_inspector_gives_back_what_it_had", stopped);
    suite.on(embedded, "policies_that_need_a_scanner_are_refused_without_one", demands);
    suite.everywhere("what_a_killed_inspector_had_is_inspected_by_another", killed);
    // The embedded PostgreSQL has one connection, and two processes need two.
    suite.on(&[BackendKind::Rgw, BackendKind::SeaweedFs], "inspectors_of_two_processes_share", shared);
}

/// Without scope, because the real stores take no form that is signed by a session with a policy.
fn unscoped(setting: &str) -> AppOptions {
    let options = AppOptions::unscoped();
    let policies = options.policies.map(|policies| with(&policies, setting));
    AppOptions { policies, ..options }
}

/// `policies` with one more setting for the default policy.
fn with(policies: &str, setting: &str) -> String {
    policies.replacen("max_size", &format!("{setting}\nmax_size"), 1)
}

fn sniffing(rule: &str) -> String {
    with(POLICIES, &format!("sniff = \"{rule}\""))
}

fn inspected() -> String {
    with(POLICIES, INSPECTED)
}

async fn show(caller: &Caller, issued: &Value) -> Value {
    caller.get(&format!("/api/v1/uploads/{}", id(issued))).await.expect(StatusCode::OK)
}

async fn sent(caller: &Caller, name: &str, bytes: &[u8], more: &Value) -> Value {
    let issued = caller.issue(name, bytes, more).await;
    let reply = caller.send(&issued, bytes).await;
    assert!(reply.status.is_success(), "{reply:?}");
    issued
}

/// Sends a file and confirms it, up to the scanner.
async fn inspecting(caller: &Caller, name: &str, bytes: &[u8], method: &str) -> Value {
    let issued = sent(caller, name, bytes, &json!({ "method": method })).await;
    let accepted = caller.complete(&issued).await.expect(StatusCode::ACCEPTED);
    assert_eq!(accepted["state"], "inspecting");
    accepted
}

async fn until(caller: &Caller, issued: &Value, state: &str) -> Value {
    let reached = async || {
        let shown = show(caller, issued).await;
        assert!(shown["state"] == state || shown["state"] == "inspecting", "{shown}");
        (shown["state"] == state).then_some(shown)
    };
    eventually(SOON, reached).await.0
}

async fn not_downloadable(caller: &Caller, issued: &Value) {
    let refused = caller.post("/api/v1/downloads", &json!({ "upload_id": issued["id"] })).await;
    let state = show(caller, issued).await["state"].as_str().unwrap().to_owned();
    let problem = refused.expect_problem(409, "upload_not_confirmed");
    assert!(problem["detail"].as_str().unwrap().contains(&state), "{problem}");
}

fn content(expected: &str, found: &str) -> Value {
    json!([{ "field": "content", "expected": expected, "found": found }])
}

async fn metric(caller: &Caller, name: &str) -> u64 {
    caller.metric(name).await.unwrap_or_default()
}

async fn rejected(backend: Backend) {
    let app = TestApp::start_with(&backend, unscoped("sniff = \"reject\"")).await;
    let alice = app.user("alice");
    let utf_16: Vec<u8> = "<script>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (declared, bytes, found) in [
        ("image/png", HTML, "text/html"),
        ("image/jpeg", SVG, "image/svg+xml"),
        ("application/pdf", PNG, "image/png"),
        ("image/jpeg", EXE, "application/vnd.microsoft.portable-executable"),
        ("image/png", &utf_16, "text/html"),
        ("image/png", b"\x89", "text/plain"),
        ("image/png", b"12345", "text/plain"),
    ] {
        for method in ["put", "post"] {
            let issued = sent(&alice, "a", bytes, &json!({ "method": method, "file_type": declared })).await;
            let problem = alice.complete(&issued).await.expect_problem(422, "upload_mismatch");
            assert_eq!(problem["errors"][0]["field"], "content", "{problem}");
            let shown = show(&alice, &issued).await;
            assert_eq!((&shown["state"], &shown["mismatches"]), (&json!("rejected"), &content(declared, found)));
            not_downloadable(&alice, &issued).await;
        }
    }
    let rejections = metric(&alice, "presignd_sniff_rejected_total").await;
    assert_eq!(rejections, 14);
    // Longer than what is looked at, empty, and everything that is what it says.
    let long: Vec<u8> = PNG.iter().copied().chain(std::iter::repeat_n(7, 100_000)).collect();
    for (declared, bytes) in [
        ("image/png", &long[..]),
        ("image/png", b""),
        (DOCX_TYPE, DOCX),
        ("application/epub+zip", DOCX),
        ("text/csv", b"BMW,1\n"),
        ("text/html", HTML),
        ("image/svg+xml", SVG),
        ("application/octet-stream", EXE),
        ("text/plain", b"1"),
    ] {
        for method in ["put", "post"] {
            let upload = alice.upload("a", bytes, &json!({ "method": method, "file_type": declared })).await;
            assert_eq!(upload["warnings"], Value::Null, "{upload}");
            assert_eq!(alice.download(&upload).await.bytes, bytes);
        }
    }
    app.end().await;
}

async fn warned(backend: Backend) {
    let app = TestApp::start_with(&backend, AppOptions::unscoped()).await;
    let alice = app.user("alice");
    for method in ["put", "post"] {
        let upload = alice.upload("a.png", HTML, &json!({ "method": method })).await;
        assert_eq!(upload["state"], "confirmed");
        assert_eq!(upload["warnings"], content("image/png", "text/html"));
        assert_eq!(show(&alice, &upload).await, upload);
        assert_eq!(alice.complete(&upload).await.expect(StatusCode::OK), upload);
        assert_eq!(alice.download(&upload).await.bytes, HTML);
    }
    assert_eq!(metric(&alice, "presignd_sniff_warned_total").await, 2, "each upload is counted once");
    app.end().await;
}

async fn sniff_by_policy(backend: Backend) {
    let app = TestApp::start(&backend).await;
    let alice = app.user("alice");
    let issued = sent(&alice, "a.png", HTML, &json!({ "method": "put" })).await;
    app.change_policies(&sniffing("reject")).await;
    alice.complete(&issued).await.expect_problem(422, "upload_mismatch");
    app.change_policies(&sniffing("off")).await;
    let upload = alice.upload("a.png", HTML, &json!({ "method": "put" })).await;
    assert_eq!(upload["warnings"], Value::Null);
    app.end().await;
}

fn overlay(scanner: &TestScanner, more: &str) -> String {
    format!("[inspection]\nurl = \"{}\"\npoll_interval = \"50ms\"\nfirst_retry = \"1s\"\n{more}", scanner.url())
}

fn options(scanner: &TestScanner, more: &str) -> AppOptions {
    AppOptions { settings: overlay(scanner, more), ..unscoped(INSPECTED) }
}

async fn clean(backend: Backend) {
    let scanner = TestScanner::start(Answer::Wait, &backend.runtime).await;
    let app = TestApp::start_with(&backend, options(&scanner, "authorization = \"Bearer s3cret\"")).await;
    let alice = app.user("alice");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for (times, (method, bytes)) in (1..).zip([("put", &bytes[..]), ("post", &bytes), ("put", b""), ("post", b"1")]) {
        let upload = inspecting(&alice, "a.bin", bytes, method).await;
        scanner.asked(times).await;
        // While the scanner thinks.
        not_downloadable(&alice, &upload).await;
        assert_eq!(alice.complete(&upload).await.expect(StatusCode::ACCEPTED), upload);
        let renew = format!("/api/v1/uploads/{}/renew", id(&upload));
        alice.post_nothing(&renew).await.expect_problem(409, "invalid_state");
        scanner.go_on();
        let confirmed = until(&alice, &upload, "confirmed").await;
        assert_eq!(confirmed["confirmed_via"], "callback");
        assert_eq!(confirmed["etag"], upload["etag"]);
        assert_eq!(alice.complete(&upload).await.expect(StatusCode::OK), confirmed);
        assert_eq!(alice.download(&upload).await.bytes, bytes);
        let scan = scanner.scans().pop().unwrap();
        assert!(scan.file == bytes, "what was scanned is what is confirmed");
        assert!(scan.head.contains("content-type: multipart/form-data"), "{}", scan.head);
        assert!(scan.head.contains("authorization: bearer s3cret"), "{}", scan.head);
    }
    assert_eq!(scanner.times_asked(), 4);
    assert_eq!(metric(&alice, "presignd_inspection_attempts_total{outcome=\"clean\"}").await, 4);
    app.end().await;
}

async fn revoked(backend: Backend) {
    let scanner = TestScanner::start(Answer::Wait, &backend.runtime).await;
    let app = TestApp::start_with(&backend, options(&scanner, ADMIN)).await;
    let alice = app.user("alice");
    // The first cannot write over what is there any more; the second writes where nobody looks, and writes.
    for (method, is_counted) in [("put", false), ("post", true)] {
        let upload = inspecting(&alice, "a.bin", b"12345", method).await;
        let revoked = administrator(&app).post(PATH, &json!({ "upload_id": id(&upload) })).await.expect(StatusCode::OK);
        let expected = if is_counted { upload["expires_at"].clone() } else { Value::Null };
        assert_eq!(revoked["urls_live_until"], expected, "{method}");
    }
    app.end().await;
}

async fn infected(backend: Backend) {
    let scanner = TestScanner::start(Answer::Wait, &backend.runtime).await;
    let app = TestApp::start_with(&backend, options(&scanner, "")).await;
    let alice = app.user("alice");
    for (times, method) in (1..).zip(["put", "post"]) {
        let upload = inspecting(&alice, "a.bin", b"this is EICAR", method).await;
        scanner.asked(times).await;
        not_downloadable(&alice, &upload).await;
        scanner.go_on();
        let rejected = until(&alice, &upload, "rejected").await;
        let expected = json!([{ "field": "inspection", "expected": "clean", "found": "infected" }]);
        assert_eq!(rejected["mismatches"], expected);
        not_downloadable(&alice, &upload).await;
        let problem = alice.complete(&upload).await.expect_problem(422, "upload_mismatch");
        assert_eq!(problem["errors"][0]["field"], "inspection");
        assert_eq!(show(&alice, &upload).await, rejected);
    }
    assert_eq!(metric(&alice, "presignd_inspection_attempts_total{outcome=\"infected\"}").await, 2);
    app.end().await;
}

async fn by_url(backend: Backend) {
    let scanner = TestScanner::start(Answer::Scan, &backend.runtime).await;
    let mode = "mode = \"url\"";
    let settings = overlay(&scanner, mode);
    let scoped = AppOptions { policies: Some(inspected()), settings, ..AppOptions::default() };
    let unscoped = || options(&scanner, mode);
    for (options, method) in [(scoped, "put"), (unscoped(), "put"), (unscoped(), "post")] {
        let app = TestApp::start_with(&backend, options).await;
        let alice = app.user("alice");
        let upload = inspecting(&alice, "a.txt", b"harmless", method).await;
        until(&alice, &upload, "confirmed").await;
        let scan = scanner.scans().pop().unwrap();
        assert_eq!(scan.file, b"harmless");
        let told: Value = serde_json::from_slice(&scan.body).unwrap();
        assert_eq!((&told["file_type"], &told["file_size"]), (&json!("text/plain"), &json!(8)));
        assert!(told["url"].as_str().unwrap().contains("X-Amz-Expires=60&"), "no longer than an attempt");
        let upload = inspecting(&alice, "a.txt", b"this is EICAR", method).await;
        until(&alice, &upload, "rejected").await;
        app.end().await;
    }
}

async fn aborted(backend: Backend) {
    let scanner = TestScanner::start(Answer::Wait, &backend.runtime).await;
    let app = TestApp::start_with(&backend, options(&scanner, "")).await;
    let alice = app.user("alice");
    for (times, method) in (1..).zip(["put", "post"]) {
        let upload = inspecting(&alice, "a.txt", b"harmless", method).await;
        scanner.asked(times).await;
        let path = format!("/api/v1/uploads/{}", id(&upload));
        let aborted = alice.delete(&path).await.expect(StatusCode::OK);
        assert_eq!(aborted["state"], "aborted");
        // The verdict comes too late.
        scanner.go_on();
        let seen = async || {
            let clean = metric(&alice, "presignd_inspection_attempts_total{outcome=\"clean\"}").await;
            (clean == u64::try_from(times).unwrap()).then_some(())
        };
        eventually(SOON, seen).await;
        let gone = async || (metric(&alice, "presignd_inspections_waiting").await == 0).then_some(());
        eventually(SOON, gone).await;
        assert_eq!(show(&alice, &upload).await, aborted);
        not_downloadable(&alice, &upload).await;
    }
    app.end().await;
}

async fn other_object(backend: Backend) {
    let expected =
        json!([{ "field": "inspection", "expected": "clean", "found": "the verified object is no longer there" }]);
    let scanner = TestScanner::start(Answer::Wait, &backend.runtime).await;
    let app = TestApp::start_with(&backend, options(&scanner, "mode = \"url\"")).await;
    let alice = app.user("alice");
    let upload = inspecting(&alice, "a.txt", b"harmless", "put").await;
    // It has looked at the file, and has not said anything yet.
    scanner.asked(1).await;
    let (s3, bucket) = (&app.bucket.s3, &app.bucket.bucket);
    let listed = s3.list_objects_v2().bucket(bucket).send().await.expect("a listing");
    let [object] = listed.contents() else { panic!("one object: {listed:?}") };
    let put = s3.put_object().bucket(bucket).key(object.key().unwrap()).content_type("text/plain");
    put.body(ByteStream::from_static(b"harmful!")).send().await.expect("the administrator may put");
    scanner.go_on();
    assert_eq!(until(&alice, &upload, "rejected").await["mismatches"], expected);
    not_downloadable(&alice, &upload).await;
    app.end().await;

    let scanner = TestScanner::start(Answer::Down, &backend.runtime).await;
    let app = TestApp::start_with(&backend, options(&scanner, "")).await;
    let alice = app.user("alice");
    let upload = inspecting(&alice, "a.txt", b"harmless", "put").await;
    scanner.asked(1).await;
    app.bucket.empty().await;
    scanner.answer(Answer::Scan);
    assert_eq!(until(&alice, &upload, "rejected").await["mismatches"], expected);
    assert_eq!(scanner.scans().len(), 0);
    app.end().await;
}

async fn fails_closed(backend: Backend) {
    let scanner = TestScanner::start(Answer::Down, &backend.runtime).await;
    let clock = Clock::manual(Clock::System.now());
    let options = AppOptions { clock: clock.clone(), ..options(&scanner, "timeout = \"300ms\"") };
    let app = TestApp::start_with(&backend, options).await;
    let upload = inspecting(&app.user("alice"), "a.txt", b"harmless", "put").await;
    let mut failures = 0;
    for answer in [
        Answer::Down,
        Answer::Hang,
        Answer::Reply(500, "[]"),
        Answer::Reply(404, "clean"),
        Answer::Reply(302, "clean"),
        Answer::Reply(204, ""),
        Answer::Down,
    ] {
        scanner.answer(answer.clone());
        let failed = async || {
            // Longer than any pause between attempts, and every token must still be good.
            clock.set(clock.now() + TimeDelta::minutes(11));
            let now = metric(&app.user("alice"), "presignd_inspection_attempts_total{outcome=\"failed\"}").await;
            (now > failures).then_some(now)
        };
        failures = eventually(SOON, failed).await.0;
        assert_eq!(show(&app.user("alice"), &upload).await, upload, "{answer:?}");
        not_downloadable(&app.user("alice"), &upload).await;
        if clock.now() - Clock::System.now() > TimeDelta::hours(20) {
            break;
        }
    }
    assert!(clock.now() - Clock::System.now() > TimeDelta::hours(1));
    scanner.answer(Answer::Scan);
    let confirmed = async || {
        clock.set(clock.now() + TimeDelta::seconds(30));
        let shown = show(&app.user("alice"), &upload).await;
        (shown["state"] == "confirmed").then_some(shown)
    };
    eventually(SOON, confirmed).await;
    let alice = app.user("alice");
    assert_eq!(metric(&alice, "presignd_inspection_attempts_total{outcome=\"clean\"}").await, 1);
    app.end().await;
}

async fn gives_up(backend: Backend) {
    let scanner = TestScanner::start(Answer::Down, &backend.runtime).await;
    let clock = Clock::manual(Clock::System.now());
    let more = "give_up_after = \"2h\"\nlargest = \"8MiB\"";
    let app = TestApp::start_with(&backend, AppOptions { clock: clock.clone(), ..options(&scanner, more) }).await;
    let upload = inspecting(&app.user("alice"), "a.txt", b"harmless", "put").await;
    scanner.asked(1).await;
    assert_eq!(show(&app.user("alice"), &upload).await["state"], "inspecting");
    clock.set(clock.now() + TimeDelta::hours(2));
    let rejected = until(&app.user("alice"), &upload, "rejected").await;
    let expected = json!([{ "field": "inspection", "expected": "clean", "found": "no verdict in time" }]);
    assert_eq!(rejected["mismatches"], expected);
    assert_eq!(metric(&app.anonymous(), "presignd_inspections_given_up_total").await, 1);
    app.end().await;
}

async fn verdict_in_body(backend: Backend) {
    let scanner = TestScanner::start(Answer::Reply(200, "{\"is_infected\":null}"), &backend.runtime).await;
    let clock = Clock::manual(Clock::System.now());
    let verdict = "verdict = { pointer = \"/is_infected\", clean = false, infected = true }";
    let app = TestApp::start_with(&backend, AppOptions { clock: clock.clone(), ..options(&scanner, verdict) }).await;
    let alice = app.user("alice");
    let upload = inspecting(&alice, "a.txt", b"harmless", "put").await;
    let failed = async || {
        let failed = metric(&alice, "presignd_inspection_attempts_total{outcome=\"failed\"}").await;
        (failed > 0).then_some(())
    };
    eventually(SOON, failed).await;
    assert_eq!(show(&alice, &upload).await["state"], "inspecting");
    scanner.answer(Answer::Reply(200, "{\"is_infected\":false}"));
    let confirmed = async || {
        clock.set(clock.now() + TimeDelta::seconds(1));
        (show(&alice, &upload).await["state"] == "confirmed").then_some(())
    };
    eventually(SOON, confirmed).await;
    scanner.answer(Answer::Reply(200, "{\"is_infected\":true}"));
    let upload = inspecting(&alice, "a.txt", b"harmless", "put").await;
    until(&alice, &upload, "rejected").await;
    app.end().await;
}

async fn hasty(backend: Backend) {
    let scanner = TestScanner::start(Answer::Hasty(200, "clean"), &backend.runtime).await;
    let app = TestApp::start_with(&backend, options(&scanner, "")).await;
    let alice = app.user("alice");
    // More than what connections hold by themselves.
    let upload = inspecting(&alice, "a.bin", &vec![7; 8 << 20], "put").await;
    let failed = async || {
        let failed = metric(&alice, "presignd_inspection_attempts_total{outcome=\"failed\"}").await;
        (failed > 0).then_some(())
    };
    eventually(SOON, failed).await;
    assert_eq!(show(&alice, &upload).await["state"], "inspecting");
    app.end().await;
}

async fn too_large(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let (database, bucket) = (backend.database().await, backend.bucket(folder.path()).await);
    let scanner = TestScanner::start(Answer::Hang, &backend.runtime).await;
    let policies = write_policies(folder.path());
    let clock = Clock::manual(Clock::System.now());
    let settings = |more: &str| settings(&database, &bucket, &policies, &overlay(&scanner, more));
    let (first, alice) = another(&backend, &settings(""), clock.clone()).await;
    let upload = inspecting(&alice, "a.txt", &[b'a'; 5000], "put").await;
    scanner.asked(1).await;
    drop(alice);
    first.stop().await;
    std::fs::write(&policies, inspected().replace("8MiB", "4KiB")).unwrap();
    let (second, alice) = another(&backend, &settings("largest = \"4KiB\""), clock).await;
    let rejected = until(&alice, &upload, "rejected").await;
    assert_eq!(rejected["mismatches"][0]["found"], "larger than the scanner takes", "{rejected}");
    assert_eq!(scanner.times_asked(), 1);
    drop(alice);
    second.stop().await;
    bucket.end().await;
    database.end().await;
}

/// Another process on the same database and bucket, with a clock of its own.
async fn another(backend: &Backend, settings: &toml::Table, clock: Clock) -> (Running, Caller) {
    let settings = settings.to_string();
    let config = Config::parse(&settings, "test settings", &BTreeMap::new()).unwrap();
    let running = service::start(&config, clock.clone(), backend.runtime.clone()).await.expect("the service starts");
    let token = crate::support::app::token(&crate::support::app::TokenOptions::default(), clock.now());
    let caller = Caller::new(format!("http://{}", running.address), Some(token), [127, 0, 0, 1].into());
    (running, caller)
}

fn write_policies(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("policies.toml");
    std::fs::write(&path, inspected()).unwrap();
    path
}

async fn stopped(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let (database, bucket) = (backend.database().await, backend.bucket(folder.path()).await);
    let scanner = TestScanner::start(Answer::Hang, &backend.runtime).await;
    let settings = settings(&database, &bucket, &write_policies(folder.path()), &overlay(&scanner, ""));
    let clock = Clock::manual(Clock::System.now());
    let (first, alice) = another(&backend, &settings, clock.clone()).await;
    let upload = inspecting(&alice, "a.txt", b"harmless", "put").await;
    scanner.asked(1).await;
    drop(alice);
    first.stop().await;
    scanner.answer(Answer::Scan);
    // At the very same time, long before any lease ends.
    let (second, alice) = another(&backend, &settings, clock).await;
    until(&alice, &upload, "confirmed").await;
    drop(alice);
    second.stop().await;
    bucket.end().await;
    database.end().await;
}

async fn killed(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let (database, bucket) = (backend.database().await, backend.bucket(folder.path()).await);
    let scanner = TestScanner::start(Answer::Hang, &backend.runtime).await;
    let settings = settings(&database, &bucket, &write_policies(folder.path()), &overlay(&scanner, ""));
    let mut program = Program::start(folder.path(), settings.clone());
    program.wait_ready();
    let upload = inspecting(&program.user("alice"), "a.txt", b"harmless", "put").await;
    scanner.asked(1).await;
    program.kill();
    scanner.answer(Answer::Scan);
    let clock = Clock::manual(Clock::System.now());
    let (second, alice) = another(&backend, &settings, clock.clone()).await;
    // What is due is inspected, and what another has claimed is not.
    let later = inspecting(&alice, "b.txt", b"harmless as well", "put").await;
    until(&alice, &later, "confirmed").await;
    assert_eq!(show(&alice, &upload).await["state"], "inspecting");
    // Twice the time limit and half a minute.
    clock.set(clock.now() + TimeDelta::seconds(150));
    until(&alice, &upload, "confirmed").await;
    assert_eq!(scanner.times_asked(), 3);
    drop(alice);
    second.stop().await;
    bucket.end().await;
    database.end().await;
}

async fn shared(backend: Backend) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (database, bucket) = (backend.database().await, backend.bucket(folders[0].path()).await);
    let scanner = TestScanner::start(Answer::Wait, &backend.runtime).await;
    let policies = write_policies(folders[0].path());
    let settings = settings(&database, &bucket, &policies, &overlay(&scanner, "concurrency = 1"));
    let mut programs = Vec::new();
    for folder in &folders {
        let mut program = Program::start(folder.path(), settings.clone());
        program.wait_ready();
        programs.push(program);
    }
    let alice = programs[0].user("alice");
    let mut uploads = Vec::new();
    for n in 0..6_u8 {
        uploads.push(inspecting(&alice, "a.bin", &[n; 9], "put").await);
    }
    // One of each: neither may have two at the same time.
    scanner.asked(2).await;
    assert_eq!(scanner.times_asked(), 2);
    for done in 0..6 {
        scanner.go_on();
        scanner.asked(6.min(done + 3)).await;
    }
    for upload in &uploads {
        until(&alice, upload, "confirmed").await;
    }
    let mut files: Vec<_> = scanner.scans().into_iter().map(|scan| scan.file).collect();
    files.sort();
    assert_eq!(files, (0..6_u8).map(|n| vec![n; 9]).collect::<Vec<_>>(), "each was scanned once");
    for mut program in programs {
        program.terminate();
        assert!(program.wait_end().success());
    }
    bucket.end().await;
    database.end().await;
}

async fn demands(backend: Backend) {
    // Without a scanner, on reload.
    let app = TestApp::start(&backend).await;
    let refused = app.change_policies(&inspected()).await;
    assert_eq!((refused.reloads_total, refused.failures_total), (0, 1));
    let reason = refused.last_error.unwrap();
    let line = 1 + inspected().lines().position(|line| line.starts_with("inspection")).unwrap();
    assert!(reason.contains(&format!("line {line}: policy.default.inspection: needs the [inspection]")), "{reason}");
    // And at the start.
    let settings = settings(&app.database, &app.bucket, &write_policies(app.folder()), "");
    let config = Config::parse(&settings.to_string(), "test settings", &BTreeMap::new()).unwrap();
    let started = service::start(&config, Clock::System, backend.runtime.clone()).await;
    let reason = started.expect_err("it does not start").to_string();
    assert!(reason.contains("policy.default.inspection: needs"), "{reason}");
    app.end().await;

    // Larger files than the scanner takes.
    let scanner = TestScanner::start(Answer::Scan, &backend.runtime).await;
    let app = TestApp::start_with(&backend, options(&scanner, "largest = \"8MiB\"")).await;
    let refused = app.change_policies(&unscoped(INSPECTED).policies.unwrap().replacen("8MiB", "9MiB", 1)).await;
    assert!(refused.last_error.unwrap().contains("policy.default.max_size: must be at most inspection.largest"));
    app.end().await;
}
