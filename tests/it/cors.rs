//! CORS of the bucket: what `presignd cors print` says is what browsers need, no more and no less.
//!
//! A browser asks before it sends (Fetch standard, 4.8): `OPTIONS` with the origin, the method, and the names of the
//! headers that a page may not set without asking. The requests here are those that this service's own answers lead to.

use std::time::Duration;

use aws_sdk_s3::types::{CorsConfiguration, CorsRule as SdkRule};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use presignd::{
    domain::{BucketCors, CorsRule},
    policy::PolicyDocument,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp,
    backend::{BackendKind, TestBucket},
    caller::{id, upload_request},
    load::eventually,
};

const ORIGIN: &str = "https://app.example.com";
const ELSEWHERE: &str = "https://evil.example.com";

pub(crate) fn register(suite: &mut Suite<'_>) {
    // The embedded store has rules of its own for all buckets.
    let real = &[BackendKind::Rgw, BackendKind::SeaweedFs];
    suite.on(real, "printed_cors_rules_let_every_request_through", sufficient);
    suite.on(real, "every_part_of_the_printed_cors_rules_is_needed", necessary);
    suite.everywhere("an_asterisk_allows_every_origin_whatever_stands_beside_it", asterisk);
}

fn needed(app: &TestApp) -> BucketCors {
    let policies = std::fs::read_to_string(&app.policies_file).unwrap();
    BucketCors::needed(&PolicyDocument::parse(&policies).unwrap(), &[ORIGIN.to_owned()])
}

/// Puts rules on the bucket, through the text that is printed.
async fn put(app: &TestApp, rules: &[CorsRule]) {
    let printed = serde_json::to_value(BucketCors { rules: rules.to_vec() }).unwrap();
    put_printed(&app.bucket, &printed).await;
}

/// Puts on the bucket what was printed for it.
pub(crate) async fn put_printed(bucket: &TestBucket, printed: &Value) {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let rules = printed["CORSRules"].as_array().unwrap().iter().map(|rule| {
        let built = SdkRule::builder()
            .id(rule["ID"].as_str().unwrap())
            .set_allowed_origins(Some(texts(&rule["AllowedOrigins"])))
            .set_allowed_methods(Some(texts(&rule["AllowedMethods"])))
            .set_allowed_headers(Some(texts(&rule["AllowedHeaders"])))
            .set_expose_headers(Some(texts(&rule["ExposeHeaders"])))
            .max_age_seconds(i32::try_from(rule["MaxAgeSeconds"].as_u64().unwrap()).unwrap());
        built.build().expect("a whole rule")
    });
    let rules = CorsConfiguration::builder().set_cors_rules(Some(rules.collect())).build().expect("rules");
    let put = bucket.s3.put_bucket_cors().bucket(&bucket.bucket).cors_configuration(rules);
    put.send().await.expect("the store takes the rules");
}

/// A request that a page would make.
#[derive(Debug, Clone)]
struct Wanted {
    method: &'static str,
    url: String,
    /// Names of the headers that a page has to ask for, in lower case.
    headers: Vec<String>,
}

impl Wanted {
    /// What an issued upload leads to.
    fn upload(issued: &Value) -> Self {
        Self::at(&issued["upload"])
    }

    /// What the target of an upload, or a part, leads to.
    fn at(upload: &Value) -> Self {
        let method = if upload["method"] == "PUT" { "PUT" } else { "POST" };
        let names = upload["headers"].as_object().unwrap().keys();
        let mut headers: Vec<String> = names.map(|name| name.to_ascii_lowercase()).collect();
        headers.sort();
        Self { method, url: upload["url"].as_str().unwrap().to_owned(), headers }
    }

    /// Whether the store says that a page of `origin` may.
    async fn may(&self, caller: &Caller, origin: &str) -> bool {
        let mut request = caller.http.request(Method::OPTIONS, &self.url).header("origin", origin);
        request = request.header("access-control-request-method", self.method);
        if !self.headers.is_empty() {
            request = request.header("access-control-request-headers", self.headers.join(","));
        }
        let reply = Reply::of(request).await;
        let allows = |name: &str, wanted: &str| {
            let list = header(&reply, name);
            list.split(',').any(|item| item.trim() == "*" || item.trim().eq_ignore_ascii_case(wanted))
        };
        // Methods that every page may use need not be named.
        let method_allowed = self.method != "PUT" || allows("access-control-allow-methods", self.method);
        reply.status.is_success()
            && allows("access-control-allow-origin", origin)
            && method_allowed
            && self.headers.iter().all(|wanted| allows("access-control-allow-headers", wanted))
    }
}

