//! The requests of `docs/mobile.md`, one after the other as the examples there send them.

use std::time::Duration;

use presignd::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    AppOptions, Backend, Caller, Reply, Suite, TestApp,
    caller::{headers, id, sized},
    load::eventually,
};

const MIB: usize = 1 << 20;

const POLICIES: &str = "[policy.default]\nmethods = [\"put\", \"multipart\"]\nmax_size = \"64MiB\"\n\
                        upload.part_size = \"5MiB\"\nupload.multipart_above = \"8MiB\"\n";

pub(crate) fn register(suite: &mut Suite<'_>) {
    suite.everywhere("a_phone_uploads_a_small_file", small);
    suite.everywhere("a_phone_uploads_a_large_file", large);
    suite.everywhere("a_phone_renews_an_expired_url", expired);
}

async fn start(backend: &Backend) -> TestApp {
    TestApp::start_with(backend, AppOptions { policies: Some(POLICIES.to_owned()), ..AppOptions::default() }).await
}

/// Describes the file; the key is that of the job, so a repetition is the same upload.
async fn issue(phone: &Caller, job: &str, name: &str, size: usize) -> Value {
    let body = json!({ "original_file_name": name, "file_size": size });
    let request = phone.request(Method::POST, "/api/v1/uploads").header("idempotency-key", job).json(&body);
    Reply::of(request).await.expect(StatusCode::CREATED)
}

async fn renew(phone: &Caller, issued: &Value) -> Value {
    phone.post_nothing(&format!("/api/v1/uploads/{}/renew", id(issued))).await.expect(StatusCode::OK)
}

async fn put(phone: &Caller, target: &Value, bytes: &[u8]) -> StatusCode {
    let request = phone.http.put(target["url"].as_str().unwrap()).headers(headers(target));
    Reply::of(sized(request, bytes)).await.status
}

/// Confirms with the callback token alone: the user's session may be over by then.
async fn confirm(app: &TestApp, issued: &Value) -> Value {
    let url = issued["callback"]["url"].as_str().unwrap().strip_prefix(&app.base()).unwrap().to_owned();
    let anybody = app.anonymous().at("127.0.0.12");
    let token = issued["callback"]["token"].as_str().unwrap();
    let request = anybody.request(Method::POST, &url).header("x-callback-token", token);
    Reply::of(request).await.expect(StatusCode::OK)
}

async fn small(backend: Backend) {
    let app = start(&backend).await;
    let at_home = app.user("alice").at("127.0.0.11");
    let bytes = b"a photo".as_slice();
    let issued = issue(&at_home, "job-1", "photo.jpg", bytes.len()).await;
    // The answer was lost, and the job starts again.
    let issued_again = issue(&at_home, "job-1", "photo.jpg", bytes.len()).await;
    assert_eq!(issued_again["id"], issued["id"]);

    // From the house into the street: another address, which the URL is not for.
    let outside = at_home.at("127.0.0.12");
    assert_eq!(put(&outside, &issued_again["upload"], bytes).await, StatusCode::FORBIDDEN);
    let renewed = renew(&outside, &issued).await;
    assert!(put(&outside, &renewed["upload"], bytes).await.is_success());
    // The store's answer was lost, and the job sends it again.
    assert_eq!(put(&outside, &renewed["upload"], bytes).await, StatusCode::PRECONDITION_FAILED);

    // The answer to the confirmation was lost as well.
    assert_eq!(confirm(&app, &renewed).await["state"], "confirmed");
    assert_eq!(confirm(&app, &renewed).await["state"], "confirmed");
    let confirmed = outside.get(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
    assert_eq!(outside.download(&confirmed).await.bytes, bytes);
    app.end().await;
}

async fn expired(backend: Backend) {
    let app = start(&backend).await;
    let phone = app.user("alice");
    let issued = phone.issue("photo.jpg", b"a photo", &json!({ "expires_in": 1 })).await;
    let end: chrono::DateTime<chrono::Utc> = issued["expires_at"].as_str().unwrap().parse().unwrap();
    eventually(Duration::from_secs(10), async || {
        (Clock::System.now() > end + chrono::TimeDelta::seconds(1)).then_some(())
    })
    .await;
    assert_eq!(put(&phone, &issued["upload"], b"a photo").await, StatusCode::FORBIDDEN);
    let renewed = renew(&phone, &issued).await;
    assert!(put(&phone, &renewed["upload"], b"a photo").await.is_success());
    assert_eq!(confirm(&app, &renewed).await["state"], "confirmed");
    app.end().await;
}

/// Asks for the URLs of `numbers`.
async fn part_urls(phone: &Caller, issued: &Value, numbers: &[usize]) -> Reply {
    let path = issued["upload"]["parts_url"].as_str().unwrap();
    let path = &path[path.find("/api/").unwrap()..];
    phone.post(path, &json!({ "part_numbers": numbers })).await
}

async fn large(backend: Backend) {
    let app = start(&backend).await;
    let at_home = app.user("alice").at("127.0.0.11");
    let film: Vec<u8> = (0..12 * MIB).map(|index| u8::try_from(index % 251).unwrap()).collect();
    let issued = issue(&at_home, "job-2", "film.mov", film.len()).await;
    let target = &issued["upload"];
    assert_eq!(target["method"], "MULTIPART");
    let size = usize::try_from(target["part_size"].as_u64().unwrap()).unwrap();
    let slice = |number: usize| film.chunks(size).nth(number - 1).unwrap();
    assert_eq!(target["part_count"], film.chunks(size).count());

    let urls = part_urls(&at_home, &issued, &[1, 2]).await.expect(StatusCode::OK);
    assert!(put(&at_home, &urls["parts"][0], slice(1)).await.is_success());

    // Another network: the store refuses what was signed for the old one, and the service signs nothing for it.
    let outside = at_home.at("127.0.0.12");
    assert_eq!(put(&outside, &urls["parts"][1], slice(2)).await, StatusCode::FORBIDDEN);
    part_urls(&outside, &issued, &[2]).await.expect_problem(409, "network_changed");
    let renewed = renew(&outside, &issued).await;
    assert_eq!(renewed["upload"]["part_count"], target["part_count"]);

    // What has arrived stays, so only the rest is sent.
    let there = outside.get(&format!("/api/v1/uploads/{}/parts", id(&issued))).await.expect(StatusCode::OK);
    let there: Vec<u64> =
        there["parts"].as_array().unwrap().iter().map(|part| part["part_number"].as_u64().unwrap()).collect();
    assert_eq!(there, [1]);
    // Confirming too early says so and changes nothing.
    let early = format!("/api/v1/uploads/{}/complete", id(&issued));
    outside.post_nothing(&early).await.expect_problem(409, "upload_incomplete");
    let urls = part_urls(&outside, &renewed, &[2, 3]).await.expect(StatusCode::OK);
    for (at, number) in [(0, 2), (1, 3)] {
        assert!(put(&outside, &urls["parts"][at], slice(number)).await.is_success());
    }
    assert_eq!(confirm(&app, &renewed).await["state"], "confirmed");
    assert_eq!(confirm(&app, &renewed).await["state"], "confirmed");
    let confirmed = outside.get(&format!("/api/v1/uploads/{}", id(&issued))).await.expect(StatusCode::OK);
    assert!(outside.download(&confirmed).await.bytes == film, "the bytes are the film's");
    app.end().await;
}