fn header(reply: &Reply, name: &str) -> String {
    reply.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Whether the answer lets a page of [`ORIGIN`] read it, and its header `name`.
fn shows(reply: &Reply, name: &str) -> bool {
    let origin = header(reply, "access-control-allow-origin");
    let exposed = header(reply, "access-control-expose-headers");
    (origin == ORIGIN || origin == "*") && exposed.split(',').any(|item| item.trim().eq_ignore_ascii_case(name))
}

async fn start(backend: &Backend) -> TestApp {
    // Neither store takes a form that is signed by a session with a policy.
    let mut options = AppOptions::unscoped();
    let policies = options.policies.as_deref().unwrap_or_default();
    options.policies = Some(policies.replacen("methods = [", "methods = [\"multipart\", ", 1));
    TestApp::start_with(backend, options).await
}

async fn issue(alice: &Caller, method: &str) -> Value {
    let more =
        json!({ "method": method, "checksum_sha256": sha256(b"12345"), "metadata": { "case": "42", "note": "x" } });
    alice.issue("a.pdf", b"12345", &more).await
}

fn sha256(bytes: &[u8]) -> String {
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// The first part of an upload of two, with its digest: where it goes, with which headers.
async fn part(alice: &Caller) -> Value {
    let body = json!({
        "original_file_name": "a.bin", "file_size": (5 << 20) + 1, "method": "multipart", "part_checksums": true,
    });
    let issued = alice.post("/api/v1/uploads", &body).await.expect(StatusCode::CREATED);
    let size = issued["upload"]["part_size"].as_u64().unwrap().min((5 << 20) + 1);
    let bytes = vec![0; usize::try_from(size).unwrap()];
    let body = json!({ "part_numbers": [1], "checksums_sha256": { "1": sha256(&bytes) } });
    let path = format!("/api/v1/uploads/{}/parts", id(&issued));
    let mut part = alice.post(&path, &body).await.expect(StatusCode::OK)["parts"][0].take();
    part["method"] = json!("PUT");
    part["size"] = json!(size);
    part
}

/// What Active Storage is told about a file of which it knows the MD5.
async fn direct_upload(alice: &Caller) -> Value {
    let blob = json!({
        "filename": "a.pdf", "content_type": "application/pdf", "byte_size": 5, "checksum": "gnzLDuqKcGxMNKFokfhOew==",
    });
    let answer = alice.post("/rails/active_storage/direct_uploads", &json!({ "blob": blob })).await;
    let mut target = answer.expect(StatusCode::OK)["direct_upload"].take();
    target["method"] = json!("PUT");
    target
}

async fn sufficient(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let (by_put, by_form) = (issue(&alice, "put").await, issue(&alice, "post").await);
    let by_part = part(&alice).await;
    let direct = direct_upload(&alice).await;
    let all = [Wanted::upload(&by_put), Wanted::upload(&by_form), Wanted::at(&by_part), Wanted::at(&direct)];
    assert_eq!(all[2].headers, ["x-amz-checksum-sha256"]);
    assert_eq!(
        all[0].headers,
        ["content-type", "if-none-match", "x-amz-checksum-sha256", "x-amz-meta-case", "x-amz-meta-note"]
    );
    // SeaweedFS lets every origin in as long as a bucket has no rules.
    if backend.kind == BackendKind::Rgw {
        for wanted in &all {
            assert!(!wanted.may(&alice, ORIGIN).await, "without rules nothing is allowed: {wanted:?}");
        }
    }
    put(&app, &needed(&app).rules).await;
    for wanted in &all {
        eventually(Duration::from_secs(10), async || wanted.may(&alice, ORIGIN).await.then_some(())).await;
        // SeaweedFS lets every page ask for what every page may send, which a form is.
        let is_granted_anyhow = backend.kind == BackendKind::SeaweedFs && wanted.method == "POST";
        assert_eq!(wanted.may(&alice, ELSEWHERE).await, is_granted_anyhow, "{wanted:?}");
    }

    // Now as a page would go on.
    for issued in [&by_put, &by_form] {
        let request = upload_request(&alice.http, &issued["upload"], b"12345").header("origin", ORIGIN);
        let sent = Reply::of(request).await;
        assert!(sent.status.is_success(), "{}", sent.text());
        assert!(shows(&sent, "ETag"), "{:?}", sent.headers);
        alice.complete(issued).await.expect(StatusCode::OK);
    }
    let bytes = vec![0; usize::try_from(by_part["size"].as_u64().unwrap()).unwrap()];
    let sent = Reply::of(upload_request(&alice.http, &by_part, &bytes).header("origin", ORIGIN)).await;
    assert!(sent.status.is_success() && shows(&sent, "ETag"), "{:?}", sent.headers);
    let download = alice.post("/api/v1/downloads", &json!({ "upload_id": by_put["id"] })).await;
    let url = download.expect(StatusCode::CREATED)["url"].as_str().unwrap().to_owned();
    let wanted = Wanted { method: "GET", url: url.clone(), headers: vec!["range".to_owned()] };
    assert!(wanted.may(&alice, ORIGIN).await && !wanted.may(&alice, ELSEWHERE).await);
    let part = Reply::of(alice.http.get(&url).header("origin", ORIGIN).header("range", "bytes=1-2")).await;
    assert_eq!((part.status, part.text().as_str()), (StatusCode::PARTIAL_CONTENT, "23"));
    for exposed in ["ETag", "Content-Disposition", "Content-Range"] {
        assert!(shows(&part, exposed), "{exposed}: {:?}", part.headers);
    }
    app.end().await;
}

async fn necessary(backend: Backend) {
    let app = start(&backend).await;
    let alice = app.user("alice");
    let uploaded = alice.upload("a.pdf", b"12345", &json!({ "method": "put" })).await;
    let download = alice.post("/api/v1/downloads", &json!({ "upload_id": uploaded["id"] })).await;
    let url = download.expect(StatusCode::CREATED)["url"].as_str().unwrap().to_owned();
    let get = Wanted { method: "GET", url: url.clone(), headers: vec!["range".to_owned()] };
    let [by_put, by_form] = [issue(&alice, "put").await, issue(&alice, "post").await];
    let direct = direct_upload(&alice).await;
    let all = [Wanted::upload(&by_put), Wanted::upload(&by_form), Wanted::at(&direct), get];
    let rule = needed(&app).rules.remove(0);
    let becomes = async |fewer: CorsRule, wanted: &Wanted, expected: bool| {
        put(&app, &[fewer]).await;
        let settled = async || (wanted.may(&alice, ORIGIN).await == expected).then_some(());
        eventually(Duration::from_secs(10), settled).await;
    };
    for wanted in &all {
        becomes(rule.clone(), wanted, true).await;
    }
    // Each header that is allowed, left out: what needs it is refused, and nothing else.
    let named = |header: &&str, wanted: &Wanted| {
        wanted.headers.iter().any(|name| name == header || name.starts_with(header.trim_end_matches('*')))
    };
    for (index, header) in rule.allowed_headers.iter().enumerate() {
        assert!(all.iter().any(|wanted| named(header, wanted)), "nothing needs {header}");
        for wanted in &all {
            let mut fewer = rule.clone();
            fewer.allowed_headers.remove(index);
            becomes(fewer, wanted, !named(header, wanted)).await;
        }
    }
    // Each method. SeaweedFS grants those that every page may use to every page that it grants anything.
    for (index, method) in rule.allowed_methods.iter().enumerate() {
        for wanted in &all {
            let mut fewer = rule.clone();
            fewer.allowed_methods.remove(index);
            let is_granted_anyhow = backend.kind == BackendKind::SeaweedFs && *method == "POST";
            becomes(fewer, wanted, wanted.method != *method || is_granted_anyhow).await;
        }
    }
    // Without the exposed headers the page gets the answer but cannot read them.
    put(&app, &[CorsRule { expose_headers: Vec::new(), ..rule.clone() }]).await;
    let read = async || Reply::of(alice.http.get(&url).header("origin", ORIGIN)).await;
    let hides = async || {
        let reply = read().await;
        (reply.status == StatusCode::OK && !shows(&reply, "ETag")).then_some(reply)
    };
    let (reply, _) = eventually(Duration::from_secs(10), hides).await;
    assert!([ORIGIN, "*"].contains(&header(&reply, "access-control-allow-origin").as_str()), "{:?}", reply.headers);
    // A page of an origin without a rule does not get it at all, although the store has sent it.
    put(&app, &[CorsRule { allowed_origins: vec![ELSEWHERE.to_owned()], ..rule }]).await;
    let withheld = async || {
        let reply = read().await;
        (reply.status == StatusCode::OK && header(&reply, "access-control-allow-origin").is_empty()).then_some(())
    };
    eventually(Duration::from_secs(10), withheld).await;
    app.end().await;
}

async fn asterisk(backend: Backend) {
    for origins in [format!("\"*\", \"{ORIGIN}\""), format!("\"{ORIGIN}\", \"*\"")] {
        let settings = format!("[server]\ncors_allowed_origins = [{origins}]");
        let app = TestApp::start_with(&backend, AppOptions { settings, ..AppOptions::default() }).await;
        for origin in [ORIGIN, ELSEWHERE] {
            let request = app.anonymous().request(Method::GET, "/healthz").header("origin", origin);
            let allowed = header(&Reply::of(request).await, "access-control-allow-origin");
            assert!(["*", origin].contains(&allowed.as_str()), "{origins}, {origin}: {allowed}");
        }
        app.end().await;
    }
}
